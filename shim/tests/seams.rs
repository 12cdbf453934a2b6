//! How others reach a shim and what it hands on: loggers, groups of containers, the newest dialect of `start`.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt as _;

use common::{Stack, call, eventually, is_alive};
use prost::Message as _;
use proto::containerd::runtime::bootstrap::v1::BootstrapParams;
use proto::containerd::task::v2;
use proto::error::ErrorKind;

/// Copies both streams into files, says that it is ready as its first argument wants, and what it was told at its end.
const LOGGER: &str = r#"#!/bin/sh
cat <&3 >"$2.out" 5>&- &
cat <&4 >"$2.err" 5>&- &
[ "$3" != byte ] || printf x >&5
exec 5>&-
wait
echo "$CONTAINER_NAMESPACE $CONTAINER_ID $*" >"$2.new"
mv "$2.new" "$2.end"
"#;

#[tokio::test]
async fn a_logger_program_gets_both_streams_to_their_ends() {
    let stack = Stack::new();
    let logger = stack.folder.path().join("logger");
    std::fs::write(&logger, LOGGER).unwrap();
    std::fs::set_permissions(&logger, std::fs::Permissions::from_mode(0o755)).unwrap();
    for (id, scheme, more) in [("c1", "binary", ""), ("c2", "binary-v2", "&byte")] {
        let task = stack
            .container(id, "echo out; echo err >&2; printf rest; exit 3")
            .await;
        let base = stack.folder.path().join(format!("log of {id}"));
        let base = base.to_str().unwrap();
        let query = base.replace(' ', "+");
        let uri = format!("{scheme}://{}?--to={query}{more}", logger.display());
        task.create("", &uri, &uri).await.unwrap();
        task.start("").await.unwrap();
        assert_eq!(task.wait("").await.unwrap(), 3);
        task.delete("").await.unwrap();
        let read = |ending: &str| std::fs::read_to_string(format!("{base}.{ending}"));
        let end = eventually("the logger ends", || read("end").map_err(|e| e.to_string())).await;
        let byte = more.replace('&', " ");
        assert_eq!(
            end,
            format!("{} {id} --to {base}{byte}\n", common::NAMESPACE)
        );
        assert_eq!(read("out").unwrap(), "out\nrest");
        assert_eq!(read("err").unwrap(), "err\n");
    }
}

#[tokio::test]
async fn a_logger_that_fails_or_is_not_there_fails_the_create() {
    let stack = Stack::new();
    for (id, uri, words) in [
        ("c1", "binary:///no/such/logger", "run logger"),
        ("c2", "binary-v2:///bin/true", "ended before it was ready"),
    ] {
        let task = stack.container(id, "exit 0").await;
        let refused = task.create("", uri, uri).await.unwrap_err();
        assert!(refused.message.contains(words), "{refused:?}");
    }
}

#[tokio::test]
async fn containers_of_a_group_share_a_shim_and_nothing_else() {
    let stack = Stack::new();
    let config = r#"{"annotations":{"io.containerd.runc.v2.group":"pod"},
        "linux":{"namespaces":[{"type":"pid"}]}}"#;
    stack.make_bundle("one", "exec sleep 1000", config);
    stack.make_bundle("two", "exec sleep 1000", config);
    let one = stack.start_shim("one").await;
    one.create("", "", "").await.unwrap();
    let pid = one.start("").await.unwrap();
    let two = stack.start_shim("two").await;
    let shim = one.shim_pid().await;
    assert_eq!(two.shim_pid().await, shim);
    let unknown = two.state("").await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::NotFound);
    two.create("", "", "").await.unwrap();
    assert_ne!(two.start("").await.unwrap(), pid);

    // The end of one is no business of the other.
    two.kill("", 9).await.unwrap();
    assert_eq!(two.wait("").await.unwrap(), 137);
    two.delete("").await.unwrap();
    two.shutdown().await;
    assert_eq!(one.state("").await.unwrap().pid, pid);
    assert!(is_alive(pid) && is_alive(shim));

    one.kill("", 9).await.unwrap();
    assert_eq!(one.wait("").await.unwrap(), 137);
    one.delete("").await.unwrap();
    one.shutdown().await;
    eventually("the shim ends", || {
        match is_alive(shim) {
            true => Err("alive"),
            false => Ok(()),
        }
        .map_err(str::to_owned)
    })
    .await;
}

#[tokio::test]
async fn bootstrap_parameters_say_where_to_listen() {
    let stack = Stack::new();
    stack.make_bundle(
        "c1",
        "exit 5",
        r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#,
    );
    let sockets = stack.folder.path().join("sockets");
    let params = BootstrapParams {
        instance_id: "c1".into(),
        namespace: common::NAMESPACE.into(),
        socket_dir: Some(sockets.to_str().unwrap().into()),
        ..BootstrapParams::default()
    };
    let output = stack.run_shim("c1", &["start"], &params.encode_to_vec());
    assert!(output.status.success(), "{output:?}");
    let address = String::from_utf8(output.stdout).unwrap();
    let socket = address.strip_prefix("unix://").unwrap();
    assert!(socket.starts_with(sockets.to_str().unwrap()), "{address}");
    let mode = std::fs::metadata(socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let task = stack.connect("c1", &address).await;
    task.create("", "", "").await.unwrap();
    task.start("").await.unwrap();
    assert_eq!(task.wait("").await.unwrap(), 5);
    let request = v2::DeleteRequest {
        id: "c1".into(),
        ..v2::DeleteRequest::default()
    };
    let deleted = task.client.delete(&call(), common::LIMIT, &request).await;
    assert_eq!(deleted.unwrap().exit_status, 5);
    task.shutdown().await;
}
