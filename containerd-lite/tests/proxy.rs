//! Parts that are other programs: a snapshotter and a differ in this test, on sockets of their own.

mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use proto::containerd::services::diff::v1 as diff;
use proto::containerd::services::snapshots::v1 as wire;
use proto::containerd::types::{Descriptor, Mount};
use store::{Client, Daemon, digest, layer};
use tonic::{Code, Request, Response, Status};

/// One snapshot of the other program.
#[derive(Debug, Clone)]
struct Entry {
    parent: String,
    kind: wire::Kind,
    labels: std::collections::HashMap<String, String>,
    folder: PathBuf,
}

/// The other program: names as it was given them, one folder each.
#[derive(Debug, Clone)]
struct Shelf {
    root: PathBuf,
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

impl Shelf {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().expect("shelf")
    }

    fn names(&self) -> Vec<String> {
        self.entries().keys().cloned().collect()
    }

    fn put(&self, key: &str, entry: Entry) {
        std::fs::create_dir_all(&entry.folder).expect("folder");
        self.entries().insert(key.to_owned(), entry);
    }

    fn make(
        &self,
        r: wire::PrepareSnapshotRequest,
        kind: wire::Kind,
    ) -> Result<Vec<Mount>, Status> {
        assert_eq!(r.snapshotter, "shelf");
        let reference = r.labels.get("containerd.io/snapshot.ref");
        let has = |entry: &Entry| entry.labels.get("containerd.io/snapshot.ref") == reference;
        if reference.is_some() && self.entries().values().any(has) {
            return Err(Status::already_exists("it is here"));
        }
        if !r.parent.is_empty() && !self.entries().contains_key(&r.parent) {
            return Err(Status::not_found(format!("parent {}", r.parent)));
        }
        let number = self.entries().len();
        let entry = Entry {
            parent: r.parent,
            kind,
            labels: r.labels,
            folder: self.root.join(format!("files-{number}")),
        };
        self.put(&r.key, entry);
        self.mounts_of(&r.key)
    }

    fn mounts_of(&self, key: &str) -> Result<Vec<Mount>, Status> {
        let entries = self.entries();
        let entry = entries.get(key).ok_or_else(|| Status::not_found(key))?;
        Ok(vec![Mount {
            r#type: "bind".into(),
            source: entry.folder.display().to_string(),
            target: String::new(),
            options: vec!["rw".into(), "rbind".into()],
        }])
    }

    fn info(name: &str, entry: &Entry) -> wire::Info {
        wire::Info {
            name: name.to_owned(),
            parent: entry.parent.clone(),
            kind: entry.kind.into(),
            labels: entry.labels.clone(),
            ..wire::Info::default()
        }
    }
}

type List =
    Pin<Box<dyn tokio_stream::Stream<Item = Result<wire::ListSnapshotsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl wire::snapshots_server::Snapshots for Shelf {
    type ListStream = List;

    async fn prepare(
        &self,
        request: Request<wire::PrepareSnapshotRequest>,
    ) -> Result<Response<wire::PrepareSnapshotResponse>, Status> {
        assert_eq!(
            request
                .metadata()
                .get("containerd-namespace")
                .expect("namespace"),
            "ns"
        );
        let mounts = self.make(request.into_inner(), wire::Kind::Active)?;
        Ok(Response::new(wire::PrepareSnapshotResponse { mounts }))
    }

    async fn view(
        &self,
        request: Request<wire::ViewSnapshotRequest>,
    ) -> Result<Response<wire::ViewSnapshotResponse>, Status> {
        let r = request.into_inner();
        let same = wire::PrepareSnapshotRequest {
            snapshotter: r.snapshotter,
            key: r.key,
            parent: r.parent,
            labels: r.labels,
        };
        let mounts = self.make(same, wire::Kind::View)?;
        Ok(Response::new(wire::ViewSnapshotResponse { mounts }))
    }

    async fn mounts(
        &self,
        request: Request<wire::MountsRequest>,
    ) -> Result<Response<wire::MountsResponse>, Status> {
        let mounts = self.mounts_of(&request.get_ref().key)?;
        Ok(Response::new(wire::MountsResponse { mounts }))
    }

    async fn commit(
        &self,
        request: Request<wire::CommitSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let r = request.into_inner();
        let mut entries = self.entries();
        let mut entry = entries
            .remove(&r.key)
            .ok_or_else(|| Status::not_found(r.key))?;
        entry.kind = wire::Kind::Committed;
        entry.labels = r.labels;
        entries.insert(r.name, entry);
        Ok(Response::new(()))
    }

    async fn remove(
        &self,
        request: Request<wire::RemoveSnapshotRequest>,
    ) -> Result<Response<()>, Status> {
        let key = request.into_inner().key;
        let mut entries = self.entries();
        if entries.values().any(|entry| entry.parent == key) {
            return Err(Status::failed_precondition("it has children"));
        }
        entries.remove(&key).ok_or_else(|| Status::not_found(key))?;
        Ok(Response::new(()))
    }

    async fn stat(
        &self,
        request: Request<wire::StatSnapshotRequest>,
    ) -> Result<Response<wire::StatSnapshotResponse>, Status> {
        let key = &request.get_ref().key;
        let entries = self.entries();
        let entry = entries.get(key).ok_or_else(|| Status::not_found(key))?;
        let info = Some(Self::info(key, entry));
        Ok(Response::new(wire::StatSnapshotResponse { info }))
    }

    async fn update(
        &self,
        _: Request<wire::UpdateSnapshotRequest>,
    ) -> Result<Response<wire::UpdateSnapshotResponse>, Status> {
        Err(Status::unimplemented("update"))
    }

    async fn list(&self, _: Request<wire::ListSnapshotsRequest>) -> Result<Response<List>, Status> {
        let info = self
            .entries()
            .iter()
            .map(|(name, entry)| Self::info(name, entry))
            .collect();
        let messages = vec![Ok(wire::ListSnapshotsResponse { info })];
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn usage(
        &self,
        request: Request<wire::UsageRequest>,
    ) -> Result<Response<wire::UsageResponse>, Status> {
        self.mounts_of(&request.get_ref().key)?;
        Ok(Response::new(wire::UsageResponse {
            size: 4711,
            inodes: 3,
        }))
    }

    async fn cleanup(&self, _: Request<wire::CleanupRequest>) -> Result<Response<()>, Status> {
        Err(Status::unimplemented("cleanup"))
    }
}

/// A differ that knows one media type.
#[derive(Debug)]
struct Odd;

#[tonic::async_trait]
impl diff::diff_server::Diff for Odd {
    async fn apply(
        &self,
        request: Request<diff::ApplyRequest>,
    ) -> Result<Response<diff::ApplyResponse>, Status> {
        assert_eq!(
            request
                .metadata()
                .get("containerd-namespace")
                .expect("namespace"),
            "ns"
        );
        let layer = request.into_inner().diff.expect("diff");
        if layer.media_type != "application/odd" {
            return Err(Status::unimplemented("only odd layers"));
        }
        let applied = Some(Descriptor {
            digest: digest(b"odd"),
            ..Descriptor::default()
        });
        Ok(Response::new(diff::ApplyResponse { applied }))
    }

    async fn diff(
        &self,
        _: Request<diff::DiffRequest>,
    ) -> Result<Response<diff::DiffResponse>, Status> {
        Err(Status::unimplemented("only apply"))
    }
}

/// Serves both on `folder/shelf.sock` and `folder/odd.sock`.
fn serve(folder: &Path) -> Shelf {
    let shelf = Shelf {
        root: folder.join("shelf"),
        entries: Arc::default(),
    };
    let listen = |name: &str| {
        let listener = tokio::net::UnixListener::bind(folder.join(name)).expect("listen");
        tokio_stream::wrappers::UnixListenerStream::new(listener)
    };
    let snapshots = wire::snapshots_server::SnapshotsServer::new(shelf.clone());
    let server = tonic::transport::Server::builder().add_service(snapshots);
    tokio::spawn(server.serve_with_incoming(listen("shelf.sock")));
    let odd = diff::diff_server::DiffServer::new(Odd);
    let server = tonic::transport::Server::builder().add_service(odd);
    tokio::spawn(server.serve_with_incoming(listen("odd.sock")));
    shelf
}

fn config(folder: &Path) -> String {
    let at = folder.display();
    format!(
        "[proxy_plugins.shelf]\ntype = \"snapshot\"\naddress = \"{at}/shelf.sock\"\n\
         [proxy_plugins.odd]\ntype = \"diff\"\naddress = \"{at}/odd.sock\"\n\
         [plugins.\"io.containerd.service.v1.diff-service\"]\ndefault = [\"odd\", \"walking\"]\n"
    )
}

/// A client whose snapshots are there, held by a lease: the collector runs at the start and after each removal.
async fn on_shelf(daemon: &Daemon) -> Client {
    let mut client = daemon.client("ns", Some("held")).await;
    // After a restart it is there already.
    let _ = client.create_lease("held").await;
    client.snapshotter = "shelf".into();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_live_in_another_program() {
    let mut shelf = None;
    let mut daemon = Daemon::start_with(|folder| {
        shelf = Some(serve(folder));
        config(folder)
    })
    .await;
    let shelf = shelf.expect("served");
    let client = on_shelf(&daemon).await;
    let bytes = layer(&[("etc/", ""), ("etc/motd", "hi")]);
    client.write("layer", &bytes, &[]).await.expect("write");
    let mounts = client.prepare("extract 1", "").await.expect("prepare");
    let source = PathBuf::from(&mounts[0].source);
    // The differ asked first does not know such layers, so our own unpacks into the other program's folder.
    client.apply(&bytes, mounts).await.expect("apply");
    assert_eq!(
        std::fs::read_to_string(source.join("etc/motd")).expect("file"),
        "hi"
    );
    client.commit("one", "extract 1").await.expect("commit");
    let names = shelf.names();
    assert!(
        names[0].starts_with("ns/") && names[0].ends_with("/one"),
        "{names:?}"
    );

    // Names outlive a kill, and what a kill left over there is removed.
    shelf.put(
        "ns/1/left",
        Entry {
            parent: String::new(),
            kind: wire::Kind::Active,
            labels: Default::default(),
            folder: shelf.root.join("left"),
        },
    );
    daemon.kill_and_restart().await;
    let client = on_shelf(&daemon).await;
    client.prepare("top", "one").await.expect("prepare");
    assert_eq!(client.stat("top").await.expect("stat").parent, "one");
    let status = client.remove("one").await.expect_err("it has a child");
    assert_eq!(status.code(), Code::FailedPrecondition);
    client.remove("top").await.expect("remove");
    let cleanup = wire::CleanupRequest {
        snapshotter: "shelf".into(),
    };
    client
        .snapshots()
        .cleanup(client.request(cleanup))
        .await
        .expect("cleanup");
    assert!(
        shelf.names().iter().all(|name| name.ends_with("/one")),
        "{:?}",
        shelf.names()
    );

    // Nothing holds the layer: the collector takes it, here and there.
    client.delete_lease("held").await.expect("collect");
    assert_eq!(
        client.stat("one").await.expect_err("gone").code(),
        Code::NotFound
    );
    assert_eq!(shelf.names(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_there_already_becomes_ours() {
    let mut shelf = None;
    let daemon = Daemon::start_with(|folder| {
        shelf = Some(serve(folder));
        config(folder)
    })
    .await;
    let shelf = shelf.expect("served");
    let label = ("containerd.io/snapshot.ref", "sha256:chain");
    shelf.put(
        "remote",
        Entry {
            parent: String::new(),
            kind: wire::Kind::Committed,
            labels: [(label.0.to_owned(), label.1.to_owned())].into(),
            folder: shelf.root.join("remote"),
        },
    );
    let client = on_shelf(&daemon).await;
    for _ in 0..2 {
        let prepared = client.prepare_with("extract", "", &[label]).await;
        assert_eq!(prepared.expect_err("there").code(), Code::AlreadyExists);
    }
    let info = client.stat("sha256:chain").await.expect("a row of ours");
    assert_eq!(info.kind(), wire::Kind::Committed);
    client
        .prepare("top", "sha256:chain")
        .await
        .expect("prepare");
    let parent = shelf.entries().values().map(|e| e.parent.clone()).max();
    assert_eq!(parent.as_deref(), Some("remote"));
    client.remove("top").await.expect("remove");
    client.remove("sha256:chain").await.expect("remove");
    assert_eq!(shelf.names(), ["remote"], "what they had before us stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_not_there_is_an_error_of_its_own_calls_only() {
    let daemon = Daemon::start_with(config).await;
    let client = on_shelf(&daemon).await;
    let status = client.prepare("k", "").await.expect_err("nobody listens");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("snapshotter shelf"), "{status}");
    let own = daemon.client("ns", Some("held")).await;
    own.prepare("k", "").await.expect("our own");
    own.remove("k").await.expect("remove");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_differ_of_another_program_is_asked_first() {
    let daemon = Daemon::start_with(|folder| {
        drop(serve(folder));
        config(folder)
    })
    .await;
    let client = daemon.client("ns", None).await;
    let request = diff::ApplyRequest {
        diff: Some(Descriptor {
            media_type: "application/odd".into(),
            digest: digest(b"x"),
            ..Descriptor::default()
        }),
        ..diff::ApplyRequest::default()
    };
    let mut differ = diff::diff_client::DiffClient::new(client.channel.clone());
    let applied = differ.apply(client.request(request)).await.expect("apply");
    assert_eq!(
        applied.into_inner().applied.expect("applied").digest,
        digest(b"odd")
    );
}
