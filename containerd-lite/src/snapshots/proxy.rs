//! Snapshotters of other programs, spoken to over containerd's own gRPC service: lazily pulled images, fuse-overlayfs.
//!
//! ```text
//!  our row   NS, NAME ─ id        the truth, as for every snapshotter: names, parents, labels, kinds
//!  theirs    NS/ID/NAME           the files; another program's name where it had the layer before us (see below)
//! ```
//!
//! Theirs is made before our row and removed after it, so a kill leaves at most one of theirs without a row, which
//! [`Backend::cleanup`] removes. A layer that is asked for with the label `containerd.io/snapshot.ref` may be there already
//! without having been unpacked: their answer is then "already exists", the layer becomes a row of ours, and the client is
//! told the same. Blocks, on threads for that; every call has a deadline.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use proto::containerd::services::snapshots::v1 as wire;
use proto::error::ErrorKind;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::{Backend, Mount, New, SnapshotError};
use crate::metadata::{Labels, MetadataError, SnapshotKind, SnapshotRow, Snapshots, Usage};

type Client = wire::snapshots_client::SnapshotsClient<Channel>;

/// Label with the name under which a layer may be there already.
const REFERENCE: &str = "containerd.io/snapshot.ref";
/// How long the other program may take.
const LIMIT: Duration = Duration::from_secs(300);

/// The snapshotter of another program.
#[derive(Debug)]
pub(crate) struct Proxy {
    name: &'static str,
    client: Client,
    runtime: tokio::runtime::Handle,
    next: AtomicI64,
    /// Shared by whoever makes one of theirs and its row, exclusive for the cleanup.
    making: RwLock<()>,
}

impl Proxy {
    /// Speaks to `socket` when there is something to say; nobody need listen yet. `last` is the highest id in use.
    pub(crate) fn new(name: &'static str, socket: &Path, last: i64) -> Result<Self, SnapshotError> {
        let address = format!("unix://{}", socket.display());
        let endpoint = Endpoint::try_from(address)
            .map_err(|e| SnapshotError::Unknown(format!("{name}: address {socket:?}: {e}")))?;
        Ok(Self {
            name,
            client: Client::new(endpoint.connect_lazy()),
            runtime: tokio::runtime::Handle::current(),
            // Later than any id of an earlier life, of which they may still have something.
            next: AtomicI64::new(last.max(crate::time::now() / 1_000_000) + 1),
            making: RwLock::new(()),
        })
    }

    /// Asks on behalf of a namespace.
    fn ask<Q, A, F>(
        &self,
        ns: Option<&str>,
        message: Q,
        call: impl FnOnce(Client, Request<Q>) -> F,
    ) -> Result<A, SnapshotError>
    where
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        let mut request = Request::new(message);
        if let Some(value) = ns.and_then(|ns| ns.parse().ok()) {
            request.metadata_mut().insert("containerd-namespace", value);
        }
        let answer = tokio::time::timeout(LIMIT, call(self.client.clone(), request));
        // Entered only on threads that may block.
        let status = match self.runtime.block_on(answer) {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => status,
            Err(_) => Status::deadline_exceeded(format!("no answer within {LIMIT:?}")),
        };
        Err(SnapshotError::Proxy {
            name: self.name,
            kind: ErrorKind::from_code(status.code().into()),
            text: status.message().to_owned(),
        })
    }

    /// Their name of a snapshot.
    fn key(
        &self,
        rows: &Snapshots<'_>,
        ns: &str,
        row: &SnapshotRow,
    ) -> Result<String, SnapshotError> {
        let own = rows.foreign_key(row.id)?;
        Ok(own.unwrap_or_else(|| key(ns, row.id, &row.name)))
    }

    /// Makes a row of a layer that they had before us. False if they do not have it after all.
    fn adopt(
        &self,
        rows: &Snapshots<'_>,
        new: &New<'_>,
        id: i64,
        parent: &str,
    ) -> Result<bool, SnapshotError> {
        let Some(target) = new.labels.get(REFERENCE) else {
            return Ok(false);
        };
        let request = wire::ListSnapshotsRequest {
            snapshotter: self.name.to_owned(),
            filters: vec![format!(
                "labels.{REFERENCE:?}=={target:?},parent=={parent:?}"
            )],
        };
        let listed = self.list(Some(new.ns), request)?;
        let found = listed.into_iter().find(|info| {
            info.parent == parent
                && info.kind() == wire::Kind::Committed
                && info.labels.get(REFERENCE) == Some(target)
        });
        let Some(found) = found else {
            return Ok(false);
        };
        let now = crate::time::now();
        let row = SnapshotRow {
            name: target.clone(),
            id,
            parent: new.parent.to_owned(),
            kind: SnapshotKind::Committed,
            labels: new.labels.clone(),
            usage: Usage::default(),
            created_at: now,
            updated_at: now,
        };
        match rows.adopt(new.ns, new.lease, row, &found.name) {
            // It has been a row of ours for a while.
            Ok(()) | Err(MetadataError::AlreadyExists(_)) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn list(
        &self,
        ns: Option<&str>,
        request: wire::ListSnapshotsRequest,
    ) -> Result<Vec<wire::Info>, SnapshotError> {
        self.ask(ns, request, |mut client, request| async move {
            let mut stream = client.list(request).await?.into_inner();
            let mut all = Vec::new();
            while let Some(part) = stream.message().await? {
                all.extend(part.info);
            }
            Ok(tonic::Response::new(all))
        })
    }

    fn discard(&self, ns: Option<&str>, key: &str) -> Result<(), SnapshotError> {
        let request = wire::RemoveSnapshotRequest {
            snapshotter: self.name.to_owned(),
            key: key.to_owned(),
        };
        self.ask(ns, request, |mut client, request| async move {
            client.remove(request).await
        })
    }
}

fn key(ns: &str, id: i64, name: &str) -> String {
    format!("{ns}/{id}/{name}")
}

/// The id in a name of theirs that is of our making.
fn id_of(key: &str) -> Option<i64> {
    let mut parts = key.splitn(3, '/');
    let (_, id, _) = (parts.next()?, parts.next()?, parts.next()?);
    id.parse().ok()
}

fn mounts_in(mounts: Vec<proto::containerd::types::Mount>) -> Vec<Mount> {
    let mounts = mounts.into_iter().map(|mount| Mount {
        kind: mount.r#type.into(),
        source: mount.source,
        options: mount.options,
    });
    mounts.collect()
}

impl Backend for Proxy {
    fn prepare(&self, rows: &Snapshots<'_>, new: &New<'_>) -> Result<Vec<Mount>, SnapshotError> {
        let parent = match new.parent {
            "" => String::new(),
            parent => self.key(rows, new.ns, &rows.get(new.ns, parent)?)?,
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let own = key(new.ns, id, new.key);
        let _making = self.making.read().unwrap_or_else(PoisonError::into_inner);
        let labels: std::collections::HashMap<_, _> = new.labels.clone().into_iter().collect();
        let snapshotter = self.name.to_owned();
        let made = match new.kind {
            SnapshotKind::View => {
                let request = wire::ViewSnapshotRequest {
                    snapshotter,
                    key: own.clone(),
                    parent: parent.clone(),
                    labels,
                };
                let made = self.ask(Some(new.ns), request, |mut client, request| async move {
                    client.view(request).await
                });
                made.map(|made| made.mounts)
            }
            _ => {
                let request = wire::PrepareSnapshotRequest {
                    snapshotter,
                    key: own.clone(),
                    parent: parent.clone(),
                    labels,
                };
                let made = self.ask(Some(new.ns), request, |mut client, request| async move {
                    client.prepare(request).await
                });
                made.map(|made| made.mounts)
            }
        };
        let mounts = match made {
            Ok(mounts) => mounts_in(mounts),
            Err(SnapshotError::Proxy {
                kind: ErrorKind::AlreadyExists,
                ..
            }) if self.adopt(rows, new, id, &parent)? => {
                let target = new.labels.get(REFERENCE).cloned().unwrap_or_default();
                let text = format!("target snapshot {target:?}");
                return Err(MetadataError::AlreadyExists(text).into());
            }
            Err(error) => return Err(error),
        };
        if let Err(error) = rows.insert(new.ns, new.lease, new.row(id)) {
            // The first cause is what the caller needs; a leftover is removed by the next cleanup.
            let _ = self.discard(Some(new.ns), &own);
            return Err(error.into());
        }
        Ok(mounts)
    }

    fn mounts(
        &self,
        rows: &Snapshots<'_>,
        ns: &str,
        row: &SnapshotRow,
    ) -> Result<Vec<Mount>, SnapshotError> {
        let request = wire::MountsRequest {
            snapshotter: self.name.to_owned(),
            key: self.key(rows, ns, row)?,
        };
        let told = self.ask(Some(ns), request, |mut client, request| async move {
            client.mounts(request).await
        })?;
        Ok(mounts_in(told.mounts))
    }

    fn finish(
        &self,
        rows: &Snapshots<'_>,
        ns: &str,
        row: &SnapshotRow,
        name: &str,
        labels: &Labels,
    ) -> Result<Usage, SnapshotError> {
        let usage = self.usage(rows, ns, row)?;
        let request = wire::CommitSnapshotRequest {
            snapshotter: self.name.to_owned(),
            name: key(ns, row.id, name),
            key: self.key(rows, ns, row)?,
            labels: labels.clone().into_iter().collect(),
        };
        let done = self.ask(Some(ns), request, |mut client, request| async move {
            client.commit(request).await
        });
        match done {
            // A commit of an earlier life that did not get as far as our row: nobody else has a name with this id.
            Ok(())
            | Err(SnapshotError::Proxy {
                kind: ErrorKind::AlreadyExists,
                ..
            }) => Ok(usage),
            Err(error) => Err(error),
        }
    }

    fn discarded(
        &self,
        rows: &Snapshots<'_>,
        ns: &str,
        row: &SnapshotRow,
    ) -> Result<(), SnapshotError> {
        // A layer that they had before us stays theirs.
        if rows.forget_foreign_key(row.id)? {
            return Ok(());
        }
        match self.discard(Some(ns), &key(ns, row.id, &row.name)) {
            Ok(())
            | Err(SnapshotError::Proxy {
                kind: ErrorKind::NotFound,
                ..
            }) => {}
            // Our row has gone, so for the client it is removed; the next cleanup tries again.
            Err(error) => tracing::warn!("{}", crate::error::chain(&error)),
        }
        Ok(())
    }

    fn usage(
        &self,
        rows: &Snapshots<'_>,
        ns: &str,
        row: &SnapshotRow,
    ) -> Result<Usage, SnapshotError> {
        let request = wire::UsageRequest {
            snapshotter: self.name.to_owned(),
            key: self.key(rows, ns, row)?,
        };
        let told = self.ask(Some(ns), request, |mut client, request| async move {
            client.usage(request).await
        })?;
        Ok(Usage {
            size: told.size,
            inodes: told.inodes,
        })
    }

    fn cleanup(&self, rows: &Snapshots<'_>) -> Result<(), SnapshotError> {
        let request = wire::ListSnapshotsRequest {
            snapshotter: self.name.to_owned(),
            filters: Vec::new(),
        };
        let _alone = self.making.write().unwrap_or_else(PoisonError::into_inner);
        let listed = match self.list(None, request) {
            Ok(listed) => listed,
            // Who is not there has nothing to clean up now.
            Err(SnapshotError::Proxy { kind, text, .. }) => {
                tracing::debug!(
                    name = self.name,
                    ?kind,
                    text,
                    "snapshotter is not cleaned up"
                );
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        rows.sweep_foreign_keys()?;
        let kept = rows.ids()?;
        let mut gone: Vec<(i64, String)> = listed
            .into_iter()
            .filter_map(|info| Some((id_of(&info.name)?, info.name)))
            .filter(|(id, _)| !kept.contains(id))
            .collect();
        // What builds on another is younger than it.
        gone.sort_unstable_by(|a, b| b.cmp(a));
        for (_, key) in gone {
            if let Err(error) = self.discard(None, &key) {
                tracing::debug!(name = self.name, "{}", crate::error::chain(&error));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_making_have_an_id() {
        assert_eq!(id_of(&key("ns", 7, "a/b c")), Some(7));
        for other in ["", "layer", "ns/7", "ns/x/y", "sha256:ab"] {
            assert_eq!(id_of(other), None, "{other}");
        }
    }
}
