//! `events`: what happens, as it happens.

use clap::ArgAction::Append;
use proto::engine::EventMessage;
use time::OffsetDateTime;

use super::{Session, filter, filters, moment};
use crate::error::{Failure, Outcome};
use crate::format::{Template, print};

#[derive(Debug, clap::Args)]
#[command(
    about = "Show what happens in the daemon, as it happens",
    override_usage = "[OPTIONS]",
    before_help = "system events, events"
)]
pub(crate) struct Args {
    /// Show only what fits the condition
    #[arg(long, short = 'f', value_name = "filter", action = Append, value_parser = filter)]
    filter: Vec<String>,
    /// Format of the output: 'json' or a Go template
    #[arg(long, value_name = "string", default_value = "")]
    format: String,
    /// Show what has happened since then
    #[arg(long, value_name = "string", default_value = "")]
    since: String,
    /// End then
    #[arg(long, value_name = "string", default_value = "")]
    until: String,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let template = match args.format.as_str() {
        "" | "json" => None,
        source => Some(Template::parse(source)?),
    };
    let mut answer = session
        .client
        .get("/events")
        .query_some("filters", &filters(&args.filter))
        .query_some("since", &moment(&args.since)?)
        .query_some("until", &moment(&args.until)?)
        .send()
        .await?;
    let mut buffer = Vec::new();
    while let Some(piece) = answer.piece().await? {
        buffer.extend_from_slice(&piece);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            let wrong = |cause| Failure::new(format!("decode an event: {cause}"));
            let text = match (&template, args.format.as_str()) {
                (Some(template), _) => {
                    template.render(&serde_json::from_slice(line).map_err(wrong)?)?
                }
                (None, "json") => String::from_utf8_lossy(line).into_owned(),
                (None, _) => plain(&serde_json::from_slice(line).map_err(wrong)?),
            };
            print(&format!("{text}\n"))?;
        }
    }
    Ok(0)
}

/// One event on one line: time, object, action, and the attributes in brackets.
fn plain(event: &EventMessage) -> String {
    let nanos = if event.time_nano != 0 {
        i128::from(event.time_nano)
    } else {
        i128::from(event.time) * 1_000_000_000
    };
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (at, _) = crate::format::local(at);
    let mut out = format!(
        "{}T{:02}:{:02}:{:02}.{:09}{} {} {} {}",
        at.date(),
        at.hour(),
        at.minute(),
        at.second(),
        at.nanosecond(),
        super::zone_mark(at.offset()),
        event.kind,
        event.action,
        event.actor.id
    );
    if !event.actor.attributes.is_empty() {
        let pairs: Vec<String> = event
            .actor
            .attributes
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        out += &format!(" ({})", pairs.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_fits_a_line() {
        let event: EventMessage = serde_json::from_str(
            r#"{"Type":"container","Action":"die","Actor":{"ID":"ab","Attributes":{"name":"x","exitCode":"3"}},"timeNano":1700000000000000001}"#,
        )
        .unwrap();
        let text = plain(&event);
        assert!(text.contains(":13:20.000000001"), "{text}");
        assert!(
            text.ends_with(" container die ab (exitCode=3, name=x)"),
            "{text}"
        );
    }
}
