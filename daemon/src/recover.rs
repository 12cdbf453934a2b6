//! Making records and reality agree.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::App;

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
}

/// Follows containerd until `stop`.
pub(crate) async fn run(_: Arc<App>, stop: CancellationToken) {
    stop.cancelled().await;
}
