//! `--init`: a small init as the container's first process, before the user's program.
//!
//! It is a program of the host, bound read-only into the container as `/sbin/docker-init`. So it must be linked statically: of the
//! host's libraries nothing is there. runc-lite is one by that name, and so is Docker's own.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use proto::engine::HostConfig;
use proto::layout;

use super::record::Record;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::spec::mounts::mount;

/// Where a container has it.
const INSIDE: &str = "/sbin/docker-init";

/// Its name on a host that has Docker's.
const DOCKERS: &str = "docker-init";

/// Whether a container gets one: asked for by the user, or else by the daemon's configuration. One that shares another's pid
/// namespace has an init already.
fn is_wanted(config: &Config, host: &HostConfig) -> bool {
    matches!(host.pid_mode.as_str(), "" | "private") && host.init.unwrap_or(config.init)
}

/// Refuses a container whose init would not be found.
pub(super) fn check(config: &Config, host: &HostConfig) -> Result<()> {
    match is_wanted(config, host) {
        true => program(config).map(drop),
        false => Ok(()),
    }
}

/// The program and arguments of a container with its init put before them, and the mount that brings it.
pub(super) fn wrap(
    config: &Config,
    record: &Record,
) -> Result<(String, Vec<String>, Option<Mount>)> {
    let (path, args) = (record.path.clone(), record.args.clone());
    if !is_wanted(config, &record.host) {
        return Ok((path, args, None));
    }
    let source = program(config)?;
    let bound = mount(INSIDE, "bind", &source.to_string_lossy(), &["bind", "ro"])?;
    let args = ["--".to_owned(), path].into_iter().chain(args).collect();
    Ok((INSIDE.to_owned(), args, Some(bound)))
}

/// The program on the host.
fn program(config: &Config) -> Result<PathBuf> {
    if let Some(path) = &config.init_path {
        return match is_static(path) {
            Ok(true) => Ok(path.clone()),
            Ok(false) => Err(Error::internal(format!(
                "init program {} is not linked statically: it cannot run in a container",
                path.display()
            ))),
            Err(e) => Err(Error::internal(format!(
                "init program {}: {e}",
                path.display()
            ))),
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = |name: &str| {
        std::env::split_paths(&path)
            .map(|dir| dir.join(name))
            .collect()
    };
    let ours = super::foreign::beside(layout::program::RUNTIME);
    let named: [Vec<PathBuf>; 2] = [on_path(layout::program::RUNTIME), on_path(DOCKERS)];
    ours.into_iter()
        .chain(named.into_iter().flatten())
        .find(|path| is_static(path).unwrap_or(false))
        .ok_or_else(|| {
            Error::internal(format!(
                "no init program for the container: neither a static {} beside the daemon nor {DOCKERS} on PATH",
                layout::program::RUNTIME
            ))
        })
}

/// Whether a program is a 64-bit ELF file that needs no interpreter.
fn is_static(path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    const HEADER: usize = 64;
    const INTERPRETER: u32 = 3;
    let file = std::fs::File::open(path)?;
    let mut header = [0; HEADER];
    if file.read_at(&mut header, 0)? < HEADER || header[..5] != *b"\x7fELF\x02" {
        return Ok(false);
    }
    let short = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let mut offset = [0; 8];
    offset.copy_from_slice(&header[32..40]);
    let (offset, size, count) = (u64::from_le_bytes(offset), short(54), short(56));
    for index in 0..count {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, offset.saturating_add(index * size))?;
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_and_a_text_are_no_init() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text");
        std::fs::write(&text, "#!/bin/sh\n").unwrap();
        assert!(!is_static(&text).unwrap());
        assert!(is_static(&dir.path().join("absent")).is_err());
        // The test's own binary is linked to the C library.
        assert!(!is_static(&std::env::current_exe().unwrap()).unwrap());
        // Cut off where its table should be.
        let mut cut = vec![0; 64];
        cut[..5].copy_from_slice(b"\x7fELF\x02");
        cut[32] = 64;
        cut[56] = 1;
        std::fs::write(&text, cut).unwrap();
        assert!(is_static(&text).is_err());
    }
}
