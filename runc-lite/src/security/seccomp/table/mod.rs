//! System call numbers by name, for the machine's own architecture and those
//! whose programs it can run as well.

/// An architecture as a filter sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each machine is of one family only")]
pub(super) enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
}

impl Arch {
    /// Its name in a profile.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::X86 => "SCMP_ARCH_X86",
            Self::X32 => "SCMP_ARCH_X32",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
            Self::Arm => "SCMP_ARCH_ARM",
        }
    }

    /// The number in a filter's input.
    pub(super) fn audit(self) -> u32 {
        match self {
            // x32 programs announce themselves as 64-bit ones, with a bit in the number.
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments are 32 bits wide.
    pub(super) fn narrow(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }
}

/// What a name of the specification stands for on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// An architecture that can occur.
    Here(Arch),
    /// One that cannot: nothing to filter.
    Elsewhere,
}

/// Looks up `SCMP_ARCH_*`.
pub(super) fn arch(name: &str) -> Option<Named> {
    if let Some(&arch) = FAMILY.iter().find(|a| a.name() == name) {
        return Some(Named::Here(arch));
    }
    match name {
        "SCMP_ARCH_NATIVE" => FAMILY.first().map(|&a| Named::Here(a)),
        "SCMP_ARCH_X86"
        | "SCMP_ARCH_X86_64"
        | "SCMP_ARCH_X32"
        | "SCMP_ARCH_ARM"
        | "SCMP_ARCH_AARCH64"
        | "SCMP_ARCH_MIPS"
        | "SCMP_ARCH_MIPS64"
        | "SCMP_ARCH_MIPS64N32"
        | "SCMP_ARCH_MIPSEL"
        | "SCMP_ARCH_MIPSEL64"
        | "SCMP_ARCH_MIPSEL64N32"
        | "SCMP_ARCH_PPC"
        | "SCMP_ARCH_PPC64"
        | "SCMP_ARCH_PPC64LE"
        | "SCMP_ARCH_S390"
        | "SCMP_ARCH_S390X"
        | "SCMP_ARCH_PARISC"
        | "SCMP_ARCH_PARISC64"
        | "SCMP_ARCH_RISCV64"
        | "SCMP_ARCH_LOONGARCH64"
        | "SCMP_ARCH_M68K"
        | "SCMP_ARCH_SH"
        | "SCMP_ARCH_SHEB" => Some(Named::Elsewhere),
        _ => None,
    }
}

/// There is no such call on this architecture.
pub(super) const NONE: u32 = u32::MAX;

/// Set in the number of every x32 call; the table leaves it out.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Private calls of 32-bit ARM lie far above all others.
pub(super) const ARM_PRIVATE: u32 = 0x000f_0000;

/// A name and its numbers.
pub(super) type Row = (&'static str, [u32; FAMILY.len()]);

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
use x86::TABLE;
/// The machine's own architecture comes first.
#[cfg(target_arch = "x86_64")]
pub(super) const FAMILY: &[Arch] = &[Arch::X86_64, Arch::X86, Arch::X32];

#[cfg(target_arch = "aarch64")]
mod arm;
#[cfg(target_arch = "aarch64")]
use arm::TABLE;
/// The machine's own architecture comes first.
#[cfg(target_arch = "aarch64")]
pub(super) const FAMILY: &[Arch] = &[Arch::Aarch64, Arch::Arm];

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const FAMILY: &[Arch] = &[];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static TABLE: &[Row] = &[];

/// Where the names with each first byte begin in the table, and where they end.
static BY_FIRST: [u16; 257] = {
    let mut starts = [0; 257];
    let mut at = 0;
    let mut byte = 0;
    while byte < 257 {
        while at < TABLE.len() && (TABLE[at].0.as_bytes()[0] as usize) < byte {
            at += 1;
        }
        starts[byte] = at as u16;
        byte += 1;
    }
    starts
};

/// Where a name is in the table; `None` if this program does not know it.
pub(super) fn row(name: &str) -> Option<usize> {
    let first = usize::from(*name.as_bytes().first()?);
    let (from, to) = (BY_FIRST[first].into(), BY_FIRST[first + 1].into());
    let at = TABLE[from..to]
        .binary_search_by(|row| row.0.cmp(name))
        .ok()?;
    Some(from + at)
}

/// The number of a row's call; `None` if the architecture has no such call.
pub(super) fn number_in(arch: Arch, row: usize) -> Option<u32> {
    let column = FAMILY.iter().position(|a| *a == arch)?;
    match TABLE[row].1[column] {
        NONE => None,
        number if arch == Arch::X32 => Some(number | X32_BIT),
        number => Some(number),
    }
}

/// The number of a call; `None` if this program or the architecture has no such call.
pub(super) fn number(arch: Arch, name: &str) -> Option<u32> {
    number_in(arch, row(name)?)
}

/// All names, for tests that need many.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|row| row.0)
}

/// On 32-bit x86 sockets and System V IPC have a second way in: one call for
/// all, told apart by its first argument. Gives that call's name and argument.
pub(super) fn multiplexed(arch: Arch, name: &str) -> Option<(&'static str, u64)> {
    if arch != Arch::X86 {
        return None;
    }
    let socket = match name {
        "socket" => 1,
        "bind" => 2,
        "connect" => 3,
        "listen" => 4,
        "accept" => 5,
        "getsockname" => 6,
        "getpeername" => 7,
        "socketpair" => 8,
        "send" => 9,
        "recv" => 10,
        "sendto" => 11,
        "recvfrom" => 12,
        "shutdown" => 13,
        "setsockopt" => 14,
        "getsockopt" => 15,
        "sendmsg" => 16,
        "recvmsg" => 17,
        "accept4" => 18,
        "recvmmsg" => 19,
        "sendmmsg" => 20,
        _ => 0,
    };
    if socket != 0 {
        return Some(("socketcall", socket));
    }
    let ipc = match name {
        "semop" => 1,
        "semget" => 2,
        "semctl" => 3,
        "semtimedop" => 4,
        "msgsnd" => 11,
        "msgrcv" => 12,
        "msgget" => 13,
        "msgctl" => 14,
        "shmat" => 21,
        "shmdt" => 22,
        "shmget" => 23,
        "shmctl" => 24,
        _ => return None,
    };
    Some(("ipc", ipc))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_agrees_with_the_c_library() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        for (name, nr) in [
            ("read", libc::SYS_read),
            ("openat2", libc::SYS_openat2),
            ("clone3", libc::SYS_clone3),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("rt_sigreturn", libc::SYS_rt_sigreturn),
        ] {
            assert_eq!(
                number(Arch::X86_64, name).map(i64::from),
                Some(nr),
                "{name}"
            );
        }
        assert_eq!(number(Arch::X86, "socketcall"), Some(102));
        assert_eq!(number(Arch::X86_64, "socketcall"), None);
        assert_eq!(number(Arch::X32, "rt_sigaction"), Some(X32_BIT | 512));
        assert_eq!(number(Arch::X86_64, "no_such_call"), None);
    }
}
