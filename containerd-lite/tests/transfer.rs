//! Transfers through the real daemon and a real registry on loopback (Debian's docker-registry).

mod store;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image,
};
use proto::containerd::services::transfer::v1::TransferRequest;
use proto::containerd::services::transfer::v1::transfer_client::TransferClient;
use proto::containerd::types::Descriptor;
use proto::containerd::types::transfer::{
    ImageStore, OciRegistry, RegistryResolver, UnpackConfiguration,
};
use store::{Client, Daemon, LAYER, digest, layer};
use tonic::{Code, Status};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry that goes with the value.
struct Registry {
    folder: tempfile::TempDir,
    child: Child,
    host: String,
}

impl Registry {
    /// Starts one on a free port, or says that there is none.
    fn start() -> Option<Self> {
        Self::start_with(|_| String::new())
    }

    /// Starts one with more settings of its HTTP server; they may name files in its folder.
    fn start_with(http: impl FnOnce(&Path) -> String) -> Option<Self> {
        let program = Path::new("/usr/bin/docker-registry");
        if !program.exists() || !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root and docker-registry");
            return None;
        }
        let folder = tempfile::tempdir().expect("folder");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = free.local_addr().expect("address").to_string();
        drop(free);
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n{}",
            folder.path().join("data").display(),
            http(folder.path())
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).expect("config");
        let log = std::fs::File::create(folder.path().join("log")).expect("log");
        let child = Command::new(program)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("docker-registry");
        let until = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(&host).is_err() {
            assert!(Instant::now() < until, "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self {
            folder,
            child,
            host,
        })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("log")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A registry as its name and the configuration of hosts say.
fn configured(reference: &str) -> prost_types::Any {
    proto::any::pack(&OciRegistry {
        reference: reference.to_owned(),
        resolver: None,
    })
}

fn registry(reference: &str) -> prost_types::Any {
    proto::any::pack(&OciRegistry {
        reference: reference.to_owned(),
        resolver: Some(RegistryResolver {
            default_scheme: "http".into(),
            ..RegistryResolver::default()
        }),
    })
}

fn image_store(name: &str, unpack: bool) -> prost_types::Any {
    proto::any::pack(&ImageStore {
        name: name.to_owned(),
        unpacks: unpack
            .then(UnpackConfiguration::default)
            .into_iter()
            .collect(),
        ..ImageStore::default()
    })
}

async fn transfer(
    client: &Client,
    source: prost_types::Any,
    destination: prost_types::Any,
) -> Result<(), Status> {
    let request = TransferRequest {
        source: Some(source),
        destination: Some(destination),
        options: None,
    };
    let mut transfers = TransferClient::new(client.channel.clone());
    transfers.transfer(client.request(request)).await?;
    Ok(())
}

/// Stores an image of one layer under `name`; returns the bytes of layer and manifest.
async fn make(client: &Client, name: &str) -> (Vec<u8>, Vec<u8>) {
    let bytes = layer(&[("bin/", ""), ("bin/sh", "shell")]);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(&bytes)]},
    })
    .to_string()
    .into_bytes();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(&config), "size": config.len(),
        },
        "layers": [{"mediaType": LAYER, "digest": digest(&bytes), "size": bytes.len()}],
    })
    .to_string()
    .into_bytes();
    let labels = [
        ("containerd.io/gc.ref.content.config", digest(&config)),
        ("containerd.io/gc.ref.content.l.0", digest(&bytes)),
    ];
    client.write("layer", &bytes, &[]).await.expect("layer");
    client.write("config", &config, &[]).await.expect("config");
    client
        .write("manifest", &manifest, &labels)
        .await
        .expect("manifest");
    let image = Image {
        name: name.to_owned(),
        target: Some(Descriptor {
            media_type: MANIFEST.into(),
            digest: digest(&manifest),
            size: manifest.len() as i64,
            ..Descriptor::default()
        }),
        ..Image::default()
    };
    let request = CreateImageRequest {
        image: Some(image),
        ..CreateImageRequest::default()
    };
    let made = client.images().create(client.request(request)).await;
    made.expect("image");
    (bytes, manifest)
}

/// The same, held by a lease until the image holds it: the collector runs at the start.
async fn make_held(daemon: &Daemon, name: &str) -> (Vec<u8>, Vec<u8>) {
    let plain = daemon.client("test", None).await;
    plain.create_lease("made").await.expect("lease");
    let made = make(&daemon.client("test", Some("made")).await, name).await;
    plain.delete_lease("made").await.expect("end the lease");
    made
}

async fn forget(client: &Client, name: &str) {
    let request = DeleteImageRequest {
        name: name.to_owned(),
        sync: true,
        ..DeleteImageRequest::default()
    };
    let gone = client.images().delete(client.request(request)).await;
    gone.expect("delete");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_to_a_registry_and_comes_back_unpacked() {
    let Some(server) = Registry::start() else {
        return;
    };
    let daemon = Daemon::start().await;
    let plain = daemon.client("test", None).await;
    plain.create_lease("l").await.expect("lease");
    let client = daemon.client("test", Some("l")).await;
    let first = format!("{}/a/box:1", server.host);
    let (bytes, manifest) = make(&client, &first).await;
    plain.delete_lease("l").await.expect("end the lease");
    transfer(&plain, image_store(&first, false), registry(&first))
        .await
        .expect("push");

    forget(&plain, &first).await;
    assert_eq!(daemon.blob_files(), 0, "nothing is here any more");
    transfer(&plain, registry(&first), image_store(&first, true))
        .await
        .expect("pull");
    assert_eq!(plain.read(&digest(&bytes)).await.expect("layer"), bytes);
    // Chain id of one layer is its diff id; what is held by nothing but the image stays.
    plain.stat(&digest(&bytes)).await.expect("the snapshot");
    let held = plain.info(&digest(&manifest)).await.expect("manifest");
    let layer_label = &held.labels["containerd.io/gc.ref.content.l.0"];
    assert_eq!(*layer_label, digest(&bytes));

    // A blob that another repository is known to have is not sent again.
    let second = format!("{}/b/box:2", server.host);
    transfer(
        &plain,
        image_store(&first, false),
        image_store(&second, false),
    )
    .await
    .expect("tag");
    transfer(&plain, image_store(&second, false), registry(&second))
        .await
        .expect("push elsewhere");
    assert!(server.log().contains("mount=sha256"), "mounted");

    let missing = format!("{}/a/none:1", server.host);
    let error = transfer(&plain, registry(&missing), image_store(&missing, false))
        .await
        .expect_err("nothing there");
    assert_eq!(error.code(), Code::NotFound, "{error}");
    let request = GetImageRequest { name: missing };
    let got = plain.images().get(plain.request(request)).await;
    assert_eq!(got.expect_err("no image").code(), Code::NotFound);
}

/// Writes `hosts.toml` of a host below `folder`.
fn hosts(folder: &Path, host: &str, text: &str) {
    let folder = folder.join(host);
    std::fs::create_dir_all(&folder).expect("folder");
    std::fs::write(folder.join("hosts.toml"), text).expect("hosts.toml");
}

fn config(folder: &Path) -> String {
    let certs = folder.join("certs.d");
    format!(
        "[plugins.\"io.containerd.transfer.v1.local\"]\nconfig_path = \"/nowhere:{}\"\n",
        certs.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_the_configuration_serves_what_its_registry_would() {
    let Some(server) = Registry::start() else {
        return;
    };
    let mut folder = None;
    let daemon = Daemon::start_with(|home| {
        folder = Some(home.join("certs.d"));
        config(home)
    })
    .await;
    let folder = folder.expect("folder");
    let client = daemon.client("test", None).await;
    let stored = format!("{}/lib/box:1", server.host);
    make_held(&daemon, &stored).await;
    transfer(&client, image_store(&stored, false), registry(&stored))
        .await
        .expect("push");
    // The name leads nowhere; a dead mirror is passed over, the living one is told whom it stands for.
    hosts(
        &folder,
        "registry.invalid",
        &format!(
            "server = \"https://registry.invalid\"\n[host.\"http://127.0.0.1:1\"]\n[host.\"http://{}\"]\n\
             capabilities = [\"pull\", \"resolve\"]\n[host.\"http://{}\".header]\nx-who = \"tester\"\n",
            server.host, server.host
        ),
    );
    let name = "registry.invalid/lib/box:1";
    transfer(&client, configured(name), image_store(name, true))
        .await
        .expect("pull through the mirror");
    assert!(
        server.log().contains("ns=registry.invalid"),
        "{}",
        server.log()
    );
    // A mirror that may only be pulled from is not pushed to.
    let error = transfer(&client, image_store(name, false), configured(name))
        .await
        .expect_err("no place to push to");
    assert_eq!(error.code(), Code::Unavailable, "{error}");
}

/// A certificate for 127.0.0.1 that signs itself; none without openssl.
fn certificate(folder: &Path) -> Option<()> {
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args([
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
        ])
        // A certificate that says it is an authority is not taken for a server's.
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("cert.pem"))
        .stderr(Stdio::null())
        .status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: needs openssl");
        return None;
    }
    Some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_registry_needs_an_authority_that_is_named() {
    let keys = tempfile::tempdir().expect("folder");
    let Some(()) = certificate(keys.path()) else {
        return;
    };
    let server = Registry::start_with(|_| {
        let keys = keys.path().display();
        format!("  tls:\n    certificate: {keys}/cert.pem\n    key: {keys}/key.pem\n")
    });
    let Some(server) = server else { return };
    let mut folder = None;
    let daemon = Daemon::start_with(|home| {
        folder = Some(home.join("certs.d"));
        config(home)
    })
    .await;
    let folder = folder.expect("folder");
    let client = daemon.client("test", None).await;
    let name = format!("{}/lib/box:1", server.host);
    let (bytes, _) = make_held(&daemon, &name).await;
    let host = &server.host;
    let push = async || transfer(&client, image_store(&name, false), configured(&name)).await;

    hosts(&folder, host, &format!("server = \"https://{host}\"\n"));
    let error = push().await.expect_err("nobody vouches for it");
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(
        error.message().to_lowercase().contains("certificate"),
        "{error}"
    );

    let authority = keys.path().join("cert.pem").display().to_string();
    let named = format!("server = \"https://{host}\"\nca = \"{authority}\"\n");
    hosts(&folder, host, &named);
    push().await.expect("push");
    forget(&client, &name).await;
    hosts(
        &folder,
        host,
        &format!("server = \"https://{host}\"\nskip_verify = true\n"),
    );
    transfer(&client, configured(&name), image_store(&name, false))
        .await
        .expect("pull unverified");
    assert_eq!(client.read(&digest(&bytes)).await.expect("layer"), bytes);
}
