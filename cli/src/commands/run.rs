//! `run`: create, attach, wait, start, and then the container's own exit code.

use super::Session;
use super::attached::{self, Attached, Finish};
use super::create::{NOT_RUN, check_version, checked_body, create};
use super::ending::{self, Condition};
use crate::client::ClientError;
use crate::error::{Failure, Outcome};
use crate::format::print;
use crate::options::flags::ContainerFlags;
use crate::stream::{self, Plan};
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
    let condition = match args.flags.rm {
        true => Condition::Removed,
        false => Condition::NextExit,
    };
    if !(plan.stdin || plan.stdout || plan.stderr) {
        return detached(session, &id, condition).await;
    }
    let attached = Attached {
        session,
        id,
        plan,
        condition,
        started_before: Some(attached::NEVER.to_string()),
        log_since: None,
        sig_proxy: args.sig_proxy,
    };
    match attached.follow().await? {
        Finish::Ended(code) => attached::code(code),
        Finish::Detached => Ok(0),
        Finish::Refused(error) => Err(refused(&error)),
    }
}

/// Starts it and leaves it alone.
async fn detached(session: &Session, id: &str, condition: Condition) -> Outcome {
    print(&format!("{id}\n"))?;
    let exit = ending::begin(session, id, condition).await?;
    let path = format!("/containers/{id}/start");
    if let Err(error) = session.client.post(&path).done().await {
        if condition == Condition::Removed && !error.is_loss() {
            let _ = exit.await;
        }
        return Err(refused(&error));
    }
    Ok(0)
}

fn refused(error: &ClientError) -> Failure {
    let text = error.to_string();
    failed(&text, exit_code(&text))
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
