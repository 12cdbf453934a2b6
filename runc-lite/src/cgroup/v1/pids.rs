//! The number of tasks, on v1 and, as the file is the same, on v2.

use super::super::CgroupError;
use super::super::dir::Dir;

/// Sets the limit: negative is none; 0 means the smallest the kernel can hold to.
pub(in super::super) fn set(dir: &Dir, limit: i64) -> Result<(), CgroupError> {
    let value = match limit {
        i64::MIN..=-1 => "max".to_owned(),
        // A limit of 0 would not let the first process fork; 1 says what is meant.
        0 => "1".to_owned(),
        n => n.to_string(),
    };
    dir.set("linux.resources.pids.limit", "pids.max", &value)
}
