//! `history`: the layers of an image.

use proto::engine::HistoryItem;

use super::Session;
use crate::client::escape_path;
use crate::error::Outcome;
use crate::format::{Row, Style, ago, bytes_1000_precise, ellipsis, print_rows, short_id};

#[derive(Debug, clap::Args)]
#[command(
    about = "Show the layers of an image",
    override_usage = "[OPTIONS] IMAGE",
    before_help = "image history, history"
)]
pub(crate) struct Args {
    /// Format of the output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string", default_value = "")]
    format: String,
    /// Sizes and dates for people (default true)
    #[arg(long, short = 'H', num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    human: bool,
    /// Don't shorten the output
    #[arg(long)]
    no_trunc: bool,
    /// Show only the IDs
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(required = true)]
    image: String,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let path = format!("/images/{}/history", escape_path(&args.image));
    let history: Vec<HistoryItem> = session.client.get(&path).json().await?;
    let rows: Vec<Row> = history
        .iter()
        .map(|item| row(item, args.human, !args.no_trunc))
        .collect();
    let created = if args.human {
        "{{.CreatedSince}}"
    } else {
        "{{.CreatedAt}}"
    };
    let table =
        format!("{{{{.ID}}}}\t{created}\t{{{{.CreatedBy}}}}\t{{{{.Size}}}}\t{{{{.Comment}}}}");
    let headings = [
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ];
    let format = if args.quiet && args.format.is_empty() {
        "{{.ID}}".to_string()
    } else {
        args.format
    };
    print_rows(
        &format,
        Style {
            table: &table,
            headings: &headings,
        },
        &rows,
    )?;
    Ok(0)
}

fn row(item: &HistoryItem, human: bool, trunc: bool) -> Row {
    use time::format_description::well_known::Rfc3339;
    let created = time::OffsetDateTime::from_unix_timestamp(item.created)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let by = item.created_by.replace('\t', " ");
    Row::default()
        .with("ID", if trunc { short_id(&item.id) } else { &item.id })
        .with(
            "CreatedSince",
            if item.created <= 0 {
                String::new()
            } else {
                ago(item.created)
            },
        )
        .with(
            "CreatedAt",
            crate::format::local(created)
                .0
                .format(&Rfc3339)
                .unwrap_or_default(),
        )
        .with("CreatedBy", if trunc { ellipsis(&by, 45) } else { by })
        .with(
            "Size",
            if human {
                bytes_1000_precise(item.size as f64, 3)
            } else {
                item.size.to_string()
            },
        )
        .with("Comment", item.comment.clone())
}
