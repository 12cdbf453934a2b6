//! `start`: containers that have stopped, one of them with its streams if asked for.

use proto::engine::ContainerInspect;

use super::attached::{self, Attached, Finish};
use super::ending::Condition;
use super::{Session, container_path};
use crate::error::{Failure, Outcome};
use crate::format::print;
use crate::stream::{self, Plan};
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
    let condition = if container.host_config.auto_remove {
        Condition::Removed
    } else {
        Condition::NextExit
    };
    let format = &time::format_description::well_known::Rfc3339;
    let ran = container.state.started_at != attached::NEVER;
    let attached = Attached {
        session,
        id: container.id.clone(),
        plan,
        condition,
        log_since: time::OffsetDateTime::parse(&container.state.finished_at, format)
            .ok()
            .filter(|_| ran),
        started_before: Some(container.state.started_at),
        sig_proxy: true,
    };
    match attached.follow().await? {
        Finish::Ended(code) => attached::code(code),
        Finish::Detached => Ok(0),
        Finish::Refused(error) => Err(error.into()),
    }
}
