//! Sandboxes: records, and shims that hold several containers for one.
//!
//! The shim of the second part is this program again, behind a script; a real one that serves sandboxes, as containerd 1.7's
//! does, takes part where `LITE_SANDBOX_SHIM` names it.

mod store;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::containerd::runtime::sandbox::v1 as shim;
use proto::containerd::services::sandbox::v1 as wire;
use proto::containerd::types::{Sandbox, sandbox::Runtime};
use proto::error::ErrorKind;
use proto::ttrpc::{Status, TtrpcContext, async_trait};
use store::{Client, Daemon};
use tonic::Code;
use tonic::transport::Channel;

fn records(client: &Client) -> wire::store_client::StoreClient<Channel> {
    wire::store_client::StoreClient::new(client.channel.clone())
}

fn controller(client: &Client) -> wire::controller_client::ControllerClient<Channel> {
    wire::controller_client::ControllerClient::new(client.channel.clone())
}

fn sandbox(id: &str, runtime: &str) -> Sandbox {
    Sandbox {
        sandbox_id: id.into(),
        runtime: Some(Runtime {
            name: runtime.into(),
            options: None,
        }),
        labels: [("app".to_owned(), "x".to_owned())].into(),
        ..Sandbox::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_kept_changed_and_found() {
    let mut daemon = Daemon::start().await;
    let client = daemon.client("ns", None).await;
    let create = wire::StoreCreateRequest {
        sandbox: Some(sandbox("pod", "io.containerd.runc.v2")),
    };
    let made = records(&client)
        .create(client.request(create.clone()))
        .await;
    let made = made.expect("create").into_inner().sandbox.expect("sandbox");
    assert!(made.created_at.is_some() && made.updated_at == made.created_at);
    let again = records(&client).create(client.request(create)).await;
    assert_eq!(again.expect_err("exists").code(), Code::AlreadyExists);
    let bad = wire::StoreCreateRequest {
        sandbox: Some(sandbox("../pod", "x")),
    };
    let bad = records(&client).create(client.request(bad)).await;
    assert_eq!(bad.expect_err("bad id").code(), Code::InvalidArgument);

    daemon.kill_and_restart().await;
    let client = daemon.client("ns", None).await;
    let mut changed = sandbox("pod", "other");
    changed.labels.insert("tier".into(), "back".into());
    let masked = wire::StoreUpdateRequest {
        sandbox: Some(changed.clone()),
        fields: vec!["labels.tier".into()],
    };
    let updated = records(&client).update(client.request(masked)).await;
    let updated = updated
        .expect("update")
        .into_inner()
        .sandbox
        .expect("sandbox");
    assert_eq!(updated.labels.len(), 2);
    assert_eq!(
        updated.runtime.expect("runtime").name,
        "io.containerd.runc.v2"
    );
    let whole = wire::StoreUpdateRequest {
        sandbox: Some(changed),
        fields: Vec::new(),
    };
    let whole = records(&client).update(client.request(whole)).await;
    assert_eq!(
        whole.expect_err("another runtime").code(),
        Code::FailedPrecondition
    );

    for (filter, count) in [
        ("labels.tier==back", 1),
        ("labels.tier==front", 0),
        ("id==pod", 1),
    ] {
        let list = wire::StoreListRequest {
            filters: vec![filter.into()],
        };
        let list = records(&client)
            .list(client.request(list))
            .await
            .expect("list");
        assert_eq!(list.into_inner().list.len(), count, "{filter}");
    }
    let other = daemon.client("other", None).await;
    let get = wire::StoreGetRequest {
        sandbox_id: "pod".into(),
    };
    let got = records(&other).get(other.request(get)).await;
    assert_eq!(got.expect_err("another namespace").code(), Code::NotFound);
    let delete = wire::StoreDeleteRequest {
        sandbox_id: "pod".into(),
    };
    records(&client)
        .delete(client.request(delete.clone()))
        .await
        .expect("delete");
    let gone = records(&client).delete(client.request(delete)).await;
    assert_eq!(gone.expect_err("gone").code(), Code::NotFound);
}

/// Where the serving half of this program listens.
const SOCKET: &str = "LITE_FAKE_SANDBOX";

/// A sandbox without anything in it.
#[derive(Debug, Default)]
struct Pod {
    made: tokio::sync::watch::Sender<Option<String>>,
    stopped: tokio::sync::Notify,
    over: tokio::sync::Notify,
}

impl Pod {
    fn is(&self, id: &str) -> Result<(), Status> {
        match self.made.borrow().as_deref() == Some(id) {
            true => Ok(()),
            false => Err(Status::new(
                ErrorKind::NotFound,
                format!("sandbox {id:?}: not found"),
            )),
        }
    }
}

#[async_trait]
impl shim::sandbox_ttrpc::Sandbox for Pod {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: shim::CreateSandboxRequest,
    ) -> Result<shim::CreateSandboxResponse, Status> {
        self.made.send_replace(Some(request.sandbox_id));
        Ok(shim::CreateSandboxResponse {})
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: shim::StartSandboxRequest,
    ) -> Result<shim::StartSandboxResponse, Status> {
        self.is(&request.sandbox_id)?;
        Ok(shim::StartSandboxResponse {
            pid: std::process::id(),
            created_at: None,
        })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: shim::SandboxStatusRequest,
    ) -> Result<shim::SandboxStatusResponse, Status> {
        self.is(&request.sandbox_id)?;
        Ok(shim::SandboxStatusResponse {
            sandbox_id: request.sandbox_id,
            pid: std::process::id(),
            state: "SANDBOX_READY".into(),
            ..shim::SandboxStatusResponse::default()
        })
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: shim::StopSandboxRequest,
    ) -> Result<shim::StopSandboxResponse, Status> {
        self.is(&request.sandbox_id)?;
        self.stopped.notify_one();
        Ok(shim::StopSandboxResponse {})
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: shim::WaitSandboxRequest,
    ) -> Result<shim::WaitSandboxResponse, Status> {
        self.is(&request.sandbox_id)?;
        self.stopped.notified().await;
        Ok(shim::WaitSandboxResponse::default())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: shim::ShutdownSandboxRequest,
    ) -> Result<shim::ShutdownSandboxResponse, Status> {
        self.is(&request.sandbox_id)?;
        self.over.notify_one();
        Ok(shim::ShutdownSandboxResponse {})
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the shim of the test below, which starts it"]
async fn serves_a_sandbox() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    let pod = Arc::new(Pod::default());
    let address = format!("unix://{}", Path::new(&socket).display());
    let server = ttrpc::r#async::Server::new().bind(&address).expect("bind");
    let service = shim::sandbox_ttrpc::service(pod.clone());
    let mut server = server.register_service(service);
    server.start().await.expect("start");
    pod.over.notified().await;
    server.shutdown().await.expect("shutdown");
    std::fs::remove_file(&socket).expect("remove the socket");
}

/// The shim that this program is, behind a script that starts it as a shim is started.
fn own_shim(folder: &Path) -> PathBuf {
    let (program, socket) = (
        folder.join("containerd-shim-pod-v2"),
        folder.join("pod.sock"),
    );
    let test = std::env::current_exe().expect("this program");
    let script = format!(
        "#!/bin/sh\nfor last; do :; done\n[ \"$last\" = start ] || exit 0\n\
         {SOCKET}='{socket}' '{test}' --exact serves_a_sandbox --ignored </dev/null >/dev/null 2>&1 &\n\
         while [ ! -S '{socket}' ]; do sleep 0.02; done\nprintf 'unix://{socket}'\n",
        socket = socket.display(),
        test = test.display()
    );
    std::fs::write(&program, script).expect("script");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("mode");
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_has_a_shim_until_it_is_shut_down() {
    let folder = tempfile::tempdir().expect("folder");
    life_of_a_sandbox(&own_shim(folder.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_shim_holds_a_sandbox() {
    let real = std::env::var_os("LITE_SANDBOX_SHIM").map(PathBuf::from);
    let real = real.filter(|path| path.exists() && nix::unistd::geteuid().is_root());
    match real {
        Some(real) => life_of_a_sandbox(&real).await,
        None => {
            eprintln!("SKIPPED: needs root and a shim that serves sandboxes in LITE_SANDBOX_SHIM")
        }
    }
}

async fn life_of_a_sandbox(shim: &Path) {
    let mut daemon = Daemon::start().await;
    let client = daemon.client("ns", None).await;
    let sandbox_id = "pod".to_owned();
    let create = wire::ControllerCreateRequest {
        sandbox_id: sandbox_id.clone(),
        sandbox: Some(sandbox("pod", &shim.display().to_string())),
        ..wire::ControllerCreateRequest::default()
    };
    controller(&client)
        .create(client.request(create.clone()))
        .await
        .expect("create");
    let again = controller(&client).create(client.request(create)).await;
    assert_eq!(again.expect_err("exists").code(), Code::AlreadyExists);
    let start = wire::ControllerStartRequest {
        sandbox_id: sandbox_id.clone(),
        ..wire::ControllerStartRequest::default()
    };
    let started = controller(&client).start(client.request(start)).await;
    let started = started.expect("start").into_inner();
    assert!(started.address.starts_with("unix://"), "{started:?}");

    daemon.kill_and_restart().await;
    let client = daemon.client("ns", None).await;
    let status = wire::ControllerStatusRequest {
        sandbox_id: sandbox_id.clone(),
        ..wire::ControllerStatusRequest::default()
    };
    let told = controller(&client)
        .status(client.request(status.clone()))
        .await;
    assert_eq!(told.expect("status").into_inner().address, started.address);
    let foreign = wire::ControllerStatusRequest {
        sandboxer: "podsandbox".into(),
        ..status.clone()
    };
    let foreign = controller(&client).status(client.request(foreign)).await;
    assert_eq!(
        foreign.expect_err("another controller").code(),
        Code::NotFound
    );
    for (id, code) in [("pod", None), ("other", Some(Code::NotFound))] {
        let update = wire::ControllerUpdateRequest {
            sandbox_id: id.into(),
            sandbox: Some(sandbox(id, "x")),
            ..wire::ControllerUpdateRequest::default()
        };
        let updated = controller(&client).update(client.request(update)).await;
        assert_eq!(updated.err().map(|e| e.code()), code, "{id}");
    }
    let stop = wire::ControllerStopRequest {
        sandbox_id: sandbox_id.clone(),
        ..wire::ControllerStopRequest::default()
    };
    controller(&client)
        .stop(client.request(stop))
        .await
        .expect("stop");
    let shutdown = wire::ControllerShutdownRequest {
        sandbox_id,
        ..wire::ControllerShutdownRequest::default()
    };
    controller(&client)
        .shutdown(client.request(shutdown.clone()))
        .await
        .expect("shutdown");
    let told = controller(&client).status(client.request(status)).await;
    assert_eq!(told.expect_err("gone").code(), Code::NotFound);
    let again = controller(&client).shutdown(client.request(shutdown)).await;
    assert_eq!(again.expect_err("gone").code(), Code::NotFound);
    let socket = started.address.trim_start_matches("unix://");
    assert!(
        std::os::unix::net::UnixStream::connect(socket).is_err(),
        "the shim is left"
    );
}
