//! Shims that do not answer.
//!
//! A shim that leaves a question unanswered is marked silent: lists do not wait for it again, and a prober asks it now and then
//! until it answers. Calls about its own task still try, each for its own deadline.

use std::sync::Arc;
use std::time::Duration;

use proto::containerd::task::v2 as shim;
use proto::error::ErrorKind;

use super::Runtime;
use super::calls::{ProcessState, is_live_with};
use super::shim_client::{Method, ShimClient, is_broken};
use super::task::{ProcessRef, Task};

/// How often a silent shim is asked again.
const PROBE: Duration = Duration::from_secs(1);
/// How long a question to a silent shim may wait.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

impl Runtime {
    /// Marks the shim behind `client` silent, and asks it now and then until it is not.
    pub(super) fn mark_silent(self: &Arc<Self>, task: &Arc<Task>, client: &ShimClient) {
        if task.set_silent(client, true) {
            self.probe(task, client);
        }
    }

    /// Asks a silent shim now and then until it is not.
    pub(super) fn probe(self: &Arc<Self>, task: &Arc<Task>, client: &ShimClient) {
        tracing::warn!(
            namespace = task.namespace,
            id = task.id,
            "a shim does not answer"
        );
        let (runtime, task, client) = (self.clone(), task.clone(), client.clone());
        tokio::spawn(async move {
            while is_live_with(&task, &client) {
                tokio::time::sleep(PROBE).await;
                let request = shim::StateRequest {
                    id: task.id.clone(),
                    exec_id: String::new(),
                };
                let told = client
                    .call(Method::State, Some(PROBE_LIMIT), None, &request)
                    .await;
                match told {
                    Err(status) if status.kind == ErrorKind::DeadlineExceeded => {}
                    Err(status) if is_broken(&status) => return,
                    told => {
                        tracing::info!(
                            namespace = task.namespace,
                            id = task.id,
                            "a shim answers again"
                        );
                        task.set_silent(&client, false);
                        if let Ok(state) = told {
                            runtime.learn(&task, &ProcessRef::Init, &state).await;
                        }
                        return;
                    }
                }
            }
        });
    }

    /// Takes in what a shim told of a process; an exit is made sure to be published.
    pub(super) async fn learn(
        self: &Arc<Self>,
        task: &Arc<Task>,
        process: &ProcessRef,
        told: &ProcessState,
    ) {
        if task.note_state(process, told)
            && let Some(exit) = task.process(process).and_then(|p| p.exit)
        {
            self.ensure_published(task, process, &exit).await;
        }
    }
}
