//! `images`, `image ls`.

use clap::ArgAction::Append;
use proto::engine::ImageSummary;

use super::{Session, filter, filters, long_time};
use crate::error::Outcome;
use crate::format::{Row, Style, ago, bytes_1000, bytes_1000_precise, print_rows, short_id};

#[derive(Debug, clap::Args)]
#[command(
    about = "List images",
    override_usage = "[OPTIONS] [REPOSITORY[:TAG]]",
    before_help = "image ls, image list, images"
)]
pub(crate) struct Args {
    /// Show all images (default hides the steps between)
    #[arg(long, short = 'a')]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Show only what fits the condition
    #[arg(long, short = 'f', value_name = "filter", action = Append, value_parser = filter)]
    filter: Vec<String>,
    /// Format of the output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string", default_value = "")]
    format: String,
    /// Don't shorten the output
    #[arg(long)]
    no_trunc: bool,
    /// Show only the IDs
    #[arg(long, short = 'q')]
    quiet: bool,
    name: Option<String>,
}

const HEADINGS: [(&str, &str); 11] = [
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let mut given = args.filter.clone();
    given.extend(args.name.iter().map(|name| format!("reference={name}")));
    let images: Vec<ImageSummary> = session
        .client
        .get("/images/json")
        .query_if("all", args.all)
        .query_some("filters", &filters(&given))
        .json()
        .await?;
    let format = match args.format.as_str() {
        "" if !args.quiet => session.config.file.images_format.clone(),
        other => other.to_string(),
    };
    let digests = args.digests || format.contains(".Digest");
    let rows: Vec<Row> = images
        .iter()
        .flat_map(|image| rows(image, digests && !args.quiet, !args.no_trunc))
        .collect();
    let table = if args.digests {
        "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    } else {
        "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
    };
    let format = if args.quiet && matches!(format.as_str(), "" | "table") {
        "{{.ID}}".to_string()
    } else {
        format
    };
    print_rows(
        &format,
        Style {
            table,
            headings: &HEADINGS,
        },
        &rows,
    )?;
    Ok(0)
}

/// An image has a row for each of its names, or one without a name.
fn rows(image: &ImageSummary, digests: bool, trunc: bool) -> Vec<Row> {
    let mut names: Vec<(String, String, String)> = Vec::new();
    let split = |name: &str, joint: char| {
        name.rsplit_once(joint)
            .map(|(repo, rest)| (repo.to_string(), rest.to_string()))
    };
    let known: Vec<(String, String)> = image
        .repo_digests
        .iter()
        .filter_map(|name| split(name, '@'))
        .filter(|(repo, _)| repo != "<none>")
        .collect();
    for (repo, tag) in image.repo_tags.iter().filter_map(|name| split(name, ':')) {
        if repo == "<none>" {
            continue;
        }
        let of_repo: Vec<String> = known
            .iter()
            .filter(|(of, _)| *of == repo)
            .map(|(_, digest)| digest.clone())
            .collect();
        if digests && !of_repo.is_empty() {
            names.extend(
                of_repo
                    .into_iter()
                    .map(|digest| (repo.clone(), tag.clone(), digest)),
            );
        } else {
            names.push((repo, tag, "<none>".to_string()));
        }
    }
    if names.is_empty() {
        // Without a tag it is still known by where it was pulled from.
        match known.first() {
            Some((repo, digest)) => {
                names.push((repo.clone(), "<none>".to_string(), digest.clone()))
            }
            None => names.push((
                "<none>".to_string(),
                "<none>".to_string(),
                "<none>".to_string(),
            )),
        }
    }
    names
        .into_iter()
        .map(|(repo, tag, digest)| row(image, &repo, &tag, &digest, trunc))
        .collect()
}

fn row(image: &ImageSummary, repo: &str, tag: &str, digest: &str, trunc: bool) -> Row {
    let id = if trunc {
        short_id(&image.id)
    } else {
        &image.id
    };
    let counted = |count: i64| {
        if count < 0 {
            "N/A".to_string()
        } else {
            count.to_string()
        }
    };
    let sized = |size: i64| {
        if size < 0 {
            "N/A".to_string()
        } else {
            bytes_1000(size as f64)
        }
    };
    let unique = if image.shared_size < 0 {
        -1
    } else {
        image.size - image.shared_size
    };
    Row::default()
        .with("ID", id)
        .with("Repository", repo)
        .with("Tag", tag)
        .with("Digest", digest)
        .with(
            "CreatedSince",
            if image.created <= 0 {
                "N/A".to_string()
            } else {
                ago(image.created)
            },
        )
        .with("CreatedAt", long_time(image.created))
        .with("Size", bytes_1000_precise(image.size as f64, 3))
        .with("Containers", counted(image.containers))
        .with("VirtualSize", bytes_1000(image.size as f64))
        .with("SharedSize", sized(image.shared_size))
        .with("UniqueSize", sized(unique))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_a_row_for_each_name() {
        let image = ImageSummary {
            repo_tags: vec!["a:1".into(), "reg:5000/b:2".into()],
            repo_digests: vec!["a@sha256:12".into()],
            ..ImageSummary::default()
        };
        assert_eq!(rows(&image, false, true).len(), 2);
        let nameless = ImageSummary {
            repo_tags: vec!["<none>:<none>".into()],
            ..ImageSummary::default()
        };
        assert_eq!(rows(&nameless, false, true).len(), 1);
    }
}
