//! Fault points: places before and after each side effect of a task's life, at which a test lets this program die, wait or fail.
//!
//! `LITE_FAULT=POINT:ACTION:FILE` arms one point. It fires once, by whoever comes first and can remove FILE; so a test sees by
//! that file whether it did, and a program that was killed at the point passes it in its next life. ACTION is
//!
//! - `kill`: SIGKILL of this process
//! - `delay`: everything on this thread waits for a moment
//! - `fail`: the step that was about to be done, or has just been done, is reported as failed
//!
//! Compiled in only where debug assertions are, or with the feature `faults`; elsewhere [`point`] is nothing.

use crate::runtime::BundleError;

/// All points, for a test that walks them: each is reached in the life of one task with one exec, but for those of a dead shim.
pub const POINTS: &[&str] = &[
    "create.begun",
    "create.bundle",
    "create.shim-asked",
    "create.shim-started",
    "create.shim-recorded",
    "create.connected",
    "create.told",
    "create.recorded",
    "start.asked",
    "start.told",
    "exec.asked",
    "exec.told",
    "exit.heard",
    "exit.told",
    "delete.begun",
    "delete.noted",
    "delete.told",
    "delete.published",
    "delete.shim-ended",
    "delete.aside",
];

/// Points of a task whose shim was killed.
pub const POINTS_OF_A_DEAD_SHIM: &[&str] = &[
    "bury.begun",
    "bury.cleaned",
    "bury.kept",
    "bury.told",
    "bury.removed",
    "delete-dead.cleaned",
    "delete-dead.forgotten",
];

/// Passes a point behind which nothing is left that could fail: `fail` is only logged there.
pub(crate) fn pass(name: &'static str) {
    if let Err(error) = point(name) {
        tracing::warn!(error = crate::error::chain(&error), "go on after a fault");
    }
}

/// Passes the point, unless it is armed.
#[cfg(not(any(debug_assertions, feature = "faults")))]
#[inline]
pub(crate) fn point(_: &'static str) -> Result<(), BundleError> {
    Ok(())
}

/// Passes the point, unless it is armed.
#[cfg(any(debug_assertions, feature = "faults"))]
pub(crate) fn point(name: &'static str) -> Result<(), BundleError> {
    armed::point(name)
}

#[cfg(any(debug_assertions, feature = "faults"))]
mod armed {
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::time::Duration;

    use crate::runtime::BundleError;

    /// How long a delay is.
    const DELAY: Duration = Duration::from_millis(400);

    struct Armed {
        point: String,
        action: String,
        file: PathBuf,
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let read = || {
            let text = std::env::var("LITE_FAULT").ok()?;
            let mut parts = text.splitn(3, ':').map(str::to_owned);
            Some(Armed {
                point: parts.next()?,
                action: parts.next()?,
                file: parts.next()?.into(),
            })
        };
        ARMED.get_or_init(read).as_ref()
    }

    pub(super) fn point(name: &'static str) -> Result<(), BundleError> {
        debug_assert!(
            super::POINTS.contains(&name) || super::POINTS_OF_A_DEAD_SHIM.contains(&name),
            "point {name} is in no list"
        );
        let Some(armed) = armed().filter(|armed| armed.point == name) else {
            return Ok(());
        };
        if std::fs::remove_file(&armed.file).is_err() {
            return Ok(());
        }
        tracing::warn!(point = name, action = armed.action, "fault");
        match armed.action.as_str() {
            "kill" => {
                // Nothing of this process runs after it.
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
                Ok(())
            }
            "delay" => {
                std::thread::sleep(DELAY);
                Ok(())
            }
            _ => Err(BundleError::Io {
                operation: "pass fault point",
                path: name.into(),
                source: std::io::Error::other("a test wants it to fail"),
            }),
        }
    }
}
