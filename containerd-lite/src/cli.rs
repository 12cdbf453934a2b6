//! The command line: what the user typed, and which mode it means. The real daemon's flags under their own names.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::Ending;
use crate::config::{Config, Flags, Level};
use crate::upgrade::handover::{self, Handover, WayBack};

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
    /// Say whether this program could take over from a running one; an upgrade calls this
    #[command(hide = true)]
    CheckState {
        /// Format of what is handed over
        #[arg(long)]
        handover: u32,
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
        Some(Command::CheckState { handover }) => {
            let (config, _) = Config::load(&flags)?;
            println!("{}", crate::upgrade::prove(&config, handover)?);
            Ok(())
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
    // The kernel names a program that was run by descriptor after the number.
    if let Err(error) = rustix::thread::set_name(c"containerd-lite") {
        tracing::debug!(%error, "set the name of the process");
    }
    let taken = Handover::taken()?;
    if let Some(reason) = taken.as_ref().and_then(|taken| taken.refused.as_ref()) {
        tracing::error!(
            reason,
            "the other program could not take over; this one goes on"
        );
    }
    let mut way_back = match &taken {
        Some(taken) => WayBack::open(taken).context("keep the way back")?,
        None => None,
    };
    let outcome = start(config, taken, || {
        if let Some(way_back) = way_back.take() {
            way_back.close();
        }
    });
    if let Some(way_back) = way_back.take() {
        match &outcome {
            Ok(()) => way_back.close(),
            Err(error) => way_back.take(&format!("{error:#}")),
        }
    }
    outcome
}

/// Serves on a runtime of its own; afterwards runs the next program in this process, if there is one.
fn start(config: Config, taken: Option<Handover>, ready: impl FnOnce()) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(1 << 20)
        .max_blocking_threads(64)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let outcome = runtime.block_on(crate::serve(config, taken, ready));
    if let Ok(Ending::Replaced(next)) = outcome {
        let (candidate, mut handover) = *next;
        let own = handover::own_program().context("open this program")?;
        handover.old = Some(own.try_clone().context("keep this program")?.into());
        let error = handover.execute(&candidate.program);
        // What served has ended: this program begins anew as well, with all that was handed over.
        handover.old = None;
        handover.refused = Some(format!("execute {}: {error}", candidate.version));
        let error = handover.execute(own);
        return Err(error).context("begin anew after a failed upgrade");
    }
    // Blocking work of a call that nobody waits for any more must not hold the exit up: everything here is crash-only.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    outcome?;
    Ok(())
}
