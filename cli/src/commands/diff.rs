//! `diff`: what a container has changed in its file system.

use proto::engine::ChangeItem;

use super::{Session, container_path};
use crate::error::Outcome;
use crate::format::print;

#[derive(Debug, clap::Args)]
#[command(
    about = "Show which files a container has changed",
    override_usage = "CONTAINER",
    before_help = "container diff, diff"
)]
pub(crate) struct Args {
    #[arg(required = true)]
    container: String,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let changes: Option<Vec<ChangeItem>> = session
        .client
        .get(&container_path(&args.container, "/changes"))
        .json()
        .await?;
    let mut out = String::new();
    for change in changes.unwrap_or_default() {
        let kind = match change.kind {
            0 => 'C',
            1 => 'A',
            2 => 'D',
            _ => '?',
        };
        out += &format!("{kind} {}\n", change.path);
    }
    print(&out)?;
    Ok(0)
}
