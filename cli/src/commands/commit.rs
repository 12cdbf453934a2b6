//! `commit`: an image from a container's changes.

use proto::engine::IdResponse;

use super::Session;
use crate::error::Outcome;
use crate::format::print;
use crate::reference::Reference;

#[derive(Debug, clap::Args)]
#[command(
    about = "Make an image from what a container has changed",
    override_usage = "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    before_help = "container commit, commit"
)]
pub(crate) struct Args {
    /// Author of the image
    #[arg(long, short = 'a', value_name = "string", default_value = "")]
    author: String,
    /// Apply a Dockerfile instruction to the image
    #[arg(long, short = 'c', action = clap::ArgAction::Append)]
    change: Vec<String>,
    /// Message to go with it
    #[arg(long, short = 'm', value_name = "string", default_value = "")]
    message: String,
    /// Pause the container meanwhile (default true)
    #[arg(long, short = 'p', num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    pause: bool,
    #[arg(required = true)]
    container: String,
    name: Option<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let name = match &args.name {
        Some(name) => Some(Reference::parse(name)?),
        None => None,
    };
    let repo = name
        .as_ref()
        .map(|name| name.name.as_str())
        .unwrap_or_default();
    let tag = name
        .as_ref()
        .map(Reference::tag_or_latest)
        .unwrap_or_default();
    let mut request = session
        .client
        .post("/commit")
        .query_some("author", &args.author)
        .query_some("comment", &args.message)
        .query("container", &args.container)
        .query_some("repo", repo)
        .query_some("tag", tag);
    for change in &args.change {
        request = request.query("changes", change);
    }
    if !args.pause {
        request = request.query("pause", 0);
    }
    let made: IdResponse = request.json().await?;
    print(&format!("{}\n", made.id))?;
    Ok(0)
}
