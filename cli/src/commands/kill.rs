//! `kill`.

use super::{Session, container_path, each};
use crate::error::Outcome;

#[derive(Debug, clap::Args)]
#[command(
    about = "Send a signal to containers, SIGKILL by default",
    override_usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    before_help = "container kill, kill"
)]
pub(crate) struct Args {
    /// Signal to send
    #[arg(long, short = 's', value_name = "string", default_value = "")]
    signal: String,
    #[arg(required = true, num_args = 1..)]
    containers: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    each(&args.containers, async |name| {
        session
            .client
            .post(&container_path(name, "/kill"))
            .query_some("signal", &args.signal)
            .done()
            .await
    })
    .await
}
