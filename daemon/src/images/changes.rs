//! `--change` of commit and import: instructions of a Dockerfile that only touch the config. Pure.

use proto::engine::{HealthConfig, ImageConfig};

use crate::error::{Error, Result};

/// Applies instructions in their order.
pub(crate) fn apply(config: &mut ImageConfig, changes: &[&str]) -> Result<()> {
    for text in changes {
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            instruction(config, line)?;
        }
    }
    Ok(())
}

fn instruction(config: &mut ImageConfig, line: &str) -> Result<()> {
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let word = word.to_ascii_uppercase();
    let needs = |what: &str| Error::invalid(format!("{word} requires {what}"));
    if rest.is_empty() && !matches!(word.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(needs("at least one argument"));
    }
    match word.as_str() {
        "CMD" => config.cmd = command(config, rest),
        "ENTRYPOINT" => config.entrypoint = command(config, rest),
        "ENV" => {
            for (key, value) in pairs(rest)? {
                let prefix = format!("{key}=");
                config.env.retain(|entry| !entry.starts_with(&prefix));
                config.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            for port in words(rest)? {
                config
                    .exposed_ports
                    .insert(exposed(&port)?, Default::default());
            }
        }
        "VOLUME" => {
            let paths = match json_list(rest) {
                Some(list) => list,
                None => words(rest)?,
            };
            if paths.iter().any(String::is_empty) {
                return Err(Error::invalid(
                    "VOLUME specified can not be an empty string",
                ));
            }
            config
                .volumes
                .extend(paths.into_iter().map(|path| (path, Default::default())));
        }
        "USER" => config.user = one(&word, rest)?,
        "WORKDIR" => {
            let path = one(&word, rest)?;
            let base = if path.starts_with('/') {
                ""
            } else {
                &config.working_dir
            };
            config.working_dir = crate::volumes::request::clean(&format!("{base}/{path}"));
        }
        "STOPSIGNAL" => config.stop_signal = one(&word, rest)?,
        "ONBUILD" => {
            let trigger = rest.split_whitespace().next().unwrap_or_default();
            match trigger.to_ascii_uppercase().as_str() {
                "ONBUILD" => {
                    return Err(Error::invalid(
                        "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
                    ));
                }
                "FROM" | "MAINTAINER" => {
                    return Err(Error::invalid(format!(
                        "{trigger} isn't allowed as an ONBUILD trigger"
                    )));
                }
                _ => config.on_build.push(rest.to_owned()),
            }
        }
        "HEALTHCHECK" => config.healthcheck = Some(health(config, rest)?),
        "SHELL" => {
            config.shell = json_list(rest)
                .filter(|list| !list.is_empty())
                .ok_or_else(|| needs("the arguments to be in JSON form"))?;
        }
        "FROM" | "RUN" | "ADD" | "COPY" | "ARG" | "MAINTAINER" => {
            return Err(Error::invalid(format!(
                "{word} is not a valid change command"
            )));
        }
        _ => return Err(Error::invalid(format!("unknown instruction: {word}"))),
    }
    Ok(())
}

/// The JSON form as it is, any other text through the shell.
fn command(config: &ImageConfig, text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    json_list(text).unwrap_or_else(|| {
        let mut shell = if config.shell.is_empty() {
            vec!["/bin/sh".to_owned(), "-c".to_owned()]
        } else {
            config.shell.clone()
        };
        shell.push(text.to_owned());
        shell
    })
}

fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

fn one(word: &str, rest: &str) -> Result<String> {
    let mut found = words(rest)?;
    match found.len() {
        1 => Ok(found.remove(0)),
        _ => Err(Error::invalid(format!(
            "{word} requires exactly one argument"
        ))),
    }
}

/// `KEY=VALUE ...`, or the old form `KEY VALUE`.
fn pairs(rest: &str) -> Result<Vec<(String, String)>> {
    let first = rest.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = rest.split_once(char::is_whitespace).ok_or_else(|| {
            Error::invalid(format!(
                "Syntax error - can't find = in {rest:?}. Must be of the form: name=value"
            ))
        })?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words(rest)?
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(Error::invalid("names can not be blank")),
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Error::invalid(format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// Words at blanks, with quotes and backslashes as in a shell.
fn words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => {
                let next = chars.next().unwrap_or('\\');
                word.get_or_insert_default().push(next);
            }
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid(format!(
            "unexpected end of statement while looking for matching quote in {text:?}"
        )));
    }
    words.extend(word);
    Ok(words)
}

/// `80`, `80/udp`, `80-90/tcp`; the form in which configs have it.
fn exposed(text: &str) -> Result<String> {
    let wrong = || Error::invalid(format!("invalid containerPort: {text}"));
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("invalid proto: {protocol}")));
    }
    let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
    let low: u16 = low.parse().map_err(|_| wrong())?;
    let high: u16 = high.parse().map_err(|_| wrong())?;
    if low > high {
        return Err(wrong());
    }
    Ok(format!("{ports}/{protocol}"))
}

/// `NONE`, or `[--interval=D ...] CMD ...`.
fn health(config: &ImageConfig, text: &str) -> Result<HealthConfig> {
    let mut health = HealthConfig::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option
            .split_once(char::is_whitespace)
            .unwrap_or((option, ""));
        rest = after.trim_start();
        let wrong = || Error::invalid(format!("invalid HEALTHCHECK option --{option}"));
        let (key, value) = option.split_once('=').ok_or_else(wrong)?;
        let nanos = || nanoseconds(value).ok_or_else(wrong);
        match key {
            "interval" => health.interval = nanos()?,
            "timeout" => health.timeout = nanos()?,
            "start-period" => health.start_period = nanos()?,
            "start-interval" => health.start_interval = nanos()?,
            "retries" => health.retries = value.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }
    }
    let (kind, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let arguments = arguments.trim();
    health.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if arguments.is_empty() => vec!["NONE".into()],
        "CMD" if !arguments.is_empty() => match json_list(arguments) {
            Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
            None => vec!["CMD-SHELL".into(), arguments.to_owned()],
        },
        _ => {
            return Err(Error::invalid(format!(
                "unknown type {kind:?} in HEALTHCHECK (try CMD)"
            )));
        }
    };
    let _ = config;
    Ok(health)
}

/// A duration as Go writes it.
fn nanoseconds(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut sum = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        sum += number
            * match &rest[..end] {
                "h" => 3.6e12,
                "m" => 6e10,
                "s" => 1e9,
                "ms" => 1e6,
                "us" => 1e3,
                "ns" => 1.0,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(sum as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn changed(changes: &[&str]) -> Result<ImageConfig> {
        let mut config = ImageConfig {
            env: vec!["A=1".into(), "AB=2".into()],
            working_dir: "/w".into(),
            ..ImageConfig::default()
        };
        apply(&mut config, changes)?;
        Ok(config)
    }

    #[test]
    fn instructions_change_the_config() {
        let config = changed(&[
            "CMD [\"a\", \"b c\"]",
            "entrypoint run it",
            "ENV A=\"x y\" C=z",
            "ENV D old form",
            "LABEL k=v",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/v\"]\nUSER u:g\nWORKDIR sub/../x",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD true",
        ])
        .unwrap();
        assert_eq!(config.cmd, ["a", "b c"]);
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "run it"]);
        assert_eq!(config.env, ["AB=2", "A=x y", "C=z", "D=old form"]);
        assert_eq!(config.labels["k"], "v");
        let ports: Vec<_> = config.exposed_ports.keys().map(String::as_str).collect();
        assert_eq!(ports, ["53/udp", "80/tcp"]);
        assert_eq!(config.working_dir, "/w/x");
        assert_eq!(config.user, "u:g");
        let health = config.healthcheck.unwrap();
        assert_eq!(health.interval, 90_000_000_000);
        assert_eq!(health.test, ["CMD-SHELL", "true"]);
    }

    #[test]
    fn wrong_instructions_are_refused() {
        for bad in [
            "FROM x",
            "RUN x",
            "WHAT x",
            "ENV",
            "ENV A",
            "EXPOSE x",
            "EXPOSE 2-1",
            "LABEL a=\"b",
            "USER a b",
            "ONBUILD FROM x",
            "HEALTHCHECK nope",
            "SHELL x",
        ] {
            assert!(changed(&[bad]).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[A-Z]{0,12} .{0,40}") {
            let _ = changed(&[&text]);
        }
    }
}
