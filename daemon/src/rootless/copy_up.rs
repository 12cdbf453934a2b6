//! A directory of the host that becomes writable in our mount namespace, and shows what the host has in it.
//!
//! A tmpfs comes over it, the original is mounted within under a hidden name, and every entry is a link to there; links are links as they were. So what the host
//! changes in a file is seen, what it renames into place does not take mounts of ours away, and new files are ours alone.

use std::path::Path;

use rustix::fs::{CWD, Mode};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree};

use crate::error::{During, Result};

/// The hidden name, which no entry of the host has.
const ORIGINAL: &str = ".ro";

/// Covers one directory.
pub(super) fn copy_up(dir: &Path) -> Result<()> {
    let what = || format!("make {} writable for ourselves", dir.display());
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags |= OpenTreeFlags::AT_RECURSIVE;
    let original = open_tree(CWD, dir, flags).during(what)?;
    mount(
        "tmpfs",
        dir,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(c"mode=0755"),
    )
    .during(what)?;
    let below = free_name(dir, &original)?;
    let place = dir.join(&below);
    rustix::fs::mkdir(&place, Mode::from_raw_mode(0o755)).during(what)?;
    move_mount(
        &original,
        "",
        CWD,
        &place,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .during(what)?;
    for entry in std::fs::read_dir(&place).during(what)? {
        let entry = entry.during(what)?;
        let name = entry.file_name();
        let link = dir.join(&name);
        // A link may lead from where it is to its neighbours, or further up.
        let leads = match std::fs::read_link(entry.path()) {
            Ok(leads) => leads,
            Err(_) => Path::new(&below).join(&name),
        };
        std::os::unix::fs::symlink(leads, &link).during(|| format!("link {}", link.display()))?;
    }
    Ok(())
}

/// A name that the original does not use.
fn free_name(dir: &Path, original: &impl std::os::fd::AsFd) -> Result<String> {
    let mut name = ORIGINAL.to_owned();
    while rustix::fs::statat(original, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok() {
        name = format!("{ORIGINAL}{}", crate::random::hex(4));
    }
    // The tmpfs is new, so it is free there as well.
    debug_assert!(!dir.join(&name).exists());
    Ok(name)
}
