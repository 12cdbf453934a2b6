//! `volume ...`

use clap::ArgAction::Append;
use clap::Subcommand;
use proto::engine::{Volume, VolumeCreate, VolumeList};

use super::inspect::{Kind, of_kind};
use super::{Session, filter, filters, prune, rm};
use crate::error::{Failure, Outcome};
use crate::format::{Row, Style, bytes_1000, print, print_rows};
use crate::options::env;

/// `docker-lite volume ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Create(CreateArgs),
    Inspect(InspectArgs),
    #[command(alias = "list")]
    Ls(LsArgs),
    Prune(prune::VolumeArgs),
    #[command(alias = "remove")]
    Rm(RmArgs),
}

#[derive(Debug, clap::Args)]
#[command(about = "Make a volume", override_usage = "[OPTIONS] [VOLUME]")]
pub(crate) struct CreateArgs {
    /// Driver of the volume
    #[arg(long, short = 'd', value_name = "string", default_value = "local")]
    driver: String,
    /// Set a label
    #[arg(long, action = Append)]
    label: Vec<String>,
    /// Name of the volume
    #[arg(long, value_name = "string", hide = true, default_value = "")]
    name: String,
    /// Options of the driver
    #[arg(long, short = 'o', value_name = "map", action = Append)]
    opt: Vec<String>,
    volume: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Show all that the daemon knows of volumes",
    override_usage = "[OPTIONS] VOLUME [VOLUME...]"
)]
pub(crate) struct InspectArgs {
    /// Format of the output: 'json' or a Go template
    #[arg(long, short = 'f', value_name = "string", default_value = "")]
    format: String,
    #[arg(required = true, num_args = 1..)]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "List volumes",
    override_usage = "[OPTIONS]",
    before_help = "volume ls, volume list"
)]
pub(crate) struct LsArgs {
    /// Show only what fits the condition
    #[arg(long, short = 'f', value_name = "filter", action = Append, value_parser = filter)]
    filter: Vec<String>,
    /// Format of the output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string", default_value = "")]
    format: String,
    /// Show only the names
    #[arg(long, short = 'q')]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Remove volumes",
    override_usage = "[OPTIONS] VOLUME [VOLUME...]",
    before_help = "volume rm, volume remove"
)]
pub(crate) struct RmArgs {
    /// Do not mind if it is not there
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(required = true, num_args = 1..)]
    names: Vec<String>,
}

pub(crate) async fn run(session: &Session, verb: Verb) -> Outcome {
    match verb {
        Verb::Create(args) => create(session, args).await,
        Verb::Inspect(args) => of_kind(session, Kind::Volume, &args.names, &args.format).await,
        Verb::Ls(args) => ls(session, args).await,
        Verb::Prune(args) => prune::volumes(session, args).await,
        Verb::Rm(args) => rm::delete_each(session, &args.names, "/volumes", args.force).await,
    }
}

async fn create(session: &Session, args: CreateArgs) -> Outcome {
    if args.volume.is_some() && !args.name.is_empty() {
        return Err(Failure::new(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
        ));
    }
    let body = VolumeCreate {
        driver: args.driver,
        driver_opts: env::pairs(&args.opt),
        labels: env::labels(&[], &args.label).map_err(|error| error.to_string())?,
        name: args.volume.unwrap_or(args.name),
        ..VolumeCreate::default()
    };
    let made: Volume = session
        .client
        .post("/volumes/create")
        .json_body(&body)
        .json()
        .await?;
    print(&format!("{}\n", made.name))?;
    Ok(0)
}

async fn ls(session: &Session, args: LsArgs) -> Outcome {
    let told: VolumeList = session
        .client
        .get("/volumes")
        .query_some("filters", &filters(&args.filter))
        .json()
        .await?;
    let mut volumes = told.volumes;
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<Row> = volumes.iter().map(row).collect();
    let format = match (args.format.as_str(), args.quiet) {
        ("" | "table", true) => "{{.Name}}".to_string(),
        ("", false) => session.config.file.volumes_format.clone(),
        (other, _) => other.to_string(),
    };
    print_rows(
        &format,
        Style {
            table: "{{.Driver}}\t{{.Name}}",
            headings: &HEADINGS,
        },
        &rows,
    )?;
    Ok(0)
}

pub(crate) const HEADINGS: [(&str, &str); 10] = [
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Availability", "AVAILABILITY"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Group", "GROUP"),
    ("Status", "STATUS"),
];

/// What the templates of a volume list know.
pub(crate) fn row(volume: &Volume) -> Row {
    let (links, size) = match &volume.usage_data {
        Some(usage) => (usage.ref_count.to_string(), bytes_1000(usage.size as f64)),
        None => ("N/A".to_string(), "N/A".to_string()),
    };
    Row::default()
        .with("Name", volume.name.clone())
        .with("Driver", volume.driver.clone())
        .with("Scope", volume.scope.clone())
        .with("Mountpoint", volume.mountpoint.clone())
        .with("Links", links)
        .with("Size", size)
        .with("Availability", "N/A")
        .with("Group", "N/A")
        .with("Status", "N/A")
        .with_labels(&volume.labels.clone().unwrap_or_default())
}
