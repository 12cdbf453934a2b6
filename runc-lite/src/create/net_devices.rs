//! Moves network devices of the host into the container's network namespace
//! (`linux.netDevices`), with the addresses that are theirs.
//!
//! The parent does it, as it has the privilege in both namespaces. The kernel gives
//! hardware back to the host when the namespace ends, and removes what is virtual:
//! nothing has to be recorded for `delete`.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};

use crate::error::{Doing as _, StepError};
use crate::namespaces::enter;
use crate::netlink::Netlink;
use crate::spec::Spec;

const NET: u32 = libc::CLONE_NEWNET as u32;

/// Moves all of them into the network namespace of a process, or the one joined.
pub(crate) fn hand_over(spec: &Spec, pid: i32, joined: Option<&OwnedFd>) -> Result<(), StepError> {
    if spec.linux.net_devices.is_empty() {
        return Ok(());
    }
    let opened;
    let namespace = match joined {
        Some(namespace) => namespace,
        None => {
            opened = open_namespace(&format!("/proc/{pid}/ns/net"))?;
            &opened
        }
    };
    let here = Netlink::open().doing(|| "open a netlink socket")?;
    let there = netlink_in(namespace)?;
    for (name, device) in &spec.linux.net_devices {
        let new_name = match device.name.as_str() {
            "" => name,
            given => given,
        };
        move_one(&here, &there, namespace, name, new_name)?;
    }
    Ok(())
}

fn move_one(
    here: &Netlink,
    there: &Netlink,
    namespace: &OwnedFd,
    name: &str,
    new_name: &str,
) -> Result<(), StepError> {
    let what = |step: &str| format!("move network device {name}: {step}");
    let index = here.index(name).doing(|| what("find it"))?;
    let addresses = here.addresses(index).doing(|| what("read its addresses"))?;
    // The kernel takes it down anyway, and drops its addresses.
    here.set_up(index, false).doing(|| what("take it down"))?;
    here.hand_over(index, namespace, new_name)
        .doing(|| what(&format!("hand it over as {new_name}")))?;
    // The number may be another's there.
    let index = there
        .index(new_name)
        .doing(|| what(&format!("find it as {new_name}")))?;
    for address in &addresses {
        there
            .add(index, address)
            .doing(|| what("give it its address"))?;
    }
    there.set_up(index, true).doing(|| what("put it up"))
}

/// A netlink socket in another namespace: opened while we are there.
fn netlink_in(namespace: &OwnedFd) -> Result<Netlink, StepError> {
    let own = open_namespace("/proc/self/ns/net")?;
    enter(namespace, NET).doing(|| "enter the container's network namespace")?;
    let socket = Netlink::open();
    enter(&own, NET).doing(|| "return to the own network namespace")?;
    socket.doing(|| "open a netlink socket in the container's network namespace")
}

fn open_namespace(path: &str) -> Result<OwnedFd, StepError> {
    open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing(|| format!("open {path}"))
}

/// What is wrong with a device's name, before anything is made.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let plain = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0');
    match plain {
        true => Ok(()),
        false => Err(format!("invalid network device name {name:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn names_are_the_kernels() {
        assert!(check_name("eth0").is_ok() && check_name("a.b-c_15chars0").is_ok());
        for bad in ["", ".", "..", "a/b", "a b", "a:1", "sixteen-letters0"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
