//! bpf(2): the programs that decide on device access on cgroup v2.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use super::check;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of groups above and of others on this group stay in force as well.
const ALLOW_MULTI: u32 = 2;

/// One instruction, as the kernel lays it out.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub(crate) struct Insn {
    pub(crate) code: u8,
    /// Destination in the low half, source in the high half.
    pub(crate) regs: u8,
    pub(crate) off: i16,
    pub(crate) imm: i32,
}

#[derive(Default)]
#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    name: [u8; 16],
}

#[derive(Default)]
#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    program_fd: u32,
    attach_type: u32,
    flags: u32,
}

#[derive(Default)]
#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[derive(Default)]
#[repr(C)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Calls bpf(2) with one of the structs above.
fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: attr is a live, exclusively borrowed, fully initialised repr(C)
    // struct without hidden padding, and its true size goes along, so the kernel
    // reads and writes nothing beyond it. Addresses in it are set by the callers
    // below, each to a buffer that outlives the call and of the length they state.
    check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    })
}

fn number(fd: impl AsFd) -> u32 {
    u32::try_from(fd.as_fd().as_raw_fd()).expect("a borrowed descriptor is not negative")
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: both commands that get here return a new descriptor, close-on-exec,
    // which nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Hands a device program to the kernel, which checks it.
pub(crate) fn load_device_program(program: &[Insn]) -> io::Result<OwnedFd> {
    // The kernel asks what it may call; this one calls nothing.
    let license = c"Apache-2.0";
    let mut attr = LoadAttr {
        prog_type: TYPE_CGROUP_DEVICE,
        insn_count: u32::try_from(program.len())
            .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        insns: program.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        name: *b"devices\0\0\0\0\0\0\0\0\0",
        ..LoadAttr::default()
    };
    owned(bpf(PROG_LOAD, &mut attr)?)
}

/// Puts a program in force on a group.
pub(crate) fn attach_device_program(group: impl AsFd, program: &OwnedFd) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: number(group),
        program_fd: number(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &mut attr).map(drop)
}

/// Takes a program off a group.
pub(crate) fn detach_device_program(group: impl AsFd, program: &OwnedFd) -> io::Result<()> {
    let mut attr = AttachAttr {
        target_fd: number(group),
        program_fd: number(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: 0,
    };
    bpf(PROG_DETACH, &mut attr).map(drop)
}

/// The device programs on a group itself.
pub(crate) fn attached_device_programs(group: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    // The kernel's own bound on programs per group and type is 64.
    let mut ids = [0u32; 64];
    let mut attr = QueryAttr {
        target_fd: number(group),
        attach_type: ATTACH_CGROUP_DEVICE,
        ids: ids.as_mut_ptr().addr() as u64,
        count: 64,
        ..QueryAttr::default()
    };
    bpf(PROG_QUERY, &mut attr)?;
    let count = usize::try_from(attr.count).unwrap_or(0).min(ids.len());
    let mut programs = Vec::with_capacity(count);
    for &id in &ids[..count] {
        match bpf(
            PROG_GET_FD_BY_ID,
            &mut IdAttr {
                id,
                ..IdAttr::default()
            },
        ) {
            Ok(fd) => programs.push(owned(fd)?),
            // Detached by its owner since.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_never_ends_is_refused() {
        // No exit instruction: invalid for every kernel, whoever asks.
        let program = [Insn {
            code: 0xb7,
            regs: 0,
            off: 0,
            imm: 1,
        }];
        assert!(load_device_program(&program).is_err());
    }
}
