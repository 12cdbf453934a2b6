//! `start`: containers that have stopped, one of them with its streams if asked for.

use proto::engine::ContainerInspect;

use super::{Session, container_path, run};
use crate::error::{Failure, Outcome};
use crate::format::print;
use crate::stream::{self, End, Plan, Resize};
use crate::terminal;

#[derive(Debug, clap::Args)]
#[command(
    about = "Start containers that are stopped",
    override_usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    before_help = "container start, start"
)]
pub(crate) struct Args {
    /// Attach STDOUT and STDERR, and pass signals on
    #[arg(long, short = 'a')]
    attach: bool,
    /// Keys that leave the container running and go
    #[arg(long, value_name = "string", default_value = "")]
    detach_keys: String,
    /// Attach STDIN too
    #[arg(long, short = 'i')]
    interactive: bool,
    #[arg(required = true, num_args = 1..)]
    containers: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    if args.attach || args.interactive {
        let [name] = args.containers.as_slice() else {
            return Err(Failure::new(
                "you cannot start and attach multiple containers at once",
            ));
        };
        return attached(session, name, &args).await;
    }
    let mut failed = Vec::new();
    for name in &args.containers {
        match session
            .client
            .post(&container_path(name, "/start"))
            .done()
            .await
        {
            Ok(()) => print(&format!("{name}\n"))?,
            Err(error) => {
                crate::format::tell(&format!("{error}\n"));
                failed.push(name.as_str());
            }
        }
    }
    match failed.is_empty() {
        true => Ok(0),
        false => Err(Failure::new(format!(
            "Error: failed to start containers: {}",
            failed.join(", ")
        ))),
    }
}

async fn attached(session: &Session, name: &str, args: &Args) -> Outcome {
    let container: ContainerInspect = session
        .client
        .get(&container_path(name, "/json"))
        .json()
        .await?;
    stream::check_keys(&args.detach_keys)?;
    let id = container.id.as_str();
    let tty = container.config.tty;
    let plan = Plan {
        stdin: args.interactive && container.config.open_stdin,
        stdout: true,
        stderr: true,
        tty,
        detach_keys: match args.detach_keys.as_str() {
            "" => session.config.file.detach_keys.clone(),
            keys => keys.to_string(),
        },
    };
    if plan.stdin && tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let connection = run::attach(session, id, &plan).await?;
    let copying = tokio::spawn(stream::copy(connection, plan));
    let condition = if container.host_config.auto_remove {
        "removed"
    } else {
        "next-exit"
    };
    let exit = run::wait(session, id, condition).await?;
    if let Err(error) = session
        .client
        .post(&container_path(id, "/start"))
        .done()
        .await
    {
        copying.abort();
        let _ = copying.await;
        return Err(error.into());
    }
    let size = async {
        if tty && terminal::stdout_is_terminal() {
            stream::follow_size(&session.client, Resize::Container(id.to_string())).await;
        }
        std::future::pending::<()>().await;
    };
    let copied = tokio::select! {
        copied = copying => copied.map_err(|error| Failure::new(format!("copy the streams: {error}")))??,
        () = size => End::Closed,
        () = stream::forward(&session.client, id) => End::Closed,
    };
    match copied {
        End::Detached => Ok(0),
        End::Closed => run::joined(exit.await),
    }
}
