//! `search`: for images in the registry.

use clap::ArgAction::Append;
use proto::engine::SearchResult;

use super::{Session, filter, filters};
use crate::args::int;
use crate::credentials::registry_auth;
use crate::error::Outcome;
use crate::format::{Row, Style, ellipsis, print_rows};

#[derive(Debug, clap::Args)]
#[command(
    about = "Look for images in the registry",
    override_usage = "[OPTIONS] TERM",
    before_help = "search"
)]
pub(crate) struct Args {
    /// Show only what fits the condition
    #[arg(long, short = 'f', value_name = "filter", action = Append, value_parser = filter)]
    filter: Vec<String>,
    /// Format of the output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string", default_value = "")]
    format: String,
    /// Most results
    #[arg(long, value_name = "int", value_parser = int, default_value = "0")]
    limit: i64,
    /// Don't shorten the output
    #[arg(long)]
    no_trunc: bool,
    #[arg(required = true)]
    term: String,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let mut request = session
        .client
        .get("/images/search")
        .query_some("filters", &filters(&args.filter))
        .query("term", &args.term)
        .header(
            "X-Registry-Auth",
            registry_auth(&session.config.file, &args.term),
        );
    if args.limit > 0 {
        request = request.query("limit", args.limit);
    }
    let found: Vec<SearchResult> = request.json().await?;
    let rows: Vec<Row> = found
        .iter()
        .map(|image| {
            let about = image.description.replace(['\n', '\r'], " ");
            Row::default()
                .with("Name", image.name.clone())
                .with(
                    "Description",
                    if args.no_trunc {
                        about
                    } else {
                        ellipsis(&about, 45)
                    },
                )
                .with("StarCount", image.star_count.to_string())
                .with("IsOfficial", if image.is_official { "[OK]" } else { "" })
        })
        .collect();
    let headings = [
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("StarCount", "STARS"),
        ("IsOfficial", "OFFICIAL"),
    ];
    let table = "{{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";
    print_rows(
        &args.format,
        Style {
            table,
            headings: &headings,
        },
        &rows,
    )?;
    Ok(0)
}
