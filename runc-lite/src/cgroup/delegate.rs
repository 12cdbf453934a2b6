//! Handing the groups below a container's own to whoever is root inside.
//!
//! With a user namespace of its own, a container's root is an ordinary user of
//! the host, who could do nothing with a cgroup mount that is writable. The
//! specification wants the group to belong to that user then: the directory, and
//! the files that the kernel lists as safe to give away. The limits of the group
//! itself are not among them.

use std::path::Path;

use rustix::fs::Uid;

use super::CgroupError;
use super::dir::{Dir, read_all};
use crate::namespaces::Plan;
use crate::spec::Spec;

/// The host's user that gets the container's group, if one does.
pub(crate) fn owner(spec: &Spec, plan: &Plan) -> Option<u32> {
    let new = |kind| plan.makes(kind);
    let writable = |m: &crate::spec::Mount| {
        m.kind == "cgroup" && !m.options.iter().any(|o| o == "ro" || o == "rro")
    };
    if !new(libc::CLONE_NEWUSER) || !new(libc::CLONE_NEWCGROUP) || !spec.mounts.iter().any(writable)
    {
        return None;
    }
    let inside = spec.process.as_ref().map_or(0, |p| p.user.uid);
    let mut maps = spec.linux.uid_mappings.iter();
    maps.find_map(|m| {
        let offset = inside.checked_sub(m.container_id)?;
        (offset < m.size).then(|| m.host_id.checked_add(offset))?
    })
}

/// Gives away the group and what in it is safe to give.
pub(super) fn hand_over(dir: &Dir, uid: u32) -> Result<(), CgroupError> {
    let listed = read_all(Path::new("/sys/kernel/cgroup/delegate"));
    // Before Linux 4.15 there is no list.
    let listed =
        listed.unwrap_or_else(|_| "cgroup.procs\ncgroup.threads\ncgroup.subtree_control".into());
    let give = |path: &Path| match rustix::fs::chown(path, Some(Uid::from_raw(uid)), None) {
        // The list names files of controllers that are off here.
        Err(rustix::io::Errno::NOENT) => Ok(()),
        other => other.map_err(|e| CgroupError::Io {
            op: "give away",
            path: path.to_owned(),
            source: e.into(),
        }),
    };
    give(dir.path())?;
    let mut files = listed.lines().filter(|f| !f.is_empty() && !f.contains('/'));
    files.try_for_each(|file| give(&dir.path().join(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_user_namespace_with_a_writable_mount_has_an_owner() {
        let json = |options: &str, namespaces: &str| {
            let text = format!(
                r#"{{"ociVersion":"1.0.2","process":{{"args":["x"],"cwd":"/","user":{{"uid":5,"gid":0}}}},
                "mounts":[{{"destination":"/sys/fs/cgroup","type":"cgroup","options":[{options}]}}],
                "linux":{{"namespaces":[{namespaces}],"uidMappings":[{{"containerID":0,"hostID":1000,"size":10}}],
                "gidMappings":[{{"containerID":0,"hostID":1000,"size":10}}]}}}}"#
            );
            let spec: Spec = serde_json::from_str(&text).unwrap();
            let plan = Plan::from_spec(&spec).unwrap();
            owner(&spec, &plan)
        };
        let both = r#"{"type":"user"},{"type":"cgroup"},{"type":"mount"}"#;
        assert_eq!(json("", both), Some(1005));
        assert_eq!(json(r#""ro""#, both), None);
        assert_eq!(json("", r#"{"type":"user"},{"type":"mount"}"#), None);
    }
}
