//! What a container uses, read from its control groups, as containerd's metrics of version 1 or 2. Sync; a file that is
//! missing (a controller that is off, a container that is gone) leaves its part out.

mod v1;
mod v2;

use std::path::Path;

use crate::cgroup::{Cgroup, parse_number};
use prost_types::Any;

/// The metrics of the version in use.
pub(crate) fn collect(cgroup: &Cgroup) -> Any {
    match &cgroup.v2 {
        Some(folder) => proto::any::pack(&v2::metrics(folder)),
        None => proto::any::pack(&v1::metrics(cgroup)),
    }
}

/// Lines of `key value` as a lookup.
struct Table(Vec<(String, u64)>);

impl Table {
    fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), parse_number(value.trim())?))
        });
        Self(pairs.collect())
    }

    fn get(&self, key: &str) -> u64 {
        self.0
            .iter()
            .find(|(k, _)| k == key)
            .map_or(0, |(_, value)| *value)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Page sizes that have a file `hugetlb.SIZE` with this end.
fn page_sizes(folder: &Path, end: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut sizes: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let size = name.strip_prefix("hugetlb.")?.strip_suffix(end)?;
            (!size.contains('.')).then(|| size.to_owned())
        })
        .collect();
    sizes.sort_unstable();
    sizes
}
