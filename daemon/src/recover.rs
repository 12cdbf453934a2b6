//! Making records and reality agree: at the daemon's start and after every reconnect alike.
//!
//! ```text
//!  subscribe ─▶ buffer ─▶ list tasks ─▶ compare with every record ─▶ apply the buffer ─▶ follow
//!      ▲                                                                                   │
//!      └──────────────── the stream ended: containerd went away ◀──────────────────────────┘
//! ```
//!
//! Events are hints: whatever they tell may be told twice or not at all, and the comparison finds it. So an exit during an
//! outage gets its true code and time, from containerd's record, however long the outage was.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use proto::any;
use proto::containerd::events::{TaskExit, TaskOom};
use proto::containerd::services::events::v1::SubscribeRequest;
use proto::containerd::services::snapshots::v1::{ListSnapshotsRequest, RemoveSnapshotRequest};
use proto::containerd::services::tasks::v1::ListTasksRequest;
use proto::containerd::types::Envelope;
use proto::containerd::v1::types::Process;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::backend::{QUICK, SLOW, within};
use crate::clock;
use crate::container::create::SNAPSHOT_LABEL;
use crate::container::{Command, Exit, Handle, exec, exec_kept};
use crate::error::{During, Error, Result};

/// How many events may wait while the comparison goes on; more wait in containerd.
const BUFFER: usize = 1024;

/// How many containers are compared at once.
const AT_ONCE: usize = 32;

/// How long a containerd that answers a subscription only with its first event is given to have it in place.
const UNHEARD: Duration = Duration::from_millis(200);

/// Whether the records have been made to agree with what containerd says since the last connect.
#[derive(Debug)]
pub(crate) struct Reconciled(watch::Sender<bool>);

impl Reconciled {
    pub(crate) fn new() -> Self {
        Self(watch::channel(false).0)
    }

    /// Whether they agree.
    pub(crate) fn is(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until they agree, but no longer than this.
    pub(crate) async fn wait(&self, limit: Duration) {
        let mut watch = self.0.subscribe();
        // What is not confirmed by then is marked in the answer.
        let _ = tokio::time::timeout(limit, watch.wait_for(|agree| *agree)).await;
    }
}

/// Follows containerd until `stop`.
pub(crate) async fn run(app: Arc<App>, stop: CancellationToken) {
    let mut first = true;
    let mut pause = Duration::from_millis(10);
    let mut told = false;
    loop {
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = follow(&app, &mut first) => outcome,
        };
        if app.reconciled.is() {
            app.reconciled.0.send_replace(false);
            pause = Duration::from_millis(10);
            told = false;
        }
        if let Err(e) = outcome {
            // The first try at start usually finds a containerd that is not up yet.
            match told {
                false => tracing::info!("follow containerd: {e}"),
                true => tracing::debug!("follow containerd: {e}"),
            }
            told = true;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// One connection's time.
async fn follow(app: &Arc<App>, first: &mut bool) -> Result<()> {
    let (sink, mut events) = mpsc::channel(BUFFER);
    let (ready, subscribed) = tokio::sync::oneshot::channel();
    let reader = tokio::spawn(read(app.clone(), sink, ready));
    let _reader = AbortOnDrop(reader.abort_handle());
    match tokio::time::timeout(UNHEARD, subscribed).await {
        Ok(Ok(())) | Err(_) => {}
        Ok(Err(_)) => {
            return match reader.await {
                Ok(outcome) => outcome,
                Err(e) => Err(Error::internal(format!("read events: {e}"))),
            };
        }
    }
    compare(app, *first).await?;
    if *first {
        sweep(app).await;
        *first = false;
    }
    app.reconciled.0.send_replace(true);
    tracing::info!("records and containerd agree");
    while let Some(envelope) = events.recv().await {
        apply(app, &envelope);
    }
    Err(Error::unavailable("the event stream has ended"))
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Subscribes and passes on what comes. `ready` is told once containerd has answered, and dropped if it refused.
async fn read(
    app: Arc<App>,
    sink: mpsc::Sender<Envelope>,
    ready: tokio::sync::oneshot::Sender<()>,
) -> Result<()> {
    let request = SubscribeRequest {
        filters: vec![format!(
            "topic~=\"^/tasks/\",namespace=={}",
            app.backend.namespace()
        )],
    };
    let mut stream = app
        .backend
        .events()
        .subscribe(request)
        .await
        .during(|| "subscribe")?
        .into_inner();
    // Whoever waited no longer has gone on.
    let _ = ready.send(());
    while let Some(envelope) = stream.message().await.during(|| "read events")? {
        if sink.send(envelope).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Compares every record with the list of tasks.
async fn compare(app: &Arc<App>, first: bool) -> Result<()> {
    let request = ListTasksRequest::default();
    let listed = within(QUICK, app.backend.tasks().list(request))
        .await
        .during(|| "list tasks")?
        .tasks;
    let mut tasks: HashMap<String, Process> = listed
        .into_iter()
        .map(|task| (task.id.clone(), task))
        .collect();
    let pairs: Vec<(Handle, Option<Box<Process>>)> = app
        .containers
        .all()
        .into_iter()
        .map(|handle| {
            let task = tasks.remove(handle.id()).map(Box::new);
            (handle, task)
        })
        .collect();
    futures_util::stream::iter(pairs)
        .for_each_concurrent(AT_ONCE, |(handle, task)| async move {
            exec_kept::reconcile(app, &handle).await;
            let asked = handle.ask(|reply| Command::Reconcile { task, first, reply });
            // A container whose owner is busy with a slow call is confirmed when that is over.
            match tokio::time::timeout(Duration::from_secs(1), asked).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(e)) if e.is_not_found() => {}
                Ok(Err(e)) => tracing::warn!("reconcile container {}: {e}", handle.id()),
            }
        })
        .await;
    Ok(())
}

/// Passes one event on to whom it concerns.
fn apply(app: &Arc<App>, envelope: &Envelope) {
    let Some(event) = &envelope.event else {
        return;
    };
    if let Some(Ok(exit)) = any::unpack::<TaskExit>(event) {
        let Ok(handle) = app.containers.find(&exit.container_id) else {
            return;
        };
        if exit.id == exit.container_id || exit.id.is_empty() {
            handle.tell(Command::Exited(Exit {
                pid: exit.pid,
                code: exit.exit_status,
                at: clock::from_wire(exit.exited_at.as_ref()),
            }));
        } else {
            exec::exited(app, &handle, &exit.id, exit.pid, exit.exit_status);
        }
    } else if let Some(Ok(oom)) = any::unpack::<TaskOom>(event)
        && let Ok(handle) = app.containers.find(&oom.container_id)
    {
        handle.tell(Command::Oom);
    }
}

/// Removes what a killed daemon half made: snapshots and directories of containers without a record.
async fn sweep(app: &Arc<App>) {
    if let Err(e) = sweep_snapshots(app).await {
        tracing::warn!("sweep snapshots: {e}");
    }
    // Each owner has released the endpoint of its own container if that is down; what is left belongs to nobody.
    if let Err(e) = app.images.sweep().await {
        tracing::warn!("sweep leases: {e}");
    }
    if let Err(e) = app.network.restore(&app.containers.ids()).await {
        tracing::warn!("sweep endpoints: {e}");
    }
    let root = app.config.data_root.join("containers");
    let Ok(entries) = std::fs::read_dir(&root) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.len() == 64 && !app.containers.knows(&name) {
            tracing::info!("remove the directory of container {name}, which has no record");
            if let Err(e) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!("remove {}: {e}", entry.path().display());
            }
        }
    }
}

async fn sweep_snapshots(app: &Arc<App>) -> Result<()> {
    let request = ListSnapshotsRequest {
        snapshotter: app.backend.snapshotter().to_owned(),
        filters: vec![format!("labels.\"{SNAPSHOT_LABEL}\"")],
    };
    let mut list = within(QUICK, app.backend.snapshots().list(request)).await?;
    let mut lost = Vec::new();
    while let Some(part) = list.message().await? {
        for info in part.info {
            let id = info.labels.get(SNAPSHOT_LABEL).cloned().unwrap_or_default();
            if !app.containers.knows(&id) {
                lost.push(info.name);
            }
        }
    }
    for key in lost {
        tracing::info!("remove snapshot {key}, whose container has no record");
        let request = RemoveSnapshotRequest {
            snapshotter: app.backend.snapshotter().to_owned(),
            key: key.clone(),
        };
        within(SLOW, app.backend.snapshots().remove(request))
            .await
            .during(|| format!("remove snapshot {key}"))?;
    }
    Ok(())
}
