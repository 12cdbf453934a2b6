//! Reads a command line by Docker's rules and rewrites it for clap.
//!
//! clap holds the definitions, but Docker's users rely on the habits of another parser: `-it`,
//! `-p80:80`, `-i=false`, `--rm=false`, the last of a repeated flag wins, flags may stand between
//! arguments except after the image of `run`, and errors have their own words. So each word is read
//! here first, with clap's definitions as the table, and comes out in one plain form:
//!
//! ```text
//! docker-lite [--long[=value]]... command [--long[=value]]... -- argument...
//! ```
//!
//! Counting the arguments happens here too, because the error names the whole command.

use clap::{Arg, ArgAction, Command};

use super::UsageError;

/// The command line in its plain form.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plain {
    /// The words for clap, program name included.
    pub(crate) words: Vec<String>,
    /// The names of the commands that lead to the one that is meant.
    pub(crate) path: Vec<String>,
    /// `--help` was given.
    pub(crate) help: bool,
}

/// Reads the words after the program's name.
pub(crate) fn plain(root: &Command, words: &[String]) -> Result<Plain, UsageError> {
    let mut out = Plain {
        words: vec![root.get_name().to_string()],
        ..Plain::default()
    };
    let mut command = root;
    let mut rest = words;
    loop {
        let level = level(command, &out.path, rest)?;
        out.words
            .extend(level.flags.into_iter().map(|(_, word)| word));
        out.help |= level.help;
        if !command.has_subcommands() {
            if !out.help {
                count(command, &out.path, level.arguments.len())?;
            }
            out.words.push("--".to_string());
            out.words.extend(level.arguments);
            return Ok(out);
        }
        let Some((name, after)) = level.arguments.split_first() else {
            return Ok(out);
        };
        if out.path.is_empty() && name == "help" {
            out.help = true;
            rest = &words[words.len() - after.len()..];
            if after.is_empty() {
                return Ok(out);
            }
            continue;
        }
        command = command
            .find_subcommand(name)
            .ok_or_else(|| UsageError::unknown_command(command, &out.path, name))?;
        out.path.push(name.clone());
        out.words.push(command.get_name().to_string());
        rest = &words[words.len() - after.len()..];
    }
}

/// The word that names the command, after the global flags; for `help x` it is x.
pub(crate) fn command_word(root: &Command, words: &[String]) -> Option<String> {
    let level = level(root, &[], words).ok()?;
    let mut arguments = level.arguments.into_iter();
    match arguments.next()? {
        help if help == "help" => arguments.next(),
        name => Some(name),
    }
}

/// The value of a global flag, if it is given.
pub(crate) fn value_before_command(root: &Command, words: &[String], long: &str) -> Option<String> {
    let level = level(root, &[], words).ok()?;
    let (_, word) = level.flags.into_iter().find(|(name, _)| name == long)?;
    Some(word.split_once('=')?.1.to_string())
}

/// The flags and arguments of one command.
#[derive(Default)]
struct Level {
    flags: Vec<(String, String)>,
    arguments: Vec<String>,
    help: bool,
}

fn level(command: &Command, path: &[String], words: &[String]) -> Result<Level, UsageError> {
    let stops = command.get_positionals().any(Arg::is_trailing_var_arg_set);
    let interspersed = !command.has_subcommands() && !stops;
    let usage = |text: String| UsageError::flag(command, path, text);
    let mut out = Level::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            out.arguments.extend(words.cloned());
            break;
        } else if let Some(long) = word.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_string())),
                None => (long, None),
            };
            if name.is_empty() {
                return Err(usage(format!("bad flag syntax: {word}")));
            }
            let Some(arg) = by_long(command, name) else {
                if name == "help" {
                    out.help = true;
                    continue;
                }
                return Err(usage(format!("unknown flag: --{name}")));
            };
            let value = match value {
                Some(value) => value,
                None if is_switch(arg) => "true".to_string(),
                None => words
                    .next()
                    .cloned()
                    .ok_or_else(|| usage(format!("flag needs an argument: --{name}")))?,
            };
            set(&mut out.flags, arg, &value).map_err(usage)?;
        } else if word.len() > 1 && word.starts_with('-') {
            shorts(command, word, &mut words, &mut out).map_err(usage)?;
        } else {
            out.arguments.push(word.clone());
            if !interspersed {
                out.arguments.extend(words.cloned());
                break;
            }
        }
    }
    Ok(out)
}

/// Reads a word such as `-it`, `-p80:80`, `-i=false` or `-e` (with the next word as its value).
fn shorts<'a>(
    command: &Command,
    word: &str,
    words: &mut impl Iterator<Item = &'a String>,
    out: &mut Level,
) -> Result<(), String> {
    for (at, letter) in word[1..].char_indices() {
        let after = &word[1 + at + letter.len_utf8()..];
        let Some(arg) = by_short(command, letter) else {
            if letter == 'h' {
                out.help = true;
                return Ok(());
            }
            return Err(format!("unknown shorthand flag: '{letter}' in {word}"));
        };
        if let Some(value) = after.strip_prefix('=') {
            return set(&mut out.flags, arg, value);
        }
        if is_switch(arg) {
            set(&mut out.flags, arg, "true")?;
            continue;
        }
        if !after.is_empty() {
            return set(&mut out.flags, arg, after);
        }
        let value = words
            .next()
            .ok_or_else(|| format!("flag needs an argument: '{letter}' in {word}"))?;
        return set(&mut out.flags, arg, value);
    }
    Ok(())
}

/// Records one flag in its plain form; the last of a flag that is no list wins.
fn set(flags: &mut Vec<(String, String)>, arg: &Arg, value: &str) -> Result<(), String> {
    let long = arg.get_long().unwrap_or_default().to_string();
    if !matches!(arg.get_action(), ArgAction::Append) {
        flags.retain(|(name, _)| *name != long);
    }
    if !is_switch(arg) {
        flags.push((long.clone(), format!("--{long}={value}")));
        return Ok(());
    }
    let on = match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
        _ => {
            return Err(format!(
                "invalid argument {value:?} for {:?} flag: strconv.ParseBool: parsing {value:?}: invalid syntax",
                spelled(arg)
            ));
        }
    };
    match arg.get_action() {
        ArgAction::SetTrue if on => flags.push((long.clone(), format!("--{long}"))),
        ArgAction::SetTrue => {}
        _ => flags.push((long.clone(), format!("--{long}={on}"))),
    }
    Ok(())
}

/// A flag as errors and help spell it: `-m, --memory`.
pub(crate) fn spelled(arg: &Arg) -> String {
    match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, None) => String::new(),
    }
}

/// Whether a flag needs no value: a plain switch, or one that can also be set to false.
pub(crate) fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
        || arg
            .get_num_args()
            .is_some_and(|range| range.min_values() == 0)
}

pub(crate) fn by_long<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| {
        arg.get_long() == Some(name)
            || arg
                .get_all_aliases()
                .is_some_and(|aliases| aliases.contains(&name))
    })
}

fn by_short(command: &Command, letter: char) -> Option<&Arg> {
    command
        .get_arguments()
        .find(|arg| arg.get_short() == Some(letter))
}

/// Checks the number of arguments against what the command takes.
fn count(command: &Command, path: &[String], given: usize) -> Result<(), UsageError> {
    let (mut least, mut most) = (0, 0usize);
    for arg in command.get_positionals() {
        let range = arg.get_num_args().unwrap_or_else(|| 1.into());
        if arg.is_required_set() {
            least += range.min_values().max(1);
        }
        most = most.saturating_add(range.max_values());
    }
    if (least..=most).contains(&given) {
        return Ok(());
    }
    let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
    let (text, pointer) = if most == 0 {
        ("accepts no arguments".to_string(), "Run")
    } else if least == most {
        (format!("requires {least} {}", plural(least)), "Run")
    } else if given < least && most == usize::MAX {
        (
            format!("requires at least {least} {}", plural(least)),
            "See",
        )
    } else if least == 0 {
        (format!("requires at most {most} {}", plural(most)), "See")
    } else {
        (
            format!(
                "requires at least {least} and at most {most} {}",
                plural(most)
            ),
            "Run",
        )
    };
    Err(UsageError::arguments(command, path, &text, pointer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Command {
        let switch = |name: &'static str, short| {
            let arg = Arg::new(name).long(name).action(ArgAction::SetTrue);
            if short == ' ' { arg } else { arg.short(short) }
        };
        Command::new("docker-lite")
            .disable_help_subcommand(true)
            .disable_help_flag(true)
            .arg(
                Arg::new("host")
                    .long("host")
                    .short('H')
                    .action(ArgAction::Append),
            )
            .subcommand(
                Command::new("run")
                    .disable_help_flag(true)
                    .arg(switch("interactive", 'i'))
                    .arg(switch("tty", 't'))
                    .arg(switch("rm", ' '))
                    .arg(
                        Arg::new("publish")
                            .long("publish")
                            .short('p')
                            .action(ArgAction::Append),
                    )
                    .arg(Arg::new("network").long("network").alias("net"))
                    .arg(
                        Arg::new("words")
                            .num_args(1..)
                            .required(true)
                            .trailing_var_arg(true),
                    ),
            )
            .subcommand(
                Command::new("rm")
                    .disable_help_flag(true)
                    .arg(switch("force", 'f'))
                    .arg(Arg::new("names").num_args(1..).required(true)),
            )
    }

    fn read(line: &str) -> Result<String, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        plain(&root(), &words)
            .map(|p| p.words[1..].join(" "))
            .map_err(|e| e.text)
    }

    #[test]
    fn every_spelling_comes_out_in_one_form() {
        assert_eq!(
            read("-H unix:///x run -it -p80:80 -p 81:81 --net=a --net b --rm=false img -x --rm")
                .unwrap(),
            "--host=unix:///x run --interactive --tty --publish=80:80 --publish=81:81 --network=b -- img -x --rm"
        );
        assert_eq!(
            read("run -i=false --rm -- -odd").unwrap(),
            "run --rm -- -odd"
        );
        assert_eq!(read("rm a -f b").unwrap(), "rm --force -- a b");
    }

    #[test]
    fn errors_have_dockers_words() {
        let first = |line| {
            read(line)
                .unwrap_err()
                .lines()
                .next()
                .map(str::to_string)
                .unwrap_or_default()
        };
        assert_eq!(first("run --foo img"), "unknown flag: --foo");
        assert_eq!(first("run -itz img"), "unknown shorthand flag: 'z' in -itz");
        assert_eq!(first("run -p"), "flag needs an argument: 'p' in -p");
        assert_eq!(first("run --network"), "flag needs an argument: --network");
        assert_eq!(
            first("rm"),
            "docker-lite: 'docker-lite rm' requires at least 1 argument"
        );
        assert_eq!(first("zz"), "docker-lite: unknown command: docker-lite zz");
        assert_eq!(
            first("run --rm=x img"),
            "invalid argument \"x\" for \"--rm\" flag: strconv.ParseBool: parsing \"x\": invalid syntax"
        );
    }
}
