//! Docker's CLI plugins: programs `docker-NAME` in known folders that are commands of their own, such as compose and buildx.
//!
//! A plugin is asked with the word `docker-cli-plugin-metadata` what it is, and run with all words that the user gave, global
//! flags and its own name included. Ours takes over the process, so that terminal, signals and exit code are its own.
//! Hooks of plugins into other commands are not run.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::Failure;

/// Where distributions put plugins; the user's own folder comes first.
const FOLDERS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];
const PREFIX: &str = "docker-";
/// The only form of the metadata that there is.
const SCHEMA: &str = "0.1.0";
/// In the environment of a plugin: the program that runs it, to be run again for its daemon.
const CALLER: &str = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND";

/// What a plugin says of itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Metadata {
    schema_version: String,
    pub(crate) vendor: String,
    pub(crate) version: String,
    pub(crate) short_description: String,
}

/// A plugin that is there.
#[derive(Debug, Clone)]
pub(crate) struct Plugin {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) metadata: Metadata,
}

/// The folders, those of the user first.
pub(crate) fn folders(config: &Path, extra: &[String]) -> Vec<PathBuf> {
    std::iter::once(config.join("cli-plugins"))
        .chain(extra.iter().map(PathBuf::from))
        .chain(FOLDERS.iter().map(PathBuf::from))
        .collect()
}

/// The program of a plugin.
pub(crate) fn find(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    if !is_name(name) {
        return None;
    }
    folders
        .iter()
        .map(|folder| folder.join(format!("{PREFIX}{name}")))
        .find(|path| is_program(path))
}

/// All plugins that can be run, by name; each is asked what it is.
pub(crate) fn all(folders: &[PathBuf]) -> Vec<Plugin> {
    let mut names: Vec<String> = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some(
                entry
                    .file_name()
                    .to_str()?
                    .strip_prefix(PREFIX)?
                    .to_string(),
            )
        })
        .collect();
    names.sort();
    names.dedup();
    let plugins = names.into_iter().filter_map(|name| {
        let path = find(folders, &name)?;
        let metadata = ask(&path)?;
        Some(Plugin {
            name,
            path,
            metadata,
        })
    });
    plugins.collect()
}

/// Becomes the plugin; comes back only if that failed.
pub(crate) fn become_plugin(path: &Path, words: &[String]) -> Failure {
    let mut command = Command::new(path);
    command.args(words);
    if let Ok(own) = std::env::current_exe() {
        command.env(CALLER, own);
    }
    let cause = command.exec();
    Failure::new(format!(
        "docker-lite: run the plugin {}: {cause}",
        path.display()
    ))
}

fn ask(path: &Path) -> Option<Metadata> {
    let out = Command::new(path)
        .arg("docker-cli-plugin-metadata")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|out| out.status.success())?;
    serde_json::from_slice::<Metadata>(&out.stdout)
        .ok()
        .filter(|told| told.schema_version == SCHEMA && !told.vendor.is_empty())
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(folder: &Path, name: &str, script: &str, mode: u32) {
        let path = folder.join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn plugins_are_found_in_order_and_tell_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::create_dir_all(&first).unwrap();
        std::fs::create_dir_all(&second).unwrap();
        let good = "#!/bin/sh\necho '{\"SchemaVersion\":\"0.1.0\",\"Vendor\":\"me\",\"ShortDescription\":\"does\"}'\n";
        plugin(&first, "docker-good", good, 0o755);
        plugin(&second, "docker-good", "#!/bin/sh\nexit 1\n", 0o755);
        plugin(
            &first,
            "docker-old",
            "#!/bin/sh\necho '{\"SchemaVersion\":\"9\",\"Vendor\":\"x\"}'\n",
            0o755,
        );
        plugin(&first, "docker-plain", good, 0o644);
        plugin(&first, "docker-Odd-name", good, 0o755);
        let folders = [first.clone(), second];
        let found = all(&folders);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path, first.join("docker-good"));
        assert_eq!(found[0].metadata.short_description, "does");
        assert!(find(&folders, "plain").is_none());
        assert!(find(&folders, "../x").is_none());
    }
}
