//! `import`: an image from the tar of a file system.

use super::Session;
use crate::archive::upload_file;
use crate::error::Outcome;
use crate::progress;
use crate::reference::Reference;

#[derive(Debug, clap::Args)]
#[command(
    about = "Make an image from the tar of a file system",
    override_usage = "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    before_help = "image import, import"
)]
pub(crate) struct Args {
    /// Apply a Dockerfile instruction to the image
    #[arg(long, short = 'c', action = clap::ArgAction::Append)]
    change: Vec<String>,
    /// Message to go with it
    #[arg(long, short = 'm', value_name = "string", default_value = "")]
    message: String,
    /// Platform of the image
    #[arg(long, value_name = "string", default_value = "")]
    platform: String,
    #[arg(required = true)]
    source: String,
    name: Option<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let name = args.name.unwrap_or_default();
    if !name.is_empty() {
        Reference::parse(&name)?;
    }
    let remote = args.source.starts_with("http://") || args.source.starts_with("https://");
    let mut request = session
        .client
        .post("/images/create")
        .query("fromSrc", if remote { args.source.as_str() } else { "-" })
        .query_some("message", &args.message)
        .query_some("platform", &args.platform)
        .query_some("repo", &name);
    for change in &args.change {
        request = request.query("changes", change);
    }
    if !remote {
        let path = if args.source == "-" {
            ""
        } else {
            args.source.as_str()
        };
        request = request.upload("application/x-tar", upload_file(path)?);
    }
    progress::show(request.send().await?, false).await?;
    Ok(0)
}
