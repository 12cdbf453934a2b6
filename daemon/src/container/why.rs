//! Why a container's task ended, in words for people: in inspect, in the event of its death, and in short in a list.
//!
//! The shim's exit record knows most of it and containerd-lite passes it on. What it cannot know this daemon adds: which
//! request the signal came from. A containerd of another make tells nothing; then only what we asked for is known.

use proto::containerd::services::tasks::v1 as tasks;
use proto::exit::{BY_ITSELF, BY_REQUEST, BY_SIGNAL, OUT_OF_MEMORY, REASON, SHIM_DIED};

use super::actor::Actor;
use super::state::Running;
use crate::backend::QUICK;

/// The reason of an exit that nobody saw, and that of one in a former boot.
pub(super) const LOST: &str = "the task is unknown to containerd; its exit code is lost";
pub(super) const REBOOT: &str = "the host was restarted";

const STOP_TIMEOUT: &str = "stop timeout";
const UNHEALTHY: &str = "unhealthy";
const SHUTDOWN: &str = "stopped with the whole installation";

/// On whose behalf a signal was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A request to kill or to stop.
    User,
    /// A stop whose time was over.
    StopTimeout { seconds: i64, signal: u32 },
    /// Its health check found it unhealthy.
    Unhealthy,
    /// The whole installation is being stopped.
    Shutdown,
}

impl Actor {
    /// Why the task that has just ended did so.
    pub(super) async fn why(&self, running: &Running, code: i64) -> String {
        // One that ended well was not killed by anybody.
        let told = match code {
            0 => String::new(),
            _ => self.told().await,
        };
        reason(&told, self.asked, running.oom, code)
    }

    /// What containerd says of it.
    async fn told(&self) -> String {
        let request = tasks::WaitRequest {
            container_id: self.record.id.clone(),
            exec_id: String::new(),
        };
        let mut client = self.app.backend.tasks();
        match tokio::time::timeout(QUICK, client.wait(request)).await {
            Ok(Ok(reply)) => {
                let header = reply.metadata().get(REASON);
                let text = header.and_then(|value| value.to_str().ok());
                text.unwrap_or_default().to_owned()
            }
            // It is no more, or cannot be asked: the exit itself is known all the same.
            Ok(Err(_)) | Err(_) => String::new(),
        }
    }
}

/// What is told and what was asked for, put together.
fn reason(told: &str, asked: Option<(u32, Asked)>, oom: bool, code: i64) -> String {
    if told == OUT_OF_MEMORY || told.starts_with(SHIM_DIED) {
        return told.to_owned();
    }
    if oom && code == 128 + 9 && !matches!(asked, Some((9, _))) {
        return OUT_OF_MEMORY.to_owned();
    }
    match asked {
        Some((9, Asked::StopTimeout { seconds, signal })) if code == 128 + 9 => {
            format!(
                "{STOP_TIMEOUT}: killed, since signal {signal} did not end it within {seconds} s"
            )
        }
        Some((signal, Asked::Unhealthy)) => {
            format!("{UNHEALTHY}: its health check failed; signal {signal}")
        }
        Some((signal, Asked::Shutdown)) => format!("{SHUTDOWN}: signal {signal}"),
        Some((signal, Asked::User)) if told.is_empty() && code == 128 + i64::from(signal) => {
            format!("{BY_REQUEST}: signal {signal}")
        }
        _ => told.to_owned(),
    }
}

/// The reason in the few words that a list has room for; empty for an end that explains itself.
pub(crate) fn short(reason: &str) -> &str {
    const KNOWN: [(&str, &str); 7] = [
        (OUT_OF_MEMORY, OUT_OF_MEMORY),
        (BY_REQUEST, "killed by request"),
        (SHIM_DIED, "shim died"),
        (STOP_TIMEOUT, STOP_TIMEOUT),
        (UNHEALTHY, UNHEALTHY),
        (REBOOT, "host restarted"),
        (LOST, "lost"),
    ];
    if reason.is_empty() || reason.starts_with(BY_ITSELF) || reason.starts_with(SHUTDOWN) {
        return "";
    }
    let known = KNOWN.iter().find(|(long, _)| reason.starts_with(long));
    match known {
        Some((_, short)) => short,
        None if reason.starts_with(BY_SIGNAL) => "killed by a signal of unknown origin",
        None => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_and_what_was_asked() {
        let user = Some((9, Asked::User));
        let timeout = Some((
            9,
            Asked::StopTimeout {
                seconds: 1,
                signal: 15,
            },
        ));
        let killed = "killed by API request: signal 9";
        for (told, asked, oom, code, short_form) in [
            ("", None, false, 0, ""),
            ("exited with code 3", None, false, 3, ""),
            (OUT_OF_MEMORY, None, true, 137, OUT_OF_MEMORY),
            ("", None, true, 137, OUT_OF_MEMORY),
            (killed, user, false, 137, "killed by request"),
            ("", user, false, 137, "killed by request"),
            ("", user, false, 1, ""),
            (killed, timeout, false, 137, "stop timeout"),
            ("exited with code 0", timeout, false, 0, ""),
            (killed, Some((9, Asked::Unhealthy)), false, 137, "unhealthy"),
            ("its shim died", None, false, 137, "shim died"),
            (
                "killed by signal 11 of unknown origin",
                None,
                false,
                139,
                "killed by a signal of unknown origin",
            ),
        ] {
            let whole = reason(told, asked, oom, code);
            assert_eq!(short(&whole), short_form, "{whole}");
        }
        assert_eq!(short(REBOOT), "host restarted");
    }
}
