//! The command line: what the user typed, by a table per command.
//!
//! Callers write for Go's flag syntax, so that is what is read: `--name value`,
//! `--name=value`, a single dash before long names, `--switch=false`, options
//! after positional arguments (but not for commands that pass the rest on),
//! and `--` as an end of options. The tables in [`tables`] drive the help too.

pub(crate) mod tables;

use std::fmt::Write as _;

/// One option of a command.
#[derive(Debug)]
pub(crate) struct Opt {
    /// Long name first, then the short one.
    pub(crate) names: &'static [&'static str],
    /// Whether a value follows.
    pub(crate) value: bool,
    /// One line of help.
    pub(crate) help: &'static str,
}

/// One command.
#[derive(Debug)]
pub(crate) struct CommandTable {
    /// Its name.
    pub(crate) name: &'static str,
    /// One line of help.
    pub(crate) about: &'static str,
    /// Positional arguments, for the usage line.
    pub(crate) operands: &'static str,
    /// Least and greatest number of positional arguments.
    pub(crate) count: (usize, usize),
    /// Whether everything after the first positional is passed on as it is.
    pub(crate) passes_rest: bool,
    /// Its options.
    pub(crate) options: &'static [&'static [Opt]],
}

impl CommandTable {
    fn option(&self, name: &str) -> Option<&'static Opt> {
        self.options
            .iter()
            .copied()
            .flatten()
            .find(|o| o.names.contains(&name))
    }
}

/// A wrong command line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgsError {
    /// An option nobody knows.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// An option without its value.
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    /// A value that cannot be.
    #[error("invalid value \"{value}\" for flag -{name}: {why}")]
    Invalid {
        name: String,
        value: String,
        why: &'static str,
    },
    /// Too few or too many positionals.
    #[error("runc-lite: \"{command}\" requires {bound} {count} argument(s)")]
    Count {
        command: &'static str,
        bound: &'static str,
        count: usize,
    },
}

/// Options and positionals of one command line.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    options: Vec<(&'static str, String)>,
    /// Positional arguments.
    pub(crate) positionals: Vec<String>,
}

impl Parsed {
    /// Whether a switch is on.
    pub(crate) fn switch(&self, name: &str) -> bool {
        self.value(name).is_some_and(|v| v == "true")
    }

    /// The last value of an option.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.options
            .iter()
            .rev()
            .find(|(n, _)| *n == name)
            .map(|(_, v)| v.as_str())
    }

    /// All values of an option.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.options
            .iter()
            .filter(move |(n, _)| *n == name)
            .map(|(_, v)| v.as_str())
    }

    /// The last value of an option as a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ArgsError> {
        self.value(name)
            .map(|v| {
                v.parse().map_err(|_| ArgsError::Invalid {
                    name: name.to_owned(),
                    value: v.to_owned(),
                    why: "not a number in range",
                })
            })
            .transpose()
    }

    /// The first positional.
    pub(crate) fn id(&self) -> &str {
        self.positionals.first().map_or("", String::as_str)
    }
}

/// Reads options and positionals; gives back what follows where parsing stops
/// at the first positional (`stop`).
pub(crate) fn parse(
    table: &CommandTable,
    args: &[String],
    stop: bool,
) -> Result<(Parsed, usize), ArgsError> {
    let mut parsed = Parsed::default();
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        at += 1;
        if arg == "--" {
            parsed.positionals.extend_from_slice(&args[at..]);
            return Ok((parsed, at));
        }
        let name = match arg.strip_prefix('-') {
            Some(rest) if !rest.is_empty() => rest.strip_prefix('-').unwrap_or(rest),
            _ if stop => return Ok((parsed, at - 1)),
            _ if table.passes_rest => {
                parsed.positionals.extend_from_slice(&args[at - 1..]);
                break;
            }
            _ => {
                parsed.positionals.push(arg.clone());
                continue;
            }
        };
        let (name, inline) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (name, None),
        };
        let Some(option) = table.option(name) else {
            return Err(ArgsError::Unknown(name.to_owned()));
        };
        let value = match inline {
            Some(value) if option.value => value,
            Some(value) => boolean(name, &value)?,
            None if !option.value => "true".to_owned(),
            None => {
                let value = args
                    .get(at)
                    .ok_or_else(|| ArgsError::NoValue(name.to_owned()))?;
                at += 1;
                value.clone()
            }
        };
        parsed.options.push((option.names[0], value));
    }
    Ok((parsed, args.len()))
}

fn boolean(name: &str, value: &str) -> Result<String, ArgsError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true".into()),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false".into()),
        _ => Err(ArgsError::Invalid {
            name: name.to_owned(),
            value: value.to_owned(),
            why: "not a boolean",
        }),
    }
}

/// Checks the number of positionals.
pub(crate) fn check_count(table: &CommandTable, parsed: &Parsed) -> Result<(), ArgsError> {
    let (least, most) = table.count;
    let have = parsed.positionals.len();
    let (bound, count) = match have {
        _ if least == most && have != least => ("exactly", least),
        _ if have < least => ("a minimum of", least),
        _ if have > most => ("a maximum of", most),
        _ => return Ok(()),
    };
    Err(ArgsError::Count {
        command: table.name,
        bound,
        count,
    })
}

/// The help of one command.
pub(crate) fn command_help(table: &CommandTable) -> String {
    let mut text = format!(
        "NAME:\n   runc-lite {} - {}\n\nUSAGE:\n   runc-lite {} [command options] {}\n",
        table.name, table.about, table.name, table.operands
    );
    if table.options.iter().any(|o| !o.is_empty()) {
        text.push_str("\nOPTIONS:\n");
        text.push_str(&options_help(table));
    }
    text
}

/// The lines of the options, aligned.
fn options_help(table: &CommandTable) -> String {
    let left = |o: &Opt| {
        let names: Vec<String> = o
            .names
            .iter()
            .map(|n| {
                let dashes = if n.len() == 1 { "-" } else { "--" };
                format!("{dashes}{n}{}", if o.value { " value" } else { "" })
            })
            .collect();
        names.join(", ")
    };
    let all = || table.options.iter().copied().flatten();
    let width = all().map(|o| left(o).len()).max().unwrap_or(0);
    let mut text = String::new();
    for option in all() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "   {:width$}  {}", left(option), option.help);
    }
    text
}

/// The help of the program.
pub(crate) fn program_help() -> String {
    let mut text = String::from(
        "NAME:\n   runc-lite - Open Container Initiative runtime\n\n\
         runc-lite runs containers described by a bundle: a directory with a\n\
         config.json and a root file system. It has the command line of runc.\n\n\
         USAGE:\n   runc-lite [global options] command [command options] [arguments...]\n\n",
    );
    text.push_str("VERSION:\n   ");
    text.push_str(
        &version()
            .replace('\n', "\n   ")
            .replacen("runc-lite version ", "", 1),
    );
    text.push_str("\n\nCOMMANDS:\n");
    for table in tables::COMMANDS {
        let _ = writeln!(text, "   {:11} {}", table.name, table.about);
    }
    text.push_str("   help, h     show a list of commands or help for one command\n");
    text.push_str("\nGLOBAL OPTIONS:\n");
    text.push_str(&options_help(&tables::GLOBAL));
    text
}

/// The lines of `--version`.
pub(crate) fn version() -> String {
    format!(
        "runc-lite version {}\ncommit: {}\nspec: {}",
        env!("CARGO_PKG_VERSION"),
        env!("RUNC_LITE_COMMIT"),
        crate::spec::VERSION
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn command(name: &str) -> &'static CommandTable {
        tables::COMMANDS.iter().find(|t| t.name == name).unwrap()
    }

    #[test]
    fn options_may_follow_positionals_and_use_one_dash() {
        let (p, _) = parse(
            command("create"),
            &words("box -bundle /b --no-pivot=true --pid-file=p"),
            false,
        )
        .unwrap();
        assert_eq!(p.id(), "box");
        assert_eq!(p.value("bundle"), Some("/b"));
        assert!(p.switch("no-pivot"));
        assert_eq!(p.value("pid-file"), Some("p"));
    }

    #[test]
    fn exec_passes_the_rest_on() {
        let (p, _) = parse(
            command("exec"),
            &words("-t -e A=1 --env B=2 box ls -t --bad"),
            false,
        )
        .unwrap();
        assert_eq!(p.positionals, ["box", "ls", "-t", "--bad"]);
        assert_eq!(p.values("env").collect::<Vec<_>>(), ["A=1", "B=2"]);
    }

    #[test]
    fn mistakes_are_named() {
        let text = |line: &str| {
            parse(command("create"), &words(line), false)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(text("--nope x"), "flag provided but not defined: -nope");
        assert_eq!(text("x --bundle"), "flag needs an argument: -bundle");
        let (p, _) = parse(command("start"), &[], false).unwrap();
        assert_eq!(
            check_count(command("start"), &p).unwrap_err().to_string(),
            "runc-lite: \"start\" requires exactly 1 argument(s)"
        );
    }

    proptest! {
        #[test]
        fn any_words_parse_or_fail(line in proptest::collection::vec(".{0,12}", 0..8)) {
            for table in tables::COMMANDS {
                let _ = parse(table, &line, false);
            }
        }
    }
}
