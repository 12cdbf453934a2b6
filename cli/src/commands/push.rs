//! `push`: an image to its registry.

use super::Session;
use crate::client::escape_path;
use crate::credentials::registry_auth;
use crate::error::{Failure, Outcome};
use crate::format::print;
use crate::progress;
use crate::reference::Reference;

#[derive(Debug, clap::Args)]
#[command(
    about = "Send an image to a registry",
    override_usage = "[OPTIONS] NAME[:TAG]",
    before_help = "image push, push"
)]
pub(crate) struct Args {
    /// Push all tags of the name
    #[arg(long, short = 'a')]
    all_tags: bool,
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    /// Platform of the image
    #[arg(long, value_name = "string", default_value = "")]
    platform: String,
    /// Show only the name at the end
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(required = true)]
    image: String,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let image = Reference::parse(&args.image)?;
    if args.all_tags && !image.is_name_only() {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    let tag = if args.all_tags {
        ""
    } else {
        image.tag_or_latest()
    };
    if !args.all_tags && image.is_name_only() && !args.quiet {
        print(&format!("Using default tag: {tag}\n"))?;
    }
    let name = image.name.as_str();
    let mut request = session
        .client
        .post(&format!("/images/{}/push", escape_path(name)))
        .query_some("tag", tag)
        .header(
            "X-Registry-Auth",
            registry_auth(&session.config.file, &image.name),
        );
    if !args.platform.is_empty() {
        let (os, arch) = args
            .platform
            .split_once('/')
            .unwrap_or((&args.platform, ""));
        request = request.query(
            "platform",
            serde_json::json!({"architecture": arch, "os": os}),
        );
    }
    let answer = request.send().await?;
    progress::show(answer, args.quiet).await?;
    if args.quiet {
        print(&format!("{}:{tag}\n", image.name))?;
    }
    Ok(0)
}
