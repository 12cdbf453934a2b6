//! What instructions do to an image's config.

use proto::engine::{HealthConfig, ImageConfig};

use super::words;
use super::{Command, Instruction};
use crate::error::{Error, Result};

/// Applies an instruction whose variables are replaced. Those that make layers change nothing here.
pub(crate) fn apply(config: &mut ImageConfig, instruction: Instruction) -> Result<()> {
    match instruction {
        Instruction::Cmd(command) => config.cmd = through_shell(config, command),
        Instruction::Entrypoint(command) => config.entrypoint = through_shell(config, command),
        Instruction::Shell(shell) => config.shell = shell,
        Instruction::Env(pairs) => {
            for (key, value) in pairs {
                set(&mut config.env, &key, &value);
            }
        }
        Instruction::Label(pairs) => config.labels.extend(pairs),
        Instruction::Workdir(path) => config.working_dir = below(&config.working_dir, &path),
        Instruction::User(user) => config.user = user,
        Instruction::StopSignal(signal) => config.stop_signal = signal,
        Instruction::OnBuild(trigger) => config.on_build.push(trigger),
        Instruction::Expose(ports) => {
            for port in ports {
                let port = exposed(&port)?;
                config.exposed_ports.insert(port, Default::default());
            }
        }
        Instruction::Volume(paths) => {
            if paths.iter().any(|path| path.trim().is_empty()) {
                return Err(Error::invalid(
                    "VOLUME specified can not be an empty string",
                ));
            }
            let paths = paths.into_iter().map(|path| (path, Default::default()));
            config.volumes.extend(paths);
        }
        Instruction::HealthCheck { flags, text } => {
            config.healthcheck = Some(health(&flags, &text)?);
        }
        Instruction::From { .. }
        | Instruction::Run { .. }
        | Instruction::Arg(_)
        | Instruction::Copy(_)
        | Instruction::Add(_)
        | Instruction::Maintainer(_) => {}
    }
    Ok(())
}

/// The value of a variable in a list of `KEY=VALUE`.
pub(crate) fn variable(env: &[String], name: &str) -> Option<String> {
    env.iter().find_map(|entry| {
        let (key, value) = entry.split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

/// Sets a variable in its place, or adds it.
fn set(env: &mut Vec<String>, key: &str, value: &str) {
    let entry = format!("{key}={value}");
    let same = |other: &&mut String| other.split('=').next() == Some(key);
    match env.iter_mut().find(same) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

/// A command as the list that is run.
pub(crate) fn through_shell(config: &ImageConfig, command: Command) -> Vec<String> {
    match command {
        Command::Exec(list) => list,
        Command::Shell(text) if text.is_empty() => Vec::new(),
        Command::Shell(text) => {
            let mut list = match config.shell.is_empty() {
                true => vec!["/bin/sh".to_owned(), "-c".to_owned()],
                false => config.shell.clone(),
            };
            list.push(text);
            list
        }
    }
}

/// A path as seen from a directory.
pub(crate) fn below(directory: &str, path: &str) -> String {
    let base = match path.starts_with('/') {
        true => "",
        false => directory,
    };
    crate::volumes::request::clean(&format!("{base}/{path}"))
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
fn health(flags: &[String], text: &str) -> Result<HealthConfig> {
    let mut health = HealthConfig::default();
    for flag in flags {
        let wrong = || Error::invalid(format!("invalid HEALTHCHECK option {flag}"));
        let (key, value) = flag.split_once('=').ok_or_else(wrong)?;
        let nanos = || {
            let read = crate::clock::duration(value).ok_or_else(wrong)?;
            i64::try_from(read.whole_nanoseconds()).map_err(|_| wrong())
        };
        match key {
            "--interval" => health.interval = nanos()?,
            "--timeout" => health.timeout = nanos()?,
            "--start-period" => health.start_period = nanos()?,
            "--start-interval" => health.start_interval = nanos()?,
            "--retries" => health.retries = value.parse().map_err(|_| wrong())?,
            _ => return Err(wrong()),
        }
    }
    let (kind, arguments) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let arguments = arguments.trim();
    health.test = match kind.to_ascii_uppercase().as_str() {
        "NONE" if arguments.is_empty() => vec!["NONE".into()],
        "CMD" if !arguments.is_empty() => match words::json_list(arguments) {
            Some(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
            None => vec!["CMD-SHELL".into(), arguments.to_owned()],
        },
        _ => {
            return Err(Error::invalid(format!(
                "unknown type {kind:?} in HEALTHCHECK (try CMD)"
            )));
        }
    };
    Ok(health)
}

#[cfg(test)]
mod tests {
    use super::super::change;
    use super::*;
    use proptest::prelude::*;

    fn changed(changes: &[&str]) -> Result<ImageConfig> {
        let mut config = ImageConfig {
            env: vec!["A=1".into(), "AB=2".into()],
            working_dir: "/w".into(),
            ..ImageConfig::default()
        };
        change(&mut config, changes)?;
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
        assert_eq!(config.env, ["A=x y", "AB=2", "C=z", "D=old form"]);
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
