//! `pull`, and the pull that `run` does for a missing image.

use super::Session;
use super::commit::split_tag;
use crate::client::{Answer, registry_auth};
use crate::error::{Failure, Outcome};
use crate::format::print;
use crate::progress;

#[derive(Debug, clap::Args)]
#[command(
    about = "Download an image from a registry",
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
    let named = args.image.contains('@') || split_tag(&args.image).1.is_some();
    if args.all_tags && named {
        return Err(Failure::new("tag can't be used with --all-tags/-a"));
    }
    if !args.all_tags && !named && !args.quiet {
        print("Using default tag: latest\n")?;
    }
    let tag = if args.all_tags { Some("") } else { None };
    let answer = request(session, &args.image, tag, &args.platform).await?;
    progress::show(answer, args.quiet).await?;
    print(&format!("{}\n", familiar(&args.image, args.all_tags)))?;
    Ok(0)
}

/// The pull before a create; all of it is told on standard error, which is not the container's output.
pub(crate) async fn pull_for_run(
    session: &Session,
    image: &str,
    platform: &str,
    quiet: bool,
) -> Result<(), Failure> {
    let answer = request(session, image, None, platform).await?;
    progress::each(answer, |line| {
        if let Some(error) = &line.error_detail {
            return Err(Failure::new(error.message.clone()));
        }
        let moving = line
            .progress_detail
            .as_ref()
            .is_some_and(|detail| detail.total > 0 || detail.current > 0);
        if !quiet && !moving && !line.status.is_empty() {
            let id = if line.id.is_empty() {
                String::new()
            } else {
                format!("{}: ", line.id)
            };
            eprintln!("{id}{}", line.status);
        }
        Ok(())
    })
    .await
}

async fn request(
    session: &Session,
    image: &str,
    tag: Option<&str>,
    platform: &str,
) -> Result<Answer, Failure> {
    let (repo, own) = match image.split_once('@') {
        Some((repo, digest)) => (split_tag(repo).0, digest),
        None => {
            let (repo, tag) = split_tag(image);
            (repo, tag.unwrap_or("latest"))
        }
    };
    let request = session
        .client
        .post("/images/create")
        .query("fromImage", full_name(repo))
        .query_some("platform", platform)
        .query_some("tag", tag.unwrap_or(own))
        .header(
            "X-Registry-Auth",
            registry_auth(&session.config.file, image),
        );
    Ok(request.send().await?)
}

/// A repository with its registry: `busybox` is `docker.io/library/busybox`.
pub(crate) fn full_name(repo: &str) -> String {
    match repo.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => repo.to_string(),
        Some(_) => format!("docker.io/{repo}"),
        None => format!("docker.io/library/{repo}"),
    }
}

/// A name with the tag that it means.
pub(crate) fn with_tag(image: &str) -> String {
    if image.contains('@') || split_tag(image).1.is_some() {
        image.to_string()
    } else {
        format!("{image}:latest")
    }
}

/// The whole name, as the end of a pull tells it.
fn familiar(image: &str, all_tags: bool) -> String {
    let name = if all_tags {
        image.to_string()
    } else {
        with_tag(image)
    };
    full_name(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        assert_eq!(full_name("busybox"), "docker.io/library/busybox");
        assert_eq!(full_name("me/x"), "docker.io/me/x");
        assert_eq!(full_name("localhost:5000/x"), "localhost:5000/x");
        assert_eq!(with_tag("reg:5000/x"), "reg:5000/x:latest");
        assert_eq!(
            familiar("busybox", false),
            "docker.io/library/busybox:latest"
        );
    }
}
