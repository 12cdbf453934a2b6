//! The mode `delete`: what is left when a shim is gone. Also run on the clean path, where there is nothing left to do.
//!
//! Ends a shim that is stopped, force-deletes the container in the runtime, kills what still runs in its cgroup, unmounts the root file system, removes
//! dead sockets, and writes the recorded exit to standard output; without a record the container was ended by this, so 137
//! and a record that says so. Every step may find its work done already. Async only for the runtime call.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use prost::Message as _;
use proto::containerd::task::v2::DeleteResponse;
use proto::layout;

use crate::args::Args;
use crate::cgroup::Cgroup;
use crate::container::{SHIM_RECORD, ShimRecord};
use crate::exit::ExitRecord;
use crate::options::RuntimeOptions;
use crate::process::{self, Live};
use crate::reaper::{Exit, Reaper};
use crate::runc::{Call, Runc, SHORT};
use crate::spec::Spec;
use crate::{BoxError, chain, clock, diag, file, rootfs, sys};

/// Exit status of a container that was ended because its shim was gone.
const KILLED: u32 = 137;
/// How long killed processes may take to go.
const GONE: Duration = Duration::from_secs(5);

/// Runs the mode.
pub(crate) fn run(args: &Args) -> Result<(), BoxError> {
    let bundle = bundle(args)?;
    let recorded = ExitRecord::load(&bundle);
    let shim = shim_record(&bundle);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    end_stopped_shim(args, &bundle, &shim);
    runtime.block_on(force_delete(args, &bundle))?;
    end_processes(&shim);
    rootfs::unmount_all(&bundle.join(layout::ROOTFS))?;
    remove_sockets(&bundle, &shim);
    let record = match recorded {
        Some(record) => record,
        // It may have ended by itself while we looked.
        None => ExitRecord::load(&bundle).unwrap_or_else(|| died_with_shim(&bundle, &shim)),
    };
    let response = DeleteResponse {
        pid: record.pid,
        exit_status: record.status,
        exited_at: Some(clock::timestamp(
            record.time().unwrap_or_else(SystemTime::now),
        )),
    };
    std::io::stdout().write_all(&response.encode_to_vec())?;
    Ok(())
}

/// The bundle: named, else the sibling of the working directory that has the container's name.
fn bundle(args: &Args) -> Result<PathBuf, BoxError> {
    if let Some(bundle) = &args.bundle {
        return Ok(bundle.clone());
    }
    let here =
        std::env::current_dir().map_err(|e| format!("find the bundle (working directory): {e}"))?;
    let parent = here
        .parent()
        .ok_or("the working directory is the root, not a bundle")?;
    Ok(parent.join(&args.id))
}

/// What the shim noted of the container; the pid file alone if it did not come that far.
fn shim_record(bundle: &Path) -> ShimRecord {
    let noted = file::read_optional(&bundle.join(SHIM_RECORD))
        .ok()
        .flatten();
    if let Some(record) = noted.and_then(|json| serde_json::from_slice(&json).ok()) {
        return record;
    }
    let text = std::fs::read_to_string(bundle.join(layout::INIT_PID)).unwrap_or_default();
    ShimRecord {
        pid: text.trim().parse().unwrap_or(0),
        ..ShimRecord::default()
    }
}

/// A shim that is held by a signal is as good as dead to the daemon that gave it up, but keeps its container's processes as
/// zombies and would go on one day. One that serves other containers as well is left alone.
fn end_stopped_shim(args: &Args, bundle: &Path, shim: &ShimRecord) {
    let group = Spec::load_optional(bundle).ok().and_then(Spec::group);
    let is_held = || {
        process::stat(shim.shim_pid).is_some_and(|stat| {
            stat.stopped && shim.shim_start_time != 0 && stat.start_time == shim.shim_start_time
        })
    };
    if group.is_some_and(|group| group != args.id) || !is_held() {
        return;
    }
    let deadline = std::time::Instant::now() + GONE;
    if let Err(error) = sys::signal(shim.shim_pid, 9) {
        diag::warn(format_args!("end stopped shim {}: {error}", shim.shim_pid));
    }
    let there = || {
        process::stat(shim.shim_pid)
            .is_some_and(|stat| stat.start_time == shim.shim_start_time && !stat.zombie)
    };
    while there() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn force_delete(args: &Args, bundle: &Path) -> Result<(), BoxError> {
    let options = RuntimeOptions::load(bundle).unwrap_or_else(|error| {
        diag::warn(format_args!("{}: defaults are used", chain(&error)));
        RuntimeOptions::default()
    });
    let reaper = Reaper::start()?;
    let runtime = Runc::new(&options, bundle, &args.address, &args.namespace, reaper);
    let mut call = Call::new("delete", ["--force", args.id.as_str()]);
    if !bundle.is_dir() {
        return Ok(());
    }
    call.log = Some(bundle.join(layout::RUNTIME_LOG));
    match runtime.run(call, SHORT).await {
        Ok(()) => {}
        Err(error) if error.to_string().contains("does not exist") => {}
        Err(error) => diag::warn(format_args!("runtime delete of {}: {error}", args.id)),
    }
    Ok(())
}

/// Kills the recorded init, if it is still the same process, and whatever is in the container's cgroup.
fn end_processes(shim: &ShimRecord) {
    let deadline = std::time::Instant::now() + GONE;
    loop {
        let mut left = shim.cgroup.processes();
        if is_same(shim) {
            left.push(shim.pid);
        }
        left.retain(|pid| process::stat(*pid).is_some_and(|stat| !stat.zombie));
        if left.is_empty() || std::time::Instant::now() > deadline {
            break;
        }
        for pid in left {
            if let Err(error) = sys::signal(pid, 9) {
                diag::debug(format_args!("kill {pid}: {error}"));
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    remove_cgroups(&shim.cgroup);
}

/// Whether the recorded pid is still that process. Without a start time nobody knows, so it is not.
fn is_same(shim: &ShimRecord) -> bool {
    shim.pid != 0
        && shim.start_time != 0
        && process::stat(shim.pid)
            .is_some_and(|stat| stat.start_time == shim.start_time && !stat.zombie)
}

/// A runtime that could not delete its container leaves its groups; they are empty now, and one that is not stays.
fn remove_cgroups(cgroup: &Cgroup) {
    for folder in cgroup.own_folders() {
        // Gone already, or kept by somebody else: both are fine.
        let _ = std::fs::remove_dir(folder);
    }
}

/// Removes the shim's socket unless a shim (of the same group) answers on it, and the attach socket.
fn remove_sockets(bundle: &Path, shim: &ShimRecord) {
    if let Ok(Some(address)) = file::read_optional(&bundle.join(layout::ADDRESS)) {
        let address = String::from_utf8_lossy(&address);
        let path = Path::new(address.trim().strip_prefix("unix://").unwrap_or(&address));
        let refused = std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused);
        if refused {
            file::remove(path);
        }
    }
    if let Some(attach) = &shim.attach {
        file::remove(attach);
    }
}

fn died_with_shim(bundle: &Path, shim: &ShimRecord) -> ExitRecord {
    let exit = Exit {
        status: KILLED,
        signal: Some(9),
        at: SystemTime::now(),
    };
    let live = Live {
        pid: shim.pid,
        start_time: shim.start_time,
    };
    let record = ExitRecord::new(live, &exit, "killed: its shim died".to_owned());
    if bundle.is_dir()
        && let Err(error) = record.store(bundle, None)
    {
        diag::warn(format_args!("{}", chain(&error)));
    }
    record
}
