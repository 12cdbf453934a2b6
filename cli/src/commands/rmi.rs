//! `rmi`: removes images.

use proto::engine::ImageDeleteItem;

use super::{Session, all_told};
use crate::client::escape_path;
use crate::error::Outcome;
use crate::format::print;

#[derive(Debug, clap::Args)]
#[command(
    about = "Remove images",
    override_usage = "[OPTIONS] IMAGE [IMAGE...]",
    before_help = "image rm, image remove, rmi"
)]
pub(crate) struct Args {
    /// Remove even if a container or another name uses it
    #[arg(long, short = 'f')]
    force: bool,
    /// Keep parents without a name
    #[arg(long)]
    no_prune: bool,
    #[arg(required = true, num_args = 1..)]
    images: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let mut failures = Vec::new();
    for image in &args.images {
        let removed = session
            .client
            .delete(&format!("/images/{}", escape_path(image)))
            .query_if("force", args.force)
            .query_if("noprune", args.no_prune)
            .json::<Vec<ImageDeleteItem>>()
            .await;
        match removed {
            Ok(items) => print(&items.iter().map(line).collect::<String>())?,
            Err(error) if args.force && error.is_not_found() => {
                crate::format::tell(&format!("{error}\n"))
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    all_told(&failures)
}

/// One thing that went.
pub(crate) fn line(item: &ImageDeleteItem) -> String {
    if item.deleted.is_empty() {
        format!("Untagged: {}\n", item.untagged)
    } else {
        format!("Deleted: {}\n", item.deleted)
    }
}
