//! The arguments of single instructions.

use super::heredoc;
use super::instruction::{Command, Instruction, Transfer};
use super::lines::Line;
use super::words;
use crate::error::{Error, Result};

/// An instruction's options; what nobody took is refused.
pub(super) struct Flags {
    word: String,
    pub(super) given: Vec<String>,
}

impl Flags {
    pub(super) fn new(line: &Line) -> Self {
        Self {
            word: line.word.clone(),
            given: line.flags.clone(),
        }
    }

    pub(super) fn take(&mut self, name: &str) -> Result<Option<String>> {
        let mut found = None;
        let mut rest = Vec::new();
        for flag in self.given.drain(..) {
            match flag.strip_prefix("--").and_then(|f| f.split_once('=')) {
                Some((key, value)) if key == name => {
                    if found.replace(value.to_owned()).is_some() {
                        return Err(Error::invalid(format!("Duplicate flag specified: {name}")));
                    }
                }
                _ => rest.push(flag),
            }
        }
        self.given = rest;
        Ok(found)
    }

    pub(super) fn finish(self) -> Result<()> {
        let Some(flag) = self.given.first() else {
            return Ok(());
        };
        let (name, value) = match flag.trim_start_matches('-').split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag.trim_start_matches('-'), None),
        };
        let buildkit = match self.word.as_str() {
            "RUN" => matches!(name, "mount" | "network" | "security" | "device"),
            "COPY" => matches!(name, "link" | "parents" | "exclude"),
            "ADD" => matches!(name, "link" | "keep-git-dir" | "exclude" | "unpack"),
            _ => false,
        };
        Err(Error::invalid(if buildkit {
            format!(
                "the --{name} option requires BuildKit, which is not built in: see docs/build.md"
            )
        } else if value.is_none()
            && matches!(name, "from" | "chown" | "chmod" | "platform" | "checksum")
        {
            format!("Missing a value on flag: {name}")
        } else {
            format!("unknown flag: --{name}")
        }))
    }
}

pub(super) fn unknown(word: &str) -> Error {
    Error::invalid(format!("unknown instruction: {word}"))
}

pub(super) fn known(word: &str) -> bool {
    const WORDS: [&str; 18] = [
        "FROM",
        "RUN",
        "CMD",
        "ENTRYPOINT",
        "SHELL",
        "ENV",
        "LABEL",
        "ARG",
        "COPY",
        "ADD",
        "WORKDIR",
        "USER",
        "STOPSIGNAL",
        "VOLUME",
        "EXPOSE",
        "ONBUILD",
        "HEALTHCHECK",
        "MAINTAINER",
    ];
    WORDS.contains(&word)
}

/// The JSON form as it is, any other text for the shell.
pub(super) fn command(text: &str) -> Command {
    match words::json_list(text) {
        Some(list) => Command::Exec(list),
        None => Command::Shell(text.to_owned()),
    }
}

pub(super) fn list(text: &str, escape: char) -> Vec<String> {
    words::json_list(text).unwrap_or_else(|| words::split(text, escape))
}

pub(super) fn one(word: &str, rest: &str, escape: char) -> Result<String> {
    // a path may hold blanks, as Docker has it
    if word == "WORKDIR" {
        return Ok(rest.to_owned());
    }
    match words::split(rest, escape).as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(Error::invalid(format!(
            "{word} requires exactly one argument"
        ))),
    }
}

pub(super) fn from(rest: &str, flags: &mut Flags, escape: char) -> Result<Instruction> {
    let platform = flags.take("platform")?;
    let words = words::split(rest, escape);
    let (image, name) = match words.as_slice() {
        [image] => (image, None),
        [image, between, name] if between.eq_ignore_ascii_case("as") => {
            let name = name.to_lowercase();
            let mut chars = name.chars();
            let first = chars.next().is_some_and(|c| c.is_ascii_lowercase());
            if !first || !chars.all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
                return Err(Error::invalid(format!(
                    "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
                )));
            }
            (image, Some(name))
        }
        _ => {
            return Err(Error::invalid(
                "FROM requires either one or three arguments",
            ));
        }
    };
    Ok(Instruction::From {
        image: image.clone(),
        name,
        platform,
    })
}

/// `KEY=VALUE ...`, or the old form `KEY VALUE`. Quotes stay.
pub(super) fn pairs(rest: &str, escape: char) -> Result<Vec<(String, String)>> {
    let words = words::split(rest, escape);
    let wrong = |text: &str| {
        Error::invalid(format!(
            "Syntax error - can't find = in {text:?}. Must be of the form: name=value"
        ))
    };
    match words.first() {
        Some(first) if !first.contains('=') => {
            let (key, value) = rest
                .split_once(char::is_whitespace)
                .ok_or_else(|| wrong(rest))?;
            Ok(vec![(key.to_owned(), value.trim().to_owned())])
        }
        _ => words
            .iter()
            .map(|word| match word.split_once('=') {
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => Err(wrong(word)),
            })
            .collect(),
    }
}

pub(super) fn named(list: Vec<(String, String)>, word: &str) -> Result<Vec<(String, String)>> {
    match list.iter().any(|(key, _)| key.is_empty()) {
        true => Err(Error::invalid(format!("{word} names can not be blank"))),
        false => Ok(list),
    }
}

pub(super) fn arguments(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>> {
    words::split(rest, escape)
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(Error::invalid("ARG names can not be blank")),
            Some((key, value)) => Ok((key.to_owned(), Some(value.to_owned()))),
            None => Ok((word, None)),
        })
        .collect()
}

pub(super) fn transfer(line: &Line, flags: &mut Flags, escape: char) -> Result<Transfer> {
    let word = &line.word;
    let mut words = list(&line.rest, escape);
    if words.len() < 2 {
        return Err(Error::invalid(format!(
            "{word} requires at least two arguments"
        )));
    }
    let target = words.pop().unwrap_or_default();
    let documents = line.heredocs.clone();
    words.retain(|source| {
        heredoc::parse(source)
            .is_none_or(|found| !documents.iter().any(|document| document.name == found.name))
    });
    let chmod = match flags.take("chmod")? {
        None => None,
        Some(text) => Some(
            u32::from_str_radix(&text, 8)
                .ok()
                .filter(|bits| *bits <= 0o7777)
                .ok_or_else(|| Error::invalid(format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")))?,
        ),
    };
    Ok(Transfer {
        sources: words,
        documents,
        target,
        from: if word == "COPY" {
            flags.take("from")?
        } else {
            None
        },
        chown: flags.take("chown")?,
        chmod,
        checksum: if word == "ADD" {
            flags.take("checksum")?
        } else {
            None
        },
    })
}

pub(super) fn trigger(rest: &str) -> Result<String> {
    let word = rest.split_whitespace().next().unwrap_or_default();
    match word.to_ascii_uppercase().as_str() {
        "ONBUILD" => Err(Error::invalid(
            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        )),
        upper @ ("FROM" | "MAINTAINER") => Err(Error::invalid(format!(
            "{upper} isn't allowed as an ONBUILD trigger"
        ))),
        upper if !known(upper) => Err(unknown(upper)),
        _ => Ok(rest.to_owned()),
    }
}
