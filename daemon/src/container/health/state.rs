//! What is known of a container's health, and how a probe changes it. Pure.
//!
//! ```text
//!              probe good                        `retries` bad ones in a row
//!  starting ──────────────▶ healthy ──────────────────────────────▶ unhealthy
//!     └── `retries` bad ones after the start period ─────────────▶     │
//!                              ◀──────────────── probe good ───────────┘
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use proto::engine::{self, Config, HealthConfig, HealthResult};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// How many results are shown.
const RESULTS: usize = 5;

/// How much of a probe's output is kept.
pub(super) const OUTPUT: usize = 4096;

/// Label that says what happens to an unhealthy container, for clients that know no field for it.
const ON_FAILURE: &str = "io.docker-lite.health-on-failure";

/// The states of health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    Starting,
    Healthy,
    Unhealthy,
}

impl Status {
    /// Docker's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What happens to a container that has become unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    Nothing,
    /// It is killed; its restart policy decides what follows.
    Kill,
    Restart,
    /// It is stopped as by a user.
    Stop,
}

/// How a container is probed, with the defaults put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) command: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) start_period: Duration,
    pub(crate) start_interval: Duration,
    pub(crate) retries: i64,
    pub(crate) on_failure: OnFailure,
}

impl Settings {
    /// The probe of a container; none where it has none.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let given = config.healthcheck.as_ref()?;
        let (kind, words) = given.test.split_first()?;
        let command = match kind.as_str() {
            "CMD" if !words.is_empty() => words.to_vec(),
            "CMD-SHELL" => {
                let shell = config.shell.clone().filter(|shell| !shell.is_empty());
                let mut command =
                    shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
                command.extend(words.iter().cloned());
                command
            }
            _ => return None,
        };
        let time = |nanos: i64, default: u64| match u64::try_from(nanos) {
            Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
            _ => Duration::from_secs(default),
        };
        Some(Self {
            command,
            interval: time(given.interval, 30),
            timeout: time(given.timeout, 30),
            start_period: time(given.start_period, 0),
            start_interval: time(given.start_interval, 5),
            retries: if given.retries > 0 { given.retries } else { 3 },
            on_failure: on_failure(config).unwrap_or(OnFailure::Nothing),
        })
    }

    /// The pause before the next probe of a container that runs so long.
    pub(crate) fn pause(&self, health: &Health, ran: Duration) -> Duration {
        match health.status == Status::Starting && ran < self.start_period {
            true => self.start_interval,
            false => self.interval,
        }
    }
}

fn on_failure(config: &Config) -> Result<OnFailure> {
    let given = match config.health_on_failure.as_str() {
        "" => config.labels.get(ON_FAILURE).map_or("", String::as_str),
        given => given,
    };
    match given {
        "" | "none" => Ok(OnFailure::Nothing),
        "kill" => Ok(OnFailure::Kill),
        "restart" => Ok(OnFailure::Restart),
        "stop" => Ok(OnFailure::Stop),
        other => Err(Error::invalid(format!(
            "invalid health-on-failure action '{other}': use one of 'none', 'kill', 'restart' or 'stop'"
        ))),
    }
}

/// Checks what a user or an image asks for, in Docker's words.
pub(crate) fn check(config: &Config) -> Result<()> {
    on_failure(config)?;
    let Some(given) = &config.healthcheck else {
        return Ok(());
    };
    for (name, nanos) in [
        ("Interval", given.interval),
        ("Timeout", given.timeout),
        ("StartPeriod", given.start_period),
        ("StartInterval", given.start_interval),
    ] {
        if nanos != 0 && nanos < 1_000_000 {
            return Err(Error::invalid(format!(
                "{name} in Healthcheck cannot be less than 1ms"
            )));
        }
    }
    if given.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    match given.test.split_first() {
        None => Ok(()),
        Some((kind, words)) => match (kind.as_str(), words) {
            ("NONE", _) | ("CMD-SHELL", [_, ..]) | ("CMD", [_, ..]) => Ok(()),
            ("CMD" | "CMD-SHELL", []) => {
                Err(Error::invalid(format!("Healthcheck {kind} has no command")))
            }
            _ => Err(Error::invalid(format!(
                "Unknown healthcheck type '{kind}' (expected 'CMD', 'CMD-SHELL' or 'NONE')"
            ))),
        },
    }
}

/// Puts the image's health check under the user's, field by field.
pub(crate) fn merge(own: &mut Option<HealthConfig>, image: Option<&HealthConfig>) {
    let (Some(own), Some(image)) = (own.as_mut(), image) else {
        if own.is_none() {
            *own = image.cloned();
        }
        return;
    };
    if own.test.is_empty() {
        own.test.clone_from(&image.test);
    }
    for (own, image) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *own == 0 {
            *own = image;
        }
    }
}

/// The health of one task of a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Health {
    pub(super) version: u32,
    /// The task: its pid, and when it was started.
    pub(super) pid: u32,
    pub(super) started_at: String,
    pub(crate) status: Status,
    pub(crate) streak: i64,
    pub(crate) log: Vec<HealthResult>,
    /// What a newer program wrote.
    #[serde(flatten)]
    pub(super) other: BTreeMap<String, Value>,
}

impl Health {
    /// That of a task just started; results of a former one stay to be seen.
    pub(super) fn starting(pid: u32, started_at: &str, former: Option<&Self>) -> Self {
        Self {
            version: 1,
            pid,
            started_at: started_at.to_owned(),
            status: Status::Starting,
            streak: 0,
            log: former.map(|former| former.log.clone()).unwrap_or_default(),
            other: BTreeMap::new(),
        }
    }

    /// Takes a result in. `ran` is how long the container had run when the probe began. True if the state is another one now.
    pub(super) fn take(
        &mut self,
        result: HealthResult,
        settings: &Settings,
        ran: Duration,
    ) -> bool {
        let before = self.status;
        if result.exit_code == 0 {
            self.streak = 0;
            self.status = Status::Healthy;
        } else if before != Status::Starting || ran >= settings.start_period {
            self.streak += 1;
            if self.streak >= settings.retries {
                self.status = Status::Unhealthy;
            }
        }
        self.log.push(result);
        let surplus = self.log.len().saturating_sub(RESULTS);
        self.log.drain(..surplus);
        self.status != before
    }

    /// As inspect shows it.
    pub(crate) fn inspect(&self) -> engine::Health {
        engine::Health {
            status: self.status.word().into(),
            failing_streak: self.streak,
            log: Some(self.log.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(test: &[&str]) -> Config {
        Config {
            healthcheck: Some(HealthConfig {
                test: test.iter().map(|w| (*w).to_owned()).collect(),
                ..HealthConfig::default()
            }),
            ..Config::default()
        }
    }

    fn result(code: i64) -> HealthResult {
        HealthResult {
            exit_code: code,
            ..HealthResult::default()
        }
    }

    #[test]
    fn the_command() {
        let command = |test: &[&str]| Settings::of(&config(test)).map(|s| s.command.join(" "));
        assert_eq!(command(&["CMD", "a", "b"]).as_deref(), Some("a b"));
        assert_eq!(
            command(&["CMD-SHELL", "x y"]).as_deref(),
            Some("/bin/sh -c x y")
        );
        for none in [&["NONE"][..], &[], &["CMD"]] {
            assert_eq!(command(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_start_period_forgives_until_the_first_success() {
        let mut settings = Settings::of(&config(&["CMD", "x"])).unwrap();
        settings.start_period = Duration::from_secs(10);
        settings.retries = 2;
        let second = Duration::from_secs;
        let mut health = Health::starting(1, "t", None);
        assert_eq!(settings.pause(&health, second(1)), settings.start_interval);
        for ran in 0..9 {
            assert!(!health.take(result(1), &settings, second(ran)));
        }
        assert_eq!((health.streak, health.log.len()), (0, RESULTS));
        assert!(health.take(result(0), &settings, second(9)));
        assert_eq!(settings.pause(&health, second(9)), settings.interval);
        // It has been healthy: from now on failures count, though the period is not over.
        assert!(!health.take(result(1), &settings, second(9)));
        assert!(health.take(result(-1), &settings, second(9)));
        assert_eq!(health.status, Status::Unhealthy);
        assert!(health.take(result(0), &settings, second(20)));
        assert_eq!((health.status, health.streak), (Status::Healthy, 0));
    }

    #[test]
    fn fields_of_the_image_fill_the_gaps() {
        let image = HealthConfig {
            test: vec!["CMD".into(), "image".into()],
            interval: 5,
            retries: 7,
            ..HealthConfig::default()
        };
        let mut own = Some(HealthConfig {
            interval: 9,
            ..HealthConfig::default()
        });
        merge(&mut own, Some(&image));
        let own = own.unwrap();
        assert_eq!((own.interval, own.retries), (9, 7));
        assert_eq!(own.test, image.test);
        let mut none = None;
        merge(&mut none, Some(&image));
        assert_eq!(none, Some(image));
    }

    #[test]
    fn bad_ones_are_refused() {
        let bad = |change: fn(&mut HealthConfig)| {
            let mut config = config(&["CMD", "x"]);
            change(config.healthcheck.as_mut().unwrap());
            check(&config).unwrap_err().message().to_owned()
        };
        assert!(bad(|h| h.interval = 10).starts_with("Interval in Healthcheck"));
        assert!(bad(|h| h.retries = -1).starts_with("Retries"));
        assert!(bad(|h| h.test = vec!["RUN".into()]).starts_with("Unknown healthcheck type"));
        assert!(bad(|h| h.test = vec!["CMD".into()]).contains("no command"));
        let mut wrong = config(&["CMD", "x"]);
        wrong.health_on_failure = "reboot".into();
        assert!(check(&wrong).is_err());
    }
}
