//! `man`: the manual pages, one a command, written from the same definitions as `--help`.

use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};

use crate::args::{Cli, spelled, usage};
use crate::error::{Failure, Outcome};

#[derive(Debug, clap::Args)]
#[command(
    about = "Write the manual pages into a folder",
    hide = true,
    override_usage = "FOLDER"
)]
pub(crate) struct Args {
    #[arg(required = true)]
    folder: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    write(Path::new(&args.folder), &Cli::command(), &[])?;
    Ok(0)
}

fn write(folder: &Path, command: &Command, path: &[String]) -> Result<(), Failure> {
    let file = folder.join(format!("{}.1", name(path)));
    std::fs::write(&file, page(command, path))
        .map_err(|cause| Failure::new(format!("write {}: {cause}", file.display())))?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let below = [path, &[sub.get_name().to_string()]].concat();
        write(folder, sub, &below)?;
    }
    Ok(())
}

fn name(path: &[String]) -> String {
    [&["docker-lite".to_string()], path].concat().join("-")
}

fn page(command: &Command, path: &[String]) -> String {
    let (name, about) = (name(path), plain(command.get_about()));
    let mut out = format!(
        ".TH {} 1 \"\" \"docker-lite {}\" \"Docker-lite\"\n.SH NAME\n{} \\- {}\n.SH SYNOPSIS\n",
        roff(&name.to_uppercase()),
        env!("CARGO_PKG_VERSION"),
        roff(&name),
        roff(&about)
    );
    for line in usage(command, path).lines() {
        out += &format!(".nf\n{}\n.fi\n", roff(line.trim()));
    }
    let mut subs: Vec<&Command> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .collect();
    subs.sort_by_key(|sub| sub.get_name().to_string());
    if !subs.is_empty() {
        out += ".SH COMMANDS\n";
    }
    for sub in &subs {
        out += &format!(
            ".TP\n\\fB{}\\fR(1)\n{}\n",
            roff(&format!("{name}-{}", sub.get_name())),
            roff(&plain(sub.get_about()))
        );
    }
    let mut flags: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some() && !arg.is_hide_set())
        .collect();
    flags.sort_by_key(|arg| arg.get_long().map(str::to_string));
    if !flags.is_empty() {
        out += ".SH OPTIONS\n";
    }
    for arg in flags {
        out += &format!(
            ".TP\n\\fB{}\\fR\n{}\n",
            roff(&spelled(arg)),
            roff(&plain(arg.get_help()))
        );
    }
    if let Some(aliases) = command.get_before_help() {
        let names: Vec<String> = aliases
            .to_string()
            .split(',')
            .map(|name| format!("docker-lite {}", name.trim()))
            .collect();
        out += &format!(".SH ALIASES\n{}\n", roff(&names.join(", ")));
    }
    if path.is_empty() {
        out += ".SH ENVIRONMENT\nDOCKER_HOST, DOCKER_CONTEXT, DOCKER_CONFIG, DOCKER_API_VERSION, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH,\nDOCKER_DEFAULT_PLATFORM, DOCKER_LITE_RECONNECT\n";
        out += ".SH FILES\n~/.docker/config.json, ~/.docker/contexts, ~/.docker/cli\\-plugins\n";
    } else {
        let above = self::name(&path[..path.len() - 1]);
        out += &format!(".SH SEE ALSO\n\\fB{}\\fR(1)\n", roff(&above));
    }
    out
}

fn plain(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// Text as roff wants it: hyphens as typed, no line that begins a request.
fn roff(text: &str) -> String {
    text.lines()
        .map(|line| {
            let line = line.replace('\\', "\\e").replace('-', "\\-");
            match line.starts_with(['.', '\'']) {
                true => format!("\\&{line}"),
                false => line,
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &Cli::command(), &[]).unwrap();
        let run = std::fs::read_to_string(dir.path().join("docker-lite-run.1")).unwrap();
        assert!(run.contains(".SH NAME\ndocker\\-lite\\-run \\- "), "{run}");
        assert!(run.contains("\\fB\\-v, \\-\\-volume\\fR"), "{run}");
        assert!(dir.path().join("docker-lite-context-ls.1").exists());
        assert_eq!(roff(".x\n-'"), "\\&.x\n\\-'");
    }
}
