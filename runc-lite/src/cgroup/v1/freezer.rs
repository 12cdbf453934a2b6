//! Standing still and going on, on v1.

use std::time::Duration;

use super::super::CgroupError;
use super::super::dir::Dir;

const STATE: &str = "freezer.state";
/// Most groups stand after the first look; a busy one may need a few seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Freezes and waits. On failure the group runs again.
pub(super) fn freeze(dir: &Dir) -> Result<(), CgroupError> {
    let mut pause = Duration::from_micros(50);
    let mut waited = Duration::ZERO;
    let mut next_retry = Duration::from_millis(50);
    dir.set("pause", STATE, "FROZEN")?;
    while dir.read(STATE)?.trim() != "FROZEN" {
        if waited > PATIENCE {
            thaw(dir)?;
            return Err(CgroupError::Timeout {
                path: dir.path().to_owned(),
                wanted: "frozen",
                ms: u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX),
            });
        }
        // A process that sat in an uninterruptible sleep when asked, or was added
        // meanwhile, can keep the group half frozen for ever; asking anew from
        // running helps where waiting does not.
        if waited > next_retry {
            dir.write(STATE, "THAWED")?;
            std::thread::sleep(Duration::from_micros(100));
            next_retry *= 2;
        }
        dir.write(STATE, "FROZEN")?;
        std::thread::sleep(pause);
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(())
}

/// Lets the group run.
pub(super) fn thaw(dir: &Dir) -> Result<(), CgroupError> {
    dir.set("resume", STATE, "THAWED")
}

/// Lets the group and all below it run: whoever rules over groups of the container's
/// own could have stopped them there.
pub(super) fn thaw_all(dir: &Dir) -> Result<(), CgroupError> {
    dir.write_if_there(STATE, "THAWED")?;
    dir.write_below(STATE, "THAWED")
}

/// Whether the group stands or is about to.
pub(super) fn frozen(dir: &Dir) -> Result<bool, CgroupError> {
    Ok(dir
        .read_if_there(STATE)?
        .is_some_and(|s| matches!(s.trim(), "FROZEN" | "FREEZING")))
}
