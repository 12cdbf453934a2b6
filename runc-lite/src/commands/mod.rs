//! The commands: one file each. Here: the global options, the table, and what
//! an error looks like from outside.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod foreground;
mod init;
mod kill;
mod list;
mod pause;
mod ps;
mod restore;
mod run;
pub(crate) mod signals;
mod spec;
mod start;
mod state;
pub(crate) mod update;

use std::path::{Path, PathBuf};

use crate::args::{self, ArgsError, CommandTable, Parsed, tables};
use crate::bundle::BundleError;
use crate::cgroup::{Cgroup, CgroupError};
use crate::channel::InitFailure;
use crate::create::CreateError;
use crate::criu::CriuError;
use crate::error::{StepError, chain};
use crate::hooks::HookError;
use crate::log::{self, Format};
use crate::process::LiveProcess;
use crate::security::seccomp::SeccompError;
use crate::state::{State, StateDir, StateError, Status};
use crate::validate::ValidateError;

pub(crate) use create::tell_activation;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error(transparent)]
    Args(#[from] ArgsError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Validate(#[from] ValidateError),
    #[error(transparent)]
    Criu(#[from] CriuError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("unable to start container process: {0}")]
    Start(InitFailure),
    /// A refusal in words of our own.
    #[error("{0}")]
    Refused(String),
}

/// Prints to standard output. A reader that has gone is no reason to fail, as
/// `state | head` shows.
pub(crate) fn say(text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_fmt(text);
}

/// Shorthand for a refusal.
pub(crate) fn refuse<T>(why: impl Into<String>) -> Result<T, CommandError> {
    Err(CommandError::Refused(why.into()))
}

/// The global options.
#[derive(Debug)]
pub(crate) struct Context {
    /// Directory of all states.
    pub(crate) root: PathBuf,
    /// Let systemd make the cgroups.
    pub(crate) systemd_cgroup: bool,
    /// Leave out cgroup hierarchies that we may not write.
    pub(crate) rootless: bool,
    /// Path or name of criu.
    pub(crate) criu: Option<String>,
}

impl Context {
    fn new(global: &Parsed) -> Self {
        let root = match (global.value("root"), std::env::var_os("XDG_RUNTIME_DIR")) {
            (Some(root), _) => PathBuf::from(root),
            (None, Some(dir)) if !rustix::process::geteuid().is_root() => {
                Path::new(&dir).join("runc-lite")
            }
            (None, _) => PathBuf::from("/run/runc-lite"),
        };
        let root = std::path::absolute(&root).unwrap_or(root);
        let rootless = match global.value("rootless") {
            Some("true") => true,
            Some("false") => false,
            // Root of a user namespace is nobody to the host's cgroups.
            _ => !rustix::process::geteuid().is_root() || crate::cgroup::in_user_namespace(),
        };
        Self {
            root,
            systemd_cgroup: global.switch("systemd-cgroup"),
            rootless,
            criu: global.value("criu").map(str::to_owned),
        }
    }

    /// The directory of the container named on the command line.
    fn dir(&self, parsed: &Parsed) -> Result<StateDir, StateError> {
        StateDir::new(&self.root, parsed.id())
    }

    /// That container.
    fn container(&self, parsed: &Parsed) -> Result<Container, StateError> {
        Container::load(self.dir(parsed)?)
    }
}

/// A container that exists.
#[derive(Debug)]
struct Container {
    dir: StateDir,
    state: State,
}

impl Container {
    fn load(dir: StateDir) -> Result<Self, StateError> {
        let state = dir.load()?;
        Ok(Self { dir, state })
    }

    fn status(&self) -> Status {
        self.dir.status(&self.state)
    }

    /// Its first process, which must live.
    fn process(&self) -> Result<LiveProcess, CommandError> {
        self.state
            .process()
            .ok_or_else(|| CommandError::Refused("container not running".into()))
    }

    fn cgroup(&self) -> Result<Cgroup, CommandError> {
        match &self.state.cgroup {
            Some(saved) => Ok(Cgroup::load(saved)?),
            None => refuse("the container has no cgroup"),
        }
    }

    /// The configuration as it was at create.
    fn spec(&self) -> Result<crate::spec::Spec, CommandError> {
        let text = self.dir.read("config.json")?;
        Ok(crate::bundle::parse(&text, &self.dir.file("config.json"))?)
    }
}

/// Runs the command line of this process.
pub(crate) fn main() -> u8 {
    if let Some(args) = init::asked_for() {
        return init::main(&args);
    }
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let (global, at) = match args::parse(&tables::GLOBAL, &args, true) {
        Ok(parsed) => parsed,
        Err(e) => return fail("", &e.into()),
    };
    let format = match global.value("log-format") {
        None | Some("text" | "") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => {
            return fail(
                "",
                &CommandError::Refused(format!("invalid log-format: {other}")),
            );
        }
    };
    if let Err(e) = log::open(global.value("log"), format, global.switch("debug")) {
        let file = global.value("log").unwrap_or("");
        return fail(
            "",
            &CommandError::Refused(format!("open log file {file}: {e}")),
        );
    }
    if global.switch("version") {
        say(format_args!("{}\n", args::version()));
        return 0;
    }
    let rest = args.get(at..).unwrap_or_default();
    let (name, rest) = match rest.split_first() {
        Some((name, rest)) if !global.switch("help") => (name.as_str(), rest),
        _ => {
            say(format_args!("{}\n", args::program_help().trim_end()));
            return 0;
        }
    };
    if name == "help" || name == "h" {
        return help(rest.first().map(String::as_str));
    }
    let Some(table) = tables::COMMANDS.iter().find(|t| t.name == name) else {
        return no_topic(name);
    };
    log::debug(|| format!("command {name} {}", rest.join(" ")));
    match dispatch(table, rest, &Context::new(&global)) {
        Ok(code) => code,
        Err(CommandError::Args(e)) => {
            // The help of the command, as the user got its options wrong.
            say(format_args!(
                "Incorrect Usage.\n\n{}",
                args::command_help(table)
            ));
            fail("", &CommandError::Args(e))
        }
        Err(e) => fail(table.name, &e),
    }
}

fn dispatch(table: &CommandTable, args: &[String], context: &Context) -> Result<u8, CommandError> {
    let (parsed, _) = args::parse(table, args, false)?;
    if parsed.switch("help") {
        say(format_args!("{}", args::command_help(table)));
        return Ok(0);
    }
    args::check_count(table, &parsed)?;
    // Nothing here is to be readable by others.
    crate::sys::process::umask(0o077);
    let done = match table.name {
        "checkpoint" => checkpoint::run(context, &parsed),
        "create" => create::run(context, &parsed),
        "delete" => delete::run(context, &parsed),
        "events" => events::run(context, &parsed),
        "exec" => return exec::run(context, &parsed),
        "features" => features::run(),
        "kill" => kill::run(context, &parsed),
        "list" => list::run(context, &parsed),
        "pause" => pause::pause(context, &parsed),
        "ps" => ps::run(context, &parsed),
        "restore" => return restore::run(context, &parsed),
        "resume" => pause::resume(context, &parsed),
        "run" => return run::run(context, &parsed),
        "spec" => spec::run(&parsed),
        "start" => start::run(context, &parsed),
        "state" => state::run(context, &parsed),
        "update" => update::run(context, &parsed),
        other => refuse(format!("{other} is not supported by this runtime")),
    };
    done.map(|()| 0)
}

/// Logs an error with the command it ended, and gives the exit code.
fn fail(command: &str, error: &CommandError) -> u8 {
    let text = chain(error);
    let text = match command {
        "create" | "run" => format!("runc-lite {command} failed: {text}"),
        "exec" => format!("exec failed: {text}"),
        _ => text,
    };
    log::error(&text);
    if command == "exec" { 255 } else { 1 }
}

fn help(topic: Option<&str>) -> u8 {
    match topic {
        None => say(format_args!("{}\n", args::program_help().trim_end())),
        Some(name) => match tables::COMMANDS.iter().find(|t| t.name == name) {
            Some(table) => say(format_args!("{}", args::command_help(table))),
            None => return no_topic(name),
        },
    }
    0
}

fn no_topic(name: &str) -> u8 {
    log::error(&format!("No help topic for '{name}'"));
    3
}
