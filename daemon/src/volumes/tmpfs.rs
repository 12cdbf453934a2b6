//! Options of memory mounts: what is allowed, and Docker's defaults. Pure.

use super::request::{Mount, MountError, Source};

/// One `--tmpfs`.
pub(super) fn tmpfs(destination: &str, options: &str) -> Result<Mount, MountError> {
    let given: Vec<String> = options
        .split(',')
        .filter(|o| !o.is_empty())
        .map(str::to_owned)
        .collect();
    for option in &given {
        let key = option.split('=').next().unwrap_or_default();
        if !matches!(
            key,
            "size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol" | "huge"
        ) && opposite(option).is_none()
        {
            return Err(MountError::Config {
                kind: "tmpfs".to_owned(),
                why: format!("invalid tmpfs option {option:?}"),
            });
        }
    }
    Ok(Mount {
        destination: super::request::clean_destination(destination, destination)?,
        read_only: given.iter().any(|o| o == "ro"),
        mode: String::new(),
        source: Source::Tmpfs {
            options: merge_tmpfs(given),
            listed: false,
        },
    })
}

/// Docker's defaults, each dropped where its opposite was asked for.
pub(super) fn merge_tmpfs(given: Vec<String>) -> Vec<String> {
    let mut options: Vec<String> = ["noexec", "nosuid", "nodev"]
        .iter()
        .filter(|default| !given.iter().any(|g| opposite(g) == Some(default)))
        .map(|default| (*default).to_owned())
        .collect();
    for option in given {
        if !options.contains(&option) {
            options.push(option);
        }
    }
    options
}

fn opposite(flag: &str) -> Option<&'static str> {
    const PAIRS: [(&str, &str); 9] = [
        ("exec", "noexec"),
        ("suid", "nosuid"),
        ("dev", "nodev"),
        ("rw", "ro"),
        ("sync", "async"),
        ("atime", "noatime"),
        ("diratime", "nodiratime"),
        ("relatime", "norelatime"),
        ("strictatime", "nostrictatime"),
    ];
    PAIRS.iter().find_map(|(a, b)| match flag {
        _ if flag == *a => Some(*b),
        _ if flag == *b => Some(*a),
        _ => None,
    })
}
