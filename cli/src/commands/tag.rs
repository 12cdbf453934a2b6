//! `tag`: one more name for an image.

use super::Session;
use crate::client::escape_path;
use crate::error::{Failure, Outcome};
use crate::reference::Reference;

#[derive(Debug, clap::Args)]
#[command(
    about = "Give an image another name",
    override_usage = "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    before_help = "image tag, tag"
)]
pub(crate) struct Args {
    #[arg(required = true, num_args = 2)]
    names: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let source = &args.names[0];
    let wrong = |name: &str, why: String| {
        Failure::new(format!(
            "Error parsing reference: {name:?} is not a valid repository/tag: {why}"
        ))
    };
    let target = Reference::parse(&args.names[1]).map_err(|why| wrong(&args.names[1], why))?;
    if target.digest.is_some() {
        return Err(Failure::new(
            "refusing to create a tag with a digest reference",
        ));
    }
    session
        .client
        .post(&format!("/images/{}/tag", escape_path(source)))
        .query("repo", &target.name)
        .query("tag", target.tag_or_latest())
        .done()
        .await?;
    Ok(0)
}
