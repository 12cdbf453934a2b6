//! Maps of user and group ids: of the container's user namespace, and of
//! single mounts.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::Command;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::error::{Doing as _, StepError};
use crate::namespaces::Plan;
use crate::rootfs::options::Options;
use crate::rootfs::{self, mounts};
use crate::spec::{IdMapping, Spec};
use crate::sys::clone::{Forked, fork_into};
use crate::sys::mount::set_idmap;

/// Writes the maps of a process in a new user namespace. Without privileges the
/// set-uid helpers of the system do it.
pub(crate) fn write(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> Result<(), StepError> {
    if rustix::process::geteuid().is_root() {
        write_file(pid, "uid_map", uids)?;
        return write_file(pid, "gid_map", gids);
    }
    let own_only =
        |maps: &[IdMapping], id: u32| matches!(maps, [m] if m.size == 1 && m.host_id == id);
    if own_only(uids, rustix::process::geteuid().as_raw()) {
        write_file(pid, "uid_map", uids)?;
    } else {
        helper("newuidmap", pid, uids)?;
    }
    if own_only(gids, rustix::process::getegid().as_raw()) {
        // The kernel's condition for mapping a group without privileges.
        std::fs::write(format!("/proc/{pid}/setgroups"), "deny")
            .doing(|| "deny setgroups in the user namespace")?;
        write_file(pid, "gid_map", gids)
    } else {
        helper("newgidmap", pid, gids)
    }
}

fn write_file(pid: i32, name: &str, maps: &[IdMapping]) -> Result<(), StepError> {
    let text: String = maps
        .iter()
        .map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size))
        .collect();
    std::fs::write(format!("/proc/{pid}/{name}"), &text)
        .doing(|| format!("write {name} \"{}\"", text.trim_end().replace('\n', ", ")))
}

fn helper(program: &str, pid: i32, maps: &[IdMapping]) -> Result<(), StepError> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for m in maps {
        command.args([m.container_id, m.host_id, m.size].map(|n| n.to_string()));
    }
    let output = command.output().doing(|| format!("run {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(StepError::refused(format!("map ids with {program}"), said))
}

/// The id-mapped mounts, as detached trees by their place in the list. The child may
/// lack the right to map ids, in a user namespace of its own, so they are prepared
/// here, where the source is the same.
pub(crate) fn for_mounts(
    spec: &Spec,
    plan: &Plan,
    bundle: &Path,
) -> Result<Vec<(usize, OwnedFd)>, StepError> {
    let mut all = Vec::new();
    for (index, mount) in spec.mounts.iter().enumerate() {
        let options = Options::parse(&mount.options);
        let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        if options.idmap.is_none() && !mapped {
            continue;
        }
        let what = || format!("map ids of mount {}", mount.destination);
        let refused = |why: &str| Err(StepError::refused(what(), why));
        let Some(recursive) = mounts::bind_of(mount, &options) else {
            return refused("only bind mounts can have their ids mapped");
        };
        let made;
        let namespace = match (mapped, plan.joined(libc::CLONE_NEWUSER)) {
            (false, Some(joined)) => joined,
            (own, _) => {
                let (uids, gids) = match own {
                    true => (&mount.uid_mappings, &mount.gid_mappings),
                    false => (&spec.linux.uid_mappings, &spec.linux.gid_mappings),
                };
                if uids.is_empty() || gids.is_empty() {
                    return refused("neither mount nor container has uidMappings and gidMappings");
                }
                made = namespace_with(uids, gids)?;
                &made
            }
        };
        let tree = mounts::bind_source(mount, bundle, recursive)?;
        rootfs::cut_propagation(&tree, spec).doing(what)?;
        let below = options.idmap.unwrap_or(false);
        set_idmap(&tree, below, namespace.as_fd()).doing(what)?;
        all.push((index, tree));
    }
    Ok(all)
}

/// Makes a user namespace with these maps and gives a descriptor that keeps it.
fn namespace_with(uids: &[IdMapping], gids: &[IdMapping]) -> Result<OwnedFd, StepError> {
    let forked =
        fork_into(libc::CLONE_NEWUSER as u64, false, None).doing(|| "make a user namespace")?;
    let (pid, pidfd) = match forked {
        Forked::Parent { pid, pidfd, .. } => (pid, pidfd),
        // Only there to hold the namespace until it is opened.
        Forked::Child => loop {
            rustix::event::pause();
        },
    };
    let result = write(pid, uids, gids).and_then(|()| {
        open(
            format!("/proc/{pid}/ns/user"),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .doing(|| "open the user namespace of a mount")
    });
    // It is our child: the kill cannot miss, and the wait ends.
    let _ = crate::sys::process::pidfd_kill(&pidfd, libc::SIGKILL);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    result
}
