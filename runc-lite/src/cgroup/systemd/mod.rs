//! The systemd driver: the container's cgroup belongs to a scope that systemd
//! was asked to make, so that what runs on a systemd machine has one owner.
//!
//! `linux.cgroupsPath` is `slice:prefix:name` here, and the unit is
//! `prefix-name.scope` in that slice. A scope cannot be without a process, so
//! the order differs from that of directories made by ourselves:
//!
//! ```text
//!  locate       path of the unit's group, from the slice's name; for a user's own
//!      |        systemd below the group that this one manages
//!  create       the limits become properties; nothing is asked of systemd yet
//!  (clone)      the container's process begins where the runtime is, and waits
//!  start(pid)   StartTransientUnit with that process: systemd makes the group,
//!      |        moves the process, and leaves all below to us (Delegate)
//!  apply        what systemd has no property for goes to the files, as ever
//!  set          SetUnitProperties, before an update goes to the files
//!  stop         StopUnit, once nobody is left
//! ```
//!
//! A runtime killed before `start` leaves a process that dies by itself, and one
//! killed after it a scope that systemd drops when its process is gone.

mod annotation;
mod dbus;
mod properties;
mod wire;

use std::path::{Path, PathBuf};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::dir::Dir;
use super::v1::devices::in_user_namespace;
use super::{CgroupError, Placement};
use crate::spec::resources::LinuxResources;
use dbus::Connection;
pub use dbus::DbusError;
use wire::{Property, Value, Writer};

/// A unit as written into state.json.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitState {
    /// Name of the scope.
    pub name: String,
    /// Whether it is the calling user's own systemd that has it.
    pub user: bool,
}

/// The scope of a container.
#[derive(Debug)]
pub(super) struct Unit {
    state: UnitState,
    slice: String,
    /// What it is to be started with; empty once it was.
    properties: Vec<Property>,
}

impl Unit {
    /// Works out the unit of a container and where its group will be, from the
    /// root of the hierarchies.
    pub(super) fn locate(placement: &Placement<'_>) -> Result<(Self, PathBuf), CgroupError> {
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(CgroupError::NoSystemd);
        }
        let user = !rustix::process::geteuid().is_root() || in_user_namespace();
        let (slice, name) = unit_name(placement, user)?;
        let mut path = expand(&slice)?;
        if user {
            let managed = Connection::open(true).and_then(|mut c| c.property("ControlGroup"));
            let managed = managed.map_err(failed("find the group managed by the user's", &name))?;
            path = Path::new(managed.trim_start_matches('/')).join(path);
        }
        let path = path.join(&name);
        let unit = Self {
            state: UnitState { name, user },
            slice,
            properties: Vec::new(),
        };
        Ok((unit, path))
    }

    pub(super) fn load(state: &UnitState) -> Self {
        Self {
            state: state.clone(),
            slice: String::new(),
            properties: Vec::new(),
        }
    }

    pub(super) fn state(&self) -> &UnitState {
        &self.state
    }

    /// Whether there is something to be started still.
    pub(super) fn pending(&self) -> bool {
        !self.properties.is_empty()
    }

    /// Works out what the unit will be started with.
    pub(super) fn prepare(
        &mut self,
        placement: &Placement<'_>,
        limits: &LinuxResources,
        dir: &Dir,
        unified: bool,
    ) -> Result<(), CgroupError> {
        let text = |name: &str, value: &str| (name.to_owned(), Value::Text(value.to_owned()));
        let switch = |name: &str, on| (name.to_owned(), Value::Bool(on));
        self.properties = vec![
            text("Description", &format!("container {}", placement.id)),
            text("Slice", &self.slice),
            // What is below the scope is the container's own.
            switch("Delegate", true),
            switch("DefaultDependencies", false),
            switch("CPUAccounting", true),
            switch("MemoryAccounting", true),
            switch("TasksAccounting", true),
            switch(
                if unified {
                    "IOAccounting"
                } else {
                    "BlockIOAccounting"
                },
                true,
            ),
            // One that failed, by an OOM kill say, is not kept for its name's sake.
            text("CollectMode", "inactive-or-failed"),
        ];
        let limits_as_properties = properties::of_limits(limits, dir, unified)?;
        let devices = properties::of_devices(limits)?;
        let annotations = annotation::properties(placement.annotations)?;
        for (name, value) in limits_as_properties
            .into_iter()
            .chain(devices)
            .chain(annotations)
        {
            self.properties.retain(|(n, _)| *n != name);
            self.properties.push((name, value));
        }
        Ok(())
    }

    /// Starts the scope with its first process.
    pub(super) fn start(&mut self, pid: Pid) -> Result<(), CgroupError> {
        let mut properties = std::mem::take(&mut self.properties);
        properties.push(("PIDs".to_owned(), Value::U32s(vec![number(pid)])));
        let mut body = Writer::default();
        body.text(&self.state.name)
            .text("replace")
            .properties(&properties);
        // No further units.
        body.array(8, &[] as &[()], |w, ()| w);
        let mut systemd = self.connect("start")?;
        let mut start = || {
            systemd.job(
                &self.state.name,
                "StartTransientUnit",
                "ssa(sv)a(sa(sv))",
                &body,
            )
        };
        let mut started = start();
        if matches!(&started, Err(e) if e.is("UnitExists")) {
            // Maybe a failed one of that name, kept for somebody to look at.
            self.forget()?;
            started = start();
        }
        started.map_err(failed("start", &self.state.name))
    }

    /// Lets systemd drop a unit that failed.
    fn forget(&self) -> Result<(), CgroupError> {
        let mut body = Writer::default();
        body.text(&self.state.name);
        match self
            .connect("reset")?
            .manager("ResetFailedUnit", "s", &body)
        {
            // Not there, or not failed: there is nothing to drop.
            Ok(_) | Err(DbusError::Remote { .. }) => Ok(()),
            Err(e) => Err(failed("reset", &self.state.name)(e)),
        }
    }

    /// Tells systemd of other limits.
    pub(super) fn set(
        &self,
        limits: &LinuxResources,
        dir: &Dir,
        unified: bool,
    ) -> Result<(), CgroupError> {
        let properties = properties::of_limits(limits, dir, unified)?;
        if properties.is_empty() {
            return Ok(());
        }
        let mut body = Writer::default();
        // Until the unit is gone, not over a reboot.
        body.text(&self.state.name).u32(1).properties(&properties);
        self.connect("change")?
            .manager("SetUnitProperties", "sba(sv)", &body)
            .map(drop)
            .map_err(failed("change", &self.state.name))
    }

    /// Has systemd move a process into the unit, where we may not.
    pub(super) fn attach(&self, pid: Pid) -> Result<(), CgroupError> {
        let mut body = Writer::default();
        body.text(&self.state.name).text("");
        body.array(4, &[number(pid)], |w, n| w.u32(*n));
        self.connect("attach a process to")?
            .manager("AttachProcessesToUnit", "ssau", &body)
            .map(drop)
            .map_err(failed("attach a process to", &self.state.name))
    }

    /// Stops the scope and lets systemd drop it. Gone already is fine.
    pub(super) fn stop(&self) -> Result<(), CgroupError> {
        let mut body = Writer::default();
        body.text(&self.state.name).text("replace");
        match self
            .connect("stop")?
            .job(&self.state.name, "StopUnit", "ss", &body)
        {
            Err(e) if e.is("NoSuchUnit") => return Ok(()),
            // Another job took its place, or the scope went by itself: it is on its way.
            Ok(()) | Err(DbusError::Job { .. }) => {}
            Err(e) => return Err(failed("stop", &self.state.name)(e)),
        }
        self.forget()
    }

    fn connect(&self, doing: &'static str) -> Result<Connection, CgroupError> {
        Connection::open(self.state.user).map_err(failed(doing, &self.state.name))
    }
}

fn failed(doing: &'static str, unit: &str) -> impl FnOnce(DbusError) -> CgroupError {
    let unit = unit.to_owned();
    move |source| CgroupError::Systemd {
        doing,
        unit,
        source,
    }
}

fn number(pid: Pid) -> u32 {
    u32::try_from(pid.as_raw_nonzero().get()).expect("a pid is positive")
}

/// Slice and unit that `cgroupsPath` asks for.
fn unit_name(placement: &Placement<'_>, user: bool) -> Result<(String, String), CgroupError> {
    let usual = if user { "user.slice" } else { "system.slice" };
    let Some(path) = placement.cgroups_path.filter(|p| !p.is_empty()) else {
        return Ok((
            usual.to_owned(),
            format!("runc-lite-{}.scope", placement.id),
        ));
    };
    let parts: Vec<&str> = path.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return Err(CgroupError::invalid(
            "cgroupsPath",
            format!(
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
            ),
        ));
    };
    if name.is_empty() || name.contains('/') || prefix.contains('/') {
        return Err(CgroupError::invalid(
            "cgroupsPath",
            format!("{path:?} does not name a unit"),
        ));
    }
    if name.ends_with(".slice") {
        return Err(CgroupError::invalid(
            "cgroupsPath",
            format!("a container cannot be in the slice {name} itself"),
        ));
    }
    let slice = if slice.is_empty() { usual } else { slice };
    let unit = match prefix {
        "" => format!("{name}.scope"),
        prefix => format!("{prefix}-{name}.scope"),
    };
    Ok((slice.to_owned(), unit))
}

/// The path of a slice's group: `a-b.slice` is in `a.slice`.
fn expand(slice: &str) -> Result<PathBuf, CgroupError> {
    let invalid = || CgroupError::invalid("cgroupsPath", format!("invalid slice name: {slice}"));
    let name = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    let mut path = PathBuf::new();
    if name == "-" {
        return Ok(path);
    }
    if name.contains('/') || name.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    let ends = name
        .match_indices('-')
        .map(|(at, _)| at)
        .chain([name.len()]);
    for end in ends {
        path.push(format!("{}.slice", &name[..end]));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: &str) -> Result<(String, String), String> {
        let placement = Placement {
            cgroups_path: Some(path),
            id: "x",
            ..Placement::default()
        };
        unit_name(&placement, false).map_err(|e| e.to_string())
    }

    #[test]
    fn cgroups_paths_name_units() {
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(name(""), pair("system.slice", "runc-lite-x.scope"));
        assert_eq!(name("a-b.slice:cri:1"), pair("a-b.slice", "cri-1.scope"));
        assert_eq!(name("::y"), pair("system.slice", "y.scope"));
        for bad in [
            "/a/b",
            "a:b",
            "a:b:c:d",
            "a.slice:p:",
            "a.slice:p:x/y",
            "a.slice:p:b.slice",
        ] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slices_lie_within_one_another() {
        let path = |s: &str| expand(s).map(|p| p.display().to_string()).ok();
        assert_eq!(path("-.slice").as_deref(), Some(""));
        assert_eq!(
            path("a-b-c.slice").as_deref(),
            Some("a.slice/a-b.slice/a-b-c.slice")
        );
        for bad in [
            "a",
            ".slice",
            "a--b.slice",
            "-a.slice",
            "a-.slice",
            "a/b.slice",
            "../x.slice",
        ] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }
}
