//! A containerd-lite in folders of its own and a client of its store: blobs, layers, snapshots, images.

#![allow(dead_code)] // Each test file uses its part.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::containerd::services::content::v1 as content;
use proto::containerd::services::diff::v1 as diff;
use proto::containerd::services::images::v1 as images;
use proto::containerd::services::leases::v1 as leases;
use proto::containerd::services::snapshots::v1 as snapshots;
use proto::containerd::types::{Descriptor, Mount};
use sha2::Digest as _;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Media type of a layer without compression.
pub(crate) const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A daemon that goes with the value.
pub(crate) struct Daemon {
    folder: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    /// Starts one and waits until it answers.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| String::new()).await
    }

    /// Starts one with a configuration that may name its folder.
    pub(crate) async fn start_with(config: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let config = config(folder.path());
        std::fs::write(folder.path().join("config.toml"), config).expect("configuration");
        let child = spawn(folder.path());
        let daemon = Self { folder, child };
        daemon.ready().await;
        daemon
    }

    /// Kills it with SIGKILL and starts it again.
    pub(crate) async fn kill_and_restart(&mut self) {
        self.kill();
        self.child = spawn(self.folder.path());
        self.ready().await;
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    async fn ready(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(Instant::now() < until, "the daemon does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the daemon logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("c.sock")
    }

    /// Below the daemon's root.
    pub(crate) fn root(&self, path: &str) -> PathBuf {
        self.folder.path().join("root").join(path)
    }

    /// Files of blobs.
    pub(crate) fn blob_files(&self) -> usize {
        count(&self.root("io.containerd.content.v1.content/blobs/sha256"))
    }

    /// Directories of snapshots.
    pub(crate) fn snapshot_folders(&self) -> usize {
        count(&self.root("io.containerd.snapshotter.v1.overlayfs/snapshots"))
    }

    /// A client in a namespace, with a lease perhaps.
    pub(crate) async fn client(&self, namespace: &str, lease: Option<&str>) -> Client {
        let uri = format!("unix://{}", self.socket().display());
        let channel = Endpoint::try_from(uri)
            .expect("endpoint")
            .connect()
            .await
            .expect("connect");
        Client {
            channel,
            namespace: namespace.to_owned(),
            lease: lease.map(str::to_owned),
            snapshotter: String::new(),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "{}",
                std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
        }
    }
}

fn count(folder: &Path) -> usize {
    std::fs::read_dir(folder).expect("folder").count()
}

/// Starts a daemon in `folder`.
pub(crate) fn spawn(folder: &Path) -> Child {
    let log = std::fs::File::options()
        .append(true)
        .create(true)
        .open(folder.join("log"))
        .expect("log");
    Command::new(env!("CARGO_BIN_EXE_containerd-lite"))
        .arg("--root")
        .arg(folder.join("root"))
        .arg("--state")
        .arg(folder.join("state"))
        .arg("--address")
        .arg(folder.join("c.sock"))
        .arg("--config")
        .arg(folder.join("config.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("containerd-lite")
}

/// `sha256:` of some bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}

/// A layer with these files.
pub(crate) fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = tar::Header::new_ustar();
        header.set_path(path).expect("path");
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        header.set_cksum();
        builder.append(&header, data.as_bytes()).expect("append");
    }
    builder.into_inner().expect("layer")
}

/// A client of one namespace.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) channel: Channel,
    namespace: String,
    lease: Option<String>,
    pub(crate) snapshotter: String,
}

type Outcome<T> = Result<T, Status>;

impl Client {
    /// A request with our headers.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(
            "containerd-namespace",
            self.namespace.parse().expect("text"),
        );
        if let Some(lease) = &self.lease {
            request
                .metadata_mut()
                .insert("containerd-lease", lease.parse().expect("text"));
        }
        request
    }

    pub(crate) fn content(&self) -> content::content_client::ContentClient<Channel> {
        content::content_client::ContentClient::new(self.channel.clone())
    }

    pub(crate) fn snapshots(&self) -> snapshots::snapshots_client::SnapshotsClient<Channel> {
        snapshots::snapshots_client::SnapshotsClient::new(self.channel.clone())
    }

    pub(crate) fn images(&self) -> images::images_client::ImagesClient<Channel> {
        images::images_client::ImagesClient::new(self.channel.clone())
    }

    pub(crate) fn leases(&self) -> leases::leases_client::LeasesClient<Channel> {
        leases::leases_client::LeasesClient::new(self.channel.clone())
    }

    /// Writes a blob as clients do: STAT, WRITE in pieces, COMMIT. Returns the offset that STAT told.
    pub(crate) async fn write(
        &self,
        reference: &str,
        bytes: &[u8],
        labels: &[(&str, String)],
    ) -> Outcome<i64> {
        let expected = digest(bytes);
        let message = |action: content::WriteAction, offset: usize, data: &[u8]| {
            content::WriteContentRequest {
                action: action.into(),
                r#ref: reference.to_owned(),
                total: bytes.len() as i64,
                expected: expected.clone(),
                offset: offset as i64,
                data: data.to_vec().into(),
                labels: labels
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), v.clone()))
                    .collect(),
            }
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        sender
            .send(message(content::WriteAction::Stat, 0, &[]))
            .await
            .expect("send");
        let mut answers = self
            .content()
            .write(self.request(stream))
            .await?
            .into_inner();
        let stat = answers.message().await?.expect("an answer to stat");
        let mut offset = stat.offset as usize;
        for piece in bytes[offset..].chunks(64 << 10) {
            sender
                .send(message(content::WriteAction::Write, offset, piece))
                .await
                .expect("send");
            offset += piece.len();
            assert_eq!(
                answers.message().await?.expect("an answer to write").offset,
                offset as i64
            );
        }
        sender
            .send(message(content::WriteAction::Commit, offset, &[]))
            .await
            .expect("send");
        let done = answers.message().await?.expect("an answer to commit");
        assert_eq!(done.digest, expected);
        Ok(stat.offset)
    }

    pub(crate) async fn info(&self, digest: &str) -> Outcome<content::Info> {
        let request = content::InfoRequest {
            digest: digest.to_owned(),
        };
        Ok(self
            .content()
            .info(self.request(request))
            .await?
            .into_inner()
            .info
            .expect("info"))
    }

    pub(crate) async fn prepare(&self, key: &str, parent: &str) -> Outcome<Vec<Mount>> {
        self.prepare_with(key, parent, &[]).await
    }

    pub(crate) async fn prepare_with(
        &self,
        key: &str,
        parent: &str,
        labels: &[(&str, &str)],
    ) -> Outcome<Vec<Mount>> {
        let pairs = labels.iter();
        let request = snapshots::PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        };
        Ok(self
            .snapshots()
            .prepare(self.request(request))
            .await?
            .into_inner()
            .mounts)
    }

    pub(crate) async fn view(&self, key: &str, parent: &str) -> Outcome<Vec<Mount>> {
        let request = snapshots::ViewSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..Default::default()
        };
        Ok(self
            .snapshots()
            .view(self.request(request))
            .await?
            .into_inner()
            .mounts)
    }

    pub(crate) async fn commit(&self, name: &str, key: &str) -> Outcome<()> {
        let request = snapshots::CommitSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            name: name.to_owned(),
            key: key.to_owned(),
            ..Default::default()
        };
        self.snapshots()
            .commit(self.request(request))
            .await
            .map(drop)
    }

    pub(crate) async fn stat(&self, key: &str) -> Outcome<snapshots::Info> {
        let request = snapshots::StatSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
        };
        Ok(self
            .snapshots()
            .stat(self.request(request))
            .await?
            .into_inner()
            .info
            .expect("info"))
    }

    pub(crate) async fn remove(&self, key: &str) -> Outcome<()> {
        let request = snapshots::RemoveSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
        };
        self.snapshots()
            .remove(self.request(request))
            .await
            .map(drop)
    }

    pub(crate) async fn apply(&self, blob: &[u8], mounts: Vec<Mount>) -> Outcome<Descriptor> {
        let layer = Descriptor {
            media_type: LAYER.to_owned(),
            digest: digest(blob),
            size: blob.len() as i64,
            ..Default::default()
        };
        let request = diff::ApplyRequest {
            diff: Some(layer),
            mounts,
            ..Default::default()
        };
        let mut client = diff::diff_client::DiffClient::new(self.channel.clone());
        Ok(client
            .apply(self.request(request))
            .await?
            .into_inner()
            .applied
            .expect("applied"))
    }

    pub(crate) async fn diff(&self, left: Vec<Mount>, right: Vec<Mount>) -> Outcome<Descriptor> {
        let request = diff::DiffRequest {
            left,
            right,
            media_type: LAYER.to_owned(),
            ..Default::default()
        };
        let mut client = diff::diff_client::DiffClient::new(self.channel.clone());
        Ok(client
            .diff(self.request(request))
            .await?
            .into_inner()
            .diff
            .expect("diff"))
    }

    pub(crate) async fn read(&self, digest: &str) -> Outcome<Vec<u8>> {
        let request = content::ReadContentRequest {
            digest: digest.to_owned(),
            ..Default::default()
        };
        let mut stream = self
            .content()
            .read(self.request(request))
            .await?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = stream.message().await? {
            assert_eq!(message.offset as usize, bytes.len());
            bytes.extend(message.data);
        }
        Ok(bytes)
    }

    pub(crate) async fn image(&self, name: &str, target: &[u8]) -> Outcome<()> {
        let target = Descriptor {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest: digest(target),
            size: target.len() as i64,
            ..Default::default()
        };
        let image = images::Image {
            name: name.to_owned(),
            target: Some(target),
            ..Default::default()
        };
        let request = images::CreateImageRequest {
            image: Some(image),
            ..Default::default()
        };
        self.images().create(self.request(request)).await.map(drop)
    }

    /// Removes an image and returns when the garbage is gone.
    pub(crate) async fn remove_image(&self, name: &str) -> Outcome<()> {
        let request = images::DeleteImageRequest {
            name: name.to_owned(),
            sync: true,
            target: None,
        };
        self.images().delete(self.request(request)).await.map(drop)
    }

    pub(crate) async fn create_lease(&self, id: &str) -> Outcome<()> {
        let request = leases::CreateRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        self.leases().create(self.request(request)).await.map(drop)
    }

    /// Removes a lease and returns when the garbage is gone.
    pub(crate) async fn delete_lease(&self, id: &str) -> Outcome<()> {
        let request = leases::DeleteRequest {
            id: id.to_owned(),
            sync: true,
        };
        self.leases().delete(self.request(request)).await.map(drop)
    }
}
