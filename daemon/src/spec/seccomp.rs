//! The seccomp section of a spec: Docker's default profile, or one in Docker's profile format that the user gave. Pure.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
    LinuxSyscallBuilder,
};
use serde::Deserialize;

use super::capabilities::Set;
use super::seccomp_table as table;
use crate::error::{Error, Result};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The machine as the profile sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Rust's name of it.
    pub(crate) arch: &'static str,
    /// Version of the kernel: major, minor.
    pub(crate) kernel: (u32, u32),
}

impl Machine {
    /// The machine we run on.
    pub(crate) fn this() -> Self {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        let mut next = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Self {
            arch: std::env::consts::ARCH,
            kernel: (next(), next()),
        }
    }

    fn architectures(self) -> Vec<Arch> {
        match self.arch {
            "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
            "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
            "powerpc64" => vec![Arch::ScmpArchPpc64le],
            "s390x" => vec![Arch::ScmpArchS390x, Arch::ScmpArchS390],
            "riscv64" => vec![Arch::ScmpArchRiscv64],
            _ => Vec::new(),
        }
    }

    /// Go's names of the machine, which profiles use.
    fn go_names(self) -> &'static [&'static str] {
        match self.arch {
            "x86_64" => &["amd64", "x86", "x32"],
            "aarch64" => &["arm64", "arm"],
            "powerpc64" => &["ppc64le"],
            "s390x" => &["s390x", "s390"],
            "riscv64" => &["riscv64"],
            _ => &[],
        }
    }
}

/// The default profile for a container with these capabilities.
pub(crate) fn default(capabilities: &Set, machine: Machine) -> Result<LinuxSeccomp> {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpMaskedEq, ScmpCmpNe};
    let mut rules = vec![allow(table::ALWAYS, &[])?];
    if machine.kernel >= (4, 8) {
        rules.push(allow(table::SINCE_4_8, &[])?);
    }
    let socket = argument(0, table::AF_VSOCK, 0, ScmpCmpNe)?;
    rules.push(allow(&["socket"], &[socket])?);
    for persona in table::PERSONALITIES {
        let argument = argument(0, persona, 0, ScmpCmpEq)?;
        rules.push(allow(&["personality"], &[argument])?);
    }
    let machines = table::BY_MACHINE.iter();
    for (_, names) in machines.filter(|(arch, _)| *arch == machine.arch) {
        rules.push(allow(names, &[])?);
    }
    let opened = table::BY_CAPABILITY.iter();
    for (_, names) in opened.filter(|(capability, _)| capabilities.contains(capability)) {
        rules.push(allow(names, &[])?);
    }
    if !capabilities.contains("SYS_ADMIN") {
        let at = usize::from(machine.arch == "s390x");
        let flags = argument(at, table::CLONE_NAMESPACES, 0, ScmpCmpMaskedEq)?;
        rules.push(allow(&["clone"], &[flags])?);
        // Its flags lie in memory, where no filter looks; ENOSYS makes libc fall back to clone.
        let refused = LinuxSyscallBuilder::default()
            .names(vec!["clone3".to_owned()])
            .action(LinuxSeccompAction::ScmpActErrno)
            .errno_ret(ENOSYS)
            .build();
        rules.push(refused.map_err(wrong)?);
    }
    finish(
        LinuxSeccompAction::ScmpActErrno,
        Some(EPERM),
        machine.architectures(),
        Vec::new(),
        rules,
    )
}

fn finish(
    action: LinuxSeccompAction,
    errno: Option<u32>,
    architectures: Vec<Arch>,
    flags: Vec<LinuxSeccompFilterFlag>,
    rules: Vec<LinuxSyscall>,
) -> Result<LinuxSeccomp> {
    let mut built = LinuxSeccompBuilder::default()
        .default_action(action)
        .syscalls(rules);
    if let Some(errno) = errno {
        built = built.default_errno_ret(errno);
    }
    if !architectures.is_empty() {
        built = built.architectures(architectures);
    }
    if !flags.is_empty() {
        built = built.flags(flags);
    }
    built.build().map_err(wrong)
}

fn allow(names: &[&str], arguments: &[LinuxSeccompArg]) -> Result<LinuxSyscall> {
    let mut built = LinuxSyscallBuilder::default()
        .names(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
        .action(LinuxSeccompAction::ScmpActAllow);
    if !arguments.is_empty() {
        built = built.args(arguments.to_vec());
    }
    built.build().map_err(wrong)
}

fn argument(
    index: usize,
    value: u64,
    value_two: u64,
    op: LinuxSeccompOperator,
) -> Result<LinuxSeccompArg> {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(value)
        .value_two(value_two)
        .op(op)
        .build()
        .map_err(wrong)
}

fn wrong(error: oci_spec::OciSpecError) -> Error {
    Error::internal(format!("build the seccomp section: {error}"))
}

/// A profile in Docker's format.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<Arch>,
    #[serde(default)]
    arch_map: Vec<ArchMap>,
    #[serde(default)]
    flags: Vec<LinuxSeccompFilterFlag>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: usize,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: LinuxSeccompOperator,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    #[serde(default)]
    min_kernel: String,
}

/// The section that a user's profile makes for a container with these capabilities.
pub(crate) fn custom(text: &str, capabilities: &Set, machine: Machine) -> Result<LinuxSeccomp> {
    let profile: Profile = serde_json::from_str(text)
        .map_err(|e| Error::invalid(format!("decoding seccomp profile failed: {e}")))?;
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(Error::invalid(
            "seccomp profile: both 'architectures' and 'archMap' are specified",
        ));
    }
    let own = machine.architectures();
    let mapped = profile
        .arch_map
        .iter()
        .find(|map| own.first() == Some(&map.architecture))
        .map(|map| {
            let below = map.sub_architectures.iter().flatten();
            std::iter::once(&map.architecture)
                .chain(below)
                .copied()
                .collect()
        });
    let mut rules = Vec::new();
    for rule in profile.syscalls {
        let kept = rule
            .includes
            .as_ref()
            .is_none_or(|f| f.all(capabilities, machine))
            && !rule
                .excludes
                .as_ref()
                .is_some_and(|f| f.any(capabilities, machine));
        if !kept {
            continue;
        }
        let mut names = rule.names;
        if !rule.name.is_empty() {
            names.push(rule.name);
        }
        let mut built = LinuxSyscallBuilder::default()
            .names(names)
            .action(rule.action);
        if let Some(errno) = rule.errno_ret {
            built = built.errno_ret(errno);
        }
        let arguments = rule.args.unwrap_or_default().into_iter();
        let arguments = arguments
            .map(|a| argument(a.index, a.value, a.value_two, a.op))
            .collect::<Result<Vec<_>>>()?;
        if !arguments.is_empty() {
            built = built.args(arguments);
        }
        rules.push(built.build().map_err(wrong)?);
    }
    finish(
        profile.default_action,
        profile.default_errno_ret,
        mapped.unwrap_or(profile.architectures),
        profile.flags,
        rules,
    )
}

impl Filter {
    fn has(capabilities: &Set, name: &str) -> bool {
        capabilities.contains(name.strip_prefix("CAP_").unwrap_or(name))
    }
    fn kernel(&self) -> Option<(u32, u32)> {
        let (major, minor) = self.min_kernel.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
    /// As a condition to include a rule: everything that it names holds.
    fn all(&self, capabilities: &Set, machine: Machine) -> bool {
        let here = |arch: &String| machine.go_names().contains(&arch.as_str());
        self.caps.iter().all(|cap| Self::has(capabilities, cap))
            && (self.arches.is_empty() || self.arches.iter().any(here))
            && self.kernel().is_none_or(|min| machine.kernel >= min)
    }
    /// As a condition to exclude a rule: anything that it names holds.
    fn any(&self, capabilities: &Set, machine: Machine) -> bool {
        let here = |arch: &String| machine.go_names().contains(&arch.as_str());
        self.caps.iter().any(|cap| Self::has(capabilities, cap))
            || self.arches.iter().any(here)
            || self.kernel().is_some_and(|min| machine.kernel >= min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine {
        arch: "x86_64",
        kernel: (6, 1),
    };

    fn allowed(section: &LinuxSeccomp, name: &str) -> bool {
        let rules = section.syscalls().iter().flatten();
        let mut ours = rules.filter(|rule| rule.names().iter().any(|n| n == name));
        ours.any(|rule| rule.action() == LinuxSeccompAction::ScmpActAllow)
    }

    #[test]
    fn the_default_guards_the_host() {
        let section = default(&Set::new(), MACHINE).unwrap();
        for name in ["read", "clone", "socket", "ptrace", "arch_prctl", "openat2"] {
            assert!(allowed(&section, name), "{name}");
        }
        for name in [
            "mount",
            "unshare",
            "setns",
            "bpf",
            "keyctl",
            "add_key",
            "reboot",
            "kexec_load",
            "init_module",
            "clone3",
            "io_uring_setup",
            "userfaultfd",
            "swapon",
            "chroot",
        ] {
            assert!(!allowed(&section, name), "{name}");
        }
        let admin = default(&Set::from(["SYS_ADMIN"]), MACHINE).unwrap();
        assert!(allowed(&admin, "mount") && allowed(&admin, "clone3"));
    }

    #[test]
    fn a_profile_of_the_user() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdir"],"action":"SCMP_ACT_ERRNO","args":null},
            {"names":["mount"],"action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_ADMIN"]}},
            {"name":"chmod","action":"SCMP_ACT_ERRNO","includes":{"arches":["s390"]}}]}"#;
        let names = |capabilities: Set| -> Vec<String> {
            let section = custom(text, &capabilities, MACHINE).unwrap();
            let rules = section.syscalls().clone().unwrap_or_default();
            rules.iter().flat_map(|r| r.names().clone()).collect()
        };
        assert_eq!(names(Set::new()), ["mkdir", "mount"]);
        assert_eq!(names(Set::from(["SYS_ADMIN"])), ["mkdir"]);
        assert!(custom("{", &Set::new(), MACHINE).is_err());
    }
}
