//! The command line, in the syntax of Go's `flag` package: one dash or two, `-k v` or `-k=v`; flags end at the first word
//! that is none, and that word is the action.

use std::path::PathBuf;

/// What the caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start a serving shim for a container and print its address.
    Start,
    /// Clean up after a dead shim and print what became of the container.
    Delete,
    /// Serve tasks; how `start` runs this program.
    Serve,
    /// Log and serve the output of a process that has another shim.
    Relay,
    /// Print version.
    Version,
    /// Print runtime information for containerd 1.7 and newer.
    Info,
    /// Print help.
    Help,
}

/// The parsed command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) action: Action,
    pub(crate) namespace: String,
    pub(crate) id: String,
    /// containerd's gRPC socket, a path without scheme.
    pub(crate) address: String,
    /// Socket to listen on instead of the inherited descriptor.
    pub(crate) socket: Option<PathBuf>,
    pub(crate) bundle: Option<PathBuf>,
    pub(crate) debug: bool,
    /// What follows the action `relay`: where output goes, then the fifos it comes from.
    pub(crate) relay: Vec<String>,
}

/// Why the command line cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgsError {
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    #[error("flag needs an argument: -{0}")]
    Missing(String),
    #[error("invalid boolean value {value:?} for -{name}")]
    Boolean { name: String, value: String },
    #[error("relay: want a URI and one or two fifos")]
    Relay,
    #[error("unknown action {0:?}: want start, delete or relay")]
    Action(String),
    #[error("flag -{0} must be given")]
    Required(&'static str),
    #[error("flag -{name}: {source}")]
    Identifier {
        name: &'static str,
        source: proto::ids::IdError,
    },
}

/// Text of `-h`.
pub(crate) const HELP: &str = "\
containerd-shim-lite-v2: parent of one container or pod, for containerd and containerd-lite

Usage:
  containerd-shim-lite-v2 [flags] start     start a serving shim, print its address
  containerd-shim-lite-v2 [flags] delete    clean up after a dead shim, print the exit as protobuf
  containerd-shim-lite-v2 [flags]           serve on the inherited socket (descriptor 3)
  containerd-shim-lite-v2 [flags] relay URI STDOUT [STDERR]
                                            log and serve what another shim writes into fifos

A daemon runs it with the bundle as working directory; people have no need to.

Flags (one dash or two, -name value or -name=value):
  -namespace NAME        containerd namespace of the container
  -id ID                 id of the container
  -address PATH          gRPC socket of containerd; its .ttrpc sibling takes the events
                         unless TTRPC_ADDRESS names another
  -publish-binary PATH   accepted for compatibility; events go over ttrpc
  -bundle PATH           bundle of the container (delete)
  -socket PATH           socket to listen on instead of descriptor 3
  -debug                 log more to BUNDLE/log
  -info                  print runtime information as protobuf (options on standard input)
  -v, -version           print version
  -h, -help              print this text

Files in the bundle:
  config.json            the OCI spec (read)
  address                address of the shim's socket
  options.json, runtime  runtime options and binary of the container
  shim.json              pid, start time and cgroups of the container
  exit.json, exit-EXECID.json   exit records, written before the event
  log.json               log of the OCI runtime
";

impl Args {
    /// Parses the words after the program's name.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, ArgsError> {
        let mut args = Self {
            action: Action::Serve,
            namespace: String::new(),
            id: String::new(),
            address: String::new(),
            socket: None,
            bundle: None,
            debug: false,
            relay: Vec::new(),
        };
        let mut words = words.peekable();
        let mut special = None;
        while let Some(word) = words.peek() {
            let word = word.clone();
            let Some(name) = flag_name(&word) else {
                break;
            };
            words.next();
            let Some((name, given)) = name else {
                break; // "--" ends the flags
            };
            if let Some(action) = boolean_action(name) {
                if boolean(name, given)? {
                    special = special.or(Some(action));
                }
                continue;
            }
            if name == "debug" {
                args.debug = boolean(name, given)?;
                continue;
            }
            if !matches!(
                name,
                "namespace" | "id" | "address" | "publish-binary" | "bundle" | "socket"
            ) {
                return Err(ArgsError::Unknown(name.to_owned()));
            }
            let value = match given {
                Some(value) => value.to_owned(),
                None => words
                    .next()
                    .ok_or_else(|| ArgsError::Missing(name.to_owned()))?,
            };
            match name {
                "namespace" => args.namespace = value,
                "id" => args.id = value,
                "address" => args.address = value,
                "bundle" => args.bundle = (!value.is_empty()).then(|| value.into()),
                "socket" => args.socket = (!value.is_empty()).then(|| value.into()),
                _ => {}
            }
        }
        if let Some(action) = special {
            args.action = action;
            return Ok(args);
        }
        args.action = match words.next().as_deref() {
            None | Some("") => Action::Serve,
            Some("start") => Action::Start,
            Some("delete") => Action::Delete,
            Some("relay") => {
                args.relay = words.by_ref().collect();
                if !(2..=3).contains(&args.relay.len()) {
                    return Err(ArgsError::Relay);
                }
                Action::Relay
            }
            Some(other) => return Err(ArgsError::Action(other.to_owned())),
        };
        args.check()?;
        Ok(args)
    }

    fn check(&self) -> Result<(), ArgsError> {
        for (name, value) in [("namespace", &self.namespace), ("id", &self.id)] {
            if value.is_empty() {
                return Err(ArgsError::Required(name));
            }
            proto::ids::validate(value).map_err(|source| ArgsError::Identifier { name, source })?;
        }
        Ok(())
    }
}

fn boolean_action(name: &str) -> Option<Action> {
    match name {
        "v" | "version" => Some(Action::Version),
        "info" => Some(Action::Info),
        "h" | "help" => Some(Action::Help),
        _ => None,
    }
}

/// `None`: not a flag. `Some(None)`: the end mark `--`. Otherwise name and given value.
#[allow(clippy::type_complexity)]
fn flag_name(word: &str) -> Option<Option<(&str, Option<&str>)>> {
    let body = word.strip_prefix('-')?;
    let body = body.strip_prefix('-').unwrap_or(body);
    if body.is_empty() {
        return (word == "--").then_some(None);
    }
    Some(Some(match body.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (body, None),
    }))
}

fn boolean(name: &str, given: Option<&str>) -> Result<bool, ArgsError> {
    match given {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(value) => Err(ArgsError::Boolean {
            name: name.to_owned(),
            value: value.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(words: &[&str]) -> Result<Args, ArgsError> {
        Args::parse(words.iter().map(|w| (*w).to_owned()))
    }

    #[test]
    fn reads_what_containerd_writes() {
        let args = parse(&[
            "-namespace",
            "moby",
            "--address=/run/c.sock",
            "-publish-binary",
            "/usr/bin/containerd",
            "-id",
            "c1",
            "-debug",
            "start",
            "-later",
        ])
        .unwrap();
        assert_eq!(args.action, Action::Start);
        assert_eq!((args.namespace.as_str(), args.id.as_str()), ("moby", "c1"));
        assert_eq!(args.address, "/run/c.sock");
        assert!(args.debug);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(parse(&["-x"]), Err(ArgsError::Unknown("x".into())));
        assert_eq!(parse(&["-id"]), Err(ArgsError::Missing("id".into())));
        assert_eq!(
            parse(&["-id", "a", "start"]),
            Err(ArgsError::Required("namespace"))
        );
        assert!(matches!(
            parse(&["-id", "../x", "-namespace", "n", "start"]),
            Err(ArgsError::Identifier { name: "id", .. })
        ));
        assert!(matches!(
            parse(&["-id", "a", "-namespace", "n", "stop"]),
            Err(ArgsError::Action(_))
        ));
        assert_eq!(parse(&["-v", "whatever"]).unwrap().action, Action::Version);
        assert_eq!(
            parse(&["-debug=maybe"]).unwrap_err().to_string(),
            "invalid boolean value \"maybe\" for -debug"
        );
    }

    proptest! {
        #[test]
        fn one_dash_or_two_and_with_or_without_equals_are_the_same(
            id in "[a-z0-9]{1,20}", namespace in "[a-z0-9]{1,20}", address in "/[ -~]{0,40}", forms in any::<[(bool, bool); 3]>()
        ) {
            let mut words = Vec::new();
            for ((name, value), (double, equals)) in
                [("id", &id), ("namespace", &namespace), ("address", &address)].into_iter().zip(forms)
            {
                let dash = if double { "--" } else { "-" };
                if equals {
                    words.push(format!("{dash}{name}={value}"));
                } else {
                    words.push(format!("{dash}{name}"));
                    words.push(value.clone());
                }
            }
            words.push("delete".into());
            let args = Args::parse(words.into_iter()).unwrap();
            prop_assert_eq!(args.action, Action::Delete);
            prop_assert_eq!((args.id, args.namespace, args.address), (id, namespace, address));
        }

        #[test]
        fn never_panics(words in proptest::collection::vec(any::<String>(), 0..8)) {
            let _ = Args::parse(words.into_iter());
        }
    }
}
