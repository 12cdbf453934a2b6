//! `list`: all containers of this root.

use super::state::shown;
use super::{CommandError, Container, Context, refuse, say};
use crate::args::Parsed;
use crate::error::Doing as _;
use crate::state::StateDir;

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let mut names: Vec<String> = match std::fs::read_dir(&context.root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other
            .doing(|| format!("read {}", context.root.display()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect(),
    };
    names.sort();
    // One that is being made or removed just now is no container.
    let containers: Vec<Container> = names
        .iter()
        .filter_map(|n| Container::load(StateDir::new(&context.root, n).ok()?).ok())
        .collect();
    if parsed.switch("quiet") {
        for container in &containers {
            say(format_args!("{}\n", container.state.id));
        }
        return Ok(());
    }
    let rows: Vec<_> = containers.iter().map(shown).collect();
    match parsed.value("format").unwrap_or("table") {
        "json" => {
            let json = serde_json::to_string(&rows)
                .map_err(std::io::Error::from)
                .doing(|| "print the list")?;
            say(format_args!(
                "{}\n",
                if rows.is_empty() { "null" } else { &json }
            ));
        }
        "table" => {
            let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
            let line = |r: &super::state::Shown<'_>| {
                let bundle = r.bundle.display().to_string();
                [
                    r.id.to_owned(),
                    r.pid.to_string(),
                    r.status.to_owned(),
                    bundle,
                    r.created.to_owned(),
                    r.owner.clone(),
                ]
            };
            print!(
                "{}",
                table(std::iter::once(head).chain(rows.iter().map(line)).collect())
            );
        }
        other => return refuse(format!("invalid format option \"{other}\"")),
    }
    Ok(())
}

/// Columns of at least twelve, as runc's.
fn table(rows: Vec<[String; 6]>) -> String {
    let width = |i: usize| {
        rows.iter()
            .map(|r| r[i].len() + 3)
            .max()
            .unwrap_or(0)
            .max(12)
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:width$}"));
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}
