//! Sandboxes: shims that are started for a pod rather than for a container, and then hold the tasks of its containers.
//!
//! ```text
//!  Create    bundle ─ shim `start` ─ record the address ─ CreateSandbox         STATE/io.containerd.sandbox.controller.v1.shim/NS/ID
//!  Start, Stop, Status, ...   dial the recorded address, ask, hang up
//!  Shutdown  ShutdownSandbox ─ wait until the shim is gone, else its `delete` ─ bundle removed
//! ```
//!
//! The bundle on disk is all there is to know, so nothing has to be found again after a restart but the watch, which copies
//! the shim's log and publishes the sandbox's end. A task whose container names a sandbox is created in that sandbox's shim
//! instead of one of its own; such a shim does not end with its last task.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proto::containerd::events::SandboxExit;
use proto::containerd::runtime::sandbox::v1::{self as wire, sandbox_ttrpc};
use proto::containerd::types::Sandbox;
use proto::prost::Message;

use super::answer::Answer;
use super::bundle::{Bundle, BundleError, Places};
use super::create::{copy_log, remove};
use super::shim_client::{ACTION, ConnectError, LIFECYCLE, ShimClient};
use super::{Result, Runtime, RuntimeError};
use crate::error::chain;

/// Folder of the bundles of sandboxes below state and root.
const FOLDER: &str = "io.containerd.sandbox.controller.v1.shim";
/// How long a shim may take to be gone after its sandbox was shut down.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// Where the bundles of sandboxes are.
pub(super) fn places(state: &Path, root: &Path) -> Places {
    Places {
        state: state.join(FOLDER),
        work: root.join(FOLDER),
    }
}

fn not_found(id: &str) -> RuntimeError {
    RuntimeError::NoProcess(format!("sandbox {id:?}: not found"))
}

impl Runtime {
    fn sandbox_bundle(&self, namespace: &str, id: &str) -> Result<Bundle> {
        proto::ids::validate(id)
            .map_err(|e| RuntimeError::Invalid(format!("sandbox id {id:?}: {e}")))?;
        Ok(self.sandboxes.bundle(namespace, id))
    }

    /// Where the shim of a sandbox listens.
    pub(crate) fn sandbox_answer(&self, namespace: &str, id: &str) -> Result<Answer> {
        let bundle = self.sandbox_bundle(namespace, id)?;
        bundle.answer().ok_or_else(|| not_found(id))
    }

    /// Whether a shim is a sandbox's.
    pub(super) fn is_sandbox(&self, namespace: &str, answer: &Answer) -> bool {
        let all = self.sandboxes.list_in(namespace).unwrap_or_default();
        all.iter().any(|id| {
            let other = self.sandboxes.bundle(namespace, id).answer();
            other.is_some_and(|other| other.address == answer.address)
        })
    }

    /// Starts the shim of a sandbox and makes the sandbox in it. Runs to its end even if the client leaves.
    pub(crate) async fn sandbox_create(
        self: &Arc<Self>,
        namespace: &str,
        sandbox: Sandbox,
        mut request: wire::CreateSandboxRequest,
    ) -> Result<()> {
        let bundle = self.sandbox_bundle(namespace, &sandbox.sandbox_id)?;
        let runtime = sandbox.runtime.clone().unwrap_or_default();
        let program = self.launcher.resolve(&runtime.name)?;
        let spec = sandbox.spec.as_ref().map(|spec| spec.value.as_slice());
        bundle.create(spec.filter(|spec| !spec.is_empty()).unwrap_or(b"{}"))?;
        request.sandbox_id.clone_from(&sandbox.sandbox_id);
        request.bundle_path = bundle.path().to_string_lossy().into_owned();
        let (this, namespace) = (self.clone(), namespace.to_owned());
        let work = tokio::spawn(async move {
            let name = (namespace.as_str(), sandbox.sandbox_id.as_str());
            let made = async {
                let log = bundle.open_log()?;
                let options = runtime.options.as_ref();
                let answer = this
                    .launcher
                    .start(&program, name, &bundle, options, None)
                    .await?;
                let client = ShimClient::connect(&answer, &namespace).await?;
                let asked = client.ask::<_, wire::CreateSandboxResponse>(
                    (sandbox_ttrpc::NAME, "CreateSandbox"),
                    Some(LIFECYCLE),
                    &request,
                );
                asked.await.map_err(RuntimeError::Shim)?;
                this.watch_sandbox(name, client, log);
                Ok(())
            };
            let made: Result<()> = made.await;
            if made.is_err() {
                this.end_sandbox(name, &bundle, &program).await;
            }
            made
        });
        work.await.expect("creating a sandbox does not panic")
    }

    /// Asks the shim of a sandbox.
    pub(crate) async fn sandbox_ask<Q: Message, A: Message + Default>(
        &self,
        namespace: &str,
        id: &str,
        method: &str,
        limit: Option<Duration>,
        request: &Q,
    ) -> Result<A> {
        let answer = self.sandbox_answer(namespace, id)?;
        let client = match ShimClient::connect(&answer, namespace).await {
            Ok(client) => client,
            Err(ConnectError::Dead(_)) => {
                return Err(RuntimeError::NoProcess(format!(
                    "sandbox {id:?}: its shim has died: not found"
                )));
            }
            Err(error) => return Err(error.into()),
        };
        let asked = client.ask((sandbox_ttrpc::NAME, method), limit, request);
        asked.await.map_err(RuntimeError::Shim)
    }

    /// Ends a sandbox and its shim, and forgets it.
    pub(crate) async fn sandbox_shutdown(
        self: &Arc<Self>,
        namespace: &str,
        id: &str,
    ) -> Result<()> {
        let bundle = self.sandbox_bundle(namespace, id)?;
        if !bundle.path().exists() {
            return Err(not_found(id));
        }
        let program = bundle.shim_binary();
        let (this, namespace, id) = (self.clone(), namespace.to_owned(), id.to_owned());
        let work = tokio::spawn(async move {
            let name = (namespace.as_str(), id.as_str());
            if let Some(answer) = bundle.answer()
                && let Ok(client) = ShimClient::connect(&answer, &namespace).await
            {
                let request = wire::ShutdownSandboxRequest {
                    sandbox_id: id.clone(),
                };
                let asked = client.ask::<_, wire::ShutdownSandboxResponse>(
                    (sandbox_ttrpc::NAME, "ShutdownSandbox"),
                    Some(ACTION),
                    &request,
                );
                if let Err(error) = asked.await {
                    tracing::debug!(id, %error, "shut a sandbox down");
                }
                if tokio::time::timeout(SHUTDOWN, client.closed())
                    .await
                    .is_ok()
                {
                    return remove(&bundle).await;
                }
            }
            match program {
                Some(program) => this.end_sandbox(name, &bundle, &program).await,
                None => remove(&bundle).await?,
            }
            Ok(())
        });
        work.await.expect("ending a sandbox does not panic")
    }

    /// Cleans up by the shim's own command, then removes the bundle. What fails stays on disk for the next try.
    async fn end_sandbox(&self, name: (&str, &str), bundle: &Bundle, program: &Path) {
        if bundle.answer().is_some()
            && let Err(error) = self.launcher.delete(program, name, bundle).await
        {
            tracing::warn!(
                id = name.1,
                error = chain(&error),
                "clean up after a sandbox"
            );
        }
        if let Err(error) = remove(bundle).await {
            tracing::warn!(
                id = name.1,
                error = chain(&error),
                "remove the bundle of a sandbox"
            );
        }
    }

    /// Copies the log of a sandbox's shim until it is gone, and publishes the sandbox's end.
    fn watch_sandbox(
        self: &Arc<Self>,
        (namespace, id): (&str, &str),
        client: ShimClient,
        log: tokio::net::unix::pipe::Receiver,
    ) {
        let (events, namespace, id) = (self.events.clone(), namespace.to_owned(), id.to_owned());
        tokio::spawn(async move {
            let copied = copy_log(log, client.closed());
            let request = wire::WaitSandboxRequest {
                sandbox_id: id.clone(),
            };
            let waited = client.ask::<_, wire::WaitSandboxResponse>(
                (sandbox_ttrpc::NAME, "WaitSandbox"),
                None,
                &request,
            );
            let publish = async {
                let Ok(told) = waited.await else { return };
                let event = SandboxExit {
                    sandbox_id: id.clone(),
                    exit_status: told.exit_status,
                    exited_at: told.exited_at,
                };
                events.publish(&namespace, "/sandboxes/exit", proto::any::pack(&event));
            };
            tokio::join!(copied, publish);
        });
    }

    /// Watches the sandboxes of an earlier life again. One whose shim is dead stays until it is shut down.
    pub(super) fn recover_sandboxes(self: &Arc<Self>) -> std::result::Result<(), BundleError> {
        for (namespace, id) in self.sandboxes.list()? {
            let bundle = self.sandboxes.bundle(&namespace, &id);
            let this = self.clone();
            tokio::spawn(async move {
                let Some(answer) = bundle.answer() else {
                    return;
                };
                let client = ShimClient::connect(&answer, &namespace).await;
                match (client, bundle.open_log()) {
                    (Ok(client), Ok(log)) => this.watch_sandbox((&namespace, &id), client, log),
                    (Err(error), _) => {
                        tracing::warn!(id, error = chain(&error), "reach for a sandbox");
                    }
                    (_, Err(error)) => {
                        tracing::warn!(id, error = chain(&error), "reach for a sandbox");
                    }
                }
            });
        }
        Ok(())
    }
}
