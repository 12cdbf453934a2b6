//! `events`: what happens, as it happens.
//!
//! A daemon that goes away is waited for. The stream then goes on a second before the last event that was printed; what
//! comes twice is known by its text and left out.

use std::collections::VecDeque;

use clap::ArgAction::Append;
use proto::engine::EventMessage;
use time::OffsetDateTime;

use super::{Session, filter, filters, moment, on_daemons_clock, stamp};
use crate::client::{Answer, ClientError, Patience};
use crate::error::{Failure, Outcome};
use crate::format::{Template, print};

/// How many of the last lines are remembered; more than a daemon keeps for those who come late.
const REMEMBERED: usize = 1024;
/// How far before the last event a stream goes on: events of one moment need not come in order.
const OVERLAP: time::Duration = time::Duration::SECOND;

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
    let mut listener = Listener {
        session,
        since: moment(&args.since)?,
        until: moment(&args.until)?,
        began: OffsetDateTime::now_utc(),
        seen: Seen::default(),
        template,
        args,
    };
    let mut patience = Patience::new(&session.client);
    let mut answer = listener.ask().await?;
    loop {
        let lost = loop {
            match answer.piece().await {
                Ok(Some(piece)) => {
                    listener.take(&piece)?;
                }
                // Without an end that was asked for, the end is the daemon's own.
                Ok(None) if listener.until.is_empty() => {
                    break answer.broken("the daemon ended the stream");
                }
                Ok(None) => return Ok(0),
                Err(error) => break error,
            }
        };
        answer = listener.again(lost, &mut patience).await?;
    }
}

struct Listener<'a> {
    session: &'a Session,
    args: Args,
    since: String,
    until: String,
    /// When we began, by our clock.
    began: OffsetDateTime,
    seen: Seen,
    template: Option<Template>,
}

impl Listener<'_> {
    async fn ask(&self) -> Result<Answer, ClientError> {
        self.session
            .client
            .get("/events")
            .query_some("filters", &filters(&self.args.filter))
            .query_some("since", &self.since)
            .query_some("until", &self.until)
            .send()
            .await
    }

    /// Waits for the daemon and asks for what follows.
    async fn again(
        &mut self,
        mut lost: ClientError,
        patience: &mut Patience<'_>,
    ) -> Result<Answer, Failure> {
        self.seen.rest.clear();
        loop {
            patience.wait(lost).await?;
            let answer = match self.go_on().await {
                Ok(()) => self.ask().await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => {
                    patience.fine();
                    return Ok(answer);
                }
                Err(error) => lost = error,
            }
        }
    }

    /// Moves the beginning to where the stream broke.
    async fn go_on(&mut self) -> Result<(), ClientError> {
        if self.since.is_empty() {
            let began = on_daemons_clock(&self.session.client, self.began).await?;
            self.since = stamp(began);
        }
        let first = super::from_stamp(&self.since);
        if let Some(last) = self.seen.last {
            let from = last - OVERLAP;
            self.since = stamp(first.map_or(from, |first| first.max(from)));
        }
        Ok(())
    }

    /// Prints the events that are complete with these bytes.
    fn take(&mut self, piece: &[u8]) -> Result<(), Failure> {
        for line in self.seen.lines(piece) {
            let wrong = |cause| Failure::new(format!("decode an event: {cause}"));
            let event: EventMessage = serde_json::from_slice(&line).map_err(wrong)?;
            if !self.seen.is_new(&line, at(&event)) {
                continue;
            }
            let text = match (&self.template, self.args.format.as_str()) {
                (Some(template), _) => {
                    template.render(&serde_json::from_slice(&line).map_err(wrong)?)?
                }
                (None, "json") => String::from_utf8_lossy(&line).into_owned(),
                (None, _) => plain(&event),
            };
            print(&format!("{text}\n"))?;
        }
        Ok(())
    }
}

/// What has come so far.
#[derive(Debug, Default)]
struct Seen {
    /// The beginning of a line that has not come to its end.
    rest: Vec<u8>,
    recent: VecDeque<Vec<u8>>,
    /// The time of the youngest event.
    last: Option<OffsetDateTime>,
}

impl Seen {
    /// The lines that end in these bytes.
    fn lines(&mut self, piece: &[u8]) -> Vec<Vec<u8>> {
        self.rest.extend_from_slice(piece);
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = line.trim_ascii();
            if !line.is_empty() {
                lines.push(line.to_vec());
            }
        }
        lines
    }

    /// Remembers an event; false if it came before.
    fn is_new(&mut self, line: &[u8], at: OffsetDateTime) -> bool {
        if self.recent.iter().any(|seen| seen == line) {
            return false;
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(line.to_vec());
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
        true
    }
}

/// When an event was.
fn at(event: &EventMessage) -> OffsetDateTime {
    let nanos = if event.time_nano != 0 {
        i128::from(event.time_nano)
    } else {
        i128::from(event.time) * 1_000_000_000
    };
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// One event on one line: time, object, action, and the attributes in brackets.
fn plain(event: &EventMessage) -> String {
    let (at, _) = crate::format::local(at(event));
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
    fn what_comes_twice_is_known() {
        let mut seen = Seen::default();
        assert_eq!(seen.lines(b"{}\r\n{\"a"), [b"{}".to_vec()]);
        assert_eq!(seen.lines(b"\":1}\n"), [b"{\"a\":1}".to_vec()]);
        let (early, late) = (OffsetDateTime::UNIX_EPOCH, OffsetDateTime::now_utc());
        assert!(seen.is_new(b"1", late));
        assert!(seen.is_new(b"2", early));
        assert!(!seen.is_new(b"1", late));
        assert_eq!(seen.last, Some(late));
    }

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
