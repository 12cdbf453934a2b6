//! `pause` and `unpause`.

use super::{Session, container_path, each};
use crate::error::Outcome;

#[derive(Debug, clap::Args)]
#[command(
    about = "Halt all processes of containers",
    override_usage = "CONTAINER [CONTAINER...]",
    before_help = "container pause, pause"
)]
pub(crate) struct PauseArgs {
    #[arg(required = true, num_args = 1..)]
    containers: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Let halted containers go on",
    override_usage = "CONTAINER [CONTAINER...]",
    before_help = "container unpause, unpause"
)]
pub(crate) struct UnpauseArgs {
    #[arg(required = true, num_args = 1..)]
    containers: Vec<String>,
}

pub(crate) async fn pause(session: &Session, args: PauseArgs) -> Outcome {
    each(&args.containers, async |name| {
        session
            .client
            .post(&container_path(name, "/pause"))
            .done()
            .await
    })
    .await
}

pub(crate) async fn unpause(session: &Session, args: UnpauseArgs) -> Outcome {
    each(&args.containers, async |name| {
        session
            .client
            .post(&container_path(name, "/unpause"))
            .done()
            .await
    })
    .await
}
