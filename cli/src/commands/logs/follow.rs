//! `logs -f` across restarts of the daemon.
//!
//! The daemon is asked for time stamps, wanted by the user or not: with them the stream goes on where it broke. It is asked for
//! everything since the last message that was printed, and of the messages that come again, as many are left out as were
//! printed with that stamp. A message is printed in one piece or not at all, but on a terminal's log, which has no frames.
//!
//! ```text
//!  answer --> Messages (frames, or lines of a tty) --> Place (new or seen) --> [stamp taken off] --> printed
//!     ^                                                  |
//!     '------- lost, waited for, since=LAST STAMP <------'
//! ```

use std::collections::{HashMap, VecDeque};

use proto::engine::ContainerInspect;
use time::OffsetDateTime;

use super::super::{Session, on_daemons_clock, stamp};
use super::{Args, write};
use crate::client::{Answer, ClientError, Patience};
use crate::error::{Failure, Outcome};
use crate::stream::{Message, Messages};

/// How many messages are remembered: far more than share one moment or come out of order.
const REMEMBERED: usize = 8192;
/// How far before the last message a log comes again.
const OVERLAP: time::Duration = time::Duration::SECOND;

/// Prints what there is and what follows, until the container ends or `until` has come.
pub(super) async fn follow(
    session: &Session,
    container: &ContainerInspect,
    args: &Args,
    since: &str,
    until: &str,
) -> Outcome {
    let began = OffsetDateTime::now_utc();
    let mut request = Request {
        session,
        args,
        id: &container.id,
        since: since.to_string(),
        tail: args.tail.clone(),
        until,
        began: None,
    };
    let mut patience = Patience::new(&session.client);
    let mut place = Place::default();
    let mut answer = request.send().await?;
    loop {
        let mut messages = Messages::new(container.config.tty);
        let lost = loop {
            match answer.piece().await {
                Ok(Some(bytes)) => {
                    for message in messages.feed(&bytes)? {
                        print(&mut place, &message, args.timestamps)?;
                    }
                }
                Ok(None) => match end(session, container, &messages, &answer, until).await {
                    Ok(()) => return Ok(0),
                    Err(error) => break error,
                },
                Err(error) => break error,
            }
        };
        // Nothing came for a while, so there was nothing from before that is wanted.
        if OffsetDateTime::now_utc() - began > time::Duration::SECOND {
            request.began = Some(began);
        }
        answer = again(&mut request, &mut place, lost, &mut patience).await?;
    }
}

/// Whether the end of the answer is the end of the log.
async fn end(
    session: &Session,
    container: &ContainerInspect,
    messages: &Messages,
    answer: &Answer,
    until: &str,
) -> Result<(), ClientError> {
    if messages.is_cut() {
        return Err(answer.broken("the stream ended in the middle of a message"));
    }
    if !until.is_empty() {
        return Ok(());
    }
    // A daemon that is told to stop ends its streams in good order, and the container goes on.
    let path = format!("/containers/{}/json", container.id);
    let now: ContainerInspect = match session.client.get(&path).json().await {
        Ok(now) => now,
        Err(error) if error.is_loss() => return Err(error),
        // Removed, most likely.
        Err(_) => return Ok(()),
    };
    if now.state.running && now.state.started_at == container.state.started_at {
        return Err(answer.broken("the daemon ended the stream"));
    }
    Ok(())
}

/// Waits for the daemon and asks for what follows.
async fn again(
    request: &mut Request<'_>,
    place: &mut Place,
    mut lost: ClientError,
    patience: &mut Patience<'_>,
) -> Result<Answer, Failure> {
    loop {
        patience.wait(lost).await?;
        lost = match request.go_on(place).await {
            Ok(answer) => {
                patience.fine();
                return Ok(answer);
            }
            Err(error) if error.is_not_found() => {
                return Err(Failure::new(format!(
                    "container {} was removed while the daemon was away, and its log with it",
                    request.args.container
                )));
            }
            Err(error) => error,
        };
    }
}

/// What is asked for.
struct Request<'a> {
    session: &'a Session,
    args: &'a Args,
    id: &'a str,
    since: String,
    tail: String,
    until: &'a str,
    /// When we began, by our clock, if all that is wanted was written later.
    began: Option<OffsetDateTime>,
}

impl Request<'_> {
    async fn send(&self) -> Result<Answer, ClientError> {
        super::request(self.session, self.id, self.args)
            .query_some("since", &self.since)
            .query("tail", &self.tail)
            .query("timestamps", 1)
            .query_some("until", self.until)
            .send()
            .await
    }

    async fn go_on(&mut self, place: &mut Place) -> Result<Answer, ClientError> {
        match (place.resume(), self.began) {
            (Some(from), _) => {
                self.since = stamp(from);
                self.tail = "all".to_string();
            }
            (None, Some(began)) if self.tail != "all" => {
                self.since = stamp(on_daemons_clock(&self.session.client, began).await?);
                self.tail = "all".to_string();
            }
            (None, _) => {}
        }
        self.send().await
    }
}

fn print(place: &mut Place, message: &Message, with_stamp: bool) -> Result<(), Failure> {
    let (fresh, skip) = place.take(message);
    if !fresh {
        return Ok(());
    }
    if with_stamp && skip == 0 {
        write(message.stream, &message.stamp_text)?;
    }
    write(message.stream, &message.text[skip..])
}

/// A stream and a moment: what a message is known by.
type Key = (u8, OffsetDateTime);

/// What was printed last.
#[derive(Debug, Default)]
struct Place {
    recent: VecDeque<Key>,
    /// The earliest moment of all: of a tail, what was before it is not wanted.
    first: Option<OffsetDateTime>,
    /// How many of each of them are to come again.
    again: HashMap<Key, usize>,
    /// How many bytes of the last message were printed, while it has no end.
    open: usize,
    /// The same at the time of the loss: that message comes again as well.
    cut: Option<(Key, usize)>,
    /// Whether the message whose pieces come is one that was printed.
    skipping: bool,
}

impl Place {
    /// Whether a message, or a piece of one, is to be printed, and from which byte.
    fn take(&mut self, message: &Message) -> (bool, usize) {
        let Some(at) = message.at else {
            // Goes on with the message before.
            return match self.skipping {
                true => self.rest_of_cut(message),
                false => (true, self.printed(message, 0)),
            };
        };
        let key = (message.stream, at);
        match self.again.get_mut(&key) {
            Some(left) if *left > 0 => {
                *left -= 1;
                self.skipping = true;
                let last_of_these = *left == 0;
                match &self.cut {
                    Some((cut, _)) if *cut == key && last_of_these => self.rest_of_cut(message),
                    _ => (false, 0),
                }
            }
            _ => {
                self.skipping = false;
                if self.recent.len() == REMEMBERED {
                    self.recent.pop_front();
                }
                self.recent.push_back(key);
                self.first = Some(self.first.map_or(at, |first| first.min(at)));
                self.open = 0;
                (true, self.printed(message, 0))
            }
        }
    }

    /// Of the message that the loss cut, what was not printed.
    fn rest_of_cut(&mut self, message: &Message) -> (bool, usize) {
        let Some((_, done)) = &mut self.cut else {
            return (false, 0);
        };
        if *done >= message.text.len() {
            *done -= message.text.len();
            return (false, 0);
        }
        let skip = *done;
        self.cut = None;
        self.skipping = false;
        (true, self.printed(message, skip))
    }

    fn printed(&mut self, message: &Message, skip: usize) -> usize {
        match message.text.last() {
            Some(b'\n') => self.open = 0,
            _ => self.open += message.text.len(),
        }
        skip
    }

    /// From when the log is to come again, after a loss; none if nothing was printed.
    fn resume(&mut self) -> Option<OffsetDateTime> {
        self.again.clear();
        for key in &self.recent {
            *self.again.entry(*key).or_default() += 1;
        }
        self.skipping = false;
        let last = *self.recent.back()?;
        self.cut = (self.open > 0).then_some((last, self.open));
        // Messages that were written at once need not come in order, but what is not remembered must not come.
        let overlap = self.first?.max(last.1 - OVERLAP);
        match self.recent.front() {
            Some(oldest) if self.recent.len() == REMEMBERED => Some(overlap.max(oldest.1)),
            _ => Some(overlap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(stream: u8, second: i64, text: &str) -> Message {
        Message {
            stream,
            at: OffsetDateTime::from_unix_timestamp(second).ok(),
            stamp_text: Vec::new(),
            text: text.into(),
        }
    }

    fn feed(place: &mut Place, messages: &[Message]) -> String {
        let mut out = String::new();
        for message in messages {
            if let (true, skip) = place.take(message) {
                out += &String::from_utf8_lossy(&message.text[skip..]);
            }
        }
        out
    }

    #[test]
    fn what_was_printed_is_not_printed_again() {
        let mut place = Place::default();
        let first = [
            message(1, 10, "a\n"),
            message(2, 12, "b\n"),
            message(1, 11, "c\n"),
            message(1, 11, "c\n"),
        ];
        assert_eq!(feed(&mut place, &first), "a\nb\nc\nc\n");
        // nothing earlier than what came first: with a tail it was not wanted
        assert_eq!(place.resume().unwrap().unix_timestamp(), 10);
        let mut tail = Place::default();
        feed(&mut tail, &[message(1, 10, "b\n")]);
        assert_eq!(tail.resume().unwrap().unix_timestamp(), 10);
        let mut second = first.to_vec();
        second.push(message(1, 11, "d\n"));
        second.push(message(1, 13, "e\n"));
        assert_eq!(feed(&mut place, &second), "d\ne\n");
        place.resume();
        second.push(message(1, 13, "f\n"));
        assert_eq!(feed(&mut place, &second), "f\n");
    }

    #[test]
    fn a_message_that_was_cut_goes_on() {
        let mut place = Place::default();
        let more = |text: &str| Message {
            at: None,
            ..message(1, 0, text)
        };
        let first = [message(1, 10, "a\n"), message(1, 11, "lo"), more("ng li")];
        assert_eq!(feed(&mut place, &first), "a\nlong li");
        place.resume();
        let second = [
            message(1, 10, "a\n"),
            message(1, 11, "long "),
            more("line\n"),
            message(1, 12, "b\n"),
        ];
        assert_eq!(feed(&mut place, &second), "ne\nb\n");
    }
}
