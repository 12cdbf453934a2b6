//! Why a process ended, which containerd's messages have no field for.

/// Response header of Tasks.Wait, Delete, DeleteProcess and, of a stopped process, Get: what killed the process, in words for
/// people. Missing where nothing is known, as with shims that leave no exit record.
pub const REASON: &str = "lite-exit-reason";
