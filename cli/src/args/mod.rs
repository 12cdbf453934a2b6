//! What the user typed: the tree of commands, as clap knows it.
//!
//! Each verb's own flags stand in its file under `commands/`. Three habits of the definitions:
//! `override_usage` is the part of the usage line after the command's name, `before_help` lists the
//! names a command goes by, and a value name in lower case is the type that the help shows.

mod complete;
mod flags;
mod help;

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};

pub(crate) use complete::{Object, Wanted, wanted};
pub(crate) use flags::spelled;
pub(crate) use help::usage;

use crate::commands as verb;
use crate::error::Failure;

/// The program and its global flags.
#[derive(Debug, Parser)]
#[command(
    name = "docker-lite",
    about = "Runs containers",
    disable_help_flag = true,
    disable_help_subcommand = true,
    disable_version_flag = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// Flags that stand before the command.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Global {
    /// Folder of the client's configuration (default "~/.docker")
    #[arg(long, value_name = "string")]
    pub(crate) config: Option<String>,
    /// Context to use; beats DOCKER_HOST, DOCKER_CONTEXT and "docker-lite context use"
    #[arg(long, short = 'c', value_name = "string")]
    pub(crate) context: Option<String>,
    /// Tell more about what is done
    #[arg(long, short = 'D')]
    pub(crate) debug: bool,
    /// Daemon to connect to
    #[arg(long, short = 'H', action = clap::ArgAction::Append)]
    pub(crate) host: Vec<String>,
    /// Level of messages ("debug", "info", "warn", "error", "fatal") (default "info")
    #[arg(long, short = 'l', value_name = "string")]
    pub(crate) log_level: Option<String>,
    /// Use TLS; implied by --tlsverify
    #[arg(long)]
    pub(crate) tls: bool,
    /// Trust only certificates signed by this CA
    #[arg(long, value_name = "string")]
    pub(crate) tlscacert: Option<String>,
    /// Certificate of the client
    #[arg(long, value_name = "string")]
    pub(crate) tlscert: Option<String>,
    /// Key of the client
    #[arg(long, value_name = "string")]
    pub(crate) tlskey: Option<String>,
    /// Use TLS and verify the daemon
    #[arg(long)]
    pub(crate) tlsverify: bool,
    /// Print the version and quit
    #[arg(long, short = 'v')]
    pub(crate) version: bool,
}

/// The commands of the first level.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Attach(verb::attach::Args),
    Build(Box<verb::build::Args>),
    Commit(verb::commit::Args),
    Cp(verb::cp::Args),
    Create(Box<verb::create::Args>),
    Diff(verb::diff::Args),
    Events(verb::events::Args),
    Exec(verb::exec::Args),
    Export(verb::export::Args),
    History(verb::history::Args),
    Images(verb::images::Args),
    Import(verb::import::Args),
    Info(verb::info::Args),
    Inspect(verb::inspect::Args),
    Kill(verb::kill::Args),
    Load(verb::load::Args),
    Login(verb::login::LoginArgs),
    Logout(verb::login::LogoutArgs),
    Logs(verb::logs::Args),
    Pause(verb::pause::PauseArgs),
    Port(verb::port::Args),
    Ps(verb::ps::Args),
    Pull(verb::pull::Args),
    Push(verb::push::Args),
    Rename(verb::rename::Args),
    Restart(verb::stop::RestartArgs),
    Rm(verb::rm::Args),
    Rmi(verb::rmi::Args),
    Run(Box<verb::run::Args>),
    Save(verb::save::Args),
    Search(verb::search::Args),
    Start(verb::start::Args),
    Stats(verb::stats::Args),
    Stop(verb::stop::StopArgs),
    Tag(verb::tag::Args),
    Top(verb::top::Args),
    Unpause(verb::pause::UnpauseArgs),
    Update(Box<verb::update::Args>),
    Version(verb::version::Args),
    Wait(verb::wait::Args),
    /// Manage builds
    #[command(subcommand)]
    Builder(BuilderVerb),
    /// Manage containers
    #[command(subcommand)]
    Container(ContainerVerb),
    /// Manage images
    #[command(subcommand)]
    Image(ImageVerb),
    /// Manage networks
    #[command(subcommand)]
    Network(verb::network::Verb),
    /// Manage the plugins of the daemon
    #[command(subcommand)]
    Plugin(verb::plugin::Verb),
    /// Manage volumes
    #[command(subcommand)]
    Volume(verb::volume::Verb),
    /// Manage the daemon's host
    #[command(subcommand)]
    System(SystemVerb),
    /// Look at the programs of the chain
    #[command(subcommand)]
    Stack(verb::stack::Verb),
    /// Manage contexts
    #[command(subcommand)]
    Context(verb::context::Verb),
    Completion(verb::completion::Args),
    #[command(name = "__complete")]
    Complete(verb::completion::CompleteArgs),
    Man(verb::man::Args),
}

/// `docker-lite builder ...`
#[derive(Debug, Subcommand)]
pub(crate) enum BuilderVerb {
    Build(Box<verb::build::Args>),
    Prune(verb::prune::BuilderArgs),
}

/// `docker-lite container ...`
#[derive(Debug, Subcommand)]
pub(crate) enum ContainerVerb {
    Attach(verb::attach::Args),
    Commit(verb::commit::Args),
    Cp(verb::cp::Args),
    Create(Box<verb::create::Args>),
    Diff(verb::diff::Args),
    Exec(verb::exec::Args),
    Export(verb::export::Args),
    Inspect(verb::inspect::ContainerArgs),
    Kill(verb::kill::Args),
    Logs(verb::logs::Args),
    #[command(alias = "ps", alias = "list")]
    Ls(verb::ps::Args),
    Pause(verb::pause::PauseArgs),
    Port(verb::port::Args),
    Prune(verb::prune::ContainerArgs),
    Rename(verb::rename::Args),
    Restart(verb::stop::RestartArgs),
    #[command(alias = "remove")]
    Rm(verb::rm::Args),
    Run(Box<verb::run::Args>),
    Start(verb::start::Args),
    Stats(verb::stats::Args),
    Stop(verb::stop::StopArgs),
    Top(verb::top::Args),
    Unpause(verb::pause::UnpauseArgs),
    Update(Box<verb::update::Args>),
    Wait(verb::wait::Args),
}

/// `docker-lite image ...`
#[derive(Debug, Subcommand)]
pub(crate) enum ImageVerb {
    Build(Box<verb::build::Args>),
    History(verb::history::Args),
    Import(verb::import::Args),
    Inspect(verb::inspect::ImageArgs),
    Load(verb::load::Args),
    #[command(alias = "list")]
    Ls(verb::images::Args),
    Prune(verb::prune::ImageArgs),
    Pull(verb::pull::Args),
    Push(verb::push::Args),
    #[command(alias = "remove")]
    Rm(verb::rmi::Args),
    Save(verb::save::Args),
    Tag(verb::tag::Args),
}

/// `docker-lite system ...`
#[derive(Debug, Subcommand)]
pub(crate) enum SystemVerb {
    Df(verb::df::Args),
    Events(verb::events::Args),
    Info(verb::info::Args),
    Prune(verb::prune::SystemArgs),
    DialStdio(verb::dial_stdio::Args),
}

/// A command line that does not fit its command.
#[derive(Debug)]
pub(crate) struct UsageError {
    text: String,
    code: u8,
}

/// The exit code of a wrong flag, for every command.
const WRONG_FLAG: u8 = 125;

impl UsageError {
    fn flag(command: &Command, path: &[String], text: String) -> UsageError {
        let usage = if path.is_empty() {
            "docker-lite [OPTIONS] COMMAND [ARG...]".to_string()
        } else {
            help::usage(command, path)
        };
        let name = name(path);
        UsageError {
            text: format!("{text}\n\nUsage:  {usage}\n\nRun '{name} --help' for more information"),
            code: WRONG_FLAG,
        }
    }

    fn arguments(command: &Command, path: &[String], text: &str, pointer: &str) -> UsageError {
        let (name, usage) = (name(path), help::usage(command, path));
        UsageError {
            text: format!(
                "docker-lite: '{name}' {text}\n\nUsage:  {usage}\n\n{pointer} '{name} --help' for more information"
            ),
            code: 1,
        }
    }

    fn unknown_command(command: &Command, path: &[String], word: &str) -> UsageError {
        let name = name(path);
        let usage = if path.is_empty() {
            String::new()
        } else {
            format!("Usage:  {name}\n\n")
        };
        let near = suggestion(command, word)
            .map(|near| format!("\n\nDid you mean '{name} {near}'?"))
            .unwrap_or_default();
        UsageError {
            text: format!(
                "docker-lite: unknown command: {name} {word}{near}\n\n{usage}Run '{name} --help' for more information"
            ),
            code: 1,
        }
    }
}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Failure {
        Failure::with_code(error.code, error.text)
    }
}

/// What is to be done for a command line.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// The help or the version was printed.
    Done,
    Command(Box<Cli>),
    /// The command is a plugin's.
    Plugin(PathBuf),
}

/// Reads the words after the program's name.
pub(crate) fn parse(words: &[String]) -> Result<Parsed, Failure> {
    let root = Cli::command();
    if let Some(path) = plugin(&root, words) {
        return Ok(Parsed::Plugin(path));
    }
    let plain = flags::plain(&root, words)?;
    let mut command = &root;
    for name in &plain.path {
        command = command
            .find_subcommand(name)
            .expect("the path was found in this tree");
    }
    let asks_version = plain.path.is_empty() && plain.words.iter().any(|word| word == "--version");
    if asks_version && !plain.help {
        crate::format::print(&format!(
            "Docker-lite version {}, build {}\n",
            env!("CARGO_PKG_VERSION"),
            env!("GIT_COMMIT")
        ))?;
        return Ok(Parsed::Done);
    }
    if plain.help || (command.has_subcommands() && plain.path.is_empty()) {
        let plugins = match plain.path.is_empty() {
            true => crate::plugins::all(&plugin_folders(&root, words)),
            false => Vec::new(),
        };
        crate::format::print(&help::help(command, &plain.path, &plugins))?;
        return Ok(Parsed::Done);
    }
    if command.has_subcommands() {
        crate::format::tell(&help::help(command, &plain.path, &[]));
        return Ok(Parsed::Done);
    }
    let matches = root
        .clone()
        .try_get_matches_from(&plain.words)
        .map_err(|error| value_error(command, &plain.path, &error))?;
    let cli = Cli::from_arg_matches(&matches)
        .map_err(|error| value_error(command, &plain.path, &error))?;
    Ok(Parsed::Command(Box::new(cli)))
}

/// The plugin that these words call, if their command is none of ours.
fn plugin(root: &Command, words: &[String]) -> Option<PathBuf> {
    let name = flags::command_word(root, words)?;
    if root.find_subcommand(&name).is_some() {
        return None;
    }
    crate::plugins::find(&plugin_folders(root, words), &name)
}

fn plugin_folders(root: &Command, words: &[String]) -> Vec<PathBuf> {
    let (dir, file) =
        crate::config::folder_and_file(flags::value_before_command(root, words, "config"));
    crate::plugins::folders(&dir, &file.cli_plugins_extra_dirs)
}

/// A value that its flag refuses, in Docker's words.
fn value_error(command: &Command, path: &[String], error: &clap::Error) -> Failure {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let invalid = context(ContextKind::InvalidArg);
    let long = invalid
        .trim_start_matches('-')
        .split([' ', '='])
        .next()
        .unwrap_or_default();
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let text = match (error.kind(), flags::by_long(command, long), cause) {
        (ErrorKind::ValueValidation | ErrorKind::InvalidValue, Some(arg), Some(cause)) => format!(
            "invalid argument {:?} for {:?} flag: {cause}",
            context(ContextKind::InvalidValue),
            flags::spelled(arg)
        ),
        _ => error.to_string().trim_end().to_string(),
    };
    UsageError::flag(command, path, text).into()
}

/// The command as the user calls it.
fn name(path: &[String]) -> String {
    std::iter::once("docker-lite")
        .chain(path.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The command that was probably meant: one edit, or one swap, away.
fn suggestion(command: &Command, word: &str) -> Option<String> {
    command
        .get_subcommands()
        .map(|sub| sub.get_name().to_string())
        .filter(|name| distance(name, word) <= if name.len() > 4 { 2 } else { 1 })
        .min_by_key(|name| distance(name, word))
}

/// How many single letters must be changed, added or dropped to make one word the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != *y))
                .min(above + 1)
                .min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Reads a whole number; the error has the words that Docker's users know.
pub(crate) fn int(text: &str) -> Result<i64, String> {
    let digits = text
        .strip_prefix("0x")
        .map(|hex| i64::from_str_radix(hex, 16));
    match digits.unwrap_or_else(|| text.parse()) {
        Ok(number) => Ok(number),
        Err(cause) => {
            let why = match cause.kind() {
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => {
                    "value out of range"
                }
                _ => "invalid syntax",
            };
            Err(format!("strconv.ParseInt: parsing {text:?}: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_help_text_and_every_flag_too() {
        fn walk(command: &Command, path: &str) {
            assert!(command.get_about().is_some(), "no text for {path}");
            for arg in command
                .get_arguments()
                .filter(|arg| arg.get_long().is_some() && !arg.is_hide_set())
            {
                assert!(
                    arg.get_help().is_some(),
                    "no text for {path} --{}",
                    arg.get_long().unwrap_or_default()
                );
            }
            for sub in command.get_subcommands() {
                walk(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        walk(&Cli::command(), "docker-lite");
    }

    #[test]
    fn near_words_are_suggested() {
        assert_eq!(
            suggestion(&Cli::command(), "iamges").as_deref(),
            Some("images")
        );
        assert_eq!(suggestion(&Cli::command(), "quux"), None);
    }
}
