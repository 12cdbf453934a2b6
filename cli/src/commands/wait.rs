//! `wait`: for the exit codes of containers.

use super::{Session, all_told, ending};
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
        match ending::wait_for(session, name).await {
            Ok(code) => print(&format!("{code}\n"))?,
            // The others have no daemon either.
            Err(failure) if failure.code != 1 => return Err(failure),
            Err(failure) => failures.push(failure.text),
        }
    }
    all_told(&failures)
}
