//! The mode `relay` as a process: opens, says that it is ready, copies, ends.

use std::io::Write as _;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use crate::BoxError;
use crate::args::Args;
use crate::io::relay::Relay;

/// Runs the mode.
pub(crate) fn run(args: &Args) -> Result<(), BoxError> {
    let (uri, fifos) = args
        .relay
        .split_first()
        .ok_or("relay: want a URI and fifos")?;
    let fifos: Vec<PathBuf> = fifos.iter().map(PathBuf::from).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let relay = Relay::open(uri, &fifos)?;
        std::env::set_current_dir("/")?;
        let mut out = std::io::stdout();
        out.write_all(b"ready\n")?;
        out.flush()?;
        // Who started us need not stay.
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdout(&null)?;
        relay.run().await;
        Ok(())
    })
}
