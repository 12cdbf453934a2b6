//! `commit`: an image from a container's changes.

use proto::engine::IdResponse;

use super::Session;
use crate::error::Outcome;
use crate::format::print;

#[derive(Debug, clap::Args)]
#[command(
    about = "Create a new image from a container's changes",
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
    let name = args.name.unwrap_or_default();
    let (repo, tag) = split_tag(&name);
    let mut request = session
        .client
        .post("/commit")
        .query_some("author", &args.author)
        .query_some("comment", &args.message)
        .query("container", &args.container)
        .query_some("repo", repo)
        .query_some(
            "tag",
            if repo.is_empty() {
                ""
            } else {
                tag.unwrap_or("latest")
            },
        );
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

/// Splits a name from its tag; the colon of a registry's port is none.
pub(crate) fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repo, tag)) if !tag.contains('/') => (repo, Some(tag)),
        _ => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_no_tags() {
        assert_eq!(split_tag("reg:5000/a"), ("reg:5000/a", None));
        assert_eq!(split_tag("reg:5000/a:1"), ("reg:5000/a", Some("1")));
        assert_eq!(split_tag("a"), ("a", None));
    }
}
