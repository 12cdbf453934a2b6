//! What is run on an input. Each gives how the input ended, in words: the
//! fuzzer keeps inputs whose words are new.

use std::path::Path;

use super::seeds;
use crate::args::{self, tables};
use crate::cgroup::{self, Cgroup};
use crate::channel::InitFailure;
use crate::commands::{signals, update};
use crate::error::chain;
use crate::init::process;
use crate::namespaces::Plan;
use crate::process::ProcStat;
use crate::rootfs::options::{self, Options};
use crate::security::{capabilities, rlimits, seccomp};
use crate::spec::seccomp::LinuxSeccomp;
use crate::spec::{LinuxResources, Process, Spec};
use crate::state::State;
use crate::{bundle, validate};

/// One reader of outside bytes.
pub(super) struct Target {
    pub(super) name: &'static str,
    /// Whether inputs are JSON and may be changed as such.
    pub(super) json: bool,
    pub(super) seeds: fn() -> Vec<Vec<u8>>,
    pub(super) run: fn(&[u8]) -> String,
}

pub(super) const TARGETS: &[Target] = &[
    Target {
        name: "config",
        json: true,
        seeds: seeds::configs,
        run: config,
    },
    Target {
        name: "state",
        json: true,
        seeds: seeds::states,
        run: state,
    },
    Target {
        name: "process",
        json: true,
        seeds: seeds::processes,
        run: process_file,
    },
    Target {
        name: "seccomp",
        json: true,
        seeds: seeds::profiles,
        run: profile,
    },
    Target {
        name: "resources",
        json: true,
        seeds: seeds::resources,
        run: resources,
    },
    Target {
        name: "options",
        json: false,
        seeds: seeds::options,
        run: mount_options,
    },
    Target {
        name: "arguments",
        json: false,
        seeds: seeds::arguments,
        run: arguments,
    },
    Target {
        name: "texts",
        json: false,
        seeds: seeds::texts,
        run: texts,
    },
];

fn said<T, E: std::error::Error + 'static>(result: Result<T, E>) -> String {
    result.map_or_else(|e| chain(&e), |_| "fine".to_owned())
}

/// All that `create` does with config.json before it changes anything.
fn config(bytes: &[u8]) -> String {
    let mut spec: Spec = match bundle::parse(bytes, Path::new("config.json")) {
        Ok(spec) => spec,
        Err(e) => return chain(&e),
    };
    // Opening what a path names is no reading of bytes, and may wait.
    for namespace in &mut spec.linux.namespaces {
        if !namespace.path.is_empty() {
            namespace.path = "/proc/self/ns/net".into();
        }
    }
    let plan = match Plan::from_spec(&spec) {
        Ok(plan) => plan,
        Err(e) => return chain(&e),
    };
    if let Err(e) = validate::check(&spec, &plan) {
        return chain(&e);
    }
    let _ = (plan.differing(), plan.needs_intermediate());
    for mount in &spec.mounts {
        check_options(&mount.options);
    }
    let _ = options::propagation_flag(&spec.linux.rootfs_propagation);
    if let Some(process) = &spec.process {
        check_environment(process);
    }
    let limits = spec.linux.resources.clone().unwrap_or_default();
    let mut end = said(cgroup::fuzzed::device_rules(&limits.devices));
    if let Some(profile) = &spec.linux.seccomp {
        end += &said(seccomp::compile(profile));
    }
    end
}

/// What any command does with state.json: read, look, write back. Nothing of
/// it may get lost.
fn state(bytes: &[u8]) -> String {
    let state: State = match serde_json::from_slice(bytes) {
        Ok(state) => state,
        Err(e) => return e.to_string(),
    };
    let cgroup = state.cgroup.as_ref().and_then(|c| Cgroup::load(c).ok());
    let _ = cgroup.map(|c| c.state());
    let _ = state.process();
    let text = serde_json::to_vec(&state).expect("a state is JSON");
    let again: State = serde_json::from_slice(&text).expect("what was written can be read");
    assert_eq!(state.unknown, again.unknown);
    assert_eq!((state.pid, state.namespaces), (again.pid, again.namespaces));
    assert_eq!(state.bundle, again.bundle);
    assert_eq!(state.cgroup, again.cgroup);
    for status in [crate::state::Status::Running, crate::state::Status::Stopped] {
        let _ = state.to_spec_json(status).to_string();
    }
    "fine".into()
}

/// `exec --process`.
fn process_file(bytes: &[u8]) -> String {
    let process: Process = match serde_json::from_slice(bytes) {
        Ok(process) => process,
        Err(e) => return e.to_string(),
    };
    if let Err(e) = validate::check_process(&process) {
        return chain(&e);
    }
    check_environment(&process);
    for name in process.capabilities.iter().flat_map(|c| &c.bounding) {
        let _ = capabilities::parse(name);
    }
    format!("{:?}", rlimits::check(&process.rlimits))
}

fn check_environment(process: &Process) {
    let env = process::environment(process);
    let names: Vec<_> = env.iter().map(|e| e.split('=').next()).collect();
    for (at, name) in names.iter().enumerate() {
        assert!(!names[..at].contains(name), "{name:?} twice");
    }
    assert!(env.iter().any(|e| e.starts_with("HOME=")));
}

fn profile(bytes: &[u8]) -> String {
    let profile: LinuxSeccomp = match serde_json::from_slice(bytes) {
        Ok(profile) => profile,
        Err(e) => return e.to_string(),
    };
    said(seccomp::compile(&profile))
}

/// `update -r`, and the device rules of a new container.
fn resources(bytes: &[u8]) -> String {
    match serde_json::from_slice::<LinuxResources>(bytes) {
        Ok(limits) => said(cgroup::fuzzed::device_rules(&limits.devices)),
        Err(e) => e.to_string(),
    }
}

fn mount_options(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<String> = text.split(',').map(str::to_owned).collect();
    check_options(&words)
}

fn check_options(words: &[String]) -> String {
    const ATIME: u64 = 0x70;
    let options = Options::parse(words);
    for attr in [options.attr, options.recursive] {
        assert_eq!(attr.set & attr.clear & !ATIME, 0, "set and cleared at once");
        assert_ne!(attr.set & ATIME, ATIME, "no time mode has all bits");
    }
    format!("{options:?}").chars().take(80).collect()
}

/// A command line: the words are separated by zero bytes, the first names the
/// command.
fn arguments(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<String> = text.split('\0').map(str::to_owned).collect();
    let Some((name, rest)) = words.split_first() else {
        return String::new();
    };
    let global = said(args::parse(&tables::GLOBAL, &words, true));
    let _ = signals::parse(rest.last().map_or("", String::as_str));
    let Some(table) = tables::COMMANDS.iter().find(|t| t.name == name) else {
        return global;
    };
    match args::parse(table, rest, false) {
        Err(e) => chain(&e),
        Ok((parsed, _)) if table.name == "update" => said(update::from_options(&parsed)),
        Ok((parsed, _)) => said(args::check_count(table, &parsed)),
    }
}

/// Texts of the kernel, of the child, and lists in text.
fn texts(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let stat = ProcStat::parse(&text).map(|s| (s.is_dead(), s.not_executed()));
    let failure = InitFailure::decode(bytes).map(|f| f.to_string().len() > 20);
    let cgroups = cgroup::fuzzed::texts(&text);
    let signal = signals::parse(&text).is_some();
    format!("{stat:?} {failure:?} {cgroups:?} {signal}")
}
