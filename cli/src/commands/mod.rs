//! The verbs, one file each: its flags, what it does, its tests.
//!
//! A verb gets the [`Session`] (client and settings) and its arguments, and returns an exit code or
//! a failure. Verbs that take many names go on after a failure and tell all failures at the end.

pub(crate) mod attach;
pub(crate) mod attached;
pub(crate) mod build;
pub(crate) mod commit;
pub(crate) mod completion;
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
pub(crate) mod man;
pub(crate) mod network;
pub(crate) mod pause;
pub(crate) mod plugin;
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
pub(crate) mod stack;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod tag;
mod times;
pub(crate) mod top;
pub(crate) mod update;
pub(crate) mod version;
pub(crate) mod volume;
pub(crate) mod wait;

pub(crate) use times::{from_stamp, long_time, moment, on_daemons_clock, stamp, zone_mark};

use std::collections::BTreeMap;

use crate::args::{BuilderVerb, Cli, ContainerVerb, ImageVerb, SystemVerb, Verb};
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
    // These need no daemon; contexts are looked after without the one that they name.
    let verb = match verb {
        Verb::Context(verb) => return context::run(&cli.global, verb),
        Verb::Completion(args) => return completion::script(&args),
        Verb::Complete(args) => return completion::complete(&cli.global, args).await,
        Verb::Man(args) => return man::run(&args),
        verb => verb,
    };
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
        Verb::Build(args) => build::run(session, *args).await,
        Verb::Builder(verb) => builder(session, verb).await,
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
        Verb::Plugin(verb) => plugin::run(session, verb).await,
        Verb::Volume(verb) => volume::run(session, verb).await,
        Verb::Stack(verb) => stack::run(session, verb).await,
        Verb::System(verb) => system(session, verb).await,
        Verb::Context(_) | Verb::Completion(_) | Verb::Complete(_) | Verb::Man(_) => {
            without_daemon()
        }
    }
}

/// These were handled before a client was made.
fn without_daemon() -> Outcome {
    Err(Failure::new("this command needs no daemon"))
}

async fn builder(session: &Session, verb: BuilderVerb) -> Outcome {
    match verb {
        BuilderVerb::Build(args) => build::run(session, *args).await,
        BuilderVerb::Prune(args) => prune::builder(session, args).await,
    }
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
        ImageVerb::Build(args) => build::run(session, *args).await,
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
}
