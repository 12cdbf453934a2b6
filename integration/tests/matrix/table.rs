//! What came of each cell: kept in a file for a run that goes on later, printed as markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use integration::rig::parts::Part as _;

use crate::Cell;

/// What came of a cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Green,
    /// It fails for a reason that lies in a real peer.
    Named(String),
    /// A program is not here.
    Skipped(String),
    Red(String),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Green => f.write_str("green"),
            Self::Named(reason) => write!(f, "fails in the real peer: {reason}"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
            Self::Red(error) => write!(f, "RED: {error}"),
        }
    }
}

/// All outcomes by the names of their cells.
#[derive(Debug, Default)]
pub(crate) struct Table {
    outcomes: BTreeMap<String, Outcome>,
    file: Option<PathBuf>,
}

impl Table {
    /// Takes up what an earlier run found green or named; without `LITE_MATRIX_STATE` it starts anew.
    pub(crate) fn resume() -> Result<Self> {
        let Some(file) = std::env::var_os("LITE_MATRIX_STATE").map(PathBuf::from) else {
            return Ok(Self::default());
        };
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e).with_context(|| format!("read {}", file.display())),
        };
        let mut outcomes = BTreeMap::new();
        for line in text.lines() {
            // A torn last line is a cell that is run again.
            let Ok((name, reason)) = serde_json::from_str::<(String, Option<String>)>(line) else {
                continue;
            };
            outcomes.insert(name, reason.map_or(Outcome::Green, Outcome::Named));
        }
        let file = Some(file);
        Ok(Self { outcomes, file })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.outcomes.contains_key(name)
    }

    /// Keeps an outcome; the file holds those that need no second run.
    pub(crate) fn put(&mut self, cell: &Cell, outcome: Outcome) -> Result<()> {
        let kept = match &outcome {
            Outcome::Green => Some(None),
            Outcome::Named(reason) => Some(Some(reason)),
            _ => None,
        };
        if let (Some(file), Some(reason)) = (&self.file, kept) {
            let line = serde_json::to_string(&(cell.name(), reason))?;
            let mut file = std::fs::File::options()
                .create(true)
                .append(true)
                .open(file)?;
            writeln!(file, "{line}")?;
        }
        self.outcomes.insert(cell.name(), outcome);
        Ok(())
    }

    /// Rows are client and containerd, columns shim and runtime, as far as `cells` go.
    pub(crate) fn markdown(&self, cells: &[Cell]) -> String {
        let mut columns: Vec<(String, String)> = Vec::new();
        let mut rows: Vec<(String, String)> = Vec::new();
        for cell in cells.iter().filter(|cell| self.has(&cell.name())) {
            let column = (cell.shim.label(), cell.runtime.label());
            let row = (cell.client.label(), cell.middle.label());
            if !columns.contains(&column) {
                columns.push(column);
            }
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        let mut notes: Vec<String> = Vec::new();
        let mut text = String::from("| client | containerd |");
        for (shim, runtime) in &columns {
            write!(text, " {shim}, {runtime} |").expect("a string takes everything");
        }
        text.push_str(&format!("\n|{}\n", "---|".repeat(columns.len() + 2)));
        for (client, middle) in &rows {
            write!(text, "| {client} | {middle} |").expect("a string takes everything");
            for (shim, runtime) in &columns {
                let name = format!("{client} | {middle} | {shim} | {runtime}");
                let word = match self.outcomes.get(&name) {
                    None => "",
                    Some(Outcome::Green) => "ok",
                    Some(Outcome::Skipped(_)) => "-",
                    Some(Outcome::Red(_)) => "RED",
                    Some(Outcome::Named(reason)) => &note(&mut notes, reason),
                };
                write!(text, " {word} |").expect("a string takes everything");
            }
            text.push('\n');
        }
        for (at, reason) in notes.iter().enumerate() {
            writeln!(text, "({}) {reason}", at + 1).expect("a string takes everything");
        }
        text
    }

    pub(crate) fn counts(&self) -> String {
        let count = |fits: fn(&Outcome) -> bool| self.outcomes.values().filter(|o| fits(o)).count();
        format!(
            "{} green, {} fail in a real peer, {} red, {} skipped",
            count(|o| *o == Outcome::Green),
            count(|o| matches!(o, Outcome::Named(_))),
            count(|o| matches!(o, Outcome::Red(_))),
            count(|o| matches!(o, Outcome::Skipped(_)))
        )
    }

    pub(crate) fn red(&self) -> Vec<String> {
        let red = self.outcomes.iter();
        red.filter(|(_, outcome)| matches!(outcome, Outcome::Red(_)))
            .map(|(name, outcome)| format!("{name}: {outcome}"))
            .collect()
    }
}

/// The number of a reason's footnote.
fn note(notes: &mut Vec<String>, reason: &str) -> String {
    let at = match notes.iter().position(|known| known == reason) {
        Some(at) => at,
        None => {
            notes.push(reason.to_owned());
            notes.len() - 1
        }
    };
    format!("({})", at + 1)
}
