//! `logs`: what a container has written.

mod follow;

use std::io::Write as _;

use proto::engine::ContainerInspect;

use super::{Session, container_path, moment};
use crate::client::{ClientError, Request};
use crate::error::{Failure, Outcome};
use crate::stream::Frames;

#[derive(Debug, clap::Args)]
#[command(
    about = "Show what a container has written",
    override_usage = "[OPTIONS] CONTAINER",
    before_help = "container logs, logs"
)]
pub(crate) struct Args {
    /// Show the extra details that the logging driver was asked for
    #[arg(long)]
    details: bool,
    /// Go on with what is written from now
    #[arg(long, short = 'f')]
    follow: bool,
    /// Show what was written since then (2013-01-02T13:23:37Z, or 42m for 42 minutes ago)
    #[arg(long, value_name = "string", default_value = "")]
    since: String,
    /// Number of lines from the end (default "all")
    #[arg(long, short = 'n', value_name = "string", default_value = "all")]
    tail: String,
    /// Show the time of each line
    #[arg(long, short = 't')]
    timestamps: bool,
    /// Show what was written until then (2013-01-02T13:23:37Z, or 42m for 42 minutes ago)
    #[arg(long, value_name = "string", default_value = "")]
    until: String,
    #[arg(required = true)]
    container: String,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let bad = |flag: &str, why: String| Failure::new(format!("invalid value for {flag:?}: {why}"));
    let since = moment(&args.since).map_err(|why| bad("since", why))?;
    let until = moment(&args.until).map_err(|why| bad("until", why))?;
    let container: ContainerInspect = session
        .client
        .get(&container_path(&args.container, "/json"))
        .json()
        .await?;
    if args.follow {
        return follow::follow(session, &container, &args, &since, &until).await;
    }
    let mut answer = request(session, &container.id, &args)
        .query_some("since", &since)
        .query("tail", &args.tail)
        .query_if("timestamps", args.timestamps)
        .query_some("until", &until)
        .send()
        .await?;
    let mut frames = Frames::default();
    while let Some(bytes) = answer.piece().await? {
        if container.config.tty {
            write(1, &bytes)?;
            continue;
        }
        for (stream, bytes) in frames.feed(&bytes)? {
            write(stream, &bytes)?;
        }
    }
    if !container.config.tty {
        frames.finish().map_err(|cause| ClientError::Connection {
            attempt: format!("read the logs of {}", args.container),
            cause: cause.to_string(),
        })?;
    }
    Ok(0)
}

/// The part of the request that is always the same.
fn request<'a>(session: &'a Session, id: &str, args: &Args) -> Request<'a> {
    session
        .client
        .get(&format!("/containers/{id}/logs"))
        .query_if("details", args.details)
        .query_if("follow", args.follow)
        .query("stderr", 1)
        .query("stdout", 1)
}

fn write(stream: u8, bytes: &[u8]) -> Result<(), Failure> {
    if stream == 2 {
        std::io::stderr().lock().write_all(bytes)?;
    } else {
        crate::format::print_bytes(bytes)?;
    }
    Ok(())
}
