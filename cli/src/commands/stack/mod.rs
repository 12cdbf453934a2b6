//! `stack ...`: the programs of the chain on the daemon's host.

mod chain;
mod doctor;

use clap::Subcommand;
use proto::lite::control::v1::{State, StatusResponse};

use super::Session;
use crate::error::{Failure, Outcome};
use crate::format::{Row, Style, duration, print_rows, tell};

/// `docker-lite stack ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Doctor(DoctorArgs),
    Status(StatusArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Look for what is wrong with the daemon's host, and say what to do",
    override_usage = ""
)]
pub(crate) struct DoctorArgs {}

#[derive(Debug, clap::Args)]
#[command(
    about = "Show the programs of the chain on the daemon's host",
    override_usage = "[OPTIONS]"
)]
pub(crate) struct StatusArgs {
    /// Format of the output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string", default_value = "")]
    format: String,
}

pub(crate) async fn run(session: &Session, verb: Verb) -> Outcome {
    match verb {
        Verb::Doctor(_) => doctor::run(session).await,
        Verb::Status(args) => status(session, &args.format).await,
    }
}

async fn status(session: &Session, format: &str) -> Outcome {
    let chain = chain::walk(session)
        .await
        .map_err(|error| Failure::new(error.to_string()))?;
    let rows: Vec<Row> = chain.programs.iter().map(row).collect();
    let headings = [
        ("Component", "COMPONENT"),
        ("Version", "VERSION"),
        ("Revision", "REVISION"),
        ("PID", "PID"),
        ("Uptime", "UPTIME"),
        ("State", "STATE"),
        ("Objects", "OBJECTS"),
        ("Listen", "LISTEN"),
        ("Downstream", "DOWNSTREAM"),
        ("StartedAt", "STARTED AT"),
    ];
    let table = "{{.Component}}\t{{.Version}}\t{{.PID}}\t{{.Uptime}}\t{{.State}}\t{{.Objects}}\t{{.Listen}}\t{{.Downstream}}";
    print_rows(
        format,
        Style {
            table,
            headings: &headings,
        },
        &rows,
    )?;
    for trouble in &chain.troubles {
        tell(&format!("WARNING: {trouble}\n"));
    }
    Ok(u8::from(!chain.troubles.is_empty()))
}

fn row(told: &StatusResponse) -> Row {
    let state = match told.state() {
        State::Unspecified => "unknown",
        State::Starting => "starting",
        State::Ready => "ready",
        State::Draining => "draining",
    };
    let started = told
        .started_at
        .and_then(|at| time::OffsetDateTime::from_unix_timestamp(at.seconds).ok());
    let uptime = started.map_or_else(String::new, |at| {
        duration((time::OffsetDateTime::now_utc() - at).whole_seconds())
    });
    let started = started
        .and_then(|at| {
            at.format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_default();
    Row::default()
        .with("Component", told.component.as_str())
        .with("Version", told.version.as_str())
        .with("Revision", told.revision.as_str())
        .with("PID", told.pid)
        .with("Uptime", uptime)
        .with("StartedAt", started)
        .with("State", state)
        .with("Objects", told.objects)
        .with("Listen", told.listen.join(","))
        .with("Downstream", told.downstream.as_str())
}
