//! `rm`: removes containers.

use super::{Session, container_path, each};
use crate::error::Outcome;

#[derive(Debug, clap::Args)]
#[command(
    about = "Remove containers",
    override_usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    before_help = "container rm, container remove, rm"
)]
pub(crate) struct Args {
    /// Remove even a running container (by SIGKILL)
    #[arg(long, short = 'f')]
    force: bool,
    /// Remove a link, not a container
    #[arg(long, short = 'l')]
    link: bool,
    /// Remove its anonymous volumes too
    #[arg(long, short = 'v')]
    volumes: bool,
    #[arg(required = true, num_args = 1..)]
    containers: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let mut failures = Vec::new();
    for name in &args.containers {
        let name = name.trim_matches('/');
        let removed = session
            .client
            .delete(&container_path(name, ""))
            .query_if("force", args.force)
            .query_if("link", args.link)
            .query_if("v", args.volumes)
            .done()
            .await;
        match removed {
            Ok(()) => crate::format::print(&format!("{name}\n"))?,
            // With force, what is not there is as good as removed.
            Err(error) if args.force && error.is_not_found() => {
                crate::format::tell(&format!("{error}\n"))
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    super::all_told(&failures)
}

/// Removes images, volumes or the like by one call each.
pub(crate) async fn delete_each(
    session: &Session,
    names: &[String],
    path: &str,
    force: bool,
) -> Outcome {
    each(names, async |name| {
        let path = format!("{path}/{}", crate::client::escape_path(name));
        session
            .client
            .delete(&path)
            .query_if("force", force)
            .done()
            .await
    })
    .await
}
