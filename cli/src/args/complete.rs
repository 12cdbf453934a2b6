//! What may stand at the end of a command line: the words of the tree here, names of objects by the daemon. Pure.

use clap::{Arg, Command};

use super::flags::{by_long, is_switch};

/// What the last word may be.
#[derive(Debug, PartialEq)]
pub(crate) enum Wanted {
    /// One of these words, each with a few words about it.
    Words(Vec<(String, String)>),
    /// The name of an object.
    Name(Object),
    /// A file, or anything.
    Anything,
}

/// Objects that the daemon or the configuration has names for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Object {
    Container,
    Running,
    Image,
    Volume,
    Network,
    Context,
}

/// What the last of these words may be; the others are complete.
pub(crate) fn wanted(root: &Command, words: &[String]) -> Wanted {
    let Some((last, before)) = words.split_last() else {
        return Wanted::Anything;
    };
    let mut command = root;
    let mut path: Vec<&str> = Vec::new();
    let mut arguments = 0;
    let mut only_arguments = false;
    let mut value_of: Option<&Arg> = None;
    for word in before {
        if value_of.take().is_some() {
            continue;
        }
        if only_arguments || !word.starts_with('-') || word == "-" {
            match command
                .find_subcommand(word)
                .filter(|_| command.has_subcommands())
            {
                Some(next) => {
                    command = next;
                    path.push(next.get_name());
                }
                None => arguments += 1,
            }
        } else if word == "--" {
            only_arguments = true;
        } else {
            value_of = flag(command, word).filter(|arg| !is_switch(arg) && !word.contains('='));
        }
        // What follows the image of run is the container's own.
        let stops = command.get_positionals().any(Arg::is_trailing_var_arg_set);
        only_arguments |= stops && arguments > 0;
    }
    if let Some(arg) = value_of {
        return value(arg);
    }
    if let Some((name, _)) = last
        .split_once('=')
        .filter(|(name, _)| name.starts_with("--"))
        && let Some(arg) = flag(command, name)
    {
        return match value(arg) {
            Wanted::Words(words) => Wanted::Words(
                words
                    .into_iter()
                    .map(|(word, about)| (format!("{name}={word}"), about))
                    .collect(),
            ),
            _ => Wanted::Anything,
        };
    }
    if last.starts_with('-') && !only_arguments {
        return Wanted::Words(flags(command));
    }
    if command.has_subcommands() {
        return Wanted::Words(commands(command));
    }
    argument(&path, arguments)
}

fn flag<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let word = word.split('=').next().unwrap_or(word);
    match word.strip_prefix("--") {
        Some(long) => by_long(command, long),
        None => {
            let last = word.chars().last()?;
            command
                .get_arguments()
                .find(|arg| arg.get_short() == Some(last))
        }
    }
}

fn value(arg: &Arg) -> Wanted {
    let words = |all: &[&str]| {
        Wanted::Words(
            all.iter()
                .map(|word| ((*word).to_string(), String::new()))
                .collect(),
        )
    };
    match arg.get_long().unwrap_or_default() {
        "context" => Wanted::Name(Object::Context),
        "network" => Wanted::Name(Object::Network),
        "volumes-from" | "link" => Wanted::Name(Object::Container),
        "log-level" => words(&["debug", "info", "warn", "error", "fatal"]),
        "pull" => words(&["always", "missing", "never"]),
        "restart" => words(&["always", "no", "on-failure", "unless-stopped"]),
        "type" => words(&["container", "image", "network", "volume"]),
        _ => Wanted::Anything,
    }
}

fn flags(command: &Command) -> Vec<(String, String)> {
    let visible = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help()))));
    let mut all: Vec<_> = visible.collect();
    all.push(("--help".to_string(), String::new()));
    all.sort();
    all
}

fn commands(command: &Command) -> Vec<(String, String)> {
    let visible = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    let mut all: Vec<_> = visible
        .map(|sub| (sub.get_name().to_string(), about(sub.get_about())))
        .collect();
    all.sort();
    all
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_string()
}

/// What the argument with this number names.
fn argument(path: &[&str], number: usize) -> Wanted {
    use Object::{Container, Context, Image, Network, Running, Volume};
    let object = match (path, number) {
        (["container", verb], _) if *verb != "prune" => return argument(&[verb], number),
        (
            [
                "image",
                "inspect" | "rm" | "save" | "history" | "push" | "tag",
            ],
            _,
        ) => Image,
        (["volume", "inspect" | "rm"], _) => Volume,
        (["network", "inspect" | "rm"] | ["network", "connect" | "disconnect"], 0) => Network,
        (["network", "inspect" | "rm"], _) => Network,
        (["network", "connect" | "disconnect"], 1) => Container,
        (["context", "inspect" | "rm"], _) | (["context", "use" | "export" | "update"], 0) => {
            Context
        }
        (["attach" | "exec" | "top" | "port"], 0) => Running,
        (["kill" | "pause" | "stop" | "stats" | "wait"], _) => Running,
        (["logs" | "diff" | "export" | "commit" | "rename"], 0) => Container,
        (["rm" | "start" | "restart" | "unpause" | "update" | "inspect"], _) => Container,
        (["run" | "create" | "tag" | "push" | "history"], 0) => Image,
        (["rmi" | "save"], _) => Image,
        _ => return Wanted::Anything,
    };
    Wanted::Name(object)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn of(line: &str) -> Wanted {
        let words: Vec<String> = line.split(' ').map(str::to_string).collect();
        wanted(&crate::args::Cli::command(), &words)
    }

    fn has(line: &str, word: &str) -> bool {
        matches!(of(line), Wanted::Words(words) if words.iter().any(|(w, _)| w == word))
    }

    #[test]
    fn each_place_has_its_words() {
        assert!(has("", "run") && has("ru", "run") && has("-H unix:///x ", "ps"));
        assert!(has("container ", "ls") && has("run --", "--volume"));
        assert_eq!(of("exec -it "), Wanted::Name(Object::Running));
        assert_eq!(of("exec up "), Wanted::Anything);
        assert_eq!(of("run -v /a:/b "), Wanted::Name(Object::Image));
        assert_eq!(of("run -v "), Wanted::Anything);
        assert_eq!(of("run img -"), Wanted::Anything);
        assert_eq!(of("run --network "), Wanted::Name(Object::Network));
        assert!(has("run --pull=", "--pull=never"));
        assert_eq!(of("-c "), Wanted::Name(Object::Context));
        assert_eq!(of("container rm -f a "), Wanted::Name(Object::Container));
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_odd(line in "[ a-z=-]{0,30}") {
            let _ = of(&line);
        }
    }
}
