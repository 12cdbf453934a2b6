//! A logger program (`binary://`): it reads the output itself from descriptors 3 and 4, and says on 5 when it is ready.
//!
//! It is a child of ours but not tied to our life, so that it can finish what is in the pipes. Async.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

use super::{IoError, Owner};
use crate::diag;
use crate::reaper::Exit;
use crate::sys::{self, Program};

/// Longest wait for a logger to get ready.
const READY: Duration = Duration::from_secs(30);
/// How long it may take to end by itself once its pipes have.
const FINISH: Duration = Duration::from_secs(1);
/// How long it may finish after SIGTERM.
const GRACE: Duration = Duration::from_secs(12);

/// A running logger.
#[derive(Debug)]
pub(super) struct Logger {
    pid: u32,
    exit: oneshot::Receiver<Exit>,
}

impl Logger {
    /// Runs the program and waits until it is ready: closes the pipe, or (`needs_byte`) writes a byte to it.
    pub(super) async fn start(
        path: PathBuf,
        args: Vec<OsString>,
        needs_byte: bool,
        [stdout, stderr]: [OwnedFd; 2],
        owner: &Owner,
    ) -> Result<Self, IoError> {
        let (ready, ready_child) = sys::pipe().map_err(IoError::Pipe)?;
        let pid = Program {
            path: path.clone().into(),
            args,
            env: vec![
                ("CONTAINER_ID".into(), owner.id.clone().into()),
                ("CONTAINER_NAMESPACE".into(), owner.namespace.clone().into()),
            ],
            descriptors: vec![(stdout, 3), (stderr, 4), (ready_child, 5)],
            own_group: true,
            ..Program::default()
        }
        .spawn()
        .map_err(|source| IoError::Path {
            attempt: "run logger",
            path: path.clone(),
            source,
        })?;
        let logger = Self {
            pid,
            exit: owner.reaper.claim(pid),
        };
        let failed = |problem: &str| IoError::Logger {
            path: path.clone(),
            problem: problem.to_owned(),
        };
        let mut ready = Receiver::from_owned_fd(ready).map_err(IoError::Pipe)?;
        let mut byte = [0];
        let problem = match tokio::time::timeout(READY, ready.read(&mut byte)).await {
            Err(_) => "did not get ready in time",
            Ok(Err(_)) => "its ready pipe broke",
            Ok(Ok(0)) if needs_byte => "ended before it was ready",
            Ok(Ok(_)) => return Ok(logger),
        };
        logger.stop().await;
        Err(failed(problem))
    }

    /// Ends it: gives it a moment to see the end of its pipes, then asks, waits, and kills.
    pub(super) async fn stop(mut self) {
        for (signal, wait) in [(None, FINISH), (Some(15), GRACE), (Some(9), FINISH)] {
            if let Some(signal) = signal {
                // It has not been reaped, or the wait before would have seen it.
                let _ = sys::signal(self.pid, signal);
            }
            if tokio::time::timeout(wait, &mut self.exit).await.is_ok() {
                return diag::debug(format_args!("logger {} ended", self.pid));
            }
        }
        diag::warn(format_args!("logger {} survived SIGKILL", self.pid));
    }
}
