//! Checkpoints: passed to the runtime, which leaves the work to criu.

use std::ffi::OsString;
use std::path::PathBuf;

use proto::containerd::runc::v1::CheckpointOptions;
use proto::layout;

use super::{Context, TaskError};
use crate::runc::{Call, LONG};

/// A checkpoint to be made.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) path: String,
    pub(crate) options: CheckpointOptions,
}

/// The runtime's `checkpoint`.
pub(super) async fn run(context: &Context, checkpoint: &Checkpoint) -> Result<(), TaskError> {
    let options = &checkpoint.options;
    let own_work = context.bundle.join(layout::WORK).join("criu-work");
    let work = if options.work_path.is_empty() {
        own_work.clone()
    } else {
        PathBuf::from(&options.work_path)
    };
    let mut args: Vec<OsString> = vec![
        "--image-path".into(),
        checkpoint.path.clone().into(),
        "--work-path".into(),
        work.clone().into(),
    ];
    for (given, flag) in [
        (!options.exit, "--leave-running"),
        (options.open_tcp, "--tcp-established"),
        (options.external_unix_sockets, "--ext-unix-sk"),
        (options.terminal, "--shell-job"),
        (options.file_locks, "--file-locks"),
    ] {
        if given {
            args.push(flag.into());
        }
    }
    if !options.parent_path.is_empty() {
        args.extend(["--parent-path".into(), options.parent_path.clone().into()]);
    }
    if !options.cgroups_mode.is_empty() {
        args.extend([
            "--manage-cgroups-mode".into(),
            options.cgroups_mode.clone().into(),
        ]);
    }
    for namespace in &options.empty_namespaces {
        args.extend(["--empty-ns".into(), namespace.into()]);
    }
    args.push(context.id.clone().into());
    let result = context
        .runtime
        .run(Call::new("checkpoint", args), LONG)
        .await;
    if result.is_err() {
        // The log of criu says more than the runtime; keep it where people look.
        let _ = std::fs::copy(work.join("dump.log"), context.bundle.join("criu-dump.log"));
    }
    if work == own_work {
        // It may not exist, or go with the bundle.
        let _ = std::fs::remove_dir_all(&own_work);
    }
    result.map_err(|source| TaskError::Runtime {
        verb: "checkpoint",
        source,
    })
}
