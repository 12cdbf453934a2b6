//! `tag`: one more name for an image.

use super::Session;
use super::commit::split_tag;
use crate::client::escape_path;
use crate::error::Outcome;

#[derive(Debug, clap::Args)]
#[command(
    about = "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    override_usage = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    before_help = "image tag, tag"
)]
pub(crate) struct Args {
    #[arg(required = true, num_args = 2)]
    names: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let (repo, tag) = split_tag(&args.names[1]);
    session
        .client
        .post(&format!("/images/{}/tag", escape_path(&args.names[0])))
        .query("repo", repo)
        .query("tag", tag.unwrap_or("latest"))
        .done()
        .await?;
    Ok(0)
}
