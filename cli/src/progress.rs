//! The progress of pull, push, load and import.
//!
//! The daemon sends one JSON object a line. On a terminal each layer keeps a line of its own that is
//! written over; elsewhere each step is one plain line, and the moving bars are left out.

use std::collections::HashMap;
use std::fmt::Write as _;

use proto::engine::{JsonProgress, ProgressDetail};

use crate::client::{Answer, ClientError};
use crate::error::Failure;
use crate::format::{bytes_1000, print};
use crate::terminal;

/// Shows the progress in an answer until its end. Gives the `aux` values that came along.
pub(crate) async fn show(answer: Answer, quiet: bool) -> Result<Vec<serde_json::Value>, Failure> {
    let mut screen = Screen::new(terminal::stdout_is_terminal());
    follow(answer, |line| {
        if quiet {
            Ok(())
        } else {
            Ok(print(&screen.draw(line))?)
        }
    })
    .await
}

/// The same on standard error, where `run` tells of a pull: its output is the container's.
pub(crate) async fn show_on_stderr(answer: Answer, quiet: bool) -> Result<(), Failure> {
    let mut screen = Screen::new(terminal::stderr_is_terminal());
    let draw = |line: &JsonProgress| {
        if !quiet {
            crate::format::tell(&screen.draw(line));
        }
        Ok(())
    };
    follow(answer, draw).await.map(drop)
}

async fn follow(
    answer: Answer,
    mut draw: impl FnMut(&JsonProgress) -> Result<(), Failure>,
) -> Result<Vec<serde_json::Value>, Failure> {
    let mut aux = Vec::new();
    each(answer, |line| {
        if let Some(value) = &line.aux {
            aux.push(value.clone());
        }
        if let Some(error) = &line.error_detail {
            return Err(failed(error.code, &error.message));
        }
        if !line.error.is_empty() {
            return Err(Failure::new(line.error.clone()));
        }
        draw(line)
    })
    .await?;
    Ok(aux)
}

fn failed(code: i64, message: &str) -> Failure {
    match u8::try_from(code) {
        Ok(code) if code > 0 => Failure::with_code(code, message),
        _ => Failure::new(message),
    }
}

/// Calls for each object of an answer.
async fn each(
    mut answer: Answer,
    mut call: impl FnMut(&JsonProgress) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut buffer = Vec::new();
    loop {
        let piece = answer.piece().await?;
        let ended = piece.is_none();
        buffer.extend_from_slice(&piece.unwrap_or_default());
        let mut stream = serde_json::Deserializer::from_slice(&buffer).into_iter::<JsonProgress>();
        let mut used = 0;
        loop {
            match stream.next() {
                Some(Ok(line)) => call(&line)?,
                Some(Err(error)) if error.is_eof() && !ended => break,
                Some(Err(source)) => {
                    return Err(ClientError::Decode {
                        attempt: "the progress of the request".to_string(),
                        source,
                    }
                    .into());
                }
                None => break,
            }
            used = stream.byte_offset();
        }
        buffer.drain(..used);
        if ended {
            return Ok(());
        }
    }
}

/// What is on the terminal.
#[derive(Debug)]
struct Screen {
    terminal: bool,
    columns: u16,
    /// The line of each id, counted from the top.
    lines: HashMap<String, usize>,
}

impl Screen {
    fn new(terminal: bool) -> Screen {
        Screen {
            terminal,
            columns: terminal::size().map_or(0, |(_, columns)| columns),
            lines: HashMap::new(),
        }
    }

    /// The text that brings the screen up to date.
    fn draw(&mut self, line: &JsonProgress) -> String {
        let moving = line
            .progress_detail
            .as_ref()
            .is_some_and(|detail| *detail != ProgressDetail::default());
        if !line.stream.is_empty() {
            return line.stream.clone();
        }
        if line.status.is_empty() {
            return String::new();
        }
        let mut text = String::new();
        if !line.id.is_empty() {
            let _ = write!(text, "{}: ", line.id);
        }
        text += &line.status;
        if !self.terminal {
            return if moving { String::new() } else { text + "\n" };
        }
        if let Some(detail) = line.progress_detail.as_ref().filter(|_| moving) {
            let _ = write!(text, " {}", bar(detail, self.columns));
        }
        // A step without moving parts, such as "Pulling from", starts below all lines.
        if line.id.is_empty() || line.progress_detail.is_none() {
            self.lines.clear();
            return text + "\n";
        }
        let count = self.lines.len();
        match self.lines.get(&line.id) {
            Some(at) => {
                let up = count - at;
                format!("\x1b[{up}A\x1b[2K\r{text}\x1b[{up}B\r")
            }
            None => {
                self.lines.insert(line.id.clone(), count);
                text + "\n"
            }
        }
    }
}

/// Terminals must be wider than this to show a bar: a line that wraps could not be written over.
const ROOM_FOR_A_BAR: u16 = 110;

/// `[====>    ]  1.2MB/3MB`, or only the sizes where there is no room.
fn bar(detail: &ProgressDetail, columns: u16) -> String {
    const WIDTH: i64 = 50;
    let (current, total) = (detail.current.max(0), detail.total);
    if total <= 0 {
        return format!("{:>8}", bytes_1000(current as f64));
    }
    let mut out = String::new();
    if columns > ROOM_FOR_A_BAR {
        let filled = (current.min(total) * WIDTH / total) as usize;
        out.push('[');
        out.extend(std::iter::repeat_n('=', filled));
        if filled < WIDTH as usize {
            out.push('>');
            out.extend(std::iter::repeat_n(' ', WIDTH as usize - filled - 1));
        }
        out += "] ";
    }
    if detail.hide_counts {
        return out;
    }
    let (current, total) = match detail.units.as_str() {
        "" => (bytes_1000(current as f64), bytes_1000(total as f64)),
        units => (current.to_string(), format!("{total} {units}")),
    };
    format!("{out}{current:>8}/{total}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> JsonProgress {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn without_a_terminal_only_steps_are_told() {
        let mut screen = Screen::new(false);
        assert_eq!(
            screen.draw(&line(r#"{"status":"Pulling from x","id":"latest"}"#)),
            "latest: Pulling from x\n"
        );
        assert_eq!(
            screen.draw(&line(
                r#"{"status":"Pulling fs layer","progressDetail":{},"id":"ab"}"#
            )),
            "ab: Pulling fs layer\n"
        );
        assert_eq!(
            screen.draw(&line(
                r#"{"status":"Downloading","progressDetail":{"current":1,"total":2},"id":"ab"}"#
            )),
            ""
        );
        assert_eq!(screen.draw(&line(r#"{"stream":"Loaded\n"}"#)), "Loaded\n");
    }

    #[test]
    fn on_a_terminal_each_layer_has_a_line() {
        let mut screen = Screen::new(true);
        screen.columns = 120;
        assert_eq!(
            screen.draw(&line(
                r#"{"status":"Waiting","progressDetail":{},"id":"a"}"#
            )),
            "a: Waiting\n"
        );
        assert_eq!(
            screen.draw(&line(
                r#"{"status":"Waiting","progressDetail":{},"id":"b"}"#
            )),
            "b: Waiting\n"
        );
        let text = screen.draw(&line(
            r#"{"status":"Downloading","progressDetail":{"current":500,"total":1000},"id":"a"}"#,
        ));
        assert!(
            text.starts_with("\x1b[2A\x1b[2K\ra: Downloading [====="),
            "{text:?}"
        );
        assert!(
            text.contains("500B/1kB") && text.ends_with("\x1b[2B\r"),
            "{text:?}"
        );
    }

    #[test]
    fn bars_have_fifty_places() {
        let half = ProgressDetail {
            current: 1,
            total: 2,
            ..ProgressDetail::default()
        };
        assert_eq!(bar(&half, 120).find(']'), Some(51));
        let odd = ProgressDetail {
            current: 9,
            total: 2,
            ..ProgressDetail::default()
        };
        assert_eq!(bar(&half, 80), "      1B/2B");
        assert!(bar(&odd, 120).contains(&"=".repeat(50)));
    }
}
