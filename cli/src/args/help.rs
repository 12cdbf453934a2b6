//! `--help`, in Docker's layout, written from clap's definitions.

use clap::{Arg, ArgAction, Command};

use super::flags::{is_switch, spelled};
use crate::plugins::Plugin;

/// The widest help text in columns, as Docker has it when the terminal does not say.
const WIDTH: usize = 80;

/// The commands that the first screen shows first.
const COMMON: [&str; 12] = [
    "run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version",
    "info",
];

/// The usage lines of a command, without the word "Usage".
pub(crate) fn usage(command: &Command, path: &[String]) -> String {
    let name = std::iter::once("docker-lite")
        .chain(path.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(" ");
    let tail = command
        .get_overridden_usage()
        .map(|usage| usage.to_string());
    match tail {
        Some(tail) => tail
            .split('\n')
            .map(|line| format!("{name} {}", line.trim()))
            .collect::<Vec<_>>()
            .join("\n\t"),
        None if path.is_empty() => format!("{name} [OPTIONS] COMMAND"),
        None if command.has_subcommands() => format!("{name} COMMAND"),
        None => name,
    }
}

/// The whole help of a command; the first screen lists the plugins too.
pub(crate) fn help(command: &Command, path: &[String], plugins: &[Plugin]) -> String {
    let mut out = format!("Usage:  {}\n", usage(command, path));
    if let Some(about) = command.get_about() {
        out += &format!("\n{about}\n");
    }
    if let Some(aliases) = command.get_before_help() {
        let names = aliases.to_string();
        let names: Vec<String> = names
            .split(',')
            .map(|name| format!("docker-lite {}", name.trim()))
            .collect();
        out += &format!("\nAliases:\n  {}\n", names.join(", "));
    }
    if command.has_subcommands() {
        out += &commands(command, path.is_empty(), plugins);
    }
    let title = if path.is_empty() {
        "Global Options"
    } else {
        "Options"
    };
    out += &options(command, title);
    if command.has_subcommands() {
        let name = std::iter::once("docker-lite")
            .chain(path.iter().map(String::as_str))
            .collect::<Vec<_>>()
            .join(" ");
        out += &format!("\nRun '{name} COMMAND --help' for more information on a command.\n");
    }
    out
}

fn commands(command: &Command, root: bool, plugins: &[Plugin]) -> String {
    let mut all: Vec<&Command> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .collect();
    all.sort_by_key(|sub| sub.get_name().to_string());
    let line = |sub: &Command| {
        let about = sub.get_about().map(|text| text.to_string());
        (sub.get_name().to_string(), about.unwrap_or_default())
    };
    let section = |title: &str, list: Vec<(String, String)>| {
        if list.is_empty() {
            return String::new();
        }
        let lines = list
            .iter()
            .map(|(name, about)| format!("  {name:<11} {about}\n"));
        format!("\n{title}:\n{}", lines.collect::<String>())
    };
    if !root {
        return section("Commands", all.into_iter().map(line).collect());
    }
    let common = COMMON
        .iter()
        .filter_map(|name| all.iter().find(|sub| sub.get_name() == *name).copied())
        .map(line)
        .collect();
    let (groups, plain): (Vec<&Command>, Vec<&Command>) = all
        .into_iter()
        .filter(|sub| !COMMON.contains(&sub.get_name()))
        .partition(|sub| sub.has_subcommands());
    let mut groups: Vec<(String, String)> = groups.into_iter().map(line).collect();
    groups.extend(plugins.iter().map(|plugin| {
        let name = format!("{}*", plugin.name);
        (name, plugin.metadata.short_description.clone())
    }));
    groups.sort();
    section("Common Commands", common)
        + &section("Management Commands", groups)
        + &section("Commands", plain.into_iter().map(line).collect())
}

fn options(command: &Command, title: &str) -> String {
    let mut flags: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some() && !arg.is_hide_set())
        .collect();
    if flags.is_empty() {
        return String::new();
    }
    flags.sort_by_key(|arg| arg.get_long().map(str::to_string));
    let left: Vec<String> = flags.iter().map(|arg| left_column(arg)).collect();
    let indent = left
        .iter()
        .map(|text| text.chars().count())
        .max()
        .unwrap_or(0)
        + 3;
    let mut out = format!("\n{title}:\n");
    for (arg, left) in flags.iter().zip(&left) {
        let about = arg
            .get_help()
            .map(|text| text.to_string())
            .unwrap_or_default();
        let wrapped =
            wrap(&about, WIDTH.saturating_sub(indent).max(24)).join(&format!("\n{:indent$}", ""));
        out += &format!("{left:<indent$}{wrapped}\n");
    }
    out
}

fn left_column(arg: &Arg) -> String {
    let kind = match arg.get_value_names().and_then(|names| names.first()) {
        _ if is_switch(arg) => String::new(),
        Some(name) if name.chars().any(|c| c.is_ascii_lowercase()) => format!(" {name}"),
        _ if matches!(arg.get_action(), ArgAction::Append) => " list".to_string(),
        _ => " string".to_string(),
    };
    match arg.get_short() {
        Some(_) => format!("  {}{kind}", spelled(arg)),
        None => format!("      {}{kind}", spelled(arg)),
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
            } else if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_wrap_under_themselves() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a\nb", 7), ["a", "b"]);
    }
}
