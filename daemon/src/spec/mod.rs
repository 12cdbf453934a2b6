//! From a container's record to the OCI runtime spec.
//!
//! What depends on the host (users, devices, namespaces of other containers, the endpoint) is found before and comes in as
//! [`Input`]; from there on it is pure, so that the whole spec of a record is a golden test. The order of the parts:
//! capabilities, process, mounts, namespaces, resources, devices, seccomp.

pub(crate) mod capabilities;
pub(crate) mod cdi;
pub(crate) mod devices;
pub(crate) mod mounts;
pub(crate) mod process;
pub(crate) mod resources;
pub(crate) mod seccomp;
mod seccomp_table;
pub(crate) mod user;

use std::path::PathBuf;

use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount,
    RootBuilder, Spec, SpecBuilder,
};
use proto::engine::{Config, HostConfig};

use crate::error::{Error, Result};
use capabilities::Set;
use process::Wanted;
use seccomp::Machine;
use user::User;

/// Hidden from a container that is not privileged.
pub(crate) const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Shown, but not writable, to a container that is not privileged.
pub(crate) const READONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Where a namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Join {
    /// The host's.
    Host,
    /// A new one.
    New,
    /// That of another process, or a pinned one.
    Path(PathBuf),
}

/// Where /dev/shm comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shm {
    /// There is none.
    None,
    /// A tmpfs of this size.
    Own(i64),
    /// A directory of the host.
    Bind(String),
}

/// What the host contributes.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) id: &'a str,
    pub(crate) path: &'a str,
    pub(crate) args: &'a [String],
    pub(crate) config: &'a Config,
    pub(crate) host: &'a HostConfig,
    /// `--security-opt`, and before it the daemon's defaults.
    pub(crate) security: &'a [String],
    pub(crate) user: User,
    /// The mounts of the user, volumes and the files of the network.
    pub(crate) mounts: Vec<Mount>,
    pub(crate) network: Join,
    pub(crate) ipc: Join,
    pub(crate) pid: Join,
    pub(crate) uts: Join,
    pub(crate) cgroup: Join,
    pub(crate) shm: Shm,
    /// What this daemon may give.
    pub(crate) held: &'a Set,
    pub(crate) machine: Machine,
    pub(crate) cgroup_parent: &'a str,
    pub(crate) default_ulimits: &'a [crate::config::Ulimit],
    /// Host name when it is the host's.
    pub(crate) hostname: &'a str,
    /// All this happens in a user namespace, which is not that of the host's processes.
    pub(crate) rootless: bool,
    /// The highest group id that there is.
    pub(crate) last_group: u32,
}

/// What `--security-opt` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Security {
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Seccomp,
    /// Nothing is masked or read-only.
    pub(crate) unconfined_paths: bool,
}

/// Which system calls are let through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Seccomp {
    #[default]
    Default,
    Unconfined,
    Custom(String),
}

impl Security {
    /// Reads the options.
    pub(crate) fn parse(options: &[String]) -> Result<Self> {
        let mut security = Self::default();
        for option in options {
            let separator = if option.contains('=') { '=' } else { ':' };
            let (key, value) = option.split_once(separator).unwrap_or((option, ""));
            match (key, value) {
                ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
                ("no-new-privileges", "false") => security.no_new_privileges = false,
                ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
                ("seccomp", "builtin" | "") => security.seccomp = Seccomp::Default,
                ("seccomp", profile) => security.seccomp = Seccomp::Custom(profile.to_owned()),
                ("systempaths", "unconfined") => security.unconfined_paths = true,
                ("apparmor", "unconfined") | ("label", "disable") => {}
                ("apparmor" | "label", _) => {
                    return Err(Error::unimplemented(format!(
                        "security option {option:?} is not supported yet"
                    )));
                }
                _ => {
                    return Err(Error::invalid(format!(
                        "invalid --security-opt 2: {option:?}"
                    )));
                }
            }
        }
        Ok(security)
    }
}

/// The security options of a container, with the daemon's defaults before them: what comes later counts.
pub(crate) fn security_options(config: &crate::config::Config, host: &HostConfig) -> Vec<String> {
    let mut options = Vec::new();
    if config.no_new_privileges {
        options.push("no-new-privileges=true".to_owned());
    }
    if let Some(profile) = &config.seccomp_profile {
        options.push(format!("seccomp={profile}"));
    }
    options.extend(host.security_opt.iter().flatten().cloned());
    options
}

fn wrong(error: oci_spec::OciSpecError) -> Error {
    Error::internal(format!("build the runtime spec: {error}"))
}

/// The spec.
pub(crate) fn build(input: Input<'_>) -> Result<Spec> {
    let (config, host) = (input.config, input.host);
    let security = Security::parse(input.security)?;
    let capabilities = capabilities::of(
        host.privileged,
        host.cap_add.as_deref().unwrap_or_default(),
        host.cap_drop.as_deref().unwrap_or_default(),
        input.held,
    )?;
    let process = process::build(Wanted {
        args: std::iter::once(input.path.to_owned())
            .chain(input.args.iter().cloned())
            .collect(),
        env: process::environment(
            hostname(&input),
            config.tty,
            config.env.as_deref().unwrap_or_default(),
        ),
        cwd: &config.working_dir,
        tty: config.tty,
        console: host.console_size,
        user: input.user.clone(),
        capabilities: &capabilities,
        no_new_privileges: security.no_new_privileges,
        oom_score_adj: host.oom_score_adj,
        rlimits: process::rlimits(
            input.default_ulimits,
            host.resources.ulimits.as_deref().unwrap_or_default(),
        )?,
    })?;
    let root = RootBuilder::default()
        .path("rootfs")
        .readonly(host.readonly_rootfs);
    let mut defaults = mounts::defaults(host.privileged, &input.shm, input.ipc != Join::Host)?;
    if input.rootless && input.pid == Join::Host {
        // A procfs of processes that are not ours may be shown again, not made.
        defaults[0] = mounts::host_proc()?;
    }
    let all = mounts::merged(defaults, input.mounts.clone());
    let mut built = SpecBuilder::default()
        .version("1.2.0")
        .root(root.build().map_err(wrong)?)
        .process(process)
        .mounts(all)
        .linux(linux(&input, &security, &capabilities)?);
    if input.uts == Join::New {
        built = built.hostname(config.hostname.clone());
        if !config.domainname.is_empty() {
            built = built.domainname(config.domainname.clone());
        }
    }
    if !host.annotations.is_empty() {
        let annotations = host.annotations.clone().into_iter();
        built = built.annotations(annotations.collect::<std::collections::HashMap<_, _>>());
    }
    built.build().map_err(wrong)
}

fn hostname<'a>(input: &'a Input<'_>) -> &'a str {
    match input.uts {
        Join::New => &input.config.hostname,
        _ => input.hostname,
    }
}

fn linux(input: &Input<'_>, security: &Security, capabilities: &Set) -> Result<Linux> {
    let host = input.host;
    let mut resources = resources::limits(&host.resources)?;
    let mut rules = devices::default_rules()?;
    let mut nodes = Vec::new();
    if host.privileged {
        rules = vec![devices::all_allowed()?];
        nodes = devices::of_host()?;
    } else {
        for mapping in host.resources.devices.iter().flatten() {
            for (node, rule) in devices::mapped(mapping)? {
                nodes.push(node);
                rules.push(rule);
            }
        }
    }
    for text in host.resources.device_cgroup_rules.iter().flatten() {
        rules.push(devices::parse_rule(text)?);
    }
    resources.set_devices(Some(rules));
    let parent = match host.resources.cgroup_parent.as_str() {
        "" => input.cgroup_parent,
        given => given,
    };
    let mut built = LinuxBuilder::default()
        .resources(resources)
        .cgroups_path(PathBuf::from(parent).join(input.id))
        .namespaces(namespaces(input)?);
    let sysctls = sysctls(input);
    if !sysctls.is_empty() {
        built = built.sysctl(sysctls);
    }
    if !nodes.is_empty() {
        built = built.devices(nodes);
    }
    if !host.privileged && !security.unconfined_paths {
        let or = |given: &Option<Vec<String>>, default: &[&str]| {
            given
                .clone()
                .unwrap_or_else(|| default.iter().map(|p| (*p).to_owned()).collect())
        };
        built = built
            .masked_paths(or(&host.masked_paths, MASKED))
            .readonly_paths(or(&host.readonly_paths, READONLY));
    } else {
        built = built
            .masked_paths(Vec::<String>::new())
            .readonly_paths(Vec::<String>::new());
    }
    built = match &security.seccomp {
        _ if host.privileged && security.seccomp == Seccomp::Default => built,
        Seccomp::Unconfined => built,
        Seccomp::Default => built.seccomp(seccomp::default(capabilities, input.machine)?),
        Seccomp::Custom(profile) => {
            built.seccomp(seccomp::custom(profile, capabilities, input.machine)?)
        }
    };
    let shared = input
        .mounts
        .iter()
        .flat_map(|mount| mount.options().iter().flatten());
    let propagation = shared.fold("", |all, option| match (all, option.as_str()) {
        (_, "shared" | "rshared") => "shared",
        ("", "slave" | "rslave") => "rslave",
        _ => all,
    });
    if !propagation.is_empty() {
        built = built.rootfs_propagation(propagation);
    }
    built.build().map_err(wrong)
}

fn sysctls(input: &Input<'_>) -> std::collections::HashMap<String, String> {
    let mut all: std::collections::HashMap<String, String> =
        input.host.sysctls.clone().into_iter().collect();
    if matches!(input.network, Join::New | Join::Path(_)) {
        // Ports below 1024 and ping need no privilege in a network of its own.
        all.entry("net.ipv4.ip_unprivileged_port_start".into())
            .or_insert_with(|| "0".into());
        all.entry("net.ipv4.ping_group_range".into())
            .or_insert_with(|| format!("0 {}", input.last_group.min(i32::MAX.unsigned_abs())));
    }
    all
}

fn namespaces(input: &Input<'_>) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let mut all = Vec::new();
    let wanted = [
        (Mount, &Join::New),
        (Network, &input.network),
        (Uts, &input.uts),
        (Pid, &input.pid),
        (Ipc, &input.ipc),
        (Cgroup, &input.cgroup),
    ];
    for (kind, join) in wanted {
        let built = LinuxNamespaceBuilder::default().typ(kind);
        let built = match join {
            Join::Host => continue,
            Join::New => built,
            Join::Path(path) => built.path(path.clone()),
        };
        all.push(built.build().map_err(wrong)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
