//! Device rules on v2: a program that the kernel asks at every access.

use super::super::CgroupError;
use super::super::devices::DeviceSet;
use super::super::dir::Dir;
use super::super::v1::devices::in_user_namespace;
use super::ebpf;
use crate::spec::resources::LinuxDeviceCgroup;
use crate::sys::bpf;

/// Puts the container's rules in force, in place of what was there.
pub(super) fn set(dir: &Dir, rules: &[LinuxDeviceCgroup]) -> Result<(), CgroupError> {
    let program = ebpf::compile(&DeviceSet::of_container(rules)?);
    let failed = |op| {
        move |source| CgroupError::Io {
            op,
            path: dir.path().to_owned(),
            source,
        }
    };
    let group = rustix::fs::open(
        dir.path(),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(|e| failed("open cgroup")(e.into()))?;
    let result = (|| {
        let old = bpf::attached_device_programs(&group)?;
        let program = bpf::load_device_program(&program)?;
        // New before old: there is no moment without rules.
        bpf::attach_device_program(&group, &program)?;
        old.iter()
            .try_for_each(|old| bpf::detach_device_program(&group, old))
    })();
    match result {
        // Inside a user namespace programs cannot be loaded; whoever made the
        // namespace has set the rules already. Nor can an ordinary user load them,
        // whose container can open no device that they could not.
        Err(e) if e.raw_os_error() == Some(libc::EPERM) && !privileged() => Ok(()),
        other => other.map_err(failed("set the device filter of")),
    }
}

fn privileged() -> bool {
    rustix::process::geteuid().is_root() && !in_user_namespace()
}
