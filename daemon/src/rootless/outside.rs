//! The threads that stay in the host's network.
//!
//! Under a parent that keeps the containers' network apart, the daemon starts in the host's network namespace and must
//! work in the other one: bridges, rules and sysctls are there. There is no way back, for the host's namespace is not the user's.
//! So threads are made before it goes over, and what belongs to the host is done by them for good: registries are reached without
//! the detour through the network helper, `tcp://` addresses are the host's, and so are published ports. A socket stays
//! where it was opened, whoever reads it: the one process that leads connections on gets these as it gets all others.
//!
//! Where nobody keeps a network apart there are no such threads, and everything is done where it is asked for.

use std::future::Future;
use std::path::Path;
use std::sync::OnceLock;

use nix::sched::{CloneFlags, setns};
use tokio::runtime::{Builder, Runtime};

use crate::error::{During, Error, Result};

static OUTSIDE: OnceLock<Runtime> = OnceLock::new();

/// Makes the threads, and takes this one, from which all others come, into the network namespace. To be called while the process has one
/// thread.
pub(crate) fn go_over(netns: &Path) -> Result<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("outside")
        .thread_stack_size(512 * 1024)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .enable_all()
        .build()
        .during(|| "start the threads in the host's network")?;
    // Threads are started lazily; a worker that answers is one that was made here.
    runtime
        .block_on(runtime.spawn(async {}))
        .map_err(|e| Error::internal(format!("start the threads in the host's network: {e}")))?;
    let what = || format!("enter the network namespace {}", netns.display());
    let namespace = std::fs::File::open(netns).during(what)?;
    setns(namespace, CloneFlags::CLONE_NEWNET).during(what)?;
    OUTSIDE
        .set(runtime)
        .map_err(|_| Error::internal("the network namespace was entered before"))
}

/// Ends a task when nobody waits for it any more.
struct Ends(tokio::task::AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does it in the host's network.
pub(crate) async fn run<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let Some(outside) = OUTSIDE.get() else {
        return work.await;
    };
    let trace = crate::backend::TRACE.try_with(Clone::clone).ok();
    let task = outside.spawn(async move {
        match trace {
            Some(trace) => crate::backend::TRACE.scope(trace, work).await,
            None => work.await,
        }
    });
    let _ends = Ends(task.abort_handle());
    task.await
        .map_err(|e| Error::internal(format!("work in the host's network: {e}")))?
}

/// Does it in the host's network and waits; for what takes no time.
pub(crate) fn call<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let Some(outside) = OUTSIDE.get() else {
        return Ok(work());
    };
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    outside.spawn(async move {
        // Whoever asked waits for it.
        let _ = tell.send(work());
    });
    told.recv()
        .map_err(|_| Error::internal("the threads in the host's network have ended"))
}
