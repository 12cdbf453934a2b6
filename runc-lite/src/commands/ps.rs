//! `ps`: the processes of a container, by pid, or as the host's ps shows them.

use std::process::Command;

use super::{CommandError, Context, refuse, say};
use crate::args::Parsed;
use crate::error::Doing as _;

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let container = context.container(parsed)?;
    let pids: Vec<i32> = container
        .cgroup()?
        .pids(true)?
        .iter()
        .map(|p| p.as_raw_nonzero().get())
        .collect();
    match parsed.value("format").unwrap_or("table") {
        "json" => {
            let text: Vec<String> = pids.iter().map(i32::to_string).collect();
            match text.is_empty() {
                // As callers know it.
                true => say(format_args!("null\n")),
                false => say(format_args!("[{}]\n", text.join(","))),
            }
            return Ok(());
        }
        "table" => {}
        other => return refuse(format!("invalid format option \"{other}\"")),
    }
    let mut options = parsed.positionals.get(1..).unwrap_or_default().to_vec();
    if options.is_empty() {
        options.push("-ef".into());
    }
    let output = Command::new("ps")
        .args(&options)
        .output()
        .doing(|| "run ps")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return refuse(format!("ps {}: {said}", options.join(" ")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(shown) = only(&text, &pids) else {
        return refuse("couldn't find PID field in ps output");
    };
    say(format_args!("{shown}"));
    Ok(())
}

/// The heading and the lines whose PID column is in the list.
fn only(text: &str, pids: &[i32]) -> Option<String> {
    let mut lines = text.lines();
    let head = lines.next()?;
    let column = head.split_whitespace().position(|w| w == "PID")?;
    let mut shown = format!("{head}\n");
    for line in lines {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|w| w.parse().ok());
        if pid.is_some_and(|p: i32| pids.contains(&p)) {
            shown.push_str(line);
            shown.push('\n');
        }
    }
    Some(shown)
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_are_chosen_by_the_pid_column() {
        let text = "UID PID PPID\nroot 1 0\nroot 22 1\n";
        assert_eq!(
            super::only(text, &[22]).unwrap(),
            "UID PID PPID\nroot 22 1\n"
        );
        assert!(super::only("A B\n", &[1]).is_none());
    }
}
