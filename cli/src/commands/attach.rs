//! `attach`: the streams of a running container.

use proto::engine::ContainerInspect;

use super::{Session, container_path, run};
use crate::error::{Failure, Outcome};
use crate::stream::{self, End, Plan, Resize};
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
    let exit = run::wait(session, &container.id, "").await?;
    let connection = run::attach(session, &container.id, &plan).await?;
    let tty = plan.tty;
    let proxy = async {
        if args.sig_proxy {
            stream::forward(&session.client, &container.id).await;
        }
        std::future::pending::<()>().await;
    };
    let size = async {
        if tty && terminal::stdout_is_terminal() {
            stream::redraw(&session.client, &container.id).await;
            stream::follow_size(&session.client, Resize::Container(container.id.clone())).await;
        }
        std::future::pending::<()>().await;
    };
    let end = tokio::select! {
        end = stream::copy(connection, plan) => end?,
        () = proxy => End::Closed,
        () = size => End::Closed,
        code = stream::terminated(), if !args.sig_proxy => return Err(Failure::silent(code)),
    };
    match end {
        End::Detached => Err(Failure::new("read escape sequence")),
        End::Closed => run::joined(exit.await),
    }
}
