//! `run`: create, attach, wait, start, and then the container's own exit code.
//!
//! The order matters. Attach and wait are open before the start, so that no output and no exit of a
//! short container is missed:
//!
//! ```text
//! create -> attach (101) -> wait (headers) -> start -> resize ... output ends -> exit code
//! ```

use proto::engine::WaitResponse;
use tokio::task::JoinHandle;

use super::Session;
use super::create::{NOT_RUN, check_version, checked_body, create};
use crate::client::{ClientError, Hijacked};
use crate::error::{Failure, Outcome};
use crate::format::print;
use crate::options::flags::ContainerFlags;
use crate::stream::{self, End, Plan, Resize};
use crate::terminal;

#[derive(Debug, clap::Args)]
#[command(
    about = "Make a container from an image and start it",
    override_usage = "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    before_help = "container run, run"
)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: ContainerFlags,
    /// Run it in the background and print its ID
    #[arg(long, short = 'd')]
    detach: bool,
    /// Keys that leave the container running and go
    #[arg(long, value_name = "string", default_value = "")]
    detach_keys: String,
    /// Name of the container
    #[arg(long, value_name = "string", default_value = "")]
    name: String,
    /// Pass signals on to the process (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Bind the API socket and credentials into the container
    #[arg(long, hide = true)]
    use_api_socket: bool,
    #[arg(required = true, num_args = 1.., trailing_var_arg = true)]
    words: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let mut body = checked_body(&args.flags, &args.words).map_err(|why| failed(&why, NOT_RUN))?;
    if args.detach {
        if !args.flags.attach.is_empty() {
            return Err(Failure::new(
                "conflicting options: cannot specify both --attach and --detach",
            ));
        }
        let config = &mut body.config;
        (
            config.attach_stdin,
            config.attach_stdout,
            config.attach_stderr,
        ) = (false, false, false);
        config.stdin_once = false;
    } else if body.config.attach_stdin && body.config.tty && !terminal::stdin_is_terminal() {
        return Err(Failure::new("the input device is not a TTY"));
    }
    check_version(session, &args.flags).await?;
    stream::check_keys(&args.detach_keys)?;
    let id = create(session, &args.flags, &args.name, &body)
        .await
        .map_err(|failure| failed(&failure.text, exit_code(&failure.text)))?;
    let detach_keys = match args.detach_keys.as_str() {
        "" => session.config.file.detach_keys.clone(),
        keys => keys.to_string(),
    };
    let plan = Plan {
        stdin: body.config.attach_stdin,
        stdout: body.config.attach_stdout,
        stderr: body.config.attach_stderr,
        tty: body.config.tty,
        detach_keys,
    };
    let proxy = async {
        if args.sig_proxy {
            stream::forward(&session.client, &id).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = started(session, &id, plan, args.flags.rm) => outcome,
        () = proxy => Ok(0),
        code = stream::terminated(), if !args.sig_proxy => Err(Failure::silent(code)),
    }
}

/// From the attach to the exit code.
async fn started(session: &Session, id: &str, plan: Plan, auto_remove: bool) -> Outcome {
    let client = &session.client;
    let attached = plan.stdin || plan.stdout || plan.stderr;
    if !attached {
        print(&format!("{id}\n"))?;
    }
    let mut copying = None;
    if attached {
        let connection = attach(session, id, &plan).await?;
        copying = Some(tokio::spawn(stream::copy(connection, plan.clone())));
    }
    let condition = if auto_remove { "removed" } else { "next-exit" };
    let exit = wait(session, id, condition).await?;
    if let Err(error) = client.post(&format!("/containers/{id}/start")).done().await {
        if let Some(copying) = copying {
            copying.abort();
            // Waited for, so that the terminal is as it was before anything is printed.
            let _ = copying.await;
        }
        if auto_remove {
            let _ = exit.await;
        }
        let text = error.to_string();
        return Err(failed(&text, exit_code(&text)));
    }
    let Some(copying) = copying else {
        return Ok(0);
    };
    let size = async {
        if plan.tty && terminal::stdout_is_terminal() {
            stream::follow_size(client, Resize::Container(id.to_string())).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = finished(copying, exit, plan.stdout || plan.stderr) => outcome,
        () = size => Ok(0),
    }
}

/// Waits for the streams and the exit, whichever order they come in.
async fn finished(
    mut copying: JoinHandle<std::io::Result<End>>,
    mut exit: JoinHandle<Result<u8, Failure>>,
    wants_output: bool,
) -> Outcome {
    let copied = tokio::select! {
        copied = &mut copying => copied,
        code = &mut exit => {
            // The container has ended, its output perhaps not yet.
            if wants_output {
                let _ = copying.await;
            } else {
                copying.abort();
                let _ = copying.await;
            }
            return joined(code);
        }
    };
    match copied {
        Ok(Ok(End::Detached)) => Ok(0),
        Ok(Ok(End::Closed)) => joined(exit.await),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(Failure::new(format!("copy the streams: {error}"))),
    }
}

pub(crate) fn joined(result: Result<Result<u8, Failure>, tokio::task::JoinError>) -> Outcome {
    result.unwrap_or_else(|error| Err(Failure::new(format!("wait for the container: {error}"))))
}

/// Opens the streams of a container.
pub(crate) async fn attach(
    session: &Session,
    id: &str,
    plan: &Plan,
) -> Result<Hijacked, ClientError> {
    session
        .client
        .post(&format!("/containers/{id}/attach"))
        .query_some("detachKeys", &plan.detach_keys)
        .query_if("stderr", plan.stderr)
        .query_if("stdin", plan.stdin)
        .query_if("stdout", plan.stdout)
        .query("stream", 1)
        .hijack()
        .await
}

/// Asks for the exit code. The daemon is listening for the exit when this returns; the code comes later.
pub(crate) async fn wait(
    session: &Session,
    id: &str,
    condition: &str,
) -> Result<JoinHandle<Result<u8, Failure>>, ClientError> {
    let answer = session
        .client
        .post(&format!("/containers/{id}/wait"))
        .query_some("condition", condition)
        .send()
        .await?;
    Ok(tokio::spawn(async move {
        let bytes = answer.bytes().await.unwrap_or_default();
        let told: WaitResponse =
            serde_json::from_slice(&bytes).map_err(|source| ClientError::Decode {
                attempt: "the wait for the container".to_string(),
                source,
            })?;
        match told.error {
            Some(error) if !error.message.is_empty() => Err(Failure::with_code(
                NOT_RUN,
                format!("error waiting for container: {}", error.message),
            )),
            _ => Ok(told.status_code.clamp(0, 255) as u8),
        }
    }))
}

/// A failure of `run`, in its own form.
fn failed(text: &str, code: u8) -> Failure {
    Failure::of_command(text, code, "run")
}

/// The exit code for a container that could not be run: 127 for a command that is not there, 126 for
/// one that may not be run, 125 for the rest.
fn exit_code(text: &str) -> u8 {
    let has = |part: &str| text.contains(part);
    if has("executable file not found")
        || has("no such file or directory")
        || has("system cannot find the file")
    {
        127
    } else if has("permission denied") || has("is a directory") {
        126
    } else {
        NOT_RUN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failed_start_gives_the_code() {
        assert_eq!(
            exit_code("exec: \"x\": executable file not found in $PATH"),
            127
        );
        assert_eq!(exit_code("stat /x: no such file or directory"), 127);
        assert_eq!(exit_code("exec: \"/etc\": permission denied"), 126);
        assert_eq!(exit_code("Conflict."), 125);
    }
}
