//! Whether and when an ended container is started again. Pure.

use std::time::Duration;

use proto::engine::RestartPolicy;

use crate::error::{Error, Result};

/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// A container that ran this long has proven itself: its next pause is the first again.
const PROVEN: Duration = Duration::from_secs(10);

/// An exit, as the policy sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exit {
    /// Its code.
    pub(crate) code: i64,
    /// A user stopped it.
    pub(crate) by_user: bool,
    /// How often it was started again since a user started it.
    pub(crate) restarts: u32,
    /// How long it ran.
    pub(crate) ran: Duration,
    /// The pause before its last start.
    pub(crate) pause: Duration,
}

/// The pause before the next start, or none if it stays down.
pub(crate) fn next(policy: &RestartPolicy, exit: Exit) -> Option<Duration> {
    let again = !exit.by_user
        && match policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => {
                let max = policy.maximum_retry_count;
                exit.code != 0 && (max == 0 || i64::from(exit.restarts) < max)
            }
            _ => false,
        };
    again.then(|| {
        if exit.ran >= PROVEN || exit.pause.is_zero() {
            FIRST
        } else {
            (exit.pause * 2).min(LONGEST)
        }
    })
}

/// Whether a container that is found down after the host or the daemon was away is started. `on-failure` looks at the code
/// like any other exit.
pub(crate) fn at_boot(policy: &RestartPolicy, by_user: bool, code: i64, restarts: u32) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !by_user,
        "on-failure" => {
            let max = policy.maximum_retry_count;
            !by_user && code != 0 && (max == 0 || i64::from(restarts) < max)
        }
        _ => false,
    }
}

/// Checks a policy, in Docker's words.
pub(crate) fn check(policy: &RestartPolicy) -> Result<()> {
    let max = policy.maximum_retry_count;
    match policy.name.as_str() {
        "always" | "unless-stopped" | "no" if max != 0 => Err(Error::invalid(format!(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'{}",
            if max < 0 {
                " and cannot be negative"
            } else {
                ""
            }
        ))),
        "on-failure" if max < 0 => Err(Error::invalid(
            "invalid restart policy: maximum retry count cannot be negative",
        )),
        "" | "no" | "always" | "unless-stopped" | "on-failure" => Ok(()),
        other => Err(Error::invalid(format!(
            "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, max: i64) -> RestartPolicy {
        RestartPolicy {
            name: name.into(),
            maximum_retry_count: max,
        }
    }

    #[test]
    fn the_table() {
        // policy, max, code, by user, restarts -> again?
        for (name, max, code, by_user, restarts, again) in [
            ("", 0, 1, false, 0, false),
            ("no", 0, 1, false, 0, false),
            ("always", 0, 0, false, 9, true),
            ("always", 0, 0, true, 0, false),
            ("unless-stopped", 0, 137, false, 0, true),
            ("unless-stopped", 0, 137, true, 0, false),
            ("on-failure", 0, 0, false, 0, false),
            ("on-failure", 0, 1, false, 100, true),
            ("on-failure", 3, 1, false, 2, true),
            ("on-failure", 3, 1, false, 3, false),
        ] {
            let exit = Exit {
                code,
                by_user,
                restarts,
                ran: Duration::ZERO,
                pause: Duration::ZERO,
            };
            let got = next(&policy(name, max), exit).is_some();
            assert_eq!(got, again, "{name}:{max} code {code} user {by_user}");
        }
    }

    #[test]
    fn pauses_grow_to_a_minute_and_start_over_after_a_good_run() {
        let mut exit = Exit {
            code: 1,
            by_user: false,
            restarts: 0,
            ran: Duration::ZERO,
            pause: Duration::ZERO,
        };
        let mut pauses = Vec::new();
        for _ in 0..12 {
            exit.pause = next(&policy("always", 0), exit).unwrap();
            pauses.push(exit.pause.as_millis());
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[11], 60_000);
        exit.ran = Duration::from_secs(11);
        assert_eq!(next(&policy("always", 0), exit), Some(FIRST));
    }

    #[test]
    fn only_a_boot_starts_what_a_user_stopped() {
        assert!(at_boot(&policy("always", 0), true, 0, 0));
        assert!(!at_boot(&policy("unless-stopped", 0), true, 0, 0));
        assert!(at_boot(&policy("unless-stopped", 0), false, 0, 0));
        assert!(!at_boot(&policy("on-failure", 0), false, 0, 0));
        assert!(at_boot(&policy("on-failure", 2), false, 1, 1));
        assert!(!at_boot(&policy("on-failure", 2), false, 1, 2));
    }
}
