//! A shim under test: the real binary, started as containerd starts it, over a scripted runtime; no root is needed.
//!
//! The runtime (`runtime.sh`) runs a container's command from `BUNDLE/command` in a plain process that is orphaned to the shim,
//! as a real runtime's init is. Files in the bundle change its manners: `slow-exec` holds `exec` up until it is removed,
//! `die-before` and `die-after` end `start` by a signal before and after it has let the container go.

#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::unwrap_used
)]

use std::collections::HashMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proto::containerd::events::{TaskExit, TaskStart};
use proto::containerd::runc::v1::Options;
use proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use proto::containerd::services::events::ttrpc::v1::events_ttrpc::{Events, service};
use proto::containerd::task::v2;
use proto::containerd::task::v2::task_ttrpc::TaskClient;
use proto::ttrpc::{Call, Client, Status, TtrpcContext, async_trait};
use ttrpc::r#async::Server;

pub const NAMESPACE: &str = "test";
pub const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-lite-v2");

const RUNTIME: &str = r#"#!/bin/sh
# usage: --root R --log L --log-format json VERB ARGS
log=$4; shift 6; verb=$1; shift
fail() { printf '{"level":"error","msg":"%s"}\n' "$1" >> "$log"; exit 1; }
# Leaves a process behind whose parent is gone before it can end, so that nobody but the subreaper waits for it.
leave() {
  ( sh -c 'echo $$ > "$1.new"; mv "$1.new" "$1"; exec sh -c "$2" "$3"' leave "$1" "$2" "$3" <&3 & ) 3<&0
  while [ ! -e "$1" ]; do sleep 0.01; done
}
while [ $# -gt 0 ]; do case $1 in
  --bundle) bundle=$2; shift 2;; --pid-file) pidfile=$2; shift 2;; --process) process=$2; shift 2;;
  --resources|--image-path|--work-path) shift 2;; --force) force=1; shift;; --*) shift;; *) id=${id:-$1}; last=$1; shift;;
esac; done
[ -n "$bundle" ] || bundle=$PWD
[ -z "$TRACEPARENT" ] || echo "$TRACEPARENT" > "$bundle/trace-$verb"
case $verb in
create)
  [ -e "$bundle/refuse" ] && fail "$(cat "$bundle/refuse")"
  mkfifo "$bundle/go" || fail "container $id already exists"
  leave "$pidfile" 'read x < "$0/go"; . "$0/command"' "$bundle" ;;
start)
  if [ -e "$bundle/die-before" ]; then kill -9 $$; fi
  echo go > "$bundle/go"; touch "$bundle/started"
  if [ -e "$bundle/die-after" ]; then kill -9 $$; fi ;;
restore) leave "$pidfile" '. "$0/command"' "$bundle" ;;
state) if [ -e "$bundle/started" ]; then echo '{"status":"running"}'; else echo '{"status":"created"}'; fi ;;
exec)
  script=$(sed -n 's/.*"script":"\(.*\)".*/\1/p' "$process")
  leave "$pidfile" "$script" "$bundle"
  while [ -e "$bundle/slow-exec" ]; do sleep 0.02; done ;;
kill) kill -"$last" "$(cat "$bundle/init.pid")" 2>/dev/null || fail "container not running" ;;
delete)
  [ -n "$force" ] && kill -9 "$(cat "$bundle/init.pid")" 2>/dev/null
  echo deleted >> "$bundle/calls"; rm -f "$bundle/go" ;;
pause|resume|update) echo $verb >> "$bundle/calls" ;;
*) fail "$verb: unknown verb" ;;
esac
"#;

/// What the daemon above was told, in order: topic and a short text.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until `count` events have come.
    pub async fn wait_for(&self, count: usize) -> Vec<String> {
        eventually("events", || {
            let all = self.all();
            if all.len() >= count {
                Ok(all)
            } else {
                Err(format!("{all:?}"))
            }
        })
        .await
    }
}

#[async_trait]
impl Events for Told {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> Result<(), Status> {
        let envelope = request.envelope.unwrap();
        let event = envelope.event.unwrap();
        let detail = match (
            proto::any::unpack::<TaskExit>(&event),
            proto::any::unpack::<TaskStart>(&event),
        ) {
            (Some(Ok(exit)), _) => format!(" {}={}", exit.id, exit.exit_status),
            _ => String::new(),
        };
        self.0
            .lock()
            .unwrap()
            .push(format!("{}{detail}", envelope.topic));
        Ok(())
    }
}

/// Polls until the closure is content; prints what was last seen if it never is.
pub async fn eventually<T>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match check() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > end => panic!("{what}: last seen {seen}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

pub struct Stack {
    pub folder: tempfile::TempDir,
    pub told: Told,
    events: Option<Server>,
    /// Serving shims by container, so that none outlives a failed test.
    shims: Mutex<HashMap<String, u32>>,
}

impl Stack {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("shim").tempdir().unwrap();
        let runtime = folder.path().join("runtime.sh");
        std::fs::write(&runtime, RUNTIME).unwrap();
        std::fs::set_permissions(&runtime, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            folder,
            told: Told::default(),
            events: None,
            shims: Mutex::default(),
        }
    }

    pub fn address(&self) -> String {
        self.folder
            .path()
            .join("c.sock")
            .to_string_lossy()
            .into_owned()
    }

    /// The daemon's side of the events appears.
    pub async fn daemon_up(&mut self) {
        let path = format!("{}.ttrpc", self.address());
        // Left by a daemon that went; none is fine.
        let _ = std::fs::remove_file(&path);
        let mut server = Server::new()
            .bind(&format!("unix://{path}"))
            .unwrap()
            .register_service(service(Arc::new(self.told.clone())));
        server.start().await.unwrap();
        self.events = Some(server);
    }

    pub async fn daemon_down(&mut self) {
        if let Some(mut server) = self.events.take() {
            server.shutdown().await.unwrap();
        }
    }

    pub fn bundle(&self, id: &str) -> PathBuf {
        self.folder.path().join("b").join(id)
    }

    /// Makes a bundle whose init runs `command`.
    pub fn make_bundle(&self, id: &str, command: &str, config: &str) -> PathBuf {
        let bundle = self.bundle(id);
        std::fs::create_dir_all(bundle.join("rootfs")).unwrap();
        std::fs::write(bundle.join("config.json"), config).unwrap();
        std::fs::write(bundle.join("command"), command).unwrap();
        std::fs::write(bundle.join("log"), "").unwrap(); // a plain file does for the fifo
        bundle
    }

    pub fn run_shim(&self, id: &str, words: &[&str], input: &[u8]) -> std::process::Output {
        let mut child = Command::new(SHIM)
            .args([
                "-namespace",
                NAMESPACE,
                "-address",
                &self.address(),
                "-id",
                id,
            ])
            .args(words)
            .current_dir(self.bundle(id))
            .env_remove("TTRPC_ADDRESS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    /// `start`: a client of the shim that serves the bundle.
    pub async fn start_shim(&self, id: &str) -> Task {
        let output = self.run_shim(id, &["-debug", "start"], b"");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stderr.is_empty());
        let file = std::fs::read_to_string(self.bundle(id).join("address")).unwrap();
        assert_eq!(file, text);
        let task = self.connect(id, &text).await;
        let pid = task.shim_pid().await;
        self.shims.lock().unwrap().insert(id.to_owned(), pid);
        task
    }

    pub async fn connect(&self, id: &str, address: &str) -> Task {
        Task {
            id: id.to_owned(),
            bundle: self.bundle(id),
            runtime: self.folder.path().join("runtime.sh"),
            client: TaskClient(Client::connect(address).await.unwrap()),
        }
    }

    /// A running container with a private pid namespace, for the shim's eyes.
    pub async fn container(&self, id: &str, command: &str) -> Task {
        self.make_bundle(id, command, r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#);
        self.start_shim(id).await
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for (id, pid) in self.shims.lock().unwrap().drain() {
            let name = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if name.starts_with(SHIM) {
                let init =
                    std::fs::read_to_string(self.folder.path().join("b").join(id).join("init.pid"));
                for pid in [Some(pid.to_string()), init.ok()].into_iter().flatten() {
                    // It may be gone by now.
                    let _ = Command::new("kill")
                        .args(["-9", pid.trim()])
                        .stderr(Stdio::null())
                        .status();
                }
            }
        }
    }
}

/// One container's task service.
pub struct Task {
    pub id: String,
    pub bundle: PathBuf,
    runtime: PathBuf,
    pub client: TaskClient,
}

pub fn call() -> Call {
    Call::in_namespace(NAMESPACE)
}

pub const LIMIT: Option<Duration> = Some(Duration::from_secs(20));

impl Task {
    pub async fn shim_pid(&self) -> u32 {
        let request = v2::ConnectRequest {
            id: self.id.clone(),
        };
        self.client
            .connect(&call(), LIMIT, &request)
            .await
            .unwrap()
            .shim_pid
    }

    pub async fn create(&self, stdin: &str, stdout: &str, stderr: &str) -> Result<u32, Status> {
        self.create_from("", stdin, stdout, stderr).await
    }

    /// Creates it out of a checkpoint, unless that is empty.
    pub async fn create_from(
        &self,
        checkpoint: &str,
        stdin: &str,
        stdout: &str,
        stderr: &str,
    ) -> Result<u32, Status> {
        let options = proto::any::pack(&Options {
            binary_name: self.runtime.to_string_lossy().into_owned(),
            root: self
                .bundle
                .join("runtime-root")
                .to_string_lossy()
                .into_owned(),
            ..Options::default()
        });
        let request = v2::CreateTaskRequest {
            id: self.id.clone(),
            bundle: self.bundle.to_string_lossy().into_owned(),
            stdin: stdin.to_owned(),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            options: Some(options),
            checkpoint: checkpoint.to_owned(),
            ..v2::CreateTaskRequest::default()
        };
        Ok(self.client.create(&call(), LIMIT, &request).await?.pid)
    }

    pub async fn start(&self, exec_id: &str) -> Result<u32, Status> {
        let request = v2::StartRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
        };
        Ok(self.client.start(&call(), LIMIT, &request).await?.pid)
    }

    pub async fn exec(
        &self,
        exec_id: &str,
        script: &str,
        stdin: &str,
        stdout: &str,
    ) -> Result<(), Status> {
        let json = format!("{{\"script\":\"{script}\"}}");
        let request = v2::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            stdin: stdin.to_owned(),
            stdout: stdout.to_owned(),
            spec: Some(proto::any::json(proto::any::PROCESS, json.into_bytes())),
            ..v2::ExecProcessRequest::default()
        };
        self.client.exec(&call(), LIMIT, &request).await
    }

    pub async fn wait(&self, exec_id: &str) -> Result<u32, Status> {
        let request = v2::WaitRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
        };
        Ok(self
            .client
            .wait(&call(), LIMIT, &request)
            .await?
            .exit_status)
    }

    pub async fn state(&self, exec_id: &str) -> Result<v2::StateResponse, Status> {
        let request = v2::StateRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
        };
        self.client.state(&call(), LIMIT, &request).await
    }

    pub async fn kill(&self, exec_id: &str, signal: u32) -> Result<(), Status> {
        let request = v2::KillRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            signal,
            all: false,
        };
        self.client.kill(&call(), LIMIT, &request).await
    }

    pub async fn delete(&self, exec_id: &str) -> Result<v2::DeleteResponse, Status> {
        let request = v2::DeleteRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
        };
        self.client.delete(&call(), LIMIT, &request).await
    }

    pub async fn close_stdin(&self, exec_id: &str) {
        let request = v2::CloseIoRequest {
            id: self.id.clone(),
            exec_id: exec_id.to_owned(),
            stdin: true,
        };
        self.client
            .close_io(&call(), LIMIT, &request)
            .await
            .unwrap();
    }

    pub async fn shutdown(&self) {
        let request = v2::ShutdownRequest {
            id: self.id.clone(),
            now: false,
        };
        self.client
            .shutdown(&call(), LIMIT, &request)
            .await
            .unwrap();
    }
}

/// Whether the process exists and is no zombie.
pub fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

pub fn exit_record(bundle: &Path, name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(bundle.join(name)).unwrap()).unwrap()
}
