//! `state`: what the specification calls the state, and what runc adds.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::{CommandError, Container, Context, say};
use crate::args::Parsed;
use crate::error::Doing as _;

/// The fields in runc's order; `list` prints the same.
#[derive(Debug, Serialize)]
pub(super) struct Shown<'a> {
    #[serde(rename = "ociVersion")]
    oci_version: &'a str,
    pub(super) id: &'a str,
    pub(super) pid: i32,
    pub(super) status: &'static str,
    pub(super) bundle: &'a Path,
    rootfs: &'a Path,
    pub(super) created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    pub(super) owner: String,
}

/// What is shown of a container.
pub(super) fn shown(container: &Container) -> Shown<'_> {
    let status = container.status();
    let state = &container.state;
    Shown {
        oci_version: &state.oci_version,
        id: &state.id,
        pid: if status == crate::state::Status::Stopped {
            0
        } else {
            state.pid
        },
        status: status.as_str(),
        bundle: &state.bundle,
        rootfs: &state.rootfs,
        created: &state.created,
        annotations: &state.annotations,
        owner: owner(container.dir.path()),
    }
}

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let container = context.container(parsed)?;
    // Whose it is, is told by `list` only; and as with runc no line ends here.
    let shown = Shown {
        owner: String::new(),
        ..shown(&container)
    };
    let json = serde_json::to_string_pretty(&shown)
        .map_err(std::io::Error::from)
        .doing(|| "print the state")?;
    say(format_args!("{json}"));
    Ok(())
}

/// Who made it, by name where there is one.
fn owner(dir: &Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(meta) = dir.metadata() else {
        return String::new();
    };
    if meta.uid() == 0 {
        return "root".into();
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let uid = meta.uid().to_string();
    let name = passwd.lines().find(|l| l.split(':').nth(2) == Some(&uid));
    name.and_then(|l| l.split(':').next())
        .map_or(uid.clone(), str::to_owned)
}
