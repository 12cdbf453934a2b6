//! Devices by name, as the Container Device Interface has them: `vendor.com/class=name` stands for nodes, mounts, variables and
//! hooks that a file in `/etc/cdi` or `/var/run/cdi` describes. A file of the later directory wins.
//!
//! Files in JSON are read. One in YAML is not: a device that is not found says so if there is one.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Hook, HookBuilder, HooksBuilder, LinuxDeviceBuilder, LinuxDeviceType, Mount, Spec,
};
use proto::engine::DeviceRequest;
use serde::Deserialize;

use super::{devices, mounts};
use crate::error::{Error, Result};

/// Where descriptions lie, unless the configuration says otherwise.
pub(crate) const DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Longest file that is read.
const LONGEST: u64 = 16 << 20;

/// The kind that `--gpus` stands for.
const GPU: &str = "nvidia.com/gpu";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    kind: String,
    devices: Vec<Device>,
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Device {
    name: String,
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Bind>,
    hooks: Vec<GivenHook>,
    #[serde(alias = "additionalGIDs")]
    additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    path: String,
    host_path: String,
    r#type: String,
    major: i64,
    minor: i64,
    file_mode: Option<u32>,
    permissions: String,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bind {
    host_path: String,
    container_path: String,
    options: Vec<String>,
    r#type: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GivenHook {
    hook_name: String,
    path: String,
    args: Vec<String>,
    env: Vec<String>,
    timeout: Option<i64>,
}

/// What the devices of a container change in its spec.
#[derive(Debug, Clone, Default)]
pub(crate) struct Injection(Vec<Edits>);

/// The names that the requests of a container stand for.
fn names(requests: &[DeviceRequest]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for request in requests {
        let ids = request.device_ids.as_deref().unwrap_or_default();
        let gpu = request
            .capabilities
            .iter()
            .flatten()
            .flatten()
            .any(|word| word == "gpu");
        match request.driver.as_str() {
            "cdi" => all.extend(ids.iter().cloned()),
            "" | "nvidia" if gpu && !ids.is_empty() => {
                all.extend(ids.iter().map(|id| format!("{GPU}={id}")));
            }
            "" | "nvidia" if gpu && request.count < 0 => all.push(format!("{GPU}=all")),
            "" | "nvidia" if gpu => {
                all.extend((0..request.count).map(|number| format!("{GPU}={number}")));
            }
            driver => {
                return Err(Error::invalid(format!(
                    "could not select device driver \"{driver}\" with capabilities: {:?}",
                    request.capabilities.as_deref().unwrap_or_default()
                )));
            }
        }
    }
    Ok(all)
}

/// Finds the devices that are asked for. Each must be there.
pub(crate) fn find(requests: &[DeviceRequest], dirs: &[PathBuf]) -> Result<Injection> {
    let wanted = names(requests)?;
    let mut injection = Injection::default();
    if wanted.is_empty() {
        return Ok(injection);
    }
    let (files, unread) = read(dirs);
    let mut kinds = Vec::new();
    let mut missing = Vec::new();
    for name in &wanted {
        let found = name.split_once('=').and_then(|(kind, device)| {
            // The last one wins.
            files.iter().rev().find_map(|file| {
                let mut devices = file.devices.iter();
                let found = devices.find(|d| file.kind == kind && d.name == device)?;
                Some((file, found))
            })
        });
        match found {
            Some((file, device)) => {
                if !kinds.contains(&&file.kind) {
                    kinds.push(&file.kind);
                    injection.0.push(file.container_edits.clone());
                }
                injection.0.push(device.container_edits.clone());
            }
            None => missing.push(name.as_str()),
        }
    }
    if missing.is_empty() {
        return Ok(injection);
    }
    let unread = match unread.is_empty() {
        true => String::new(),
        false => format!(" (not read: {})", unread.join(", ")),
    };
    Err(Error::invalid(format!(
        "CDI device injection failed: unresolvable CDI devices {}{unread}",
        missing.join(", ")
    )))
}

/// The files in the order of their directories and names, and what could not be read, with the reason.
fn read(dirs: &[PathBuf]) -> (Vec<File>, Vec<String>) {
    let (mut files, mut unread) = (Vec::new(), Vec::new());
    for dir in dirs {
        // A directory that is not there has no devices.
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let sorted: BTreeMap<PathBuf, ()> = entries.map(|entry| (entry.path(), ())).collect();
        for path in sorted.into_keys() {
            match path.extension().and_then(|end| end.to_str()) {
                Some("json") => match parse(&path) {
                    Ok(file) => files.push(file),
                    Err(why) => unread.push(format!("{}: {why}", path.display())),
                },
                Some("yaml" | "yml") => {
                    unread.push(format!("{}: YAML, JSON is wanted", path.display()));
                }
                _ => {}
            }
        }
    }
    (files, unread)
}

fn parse(path: &Path) -> std::result::Result<File, String> {
    let found = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !found.is_file() || found.len() > LONGEST {
        return Err("no file, or too long".into());
    }
    let text = std::fs::read(path).map_err(|e| e.to_string())?;
    serde_json::from_slice(&text).map_err(|e| e.to_string())
}

fn wrong(error: oci_spec::OciSpecError) -> Error {
    Error::internal(format!("put a CDI device into the spec: {error}"))
}

impl Injection {
    /// Changes the spec.
    pub(crate) fn apply(&self, spec: &mut Spec) -> Result<()> {
        for edits in &self.0 {
            edits.apply(spec)?;
        }
        Ok(())
    }
}

impl Edits {
    fn apply(&self, spec: &mut Spec) -> Result<()> {
        if let Some(process) = spec.process_mut() {
            let env = process.env().clone().unwrap_or_default();
            process.set_env(Some(super::process::overlay(env, &self.env)));
            if !self.additional_gids.is_empty() {
                let mut user = process.user().clone();
                let mut gids = user.additional_gids().clone().unwrap_or_default();
                gids.extend(&self.additional_gids);
                user.set_additional_gids(Some(gids));
                process.set_user(user);
            }
        }
        self.nodes(spec)?;
        let mut all = spec.mounts().clone().unwrap_or_default();
        for bind in &self.mounts {
            all.push(bind.mount()?);
        }
        spec.set_mounts(Some(all));
        self.hooks(spec)
    }

    fn nodes(&self, spec: &mut Spec) -> Result<()> {
        let Some(linux) = spec.linux_mut() else {
            return Ok(());
        };
        let mut nodes = linux.devices().clone().unwrap_or_default();
        let mut resources = linux.resources().clone().unwrap_or_default();
        let mut rules = resources.devices().clone().unwrap_or_default();
        for node in &self.device_nodes {
            let (kind, major, minor) = node.numbers()?;
            let mut built = LinuxDeviceBuilder::default()
                .path(PathBuf::from(&node.path))
                .typ(kind)
                .major(major)
                .minor(minor)
                .file_mode(node.file_mode.unwrap_or(0o666));
            if let Some(uid) = node.uid {
                built = built.uid(uid);
            }
            if let Some(gid) = node.gid {
                built = built.gid(gid);
            }
            nodes.push(built.build().map_err(wrong)?);
            let access = match node.permissions.as_str() {
                "" => "rwm",
                given => given,
            };
            let letter = if kind == LinuxDeviceType::B { "b" } else { "c" };
            rules.push(devices::parse_rule(&format!(
                "{letter} {major}:{minor} {access}"
            ))?);
        }
        resources.set_devices(Some(rules));
        linux.set_resources(Some(resources));
        linux.set_devices(Some(nodes));
        Ok(())
    }

    fn hooks(&self, spec: &mut Spec) -> Result<()> {
        if self.hooks.is_empty() {
            return Ok(());
        }
        let former = spec.hooks().clone().unwrap_or_default();
        let of = |name: &str, former: &Option<Vec<Hook>>| -> Result<Vec<Hook>> {
            let mut all = former.clone().unwrap_or_default();
            for hook in self.hooks.iter().filter(|hook| hook.hook_name == name) {
                let mut built = HookBuilder::default().path(PathBuf::from(&hook.path));
                built = built.args(hook.args.clone()).env(hook.env.clone());
                if let Some(seconds) = hook.timeout {
                    built = built.timeout(seconds);
                }
                all.push(built.build().map_err(wrong)?);
            }
            Ok(all)
        };
        let built = HooksBuilder::default()
            .create_runtime(of("createRuntime", former.create_runtime())?)
            .create_container(of("createContainer", former.create_container())?)
            .start_container(of("startContainer", former.start_container())?)
            .poststart(of("poststart", former.poststart())?)
            .poststop(of("poststop", former.poststop())?);
        spec.set_hooks(Some(built.build().map_err(wrong)?));
        Ok(())
    }
}

impl Node {
    /// What the file says of the node, or else the host's node.
    fn numbers(&self) -> Result<(LinuxDeviceType, i64, i64)> {
        let kind = match self.r#type.as_str() {
            "b" => Some(LinuxDeviceType::B),
            "c" | "u" => Some(LinuxDeviceType::C),
            _ => None,
        };
        if let (Some(kind), true) = (kind, self.major != 0 || self.minor != 0) {
            return Ok((kind, self.major, self.minor));
        }
        let path = match self.host_path.as_str() {
            "" => &self.path,
            given => given,
        };
        let found = std::fs::metadata(path)
            .map_err(|e| Error::invalid(format!("CDI device node {path}: {e}")))?;
        let kind = match found.file_type() {
            t if t.is_char_device() => LinuxDeviceType::C,
            t if t.is_block_device() => LinuxDeviceType::B,
            _ => {
                return Err(Error::invalid(format!(
                    "CDI device node {path}: it is none"
                )));
            }
        };
        let number = found.rdev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        Ok((kind, major.into(), minor.into()))
    }
}

impl Bind {
    fn mount(&self) -> Result<Mount> {
        let kind = match self.r#type.as_str() {
            "" => "bind",
            given => given,
        };
        let mut options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        if kind == "bind" && !options.iter().any(|o| matches!(*o, "bind" | "rbind")) {
            options.push("bind");
        }
        mounts::mount(&self.container_path, kind, &self.host_path, &options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(driver: &str, ids: &[&str], count: i64, gpu: bool) -> DeviceRequest {
        DeviceRequest {
            driver: driver.into(),
            count,
            device_ids: Some(ids.iter().map(|id| (*id).to_owned()).collect()),
            capabilities: gpu.then(|| vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        }
    }

    #[test]
    fn what_requests_stand_for() {
        for (wanted, all) in [
            (request("cdi", &["a.b/c=d"], 0, false), "a.b/c=d"),
            (request("", &[], -1, true), "nvidia.com/gpu=all"),
            (
                request("", &[], 2, true),
                "nvidia.com/gpu=0 nvidia.com/gpu=1",
            ),
            (request("", &["GPU-1"], 0, true), "nvidia.com/gpu=GPU-1"),
        ] {
            assert_eq!(names(&[wanted]).unwrap().join(" "), all);
        }
        assert!(names(&[request("other", &[], 1, false)]).is_err());
    }

    #[test]
    fn a_device_changes_the_spec_and_the_later_directory_wins() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = ["a", "b"].map(|name| dir.path().join(name));
        for (dir, value) in dirs.iter().zip(["old", "new"]) {
            std::fs::create_dir(dir).unwrap();
            let text = format!(
                r#"{{"cdiVersion": "0.6.0", "kind": "v.com/c", "containerEdits": {{"env": ["ALL=1"]}},
                    "devices": [{{"name": "d", "containerEdits": {{"env": ["D={value}"],
                    "deviceNodes": [{{"path": "/dev/d", "hostPath": "/dev/null", "permissions": "rw"}}],
                    "mounts": [{{"hostPath": "/etc", "containerPath": "/x", "options": ["ro"]}}],
                    "hooks": [{{"hookName": "createRuntime", "path": "/bin/h", "args": ["h"]}}]}}}}]}}"#
            );
            std::fs::write(dir.join("v.json"), text).unwrap();
        }
        std::fs::write(dirs[0].join("w.yaml"), "x").unwrap();
        let mut spec = Spec::default();
        let found = find(&[request("cdi", &["v.com/c=d"], 0, false)], &dirs).unwrap();
        found.apply(&mut spec).unwrap();
        let spec = serde_json::to_value(&spec).unwrap();
        let env = spec["process"]["env"].as_array().unwrap();
        assert!(
            env.contains(&"ALL=1".into()) && env.contains(&"D=new".into()),
            "{env:?}"
        );
        let node = &spec["linux"]["devices"][0];
        assert_eq!(
            (&node["path"], &node["major"]),
            (&"/dev/d".into(), &1.into())
        );
        let mount = spec["mounts"].as_array().unwrap().last().unwrap();
        assert_eq!(mount["options"], serde_json::json!(["ro", "bind"]));
        assert_eq!(spec["hooks"]["createRuntime"][0]["path"], "/bin/h");
        let missing = find(&[request("cdi", &["v.com/c=x"], 0, false)], &dirs).unwrap_err();
        assert!(
            missing
                .message()
                .contains("unresolvable CDI devices v.com/c=x"),
            "{missing}"
        );
        assert!(missing.message().contains("w.yaml: YAML"), "{missing}");
    }
}
