//! Names of files and sockets that more than one program opens.

/// Folder below containerd's root and state that holds bundles: `FOLDER/NAMESPACE/ID`.
pub const TASK_FOLDER: &str = "io.containerd.runtime.v2.task";
/// The OCI spec in a bundle.
pub const CONFIG: &str = "config.json";
/// The root file system's mount point in a bundle.
pub const ROOTFS: &str = "rootfs";
/// Link in a bundle to the task's folder that survives a reboot.
pub const WORK: &str = "work";
/// The shim's socket address, bare; written by the shim.
pub const ADDRESS: &str = "address";
/// The shim's answer to `start` as JSON; written by the daemon that started it.
pub const BOOTSTRAP: &str = "bootstrap.json";
/// Absolute path of the shim binary; written by the daemon that started it.
pub const SHIM_BINARY: &str = "shim-binary-path";
/// Fifo for the shim's own log.
pub const LOG: &str = "log";
/// The runtime's log, JSON lines.
pub const RUNTIME_LOG: &str = "log.json";
/// The runtime options as JSON.
pub const OPTIONS: &str = "options.json";
/// The runtime binary's name.
pub const RUNTIME: &str = "runtime";
/// Pid of the init process as the runtime wrote it.
pub const INIT_PID: &str = "init.pid";
/// The exit record of the init process.
pub const EXIT: &str = "exit.json";

/// Name of the exit record of an exec in the bundle.
pub fn exec_exit(exec_id: &str) -> String {
    format!("exit-{exec_id}.json")
}

/// What the header of a compressed part of a log says, as its comment: the device and number of the file that it was made of,
/// and when that came into being (nanoseconds since 1970, 0 where file systems do not tell), since numbers are used again.
pub fn log_part((dev, ino, born): (u64, u64, u64)) -> String {
    format!("inode {dev}:{ino} born {born}")
}

/// Reads what [`log_part`] wrote.
pub fn read_log_part(comment: &[u8]) -> Option<(u64, u64, u64)> {
    let text = std::str::from_utf8(comment).ok()?;
    let (inode, born) = text.strip_prefix("inode ")?.split_once(" born ")?;
    let (dev, ino) = inode.split_once(':')?;
    Some((dev.parse().ok()?, ino.parse().ok()?, born.parse().ok()?))
}

/// What [`log_part`] says of a file.
pub fn log_part_of(file: &std::fs::Metadata) -> (u64, u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let born = file.created().ok();
    let born = born.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let nanos = born.and_then(|since| u64::try_from(since.as_nanos()).ok());
    (file.dev(), file.ino(), nanos.unwrap_or(0))
}

/// Names of the five programs.
pub mod program {
    /// The CLI.
    pub const CLI: &str = "docker-lite";
    /// The Engine API daemon.
    pub const DAEMON: &str = "dockerd-lite";
    /// The containerd API daemon.
    pub const CONTAINERD: &str = "containerd-lite";
    /// The shim.
    pub const SHIM: &str = "containerd-shim-lite-v2";
    /// The OCI runtime.
    pub const RUNTIME: &str = "runc-lite";
}

/// Runtime type whose binary is our shim.
pub const RUNTIME_TYPE: &str = "io.containerd.lite.v2";
/// The alias under which dockerd-lite registers it.
pub const RUNTIME_TYPE_ALIAS: &str = "io.containerd.runc.lite.v2";
/// The reference shim's runtime type.
pub const RUNTIME_TYPE_RUNC: &str = "io.containerd.runc.v2";
