//! Checkpoints as content and back, with an engine whose checkpoints are a word in a file: what matters here is who carries it
//! where, not how processes are frozen.

mod support;

use std::os::unix::fs::PermissionsExt;

use proto::containerd::services::tasks::v1 as wire;
use support::Daemon;
use tonic::Code;

/// An engine that has runc do all but `checkpoint` (the word is put down, the container killed) and `restore` (the word must be
/// there, the container is run anew).
const ENGINE: &str = r#"#!/bin/sh
all="$*" verb= image= pidfile= bundle= id=
set -- "$@"
root= 
while [ $# -gt 0 ]; do
  case "$1" in
    --root) root=$2; shift;;
    --log|--log-format|--work-path|--criu) shift;;
    --image-path) image=$2; shift;;
    --pid-file) pidfile=$2; shift;;
    --bundle) bundle=$2; shift;;
    checkpoint|restore) [ -n "$verb" ] || verb=$1;;
    create|start|state|kill|delete|exec|ps|pause|resume|update|events|features) [ -n "$verb" ] || verb=other;;
    --*) ;;
    *) id=$1;;
  esac
  shift
done
case "$verb" in
  checkpoint) mkdir -p "$image/deep" && echo frozen >"$image/deep/word" && exec runc --root "$root" kill "$id" KILL;;
  restore) grep -q frozen "$image/deep/word" || { echo "no word in $image" >&2; exit 1; }
    exec runc --root "$root" run --detach --bundle "$bundle" --pid-file "$pidfile" "$id";;
  *) exec runc $all;;
esac
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_content_and_a_task_again() {
    if std::env::var_os("LITE_TEST_SHIM").is_some() {
        eprintln!("SKIPPED: needs a shim that restores, as Debian's does");
        return;
    }
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let tools = tempfile::tempdir().expect("folder");
    let engine = tools.path().join("engine");
    std::fs::write(&engine, ENGINE).expect("engine");
    std::fs::set_permissions(&engine, PermissionsExt::from_mode(0o755)).expect("mode");
    daemon.use_engine(&engine);
    let client = daemon.client().await;
    daemon.container("ck", "sleep 1000").await;
    client.create("ck").await.expect("create");
    client.start("ck", "").await.expect("start");

    let request = wire::CheckpointTaskRequest {
        container_id: "ck".into(),
        ..wire::CheckpointTaskRequest::default()
    };
    let made = client.checkpoint(request).await.expect("checkpoint");
    let types: Vec<_> = made.iter().map(|d| d.media_type.as_str()).collect();
    assert_eq!(
        types,
        [
            "application/vnd.containerd.container.criu.checkpoint.criu.tar",
            "application/vnd.containerd.container.checkpoint.config.v1+proto"
        ]
    );
    assert_eq!(client.wait("ck", "").await.expect("wait"), 137);
    client.delete("ck").await.expect("delete");

    let wrong = client.restore("ck", made[1].clone()).await;
    assert_eq!(wrong.expect_err("a spec").code(), Code::InvalidArgument);
    let pid = client
        .restore("ck", made[0].clone())
        .await
        .expect("restore");
    assert_eq!(pid, 0, "nothing runs before the start");
    let pid = client.start("ck", "").await.expect("start");
    assert_eq!(client.get("ck", "").await.expect("get").pid, pid);
    // The pid is known after a restart as well, and so is the end.
    daemon.kill();
    daemon.restart().await;
    let client = daemon.client().await;
    client.kill("ck", 9).await.expect("kill");
    assert_eq!(client.wait("ck", "").await.expect("wait"), 137);
    client.delete("ck").await.expect("delete");
    assert_eq!(daemon.remains().await, Vec::<String>::new());
}
