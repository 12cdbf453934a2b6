//! The command line: what the user typed, and which mode it means. The real daemon's flags under their own names.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::config::{Config, Flags, Level};

/// What the user typed.
#[derive(Debug, Parser)]
#[command(
    name = "containerd-lite",
    about = "Content, images, snapshots, containers and tasks over containerd's gRPC API",
    disable_version_flag = true,
    args_conflicts_with_subcommands = false
)]
struct Args {
    /// Path to the configuration file; the default one may be missing
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Log level: trace, debug, info, warn, error, fatal, panic
    #[arg(short, long, value_name = "LEVEL", global = true)]
    log_level: Option<Level>,
    /// Socket that serves the gRPC API; events of shims come in on this path with ".ttrpc" appended
    #[arg(short, long, value_name = "PATH", global = true)]
    address: Option<PathBuf>,
    /// Directory of what is kept over a reboot
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// Directory of what is lost at a reboot
    #[arg(long, value_name = "DIR", global = true)]
    state: Option<PathBuf>,
    /// Print the version and exit
    #[arg(short, long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Publish the event on standard input (a protobuf Any); shims call this
    Publish {
        /// Namespace of the event
        #[arg(long)]
        namespace: String,
        /// Topic of the event
        #[arg(long)]
        topic: String,
    },
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum ConfigCommand {
    /// Print the defaults
    Default,
    /// Print what is in force with this file and these flags
    Dump,
    /// Print the file in the form of the newest version
    Migrate,
}

/// Parses the command line, does what it says.
pub fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.version {
        println!("{}", crate::version::line());
        return Ok(());
    }
    let flags = Flags {
        config: args.config,
        log_level: args.log_level,
        address: args.address,
        root: args.root,
        state: args.state,
    };
    match args.command {
        Some(Command::Config { command }) => print_config(command, &flags),
        Some(Command::Publish { namespace, topic }) => {
            let (config, _) = Config::load(&flags)?;
            crate::publish::run(&config.address, &namespace, &topic)
        }
        None => run(&flags),
    }
}

fn print_config(command: ConfigCommand, flags: &Flags) -> anyhow::Result<()> {
    let config = match command {
        ConfigCommand::Default => Config::default(),
        ConfigCommand::Dump => Config::load(flags)?.0,
        ConfigCommand::Migrate => {
            print!("{}", Config::migrated(flags)?);
            return Ok(());
        }
    };
    print!("{}", config.to_toml());
    Ok(())
}

fn run(flags: &Flags) -> anyhow::Result<()> {
    let (config, warnings) = Config::load(flags)?;
    config.level.install(config.format);
    crate::allocator::settle();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(1 << 20)
        .max_blocking_threads(64)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let outcome = runtime.block_on(crate::serve(config));
    // Blocking work of a call that nobody waits for any more must not hold the exit up: everything here is crash-only.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    Ok(outcome?)
}
