//! `stop` and `restart`.

use super::{Session, container_path, each};
use crate::args::int;
use crate::error::Outcome;

#[derive(Debug, clap::Args)]
#[command(
    about = "Stop running containers",
    override_usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    before_help = "container stop, stop"
)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Stop containers and start them again",
    override_usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    before_help = "container restart, restart"
)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Signal to send first
    #[arg(long, short = 's', value_name = "string", default_value = "")]
    signal: String,
    /// Seconds to wait before the kill
    #[arg(long, alias = "time", short = 't', value_name = "int", value_parser = int)]
    timeout: Option<i64>,
    #[arg(required = true, num_args = 1..)]
    containers: Vec<String>,
}

pub(crate) async fn stop(session: &Session, args: StopArgs) -> Outcome {
    act(session, "/stop", args.how).await
}

pub(crate) async fn restart(session: &Session, args: RestartArgs) -> Outcome {
    act(session, "/restart", args.how).await
}

async fn act(session: &Session, verb: &str, how: How) -> Outcome {
    each(&how.containers, async |name| {
        let mut request = session
            .client
            .post(&container_path(name, verb))
            .query_some("signal", &how.signal);
        if let Some(seconds) = how.timeout {
            request = request.query("t", seconds);
        }
        request.done().await
    })
    .await
}
