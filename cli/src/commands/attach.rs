//! `attach`: the streams of a running container.

use proto::engine::ContainerInspect;

use super::attached::{self, Attached, Finish};
use super::ending::Condition;
use super::{Session, container_path};
use crate::error::{Failure, Outcome};
use crate::stream::{self, Plan};
use crate::terminal;

#[derive(Debug, clap::Args)]
#[command(
    about = "Connect the terminal to a running container",
    override_usage = "[OPTIONS] CONTAINER",
    before_help = "container attach, attach"
)]
pub(crate) struct Args {
    /// Keys that leave the container running and go
    #[arg(long, value_name = "string", default_value = "")]
    detach_keys: String,
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to the process (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    #[arg(required = true)]
    container: String,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let container: ContainerInspect = session
        .client
        .get(&container_path(&args.container, "/json"))
        .json()
        .await?;
    let state = &container.state;
    if !state.running {
        return Err(Failure::new(
            "You cannot attach to a stopped container, start it first",
        ));
    }
    if state.paused {
        return Err(Failure::new(
            "You cannot attach to a paused container, unpause it first",
        ));
    }
    if state.restarting {
        return Err(Failure::new(
            "You cannot attach to a restarting container, wait until it is running",
        ));
    }
    let stdin = !args.no_stdin && container.config.open_stdin;
    if stdin && container.config.tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    stream::check_keys(&args.detach_keys)?;
    let detach_keys = match args.detach_keys.as_str() {
        "" => session.config.file.detach_keys.clone(),
        keys => keys.to_string(),
    };
    let plan = Plan {
        stdin,
        stdout: true,
        stderr: true,
        tty: container.config.tty,
        detach_keys,
    };
    let attached = Attached {
        session,
        log_since: attached::log_end(session, &container).await,
        id: container.id,
        plan,
        condition: Condition::NotRunning,
        started_before: None,
        sig_proxy: args.sig_proxy,
    };
    match attached.follow().await? {
        Finish::Ended(code) => attached::code(code),
        Finish::Detached => Err(Failure::new("read escape sequence")),
        Finish::Refused(error) => Err(error.into()),
    }
}
