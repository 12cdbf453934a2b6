//! A daemon that goes away under a command that listens: killed, restarted or replaced, or its connection was cut.
//!
//! The verbs that listen (`wait`, `logs -f`, `events`, `attach`, `run`) hold a [`Patience`]. When an answer breaks they hand the
//! error to [`Patience::wait`], which comes back once a daemon answers again; what was missed is the verb's own to find.
//! Errors that are no loss of the daemon, and a daemon that stays away too long, come back as errors.

use std::time::{Duration, Instant};

use super::{Client, ClientError};

/// How long a daemon may be away, unless `DOCKER_LITE_RECONNECT` says otherwise.
pub(crate) const DEFAULT: Duration = Duration::from_secs(60);
/// Shorter absences are not worth a word.
const SILENT: Duration = Duration::from_secs(1);
/// The first pause between two attempts; each is twice the one before, up to the longest.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_millis(500);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// How long a command has been without its daemon.
#[derive(Debug)]
pub(crate) struct Patience<'a> {
    client: &'a Client,
    lost: Option<Lost>,
    back_at: Option<Instant>,
}

#[derive(Debug)]
struct Lost {
    since: Instant,
    pause: Duration,
    told: bool,
}

impl ClientError {
    /// The daemon was there and is not any more, or the way to it is not.
    pub(crate) fn is_loss(&self) -> bool {
        matches!(
            self,
            ClientError::Connection { .. } | ClientError::Unreachable { .. }
        )
    }
}

impl<'a> Patience<'a> {
    pub(crate) fn new(client: &'a Client) -> Patience<'a> {
        Patience {
            client,
            lost: None,
            back_at: None,
        }
    }

    /// The daemon does its work: the next loss has the whole time again.
    pub(crate) fn fine(&mut self) {
        let Some(lost) = self.lost.take() else {
            return;
        };
        self.back_at = Some(Instant::now());
        if lost.told {
            crate::format::tell(&format!(
                "docker-lite: the daemon at {} is back\n",
                self.client.host
            ));
        }
    }

    /// Waits until a daemon answers. `why` is what broke; it comes back if that was no loss of the daemon.
    pub(crate) async fn wait(&mut self, why: ClientError) -> Result<(), ClientError> {
        if !why.is_loss() {
            return Err(why);
        }
        let limit = self.client.reconnect;
        // One that breaks again and again is not pressed.
        let again = self.back_at.is_some_and(|at| at.elapsed() < SILENT);
        let lost = self.lost.get_or_insert_with(|| Lost {
            since: Instant::now(),
            pause: if again { LONGEST } else { FIRST },
            told: false,
        });
        loop {
            let away = lost.since.elapsed();
            if away >= limit {
                return Err(ClientError::Gone {
                    host: self.client.host.clone(),
                    seconds: limit.as_secs(),
                    cause: why.to_string(),
                });
            }
            if away >= SILENT && !lost.told {
                lost.told = true;
                crate::format::tell(&format!(
                    "docker-lite: the daemon at {} went away; waiting up to {} s for it\n",
                    self.client.host,
                    limit.as_secs()
                ));
            }
            tokio::time::sleep(lost.pause.min(limit - away)).await;
            lost.pause = (lost.pause * 2).min(LONGEST);
            let ping = self.client.get("/_ping").unversioned().send_unchecked();
            if let Ok(Ok(answer)) = tokio::time::timeout(ATTEMPT, ping).await
                && answer.status() == 200
            {
                return Ok(());
            }
        }
    }
}
