//! `pull`, and the pull that `run` does for a missing image.

use super::Session;
use crate::client::Answer;
use crate::credentials::registry_auth;
use crate::error::{Failure, Outcome};
use crate::format::print;
use crate::progress;
use crate::reference::Reference;

#[derive(Debug, clap::Args)]
#[command(
    about = "Fetch an image from a registry",
    override_usage = "[OPTIONS] NAME[:TAG|@DIGEST]",
    before_help = "image pull, pull"
)]
pub(crate) struct Args {
    /// Download all tags of the name
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
    if !args.all_tags && image.is_name_only() && !args.quiet {
        print(&format!("Using default tag: {}\n", image.tag_or_latest()))?;
    }
    let tag = if args.all_tags {
        ""
    } else {
        tag_or_digest(&image)
    };
    let answer = request(session, &image, tag, &args.platform).await?;
    progress::show(answer, args.quiet).await?;
    print(&format!("{}\n", whole(&image, args.all_tags)))?;
    Ok(0)
}

/// The pull before a create; all of it is told on standard error, which is not the container's output.
pub(crate) async fn pull_for_run(
    session: &Session,
    image: &str,
    platform: &str,
    quiet: bool,
) -> Result<(), Failure> {
    let image = Reference::parse(image)?;
    let answer = request(session, &image, tag_or_digest(&image), platform).await?;
    progress::show_on_stderr(answer, quiet).await
}

async fn request(
    session: &Session,
    image: &Reference,
    tag: &str,
    platform: &str,
) -> Result<Answer, Failure> {
    let request = session
        .client
        .post("/images/create")
        .query("fromImage", &image.name)
        .query_some("platform", session.platform(platform))
        .query_some("tag", tag)
        .header(
            "X-Registry-Auth",
            registry_auth(&session.config.file, &image.name),
        );
    Ok(request.send().await?)
}

fn tag_or_digest(image: &Reference) -> &str {
    image
        .digest
        .as_deref()
        .unwrap_or_else(|| image.tag_or_latest())
}

/// A name with the tag that it means, as the user knows it.
pub(crate) fn with_tag(image: &str) -> String {
    match Reference::parse(image) {
        Ok(parsed) if parsed.is_name_only() => format!("{image}:latest"),
        _ => image.to_string(),
    }
}

/// The whole name, as the end of a pull tells it.
fn whole(image: &Reference, all_tags: bool) -> String {
    match (&image.digest, all_tags) {
        (_, true) => image.name.clone(),
        (Some(digest), _) => format!("{}@{digest}", image.name),
        (None, _) => format!("{}:{}", image.name, image.tag_or_latest()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_pull_tells_the_whole_name() {
        let whole_of = |text| whole(&Reference::parse(text).unwrap(), false);
        assert_eq!(whole_of("busybox"), "docker.io/library/busybox:latest");
        assert_eq!(whole_of("localhost:5000/x:1"), "localhost:5000/x:1");
        assert_eq!(with_tag("reg:5000/x"), "reg:5000/x:latest");
    }
}
