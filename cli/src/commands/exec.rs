//! `exec`: one more process in a running container.

use proto::engine::{ContainerInspect, ExecConfig, ExecInspect, ExecStart, IdResponse};

use super::{Session, container_path};
use crate::error::{Failure, Outcome};
use crate::options::env;
use crate::stream::{self, End, Plan, Resize};
use crate::terminal;

#[derive(Debug, clap::Args)]
#[command(
    about = "Run one more command in a running container",
    override_usage = "[OPTIONS] CONTAINER COMMAND [ARG...]",
    before_help = "container exec, exec"
)]
pub(crate) struct Args {
    /// Run it in the background
    #[arg(long, short = 'd')]
    detach: bool,
    /// Keys that leave the process running and go
    #[arg(long, value_name = "string", default_value = "")]
    detach_keys: String,
    /// Set an environment variable
    #[arg(long, short = 'e', action = clap::ArgAction::Append)]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, action = clap::ArgAction::Append)]
    env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(long, short = 'i')]
    interactive: bool,
    /// Give the process all privileges
    #[arg(long)]
    privileged: bool,
    /// Give the process a terminal
    #[arg(long, short = 't')]
    tty: bool,
    /// User and group (format: <name|uid>[:<group|gid>])
    #[arg(long, short = 'u', value_name = "string", default_value = "")]
    user: String,
    /// Working directory of the process
    #[arg(long, short = 'w', value_name = "string", default_value = "")]
    workdir: String,
    #[arg(required = true, num_args = 2.., trailing_var_arg = true)]
    words: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let (container, command) = args
        .words
        .split_first()
        .ok_or_else(|| Failure::new("no container given"))?;
    let attached = !args.detach;
    let config = ExecConfig {
        user: args.user.clone(),
        privileged: args.privileged,
        tty: args.tty,
        console_size: terminal::size()
            .filter(|_| args.tty)
            .map(|(rows, columns)| [rows.into(), columns.into()]),
        attach_stdin: attached && args.interactive,
        attach_stdout: attached,
        attach_stderr: attached,
        detach: args.detach,
        detach_keys: match args.detach_keys.as_str() {
            "" => session.config.file.detach_keys.clone(),
            keys => keys.to_string(),
        },
        env: Some(env::variables(&args.env_file, &args.env).map_err(|error| error.to_string())?),
        working_dir: args.workdir.clone(),
        cmd: Some(command.to_vec()),
    };
    stream::check_keys(&args.detach_keys)?;
    // Asked first, because an unknown container should be told as such, and before the terminal is looked at.
    let _: ContainerInspect = session
        .client
        .get(&container_path(container, "/json"))
        .json()
        .await?;
    if config.attach_stdin && args.tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let made: IdResponse = session
        .client
        .post(&container_path(container, "/exec"))
        .json_body(&config)
        .json()
        .await?;
    let start = ExecStart {
        detach: args.detach,
        tty: args.tty,
        console_size: config.console_size,
    };
    let request = session
        .client
        .post(&format!("/exec/{}/start", made.id))
        .json_body(&start);
    if args.detach {
        request.done().await?;
        return Ok(0);
    }
    let connection = request.hijack().await?;
    let plan = Plan {
        stdin: config.attach_stdin,
        stdout: true,
        stderr: true,
        tty: args.tty,
        detach_keys: config.detach_keys.clone(),
    };
    let size = async {
        if args.tty && terminal::stdout_is_terminal() {
            stream::follow_size(&session.client, Resize::Exec(made.id.clone())).await;
        }
        std::future::pending::<()>().await;
    };
    let end = tokio::select! {
        end = stream::copy(connection, plan, stream::Ours::new()) => end?,
        () = size => End::Closed,
        code = stream::terminated() => return Err(Failure::silent(code)),
    };
    if end == End::Detached {
        return Ok(0);
    }
    exit_code(session, &made.id).await
}

/// The exit code of the process; the daemon may close the stream a moment before it knows it.
async fn exit_code(session: &Session, id: &str) -> Outcome {
    for pause in [0, 5, 10, 20, 50, 100, 200, 400, 800] {
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        let exec: ExecInspect = session
            .client
            .get(&format!("/exec/{id}/json"))
            .json()
            .await?;
        if let (false, Some(code)) = (exec.running, exec.exit_code) {
            return Ok(code.clamp(0, 255) as u8);
        }
    }
    Err(Failure::new(format!(
        "the stream of exec {id} ended, but the process has not"
    )))
}
