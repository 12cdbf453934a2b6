//! `wait`: for the exit codes of containers.

use proto::engine::WaitResponse;

use super::{Session, all_told, container_path};
use crate::error::Outcome;
use crate::format::print;

#[derive(Debug, clap::Args)]
#[command(
    about = "Wait for containers to end and print their exit codes",
    override_usage = "CONTAINER [CONTAINER...]",
    before_help = "container wait, wait"
)]
pub(crate) struct Args {
    #[arg(required = true, num_args = 1..)]
    containers: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let mut failures = Vec::new();
    for name in &args.containers {
        match session
            .client
            .post(&container_path(name, "/wait"))
            .json::<WaitResponse>()
            .await
        {
            Ok(told) => match told.error {
                Some(error) if !error.message.is_empty() => failures.push(error.message),
                _ => print(&format!("{}\n", told.status_code))?,
            },
            Err(error) => failures.push(error.to_string()),
        }
    }
    all_told(&failures)
}
