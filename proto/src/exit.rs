//! Why a process ended, which containerd's messages have no field for: where it is carried, and the words by which programs of the
//! chain tell a few of the reasons apart. All else of it is for people.

/// Response header of Tasks.Wait, Delete, DeleteProcess and, of a stopped process, Get: what killed the process, in words for
/// people. Missing where nothing is known, as with shims that leave no exit record.
pub const REASON: &str = "lite-exit-reason";

/// The kernel killed it since its memory was used up.
pub const OUT_OF_MEMORY: &str = "out of memory";

/// How the reason begins when the signal that ended it was asked for.
pub const BY_REQUEST: &str = "killed by API request";

/// How it begins when nobody knows who sent the signal.
pub const BY_SIGNAL: &str = "killed by signal";

/// How it begins when the shim did not live to see the end.
pub const SHIM_DIED: &str = "its shim died";

/// How it begins when the process ended by itself.
pub const BY_ITSELF: &str = "exited with code";
