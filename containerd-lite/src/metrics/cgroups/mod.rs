//! What the cgroups of running tasks say, v1 or v2, found and read through the crate cgroups-rs.
//!
//! A task's cgroup is where its init is, by `/proc/PID/cgroup`. A controller that is not mounted, or in whose root the init
//! is, has nothing to say of this task alone and is left out. The block devices' figures are read here: the crate's own
//! reader panics on device numbers above 32767.

mod block;
mod v1;
mod v2;

use std::collections::HashMap;
use std::path::Path;

use cgroups_rs::fs::cgroup::get_cgroups_relative_paths_by_pid;
use cgroups_rs::fs::{Cgroup, hierarchies};

use super::page::{Kind, Page};
use crate::runtime::Running;

/// Puts the figures of all running tasks on the page.
pub(super) fn show(page: &mut Page, running: &[Running]) {
    let unified = hierarchies::is_cgroup2_unified_mode();
    // The mount table is read once, not for each task.
    let mounts = hierarchies::V1::new();
    let mut devices = block::Names::default();
    for task in running {
        let Ok(places) = get_cgroups_relative_paths_by_pid(task.pid) else {
            // It has just ended.
            continue;
        };
        let mut sheet = Sheet { page, task };
        if unified {
            let Some(place) = own(&places, "") else {
                continue;
            };
            let hierarchy = Box::new(hierarchies::V2::new());
            let cgroup = Cgroup::load(hierarchy, place.trim_start_matches('/'));
            v2::show(&mut sheet, &cgroup);
        } else {
            let hierarchy = Box::new(mounts.clone());
            let relative = below_mounts(&mounts, &places);
            let cgroup = Cgroup::load_with_relative_paths(hierarchy, ".", relative.clone());
            v1::show(&mut sheet, &cgroup, &relative, &mut devices);
        }
    }
}

/// The place of a task under a controller, if it is one of its own.
fn own<'a>(places: &'a HashMap<String, String>, controller: &str) -> Option<&'a str> {
    let place = places.get(controller)?;
    (place != "/" && !place.starts_with("/..")).then_some(place)
}

/// Places as seen from the mounts, which need not show the hierarchy's root.
fn below_mounts(
    mounts: &hierarchies::V1,
    places: &HashMap<String, String>,
) -> HashMap<String, String> {
    use cgroups_rs::fs::Hierarchy as _;
    let mut below = HashMap::new();
    for subsystem in mounts.subsystems() {
        let name = subsystem.controller_name();
        let root = subsystem.to_controller().base().to_owned();
        let Some(place) = own(places, &name) else {
            continue;
        };
        let inside = Path::new(place).strip_prefix(&root).ok();
        if let Some(inside) = inside.and_then(Path::to_str).filter(|p| !p.is_empty()) {
            below.insert(name, inside.to_owned());
        }
    }
    below
}

/// The page with the labels of one task.
struct Sheet<'a> {
    page: &'a mut Page,
    task: &'a Running,
}

impl Sheet<'_> {
    /// A figure: `container_NAME_UNIT`.
    fn put(&mut self, name: &str, unit: &str, help: &str, value: u64) {
        self.put_with(name, unit, help, &[], value);
    }

    fn put_with(
        &mut self,
        name: &str,
        unit: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: u64,
    ) {
        let mut all = vec![
            ("container_id", self.task.id.as_str()),
            ("namespace", self.task.namespace.as_str()),
        ];
        all.extend_from_slice(labels);
        let name = format!("container_{name}_{unit}");
        self.page.put(&name, Kind::Gauge, help, &all, value);
    }
}

/// The value of a key in a file of `key value` lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then_some(value)
    })?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_of_a_controller_is_nobodys_own() {
        let places = HashMap::from([
            ("memory".to_owned(), "/".to_owned()),
            ("pids".to_owned(), "/a/b".to_owned()),
            ("cpu".to_owned(), "/../x".to_owned()),
        ]);
        assert_eq!(own(&places, "memory"), None);
        assert_eq!(own(&places, "cpu"), None);
        assert_eq!(own(&places, "blkio"), None);
        assert_eq!(own(&places, "pids"), Some("/a/b"));
        assert_eq!(keyed("a 1\nab 2\nb x\n", "ab"), Some(2));
        assert_eq!(keyed("a 1\nb x\n", "b"), None);
    }
}
