//! The verbs, one file each: its flags, what it does, its tests.
//!
//! A verb gets the [`Session`] (client and settings) and its arguments, and returns an exit code or
//! a failure. Verbs that take many names go on after a failure and tell all failures at the end.

pub(crate) mod attach;
pub(crate) mod attached;
pub(crate) mod commit;
pub(crate) mod context;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod df;
pub(crate) mod dial_stdio;
pub(crate) mod diff;
pub(crate) mod ending;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod history;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod kill;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logs;
pub(crate) mod network;
pub(crate) mod pause;
pub(crate) mod port;
pub(crate) mod prune;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rename;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod run;
pub(crate) mod save;
pub(crate) mod search;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod tag;
pub(crate) mod top;
pub(crate) mod update;
pub(crate) mod version;
pub(crate) mod volume;
pub(crate) mod wait;

use std::collections::BTreeMap;

use crate::args::{Cli, ContainerVerb, ImageVerb, SystemVerb, Verb};
use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::error::{Failure, Outcome};
use crate::format::print;

/// What every verb needs.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) config: Config,
}

impl Session {
    /// The platform that a flag names, or the environment's.
    pub(crate) fn platform<'a>(&'a self, flag: &'a str) -> &'a str {
        if flag.is_empty() {
            &self.config.platform
        } else {
            flag
        }
    }
}

/// Finds the daemon and runs the verb.
pub(crate) async fn execute(cli: Cli) -> Outcome {
    let Some(verb) = cli.verb else {
        return Ok(0);
    };
    if let Some(level) = &cli.global.log_level
        && ![
            "debug", "info", "warn", "warning", "error", "fatal", "panic", "trace",
        ]
        .contains(&level.to_lowercase().as_str())
    {
        return Err(Failure::new(format!(
            "Unable to parse logging level: {level}"
        )));
    }
    // Contexts are looked after without the daemon that they name.
    if let Verb::Context(verb) = verb {
        return context::run(&cli.global, verb);
    }
    let config = Config::load(&cli.global).map_err(|error| {
        Failure::new(match error {
            crate::config::ConfigError::HostAndContext => error.to_string(),
            other => format!("Failed to initialize: unable to resolve docker endpoint: {other}"),
        })
    })?;
    let session = Session {
        client: Client::new(&config)?,
        config,
    };
    dispatch(&session, verb).await
}

async fn dispatch(session: &Session, verb: Verb) -> Outcome {
    match verb {
        Verb::Attach(args) => attach::run(session, args).await,
        Verb::Commit(args) => commit::run(session, args).await,
        Verb::Cp(args) => cp::run(session, args).await,
        Verb::Create(args) => create::run(session, *args).await,
        Verb::Diff(args) => diff::run(session, args).await,
        Verb::Events(args) => events::run(session, args).await,
        Verb::Exec(args) => exec::run(session, args).await,
        Verb::Export(args) => export::run(session, args).await,
        Verb::History(args) => history::run(session, args).await,
        Verb::Images(args) => images::run(session, args).await,
        Verb::Import(args) => import::run(session, args).await,
        Verb::Info(args) => info::run(session, args).await,
        Verb::Inspect(args) => inspect::run(session, args).await,
        Verb::Kill(args) => kill::run(session, args).await,
        Verb::Load(args) => load::run(session, args).await,
        Verb::Login(args) => login::login(session, args).await,
        Verb::Logout(args) => login::logout(session, &args),
        Verb::Logs(args) => logs::run(session, args).await,
        Verb::Pause(args) => pause::pause(session, args).await,
        Verb::Port(args) => port::run(session, args).await,
        Verb::Ps(args) => ps::run(session, args).await,
        Verb::Pull(args) => pull::run(session, args).await,
        Verb::Push(args) => push::run(session, args).await,
        Verb::Rename(args) => rename::run(session, args).await,
        Verb::Restart(args) => stop::restart(session, args).await,
        Verb::Rm(args) => rm::run(session, args).await,
        Verb::Rmi(args) => rmi::run(session, args).await,
        Verb::Run(args) => run::run(session, *args).await,
        Verb::Save(args) => save::run(session, args).await,
        Verb::Search(args) => search::run(session, args).await,
        Verb::Start(args) => start::run(session, args).await,
        Verb::Stats(args) => stats::run(session, args).await,
        Verb::Stop(args) => stop::stop(session, args).await,
        Verb::Tag(args) => tag::run(session, args).await,
        Verb::Top(args) => top::run(session, args).await,
        Verb::Unpause(args) => pause::unpause(session, args).await,
        Verb::Update(args) => update::run(session, *args).await,
        Verb::Version(args) => version::run(session, args).await,
        Verb::Wait(args) => wait::run(session, args).await,
        Verb::Container(verb) => container(session, verb).await,
        Verb::Image(verb) => image(session, verb).await,
        Verb::Network(verb) => network::run(session, verb).await,
        Verb::Volume(verb) => volume::run(session, verb).await,
        Verb::System(verb) => system(session, verb).await,
        Verb::Context(_) => unreachable_context(),
    }
}

/// Contexts were handled before a client was made.
fn unreachable_context() -> Outcome {
    Err(Failure::new("the verb context needs no daemon"))
}

async fn container(session: &Session, verb: ContainerVerb) -> Outcome {
    match verb {
        ContainerVerb::Attach(args) => attach::run(session, args).await,
        ContainerVerb::Commit(args) => commit::run(session, args).await,
        ContainerVerb::Cp(args) => cp::run(session, args).await,
        ContainerVerb::Create(args) => create::run(session, *args).await,
        ContainerVerb::Diff(args) => diff::run(session, args).await,
        ContainerVerb::Exec(args) => exec::run(session, args).await,
        ContainerVerb::Export(args) => export::run(session, args).await,
        ContainerVerb::Inspect(args) => inspect::container(session, args).await,
        ContainerVerb::Kill(args) => kill::run(session, args).await,
        ContainerVerb::Logs(args) => logs::run(session, args).await,
        ContainerVerb::Ls(args) => ps::run(session, args).await,
        ContainerVerb::Pause(args) => pause::pause(session, args).await,
        ContainerVerb::Port(args) => port::run(session, args).await,
        ContainerVerb::Prune(args) => prune::containers(session, args).await,
        ContainerVerb::Rename(args) => rename::run(session, args).await,
        ContainerVerb::Restart(args) => stop::restart(session, args).await,
        ContainerVerb::Rm(args) => rm::run(session, args).await,
        ContainerVerb::Run(args) => run::run(session, *args).await,
        ContainerVerb::Start(args) => start::run(session, args).await,
        ContainerVerb::Stats(args) => stats::run(session, args).await,
        ContainerVerb::Stop(args) => stop::stop(session, args).await,
        ContainerVerb::Top(args) => top::run(session, args).await,
        ContainerVerb::Unpause(args) => pause::unpause(session, args).await,
        ContainerVerb::Update(args) => update::run(session, *args).await,
        ContainerVerb::Wait(args) => wait::run(session, args).await,
    }
}

async fn image(session: &Session, verb: ImageVerb) -> Outcome {
    match verb {
        ImageVerb::History(args) => history::run(session, args).await,
        ImageVerb::Import(args) => import::run(session, args).await,
        ImageVerb::Inspect(args) => inspect::image(session, args).await,
        ImageVerb::Load(args) => load::run(session, args).await,
        ImageVerb::Ls(args) => images::run(session, args).await,
        ImageVerb::Prune(args) => prune::images(session, args).await,
        ImageVerb::Pull(args) => pull::run(session, args).await,
        ImageVerb::Push(args) => push::run(session, args).await,
        ImageVerb::Rm(args) => rmi::run(session, args).await,
        ImageVerb::Save(args) => save::run(session, args).await,
        ImageVerb::Tag(args) => tag::run(session, args).await,
    }
}

async fn system(session: &Session, verb: SystemVerb) -> Outcome {
    match verb {
        SystemVerb::Df(args) => df::run(session, args).await,
        SystemVerb::Events(args) => events::run(session, args).await,
        SystemVerb::Info(args) => info::run(session, args).await,
        SystemVerb::Prune(args) => prune::system(session, args).await,
        SystemVerb::DialStdio(_) => dial_stdio::run(session).await,
    }
}

/// Does the same to each name, prints the names where it worked, and tells all failures at the end.
pub(crate) async fn each<F>(names: &[String], act: F) -> Outcome
where
    F: AsyncFn(&str) -> Result<(), ClientError>,
{
    let mut failures = Vec::new();
    for name in names {
        match act(name).await {
            Ok(()) => print(&format!("{name}\n"))?,
            Err(error) => failures.push(error.to_string()),
        }
    }
    all_told(&failures)
}

/// The end of a verb that went on after failures.
pub(crate) fn all_told(failures: &[String]) -> Outcome {
    if failures.is_empty() {
        Ok(0)
    } else {
        Err(Failure::new(failures.join("\n")))
    }
}

/// The path of something about a container.
pub(crate) fn container_path(name: &str, rest: &str) -> String {
    format!("/containers/{}{rest}", crate::client::escape_path(name))
}

/// One value of `--filter`, checked for its form.
pub(crate) fn filter(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, value)) => Ok(format!("{}={}", key.trim().to_lowercase(), value.trim())),
        None => Err("bad format of filter (expected name=value)".to_string()),
    }
}

/// Filters as the daemon reads them: `{"label":{"x":true}}`, or nothing.
pub(crate) fn filters(given: &[String]) -> String {
    let mut out: BTreeMap<&str, BTreeMap<&str, bool>> = BTreeMap::new();
    for (key, value) in given.iter().filter_map(|pair| pair.split_once('=')) {
        out.entry(key).or_default().insert(value, true);
    }
    if out.is_empty() {
        String::new()
    } else {
        serde_json::json!(out).to_string()
    }
}

/// Asks a yes or no question; anything but yes is no.
pub(crate) fn confirm(question: &str) -> Result<bool, Failure> {
    print(&format!("{question} [y/N] "))?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// The moment of a `--since` or `--until`: Unix seconds as they are, a duration back from now, or a date.
pub(crate) fn moment(text: &str) -> Result<String, String> {
    use time::format_description::well_known::Rfc3339;
    if text.is_empty()
        || text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Ok(text.to_string());
    }
    if let Ok(nanos) = crate::options::values::float_duration(text) {
        let at = time::OffsetDateTime::now_utc() - time::Duration::nanoseconds(nanos);
        return Ok(stamp(at));
    }
    let with_zone = |text: &str| time::OffsetDateTime::parse(text, &Rfc3339).ok();
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        _ if text.contains('T')
            && !text.ends_with('Z')
            && !text
                .split('T')
                .nth(1)
                .is_some_and(|clock| clock.contains(['+', '-'])) =>
        {
            format!("{text}Z")
        }
        _ => text.to_string(),
    };
    with_zone(&full)
        .map(stamp)
        .ok_or_else(|| format!("failed to parse value as time or duration: {text:?}"))
}

/// A moment as the daemon's queries want it: Unix seconds with nine places.
pub(crate) fn stamp(at: time::OffsetDateTime) -> String {
    format!("{}.{:09}", at.unix_timestamp(), at.nanosecond())
}

/// Reads what [`stamp`] writes.
pub(crate) fn from_stamp(text: &str) -> Option<time::OffsetDateTime> {
    let (seconds, part) = text.split_once('.').unwrap_or((text, ""));
    let part: i64 = format!("{part:0<9}").get(..9)?.parse().ok()?;
    let at = time::OffsetDateTime::from_unix_timestamp(seconds.parse().ok()?).ok()?;
    Some(at + time::Duration::nanoseconds(part))
}

/// A moment of our clock on the daemon's, which may go differently when it is another machine's.
pub(crate) async fn on_daemons_clock(
    client: &Client,
    at: time::OffsetDateTime,
) -> Result<time::OffsetDateTime, ClientError> {
    #[derive(serde::Deserialize)]
    struct Clock {
        #[serde(rename = "SystemTime", default)]
        now: String,
    }
    if client.is_local() {
        return Ok(at);
    }
    let clock: Clock = client.get("/info").json().await?;
    let format = &time::format_description::well_known::Rfc3339;
    Ok(match time::OffsetDateTime::parse(&clock.now, format) {
        Ok(theirs) => at + (theirs - time::OffsetDateTime::now_utc()),
        Err(_) => at,
    })
}

/// A point in time as Docker's lists write it, on the user's clock.
pub(crate) fn long_time(unix: i64) -> String {
    let at =
        time::OffsetDateTime::from_unix_timestamp(unix).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (at, zone) = crate::format::local(at);
    let (clock, offset) = (at.time(), at.offset());
    format!(
        "{} {:02}:{:02}:{:02} {}{:02}{:02} {zone}",
        at.date(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        if offset.is_negative() { '-' } else { '+' },
        offset.whole_hours().abs(),
        offset.minutes_past_hour().abs(),
    )
}

/// The end of a time in RFC 3339: `Z`, or how far the clock is from UTC.
pub(crate) fn zone_mark(offset: time::UtcOffset) -> String {
    if offset.is_utc() {
        return "Z".to_string();
    }
    let sign = if offset.is_negative() { '-' } else { '+' };
    format!(
        "{sign}{:02}:{:02}",
        offset.whole_hours().abs(),
        offset.minutes_past_hour().abs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_sets_by_key() {
        let given: Vec<String> = ["label=a=b", "label=c", "status=running"]
            .iter()
            .map(|f| filter(f).unwrap())
            .collect();
        assert_eq!(
            filters(&given),
            r#"{"label":{"a=b":true,"c":true},"status":{"running":true}}"#
        );
        assert_eq!(filters(&[]), "");
        assert!(filter("x").is_err());
    }

    #[test]
    fn moments_have_three_forms() {
        assert_eq!(moment("1700000000").unwrap(), "1700000000");
        assert_eq!(
            moment("2023-11-14T22:13:20Z").unwrap(),
            "1700000000.000000000"
        );
        assert_eq!(moment("2023-11-14").unwrap(), "1699920000.000000000");
        assert!(moment("5m").unwrap().contains('.'));
        assert!(moment("soon").is_err());
    }

    #[test]
    fn stamps_are_read_as_written() {
        let at = from_stamp("1700000000.5").unwrap();
        assert_eq!(stamp(at), "1700000000.500000000");
        assert_eq!(
            from_stamp("1700000000").map(stamp).unwrap(),
            "1700000000.000000000"
        );
        assert_eq!(from_stamp("x"), None);
    }

    #[test]
    fn times_are_written_in_full() {
        let text = long_time(1_700_000_000);
        assert!(
            text.starts_with("2023-11-1") && text.contains(":13:20 "),
            "{text}"
        );
        assert_eq!(zone_mark(time::UtcOffset::UTC), "Z");
        assert_eq!(
            zone_mark(time::UtcOffset::from_hms(-3, -30, 0).unwrap()),
            "-03:30"
        );
    }
}
