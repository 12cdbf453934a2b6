//! Instructions with their arguments, as Docker's reference names them.

use super::arguments::{
    Flags, arguments, command, from, known, list, named, one, pairs, transfer, trigger, unknown,
};
use super::heredoc::Heredoc;
use super::lines::Line;
use super::words::{self, Expander};
use crate::error::{Error, Result};

/// What RUN, CMD and ENTRYPOINT run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// A JSON list: it is run as it stands.
    Exec(Vec<String>),
    /// A text for the shell.
    Shell(String),
}

/// What COPY and ADD bring in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// Paths, patterns, or with ADD addresses.
    pub(crate) sources: Vec<String>,
    /// Files that stand in the Dockerfile.
    pub(crate) documents: Vec<Heredoc>,
    /// Where to.
    pub(crate) target: String,
    /// Stage or image of the sources; the build context where none.
    pub(crate) from: Option<String>,
    /// `USER[:GROUP]`.
    pub(crate) chown: Option<String>,
    /// Octal permission bits.
    pub(crate) chmod: Option<u32>,
    /// `sha256:...` of what ADD downloads.
    pub(crate) checksum: Option<String>,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// Begins a stage.
    From {
        /// An image, an earlier stage, or `scratch`.
        image: String,
        /// The stage's name.
        name: Option<String>,
        /// `os/architecture`.
        platform: Option<String>,
    },
    /// Runs a command and keeps what it changed.
    Run {
        /// The command.
        command: Command,
        /// Its heredocs.
        documents: Vec<Heredoc>,
    },
    /// The command of the image's containers.
    Cmd(Command),
    /// What that command is given to.
    Entrypoint(Command),
    /// The shell of the shell form.
    Shell(Vec<String>),
    /// Environment.
    Env(Vec<(String, String)>),
    /// Labels.
    Label(Vec<(String, String)>),
    /// Arguments of the build, with defaults.
    Arg(Vec<(String, Option<String>)>),
    /// Files of the context or of a stage.
    Copy(Transfer),
    /// The same, and archives and downloads.
    Add(Transfer),
    /// Working directory.
    Workdir(String),
    /// User of what follows and of the image's containers.
    User(String),
    /// Mount points.
    Volume(Vec<String>),
    /// Ports.
    Expose(Vec<String>),
    /// The signal that ends the image's containers.
    StopSignal(String),
    /// An instruction for builds upon this image.
    OnBuild(String),
    /// How a container's health is found out; options and text as written.
    HealthCheck {
        /// `--interval=...` and so on.
        flags: Vec<String>,
        /// `NONE` or `CMD ...`.
        text: String,
    },
    /// Who maintains it.
    Maintainer(String),
}

impl Instruction {
    /// Reads one line's arguments. Variables stay as they are: [`Instruction::expand`] replaces them.
    pub(crate) fn parse(line: &Line, escape: char) -> Result<Self> {
        let word = line.word.as_str();
        let rest = line.rest.as_str();
        let mut flags = Flags::new(line);
        if rest.is_empty() && line.heredocs.is_empty() && !matches!(word, "CMD" | "ENTRYPOINT") {
            return match known(word) {
                true => Err(Error::invalid(format!(
                    "{word} requires at least one argument"
                ))),
                false => Err(unknown(word)),
            };
        }
        let one = || one(word, rest, escape);
        let parsed = match word {
            "FROM" => from(rest, &mut flags, escape)?,
            "RUN" => Self::Run {
                command: command(rest),
                documents: line.heredocs.clone(),
            },
            "CMD" => Self::Cmd(command(rest)),
            "ENTRYPOINT" => Self::Entrypoint(command(rest)),
            "SHELL" => Self::Shell(
                words::json_list(rest)
                    .filter(|list| !list.is_empty())
                    .ok_or_else(|| {
                        Error::invalid("SHELL requires the arguments to be in JSON form")
                    })?,
            ),
            "ENV" => Self::Env(pairs(rest, escape)?),
            "LABEL" => Self::Label(pairs(rest, escape)?),
            "ARG" => Self::Arg(arguments(rest, escape)?),
            "COPY" => Self::Copy(transfer(line, &mut flags, escape)?),
            "ADD" => Self::Add(transfer(line, &mut flags, escape)?),
            "WORKDIR" => Self::Workdir(one()?),
            "USER" => Self::User(one()?),
            "STOPSIGNAL" => Self::StopSignal(one()?),
            "VOLUME" => Self::Volume(list(rest, escape)),
            "EXPOSE" => Self::Expose(words::split(rest, escape)),
            "ONBUILD" => Self::OnBuild(trigger(rest)?),
            "HEALTHCHECK" => Self::HealthCheck {
                flags: std::mem::take(&mut flags.given),
                text: rest.to_owned(),
            },
            "MAINTAINER" => Self::Maintainer(rest.to_owned()),
            _ => return Err(unknown(word)),
        };
        flags.finish()?;
        Ok(parsed)
    }

    /// Replaces variables where Docker does. `FROM` and `ARG` have rules of their own and are left to the build.
    pub(crate) fn expand(self, with: &Expander<'_>) -> Result<Self> {
        let all = |list: Vec<String>| -> Result<Vec<String>> {
            list.iter().map(|text| with.word(text)).collect()
        };
        let both = |list: Vec<(String, String)>| {
            list.iter()
                .map(|(key, value)| Ok((with.word(key)?, with.word(value)?)))
                .collect::<Result<Vec<_>>>()
        };
        Ok(match self {
            Self::Env(list) => Self::Env(named(both(list)?, "ENV")?),
            Self::Label(list) => Self::Label(named(both(list)?, "LABEL")?),
            Self::Copy(transfer) => Self::Copy(transfer.expand(with)?),
            Self::Add(transfer) => Self::Add(transfer.expand(with)?),
            Self::Workdir(path) => Self::Workdir(with.word(&path)?),
            Self::User(user) => Self::User(with.word(&user)?),
            Self::StopSignal(signal) => Self::StopSignal(with.word(&signal)?),
            Self::Volume(paths) => Self::Volume(all(paths)?),
            Self::Expose(ports) => {
                let ports = ports.iter().map(|port| with.words(port));
                Self::Expose(ports.collect::<Result<Vec<_>>>()?.concat())
            }
            other => other,
        })
    }

    /// Whether commit and import take it as a change.
    pub(crate) fn changes_only_config(&self) -> bool {
        !matches!(
            self,
            Self::From { .. }
                | Self::Run { .. }
                | Self::Copy(_)
                | Self::Add(_)
                | Self::Arg(_)
                | Self::Maintainer(_)
        )
    }
}

impl Transfer {
    fn expand(mut self, with: &Expander<'_>) -> Result<Self> {
        for source in &mut self.sources {
            *source = with.word(source)?;
        }
        for document in self.documents.iter_mut().filter(|document| document.expand) {
            document.content = with.document(&document.content)?;
        }
        self.target = with.word(&self.target)?;
        let options = [&mut self.chown, &mut self.checksum, &mut self.from];
        for text in options.into_iter().flatten() {
            *text = with.word(text)?;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
    use super::super::lines;
    use super::*;

    fn read(text: &str) -> Result<Instruction> {
        let file = lines::parse(text)?;
        let lookup = |name: &str| (name == "A").then(|| "x y".to_owned());
        let with = Expander {
            escape: file.escape,
            lookup: &lookup,
        };
        Instruction::parse(&file.lines[0], file.escape)?.expand(&with)
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn every_instruction() {
        use Instruction as I;
        for (text, expected) in [
            (
                "FROM --platform=linux/amd64 a:1 AS Build",
                I::From {
                    image: "a:1".into(),
                    name: Some("build".into()),
                    platform: Some("linux/amd64".into()),
                },
            ),
            (
                "CMD [\"a\", \"b c\"]",
                I::Cmd(Command::Exec(vec!["a".into(), "b c".into()])),
            ),
            ("CMD [a]", I::Cmd(Command::Shell("[a]".into()))),
            (
                "ENV a=\"$A\" b=c\\ d",
                I::Env(vec![pair("a", "x y"), pair("b", "c d")]),
            ),
            ("ENV a b  c", I::Env(vec![pair("a", "b  c")])),
            (
                "ARG a b=c",
                I::Arg(vec![("a".into(), None), ("b".into(), Some("c".into()))]),
            ),
            (
                "EXPOSE $A 80",
                I::Expose(vec!["x".into(), "y".into(), "80".into()]),
            ),
            ("VOLUME [\"/a b\"]", I::Volume(vec!["/a b".into()])),
            ("WORKDIR /a $A", I::Workdir("/a x y".into())),
            ("ONBUILD run x", I::OnBuild("run x".into())),
            (
                "LABEL a= b='c'",
                I::Label(vec![pair("a", ""), pair("b", "c")]),
            ),
        ] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn transfers() {
        let Instruction::Copy(copy) =
            read("COPY --from=b --chown=1 --chmod=750 a* $A /d/").unwrap()
        else {
            panic!("not a copy");
        };
        assert_eq!(copy.sources, ["a*", "x y"]);
        assert_eq!((copy.from.as_deref(), copy.chmod), (Some("b"), Some(0o750)));
        let Instruction::Add(add) = read("ADD <<f g /d/\n$A\nf").unwrap() else {
            panic!("not an add");
        };
        assert_eq!(
            (add.sources, add.documents[0].content.as_str()),
            (vec!["g".into()], "x y\n")
        );
    }

    #[test]
    fn wrong_ones_are_refused() {
        for (text, told) in [
            ("FROM a b", "FROM requires either one or three arguments"),
            (
                "FROM a AS 1",
                "invalid name for build stage: \"1\", name can't start with a number or contain symbols",
            ),
            ("NOPE x", "unknown instruction: NOPE"),
            ("NOPE", "unknown instruction: NOPE"),
            ("RUN", "RUN requires at least one argument"),
            (
                "RUN --mount=type=secret x",
                "the --mount option requires BuildKit, which is not built in: see docs/build.md",
            ),
            ("COPY --chown a b", "Missing a value on flag: chown"),
            ("ADD --from=x a b", "unknown flag: --from"),
            ("COPY a", "COPY requires at least two arguments"),
            (
                "ENV a",
                "Syntax error - can't find = in \"a\". Must be of the form: name=value",
            ),
            ("ENV =b", "ENV names can not be blank"),
            ("USER a b", "USER requires exactly one argument"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            ("SHELL x", "SHELL requires the arguments to be in JSON form"),
        ] {
            assert_eq!(read(text).unwrap_err().message(), told, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_read_or_refused(text in "[A-Z]{2,11} [ -~]{0,60}") {
            let _ = read(&text);
        }
    }
}
