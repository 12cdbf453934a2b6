//! `plugin ...`: the plugins of the daemon (volume and network drivers), which are not those of the command line.

use clap::ArgAction::Append;
use clap::Subcommand;
use serde::Deserialize;

use super::{Session, filter, filters};
use crate::error::Outcome;
use crate::format::{Row, Style, print_rows};

/// `docker-lite plugin ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    #[command(alias = "list")]
    Ls(LsArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    about = "List the daemon's plugins",
    override_usage = "[OPTIONS]",
    before_help = "plugin ls, plugin list"
)]
pub(crate) struct LsArgs {
    /// Show only what fits the condition
    #[arg(long, short = 'f', value_name = "filter", action = Append, value_parser = filter)]
    filter: Vec<String>,
    /// Format of the output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string", default_value = "")]
    format: String,
    /// Do not shorten ids and descriptions
    #[arg(long)]
    no_trunc: bool,
    /// Show only the ids
    #[arg(long, short = 'q')]
    quiet: bool,
}

/// A plugin, as far as the list tells of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Plugin {
    id: String,
    name: String,
    enabled: bool,
    config: Config,
    plugin_reference: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    description: String,
}

pub(crate) async fn run(session: &Session, verb: Verb) -> Outcome {
    match verb {
        Verb::Ls(args) => ls(session, args).await,
    }
}

async fn ls(session: &Session, args: LsArgs) -> Outcome {
    let told: Option<Vec<Plugin>> = session
        .client
        .get("/plugins")
        .query_some("filters", &filters(&args.filter))
        .json()
        .await?;
    let mut plugins = told.unwrap_or_default();
    plugins.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<Row> = plugins
        .iter()
        .map(|plugin| row(plugin, args.no_trunc))
        .collect();
    let format = match (args.format.as_str(), args.quiet) {
        ("" | "table", true) => "{{.ID}}".to_string(),
        ("", false) => session.config.file.plugins_format.clone(),
        (other, _) => other.to_string(),
    };
    let style = Style {
        table: "{{.ID}}\t{{.Name}}\t{{.Description}}\t{{.Enabled}}",
        headings: &HEADINGS,
    };
    print_rows(&format, style, &rows)?;
    Ok(0)
}

const HEADINGS: [(&str, &str); 5] = [
    ("ID", "ID"),
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("Enabled", "ENABLED"),
    ("PluginReference", "PLUGIN REFERENCE"),
];

fn row(plugin: &Plugin, whole: bool) -> Row {
    let one_line = plugin.config.description.replace(['\n', '\r'], "");
    let shown =
        |text: &str, length: usize, dots: &str| match text.chars().count() > length && !whole {
            true => text.chars().take(length - dots.len()).collect::<String>() + dots,
            false => text.to_owned(),
        };
    Row::default()
        .with("ID", shown(&plugin.id, 12, ""))
        .with("Name", plugin.name.clone())
        .with("Description", shown(one_line.trim(), 45, "..."))
        .with("Enabled", plugin.enabled)
        .with("PluginReference", plugin.plugin_reference.clone())
}
