//! Execs, stdio and the rules of the task service.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Stack, Task, eventually};
use proto::error::ErrorKind;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

/// Undoes Docker's frames: what came on stdout and on stderr.
fn unframe(mut bytes: &[u8]) -> (String, String) {
    let mut out = [String::new(), String::new()];
    while let [kind, 0, 0, 0, a, b, c, d, rest @ ..] = bytes {
        let (text, next) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        out[usize::from(*kind) - 1].push_str(std::str::from_utf8(text).unwrap());
        bytes = next;
    }
    assert!(bytes.is_empty());
    let [stdout, stderr] = out;
    (stdout, stderr)
}

async fn read_all(mut stream: UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn running(stack: &Stack, id: &str) -> Task {
    let task = stack.container(id, "exec sleep 1000").await;
    task.create("", "", "").await.unwrap();
    task.start("").await.unwrap();
    task
}

#[tokio::test]
async fn an_attacher_before_start_and_the_log_miss_nothing() {
    let stack = Stack::new();
    let task = stack
        .container("c1", "echo out; echo err >&2; printf rest")
        .await;
    let (log, socket) = (
        stack.folder.path().join("c.log"),
        stack.folder.path().join("a.sock"),
    );
    let uri = format!(
        "json-file://{}?max-size=1m&attach={}",
        log.display(),
        socket.display()
    );
    task.create("", &uri, "").await.unwrap();
    let attacher = UnixStream::connect(&socket).await.unwrap();
    let gone = UnixStream::connect(&socket).await.unwrap();
    drop(gone);
    task.start("").await.unwrap();
    let (stdout, stderr) = unframe(&read_all(attacher).await);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("out\nrest", "err\n"));
    assert_eq!(task.wait("").await.unwrap(), 0);
    let late = UnixStream::connect(&socket).await.unwrap();
    assert!(read_all(late).await.is_empty());
    task.delete("").await.unwrap();
    assert!(!socket.exists());
    let text = std::fs::read_to_string(&log).unwrap();
    let mut records: Vec<(String, String)> = text
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            let field = |name: &str| record[name].as_str().unwrap().to_owned();
            (field("stream"), field("log"))
        })
        .collect();
    records.sort();
    let want = [("stderr", "err\n"), ("stdout", "out\n"), ("stdout", "rest")];
    assert_eq!(records, want.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[tokio::test]
async fn an_exec_reads_its_fifo_until_it_is_closed() {
    let stack = Stack::new();
    let task = running(&stack, "c1").await;
    let (fifo, socket) = (
        stack.folder.path().join("in"),
        stack.folder.path().join("x.sock"),
    );
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .unwrap();
    assert!(made.success());
    let uri = format!("attach://{}", socket.display());
    task.exec("e1", "cat; exit 4", &fifo.to_string_lossy(), &uri)
        .await
        .unwrap();
    let attacher = UnixStream::connect(&socket).await.unwrap();
    task.start("e1").await.unwrap();
    std::fs::write(&fifo, "first ").unwrap(); // a client that comes and goes
    std::fs::write(&fifo, "second").unwrap();
    task.close_stdin("e1").await;
    assert_eq!(unframe(&read_all(attacher).await).0, "first second");
    assert_eq!(task.wait("e1").await.unwrap(), 4);
    task.delete("e1").await.unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_fifo_survives_its_reader() {
    let stack = Stack::new();
    let task = stack
        .container("c1", "exec 9<>$0/more; while read x <&9; do echo $x; done")
        .await;
    let (fifo, more) = (stack.folder.path().join("out"), task.bundle.join("more"));
    for path in [&fifo, &more] {
        assert!(
            std::process::Command::new("mkfifo")
                .arg(path)
                .status()
                .unwrap()
                .success()
        );
    }
    task.create("", &fifo.to_string_lossy(), "").await.unwrap();
    task.start("").await.unwrap();
    for word in ["one", "two"] {
        let mut reader = tokio::net::unix::pipe::OpenOptions::new()
            .open_receiver(&fifo)
            .unwrap();
        tokio::task::spawn_blocking({
            let more = more.clone();
            move || std::fs::write(more, format!("{word}\n")).unwrap()
        })
        .await
        .unwrap();
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).await.unwrap();
        assert_eq!(std::str::from_utf8(&bytes).unwrap().trim(), word);
    }
    task.kill("", 9).await.unwrap();
    assert_eq!(task.wait("").await.unwrap(), 137);
}

#[tokio::test]
async fn the_rules_of_the_service_hold() {
    let stack = Stack::new();
    let task = running(&stack, "c1").await;
    assert_eq!(
        task.delete("").await.unwrap_err().message,
        "cannot delete a running process"
    );
    assert_eq!(
        task.state("nobody").await.unwrap_err().kind,
        ErrorKind::NotFound
    );
    assert_eq!(
        task.exec("../e", "true", "", "").await.unwrap_err().kind,
        ErrorKind::InvalidArgument
    );
    assert_eq!(
        task.exec("e0", "true", "", "local:///x")
            .await
            .unwrap_err()
            .message,
        "set up stdio: unknown STDIO scheme local"
    );
    task.exec("e1", "exec sleep 1000", "", "").await.unwrap();
    assert_eq!(
        task.exec("e1", "true", "", "").await.unwrap_err().kind,
        ErrorKind::AlreadyExists
    );
    assert_eq!(
        task.kill("e1", 15).await.unwrap_err().kind,
        ErrorKind::FailedPrecondition
    );
    task.start("e1").await.unwrap();
    assert_eq!(
        task.start("e1").await.unwrap_err().kind,
        ErrorKind::FailedPrecondition
    );
    task.kill("e1", 15).await.unwrap();
    assert_eq!(task.wait("e1").await.unwrap(), 128 + 15);
    let error = task.kill("e1", 15).await.unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::NotFound, "process already finished")
    );
    task.kill("", 9).await.unwrap();
    assert_eq!(task.wait("").await.unwrap(), 137);
    assert_eq!(
        task.exec("e2", "true", "", "").await.unwrap_err().kind,
        ErrorKind::FailedPrecondition
    );
    assert_eq!(
        common::exit_record(&task.bundle, "exit.json")["reason"],
        "killed by API request: signal 9"
    );
    task.delete("").await.unwrap();
    assert_eq!(task.delete("").await.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn containers_of_one_group_share_a_shim() {
    let stack = Stack::new();
    let config = r#"{"annotations":{"io.containerd.runc.v2.group":"pod"},"linux":{"namespaces":[{"type":"pid"}]}}"#;
    let mut tasks = Vec::new();
    for id in ["c1", "c2"] {
        stack.make_bundle(id, "exec sleep 1000", config);
        let task = stack.start_shim(id).await;
        task.create("", "", "").await.unwrap();
        task.start("").await.unwrap();
        tasks.push(task);
    }
    assert_eq!(tasks[0].shim_pid().await, tasks[1].shim_pid().await);
    let shim = tasks[0].shim_pid().await;
    for task in &tasks {
        assert!(common::is_alive(shim));
        task.kill("", 9).await.unwrap();
        assert_eq!(task.wait("").await.unwrap(), 137);
        task.delete("").await.unwrap();
        task.shutdown().await;
    }
    eventually("end of the shim", || {
        (!common::is_alive(shim))
            .then_some(())
            .ok_or("alive".into())
    })
    .await;
}

#[tokio::test]
async fn version_3_and_control_are_served_too() {
    use proto::containerd::task::v3;
    use proto::lite::control::v1::{StatusRequest, control_ttrpc::ControlClient};
    let stack = Stack::new();
    let task = running(&stack, "c1").await;
    let client = v3::task_ttrpc::TaskClient(task.client.0.clone());
    let request = v3::StateRequest {
        id: "c1".into(),
        exec_id: String::new(),
    };
    assert_eq!(
        client
            .state(&common::call(), None, &request)
            .await
            .unwrap()
            .status,
        2
    );
    let control = ControlClient(task.client.0.clone());
    let status = control
        .status(&common::call(), None, &StatusRequest {})
        .await
        .unwrap();
    assert_eq!(
        (status.component.as_str(), status.objects),
        ("containerd-shim-lite-v2", 1)
    );
    let drain = control
        .drain(&common::call(), None, &Default::default())
        .await;
    assert_eq!(drain.unwrap_err().kind, ErrorKind::Unimplemented);
}

#[tokio::test]
async fn a_container_that_never_started_can_be_deleted() {
    let mut stack = Stack::new();
    stack.daemon_up().await;
    let task = stack.container("c1", "exit 0").await;
    let pid = task.create("", "", "").await.unwrap();
    let gone = task.delete("").await.unwrap();
    assert_eq!((gone.pid, gone.exit_status), (pid, 137));
    let told = stack.told.wait_for(3).await;
    assert_eq!(
        told,
        ["/tasks/create", "/tasks/exit c1=137", "/tasks/delete"]
    );
}

#[tokio::test]
async fn a_client_that_speaks_nonsense_harms_nobody() {
    use tokio::io::AsyncWriteExt as _;
    let stack = Stack::new();
    let task = running(&stack, "c1").await;
    let address = std::fs::read_to_string(task.bundle.join("address")).unwrap();
    let path = address.strip_prefix("unix://").unwrap();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0, 0, 0, 4, 0, 0, 0, 1, 1, 0, 0xff, 0xff, 0xff, 0xff],
        &[0; 9],
    ] {
        let mut client = UnixStream::connect(path).await.unwrap();
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(task.state("").await.unwrap().status, 2);
    }
}

#[tokio::test]
async fn a_trace_reaches_the_runtime() {
    use proto::containerd::task::v2::StartRequest;
    let stack = Stack::new();
    let task = stack.container("c1", "exec sleep 1000").await;
    task.create("", "", "").await.unwrap();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut call = common::call();
    call.traceparent = Some(trace.to_owned());
    let request = StartRequest {
        id: "c1".into(),
        exec_id: String::new(),
    };
    task.client.start(&call, None, &request).await.unwrap();
    let seen = std::fs::read_to_string(task.bundle.join("trace-start")).unwrap();
    assert_eq!(seen.trim(), trace);
    assert!(!task.bundle.join("trace-create").exists());
}

#[tokio::test]
async fn a_checkpoint_is_restored_by_the_start() {
    let mut stack = Stack::new();
    stack.daemon_up().await;
    let task = stack.container("c1", "echo back; exit 4").await;
    let out = task.bundle.join("out");
    let uri = format!("file://{}", out.display());
    let pid = task.create_from("/checkpoints/one", "", &uri, "").await;
    assert_eq!(pid.unwrap(), 0);
    let state = task.state("").await.unwrap();
    assert_eq!((state.pid, state.status), (0, 1));
    let pid = task.start("").await.unwrap();
    assert!(pid > 1);
    assert_eq!(task.wait("").await.unwrap(), 4);
    let gone = task.delete("").await.unwrap();
    assert_eq!((gone.pid, gone.exit_status), (pid, 4));
    assert_eq!(std::fs::read_to_string(out).unwrap(), "back\n");
    let told = stack.told.wait_for(4).await;
    assert_eq!(
        told,
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exit c1=4",
            "/tasks/delete"
        ]
    );
    // One that is never started goes as well.
    let other = stack.container("c2", "exit 0").await;
    other
        .create_from("/checkpoints/one", "", "", "")
        .await
        .unwrap();
    assert_eq!(other.delete("").await.unwrap().pid, 0);
}
