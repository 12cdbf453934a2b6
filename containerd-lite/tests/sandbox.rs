//! Sandboxes: records, and shims that hold several containers for one.
//!
//! The second part needs a shim that serves sandboxes, as containerd 1.7's does: `LITE_SANDBOX_SHIM` names it.

mod store;

use std::path::PathBuf;

use proto::containerd::services::sandbox::v1 as wire;
use proto::containerd::types::{Sandbox, sandbox::Runtime};
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

fn shim() -> Option<PathBuf> {
    let found = std::env::var_os("LITE_SANDBOX_SHIM").map(PathBuf::from);
    let found = found.filter(|path| path.exists() && nix::unistd::geteuid().is_root());
    if found.is_none() {
        eprintln!("SKIPPED: needs root and a shim that serves sandboxes in LITE_SANDBOX_SHIM");
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_has_a_shim_until_it_is_shut_down() {
    let Some(shim) = shim() else { return };
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
