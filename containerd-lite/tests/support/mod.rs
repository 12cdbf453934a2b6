//! A containerd-lite in folders of its own, with shims under it: what the tests of this crate stand on.
//!
//! Needs root, a static busybox, and a shim with its engine; `Daemon::start` returns none and says so where one is missing.
//! `LITE_TEST_SHIM` names another shim binary than Debian's, `LITE_TEST_ENGINE` another engine than runc.

#![allow(dead_code, reason = "every test uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proto::containerd::runc::v1::Options;
use proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, container::Runtime, containers_client::ContainersClient,
};
use proto::containerd::services::events::v1::{SubscribeRequest, events_client::EventsClient};
use proto::containerd::services::tasks::v1 as tasks;
use proto::containerd::types::{Descriptor, Envelope};
use proto::containerd::v1::types::Process;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// Namespace of all tests.
pub(crate) const NAMESPACE: &str = "test";
const BUSYBOX: [&str; 2] = ["/bin/busybox", "/usr/bin/busybox"];
const SHIM: &str = "/usr/bin/containerd-shim-runc-v2";

/// Our own shim.
pub(crate) const OWN_SHIM: &str = proto::layout::program::SHIM;

/// The shim that `LITE_TEST_SHIM` names, else ours if it was built into the folder of this test.
pub(crate) fn own_shim() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("LITE_TEST_SHIM") {
        return Some(named.into());
    }
    let test = std::env::current_exe().ok()?;
    let beside = test.parent()?.parent()?.join(OWN_SHIM);
    beside.is_file().then_some(beside)
}

/// A daemon and all that it runs. Dropping it ends both.
pub(crate) struct Daemon {
    folder: tempfile::TempDir,
    child: Child,
    shim: PathBuf,
    engine: String,
}

impl Daemon {
    /// Starts one, or says what is missing.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with("").await
    }

    /// Starts one with a configuration file.
    pub(crate) async fn start_with(config: &str) -> Option<Self> {
        let shim = std::env::var("LITE_TEST_SHIM").unwrap_or_else(|_| SHIM.into());
        Self::start_over(shim.into(), config).await
    }

    /// Starts one whose containers have this shim.
    pub(crate) async fn start_over(shim: PathBuf, config: &str) -> Option<Self> {
        let engine = std::env::var("LITE_TEST_ENGINE").unwrap_or_else(|_| "runc".into());
        let busybox = BUSYBOX.iter().find(|path| Path::new(path).exists());
        let missing = [
            (!nix::unistd::geteuid().is_root()).then_some("root"),
            busybox.is_none().then_some("a static busybox"),
            (!shim.exists()).then_some("a shim"),
        ];
        let missing: Vec<&str> = missing.into_iter().flatten().collect();
        if !missing.is_empty() {
            eprintln!("SKIPPED: needs {}", missing.join(", "));
            return None;
        }
        let folder = tempfile::tempdir().expect("folder");
        let rootfs = folder.path().join("rootfs");
        for name in ["bin", "proc", "dev", "sys", "tmp"] {
            std::fs::create_dir_all(rootfs.join(name)).expect("rootfs");
        }
        std::fs::copy(busybox.expect("checked"), rootfs.join("bin/busybox")).expect("busybox");
        std::os::unix::fs::symlink("busybox", rootfs.join("bin/sh")).expect("sh");
        std::fs::write(folder.path().join("config.toml"), config).expect("configuration");
        let child = spawn(folder.path());
        let daemon = Self {
            folder,
            child,
            shim,
            engine,
        };
        daemon.ready().await;
        Some(daemon)
    }

    /// Lets containers that are made from now on run under another engine.
    pub(crate) fn use_engine(&mut self, path: &Path) {
        self.engine = path.display().to_string();
    }

    /// Sends the daemon a signal.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("signal");
    }

    /// Kills the daemon and nothing else.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// Starts it again; returns when it answers.
    pub(crate) async fn restart(&mut self) {
        self.restart_with(&[]).await;
    }

    /// The same, with variables in its environment.
    pub(crate) async fn restart_with(&mut self, env: &[(&str, &str)]) {
        self.child = spawn_with(self.folder.path(), env);
        self.ready().await;
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn ready(&self) {
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "no socket: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Memory of the daemon in KiB, what it shares counted in parts.
    pub(crate) fn pss(&self) -> usize {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = std::fs::read_to_string(path).expect("smaps");
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
        number.expect("a figure").trim().parse().expect("a number")
    }

    /// What the daemon and its shims logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("c.sock")
    }

    /// The folder of a task.
    pub(crate) fn bundle(&self, id: &str) -> PathBuf {
        let folder = self
            .folder
            .path()
            .join("state/io.containerd.runtime.v2.task");
        folder.join(NAMESPACE).join(id)
    }

    /// The root of all containers.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.folder.path().join("rootfs")
    }

    /// A connection.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.socket()).await.expect("connect")
    }

    /// Makes the container `id` that runs `script`.
    pub(crate) async fn container(&self, id: &str, script: &str) {
        let client = self.client().await;
        client
            .make(&self.recipe(), id, script)
            .await
            .expect("container");
    }

    /// What containers here are made of.
    pub(crate) fn recipe(&self) -> Recipe {
        Recipe {
            folder: self.folder.path().to_owned(),
            shim: self.shim.clone(),
            engine: self.engine.clone(),
            resources: serde_json::json!({}),
        }
    }

    /// What is left of tasks a moment after the last was deleted: bundles, work folders, mounts, engine state, cgroups, shims.
    pub(crate) async fn remains(&self) -> Vec<String> {
        for _ in 0..100 {
            if self.remains_now().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.remains_now()
    }

    fn remains_now(&self) -> Vec<String> {
        let folder = self.folder.path();
        let mut found = Vec::new();
        for part in ["state", "root"] {
            let tasks = folder
                .join(part)
                .join("io.containerd.runtime.v2.task")
                .join(NAMESPACE);
            found.extend(names(&tasks).map(|name| format!("{part} of {name}")));
        }
        found.extend(
            names(&folder.join("engine").join(NAMESPACE))
                .map(|name| format!("engine state of {name}")),
        );
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let ours = folder.display().to_string();
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&ours))
                .map(str::to_owned),
        );
        for (_, line) in processes() {
            if line.contains(&format!("{ours}/c.sock")) && line.contains("-id") {
                found.push(line.replace('\0', " "));
            }
        }
        let prefix = format!(
            "lite-test-{}-",
            self.folder
                .path()
                .file_name()
                .expect("name")
                .to_string_lossy()
        );
        for hierarchy in names(Path::new("/sys/fs/cgroup")) {
            let cgroups = Path::new("/sys/fs/cgroup").join(&hierarchy);
            let left = names(&cgroups).filter(|name| name.starts_with(&prefix));
            found.extend(left.map(|name| format!("cgroup {hierarchy}/{name}")));
        }
        found
    }
}

fn names(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// What the containers of a daemon are made of.
pub(crate) struct Recipe {
    folder: PathBuf,
    shim: PathBuf,
    engine: String,
    /// Limits, as the spec has them.
    pub(crate) resources: serde_json::Value,
}

impl Recipe {
    /// The daemon's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("c.sock")
    }

    /// The root of all containers.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.folder.join("rootfs")
    }

    fn container(&self, id: &str, script: &str) -> Container {
        let spec = serde_json::json!({
            "ociVersion": "1.0.2",
            "root": {"path": self.rootfs()},
            "process": {
                "args": ["/bin/sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
                "user": {"uid": 0, "gid": 0}
            },
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "resources": self.resources,
                "cgroupsPath": format!("/lite-test-{}-{id}", self.folder.file_name().expect("name").to_string_lossy()),
                "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]
            }
        });
        let options = Options {
            binary_name: self.engine.clone(),
            root: self.folder.join("engine").display().to_string(),
            ..Options::default()
        };
        Container {
            id: id.into(),
            runtime: Some(Runtime {
                name: self.shim.display().to_string(),
                options: Some(proto::any::pack(&options)),
            }),
            spec: Some(proto::any::json(
                proto::any::SPEC,
                spec.to_string().into_bytes(),
            )),
            ..Container::default()
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The containers end with their shims' cleanup; what is left of a failed test must not stay.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for (_, pid) in shims(&self.socket()) {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let state = self
            .folder
            .path()
            .join("state/io.containerd.runtime.v2.task")
            .join(NAMESPACE);
        for bundle in std::fs::read_dir(state).into_iter().flatten().flatten() {
            let id = bundle.file_name();
            if id.to_string_lossy().starts_with('.') {
                continue;
            }
            let _ = Command::new(&self.shim)
                .args(["-namespace", NAMESPACE, "-address"])
                .arg(self.socket())
                .args(["-publish-binary", "/bin/true", "-id"])
                .arg(&id)
                .arg("-bundle")
                .arg(bundle.path())
                .arg("delete")
                .current_dir(bundle.path())
                .stdout(Stdio::null())
                .status();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

fn spawn(folder: &Path) -> Child {
    spawn_with(folder, &[])
}

fn spawn_with(folder: &Path, env: &[(&str, &str)]) -> Child {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("log");
    let path = |name: &str| folder.join(name);
    Command::new(env!("CARGO_BIN_EXE_containerd-lite"))
        .arg("--root")
        .arg(path("root"))
        .arg("--state")
        .arg(path("state"))
        .arg("--address")
        .arg(path("c.sock"))
        .arg("--config")
        .arg(path("config.toml"))
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("containerd-lite")
}

fn in_namespace<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let namespace = NAMESPACE.parse().expect("text");
    request
        .metadata_mut()
        .insert("containerd-namespace", namespace);
    request
}

/// Clients over one connection.
#[derive(Clone)]
pub(crate) struct Client(Channel);

type Tasks = tasks::tasks_client::TasksClient<Channel>;

impl Client {
    /// Connects; none if nobody listens.
    pub(crate) async fn connect(socket: &Path) -> Option<Self> {
        let uri = format!("unix://{}", socket.display());
        let endpoint = Endpoint::try_from(uri).expect("endpoint");
        Some(Self(endpoint.connect().await.ok()?))
    }

    /// Makes the container `id` that runs `script`.
    pub(crate) async fn make(&self, recipe: &Recipe, id: &str, script: &str) -> Result<(), Status> {
        let request = CreateContainerRequest {
            container: Some(recipe.container(id, script)),
        };
        let mut containers = ContainersClient::new(self.0.clone());
        containers.create(in_namespace(request)).await?;
        Ok(())
    }

    /// The connection itself.
    pub(crate) fn channel(&self) -> Channel {
        self.0.clone()
    }

    fn tasks(&self) -> Tasks {
        Tasks::new(self.0.clone())
    }

    pub(crate) async fn create(&self, id: &str) -> Result<u32, Status> {
        let request = tasks::CreateTaskRequest {
            container_id: id.into(),
            ..tasks::CreateTaskRequest::default()
        };
        let created = self.tasks().create(in_namespace(request)).await?;
        Ok(created.into_inner().pid)
    }

    pub(crate) async fn start(&self, id: &str, exec_id: &str) -> Result<u32, Status> {
        let request = tasks::StartRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
        };
        Ok(self
            .tasks()
            .start(in_namespace(request))
            .await?
            .into_inner()
            .pid)
    }

    pub(crate) async fn exec(&self, id: &str, exec_id: &str, script: &str) -> Result<(), Status> {
        let process = serde_json::json!({
            "args": ["/bin/sh", "-c", script], "cwd": "/", "user": {"uid": 0, "gid": 0}
        });
        let spec = proto::any::json(proto::any::PROCESS, process.to_string().into_bytes());
        let request = tasks::ExecProcessRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
            spec: Some(spec),
            ..tasks::ExecProcessRequest::default()
        };
        self.tasks().exec(in_namespace(request)).await?;
        Ok(())
    }

    pub(crate) async fn get(&self, id: &str, exec_id: &str) -> Result<Process, Status> {
        let request = tasks::GetRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
        };
        let got = self.tasks().get(in_namespace(request)).await?;
        Ok(got.into_inner().process.expect("process"))
    }

    pub(crate) async fn list(&self) -> Result<Vec<Process>, Status> {
        let request = tasks::ListTasksRequest::default();
        Ok(self
            .tasks()
            .list(in_namespace(request))
            .await?
            .into_inner()
            .tasks)
    }

    pub(crate) async fn wait(&self, id: &str, exec_id: &str) -> Result<u32, Status> {
        let request = tasks::WaitRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
        };
        Ok(self
            .tasks()
            .wait(in_namespace(request))
            .await?
            .into_inner()
            .exit_status)
    }

    /// Makes a checkpoint, held by a lease as ctr does, for the collector takes what nobody names; what it is stored as.
    pub(crate) async fn checkpoint(
        &self,
        request: tasks::CheckpointTaskRequest,
    ) -> Result<Vec<Descriptor>, Status> {
        use proto::containerd::services::leases::v1::{CreateRequest, leases_client::LeasesClient};
        let lease = CreateRequest {
            id: "checkpoint".into(),
            ..CreateRequest::default()
        };
        let mut leases = LeasesClient::new(self.0.clone());
        leases.create(in_namespace(lease)).await?;
        let mut request = in_namespace(request);
        let held = "checkpoint".parse().expect("a header's value");
        request.metadata_mut().insert("containerd-lease", held);
        let made = self.tasks().checkpoint(request).await?;
        Ok(made.into_inner().descriptors)
    }

    /// Creates a task from a checkpoint.
    pub(crate) async fn restore(&self, id: &str, checkpoint: Descriptor) -> Result<u32, Status> {
        let request = tasks::CreateTaskRequest {
            container_id: id.into(),
            checkpoint: Some(checkpoint),
            ..tasks::CreateTaskRequest::default()
        };
        let created = self.tasks().create(in_namespace(request)).await?;
        Ok(created.into_inner().pid)
    }

    /// Waits, and gives the reason that the answer's header names.
    pub(crate) async fn wait_reason(&self, id: &str, exec_id: &str) -> Option<String> {
        let request = tasks::WaitRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
        };
        let waited = self.tasks().wait(in_namespace(request)).await;
        reason(&waited.expect("wait"))
    }

    /// Asks for the state, and gives the reason that the answer's header names.
    pub(crate) async fn get_reason(&self, id: &str) -> Option<String> {
        let request = tasks::GetRequest {
            container_id: id.into(),
            ..tasks::GetRequest::default()
        };
        let got = self.tasks().get(in_namespace(request)).await;
        reason(&got.expect("get"))
    }

    /// Deletes, and gives the reason that the answer's header names.
    pub(crate) async fn delete_reason(&self, id: &str) -> Option<String> {
        let request = tasks::DeleteTaskRequest {
            container_id: id.into(),
        };
        let deleted = self.tasks().delete(in_namespace(request)).await;
        reason(&deleted.expect("delete"))
    }

    pub(crate) async fn kill(&self, id: &str, signal: u32) -> Result<(), Status> {
        let request = tasks::KillRequest {
            container_id: id.into(),
            signal,
            ..tasks::KillRequest::default()
        };
        self.tasks().kill(in_namespace(request)).await?;
        Ok(())
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<u32, Status> {
        let request = tasks::DeleteTaskRequest {
            container_id: id.into(),
        };
        Ok(self
            .tasks()
            .delete(in_namespace(request))
            .await?
            .into_inner()
            .exit_status)
    }

    pub(crate) async fn delete_exec(&self, id: &str, exec_id: &str) -> Result<u32, Status> {
        let request = tasks::DeleteProcessRequest {
            container_id: id.into(),
            exec_id: exec_id.into(),
        };
        Ok(self
            .tasks()
            .delete_process(in_namespace(request))
            .await?
            .into_inner()
            .exit_status)
    }

    /// Kills whatever runs and deletes.
    pub(crate) async fn remove(&self, id: &str) {
        let _ = self.kill(id, 9).await;
        let _ = self.wait(id, "").await;
        self.delete(id).await.expect("delete");
    }

    pub(crate) async fn subscribe(&self) -> Streaming<Envelope> {
        let filter = format!("namespace=={NAMESPACE},topic~=|^/tasks/|");
        let request = SubscribeRequest {
            filters: vec![filter],
        };
        let events = EventsClient::new(self.0.clone()).subscribe(request).await;
        events.expect("subscribe").into_inner()
    }
}

fn reason<T>(response: &tonic::Response<T>) -> Option<String> {
    let value = response.metadata().get(proto::exit::REASON)?;
    Some(value.to_str().expect("text").to_owned())
}

/// The next event, which must come soon.
pub(crate) async fn next(events: &mut Streaming<Envelope>) -> Envelope {
    let next = tokio::time::timeout(Duration::from_secs(10), events.message()).await;
    next.expect("an event in time")
        .expect("stream")
        .expect("an event")
}

/// The shim process of a task, found by its command line.
pub(crate) fn shim_pid(id: &str) -> i32 {
    let all = processes().filter_map(|(pid, line)| Some((shim_of(&line)?.0, pid)));
    let mut ours = all.filter(|(found, _)| found == id);
    ours.next().unwrap_or_else(|| panic!("no shim of {id}")).1
}

/// The serving shims of the daemon at `socket`: their tasks and pids.
pub(crate) fn shims(socket: &Path) -> Vec<(String, i32)> {
    let socket = socket.display().to_string();
    let all = processes().filter_map(|(pid, line)| Some((shim_of(&line)?, pid)));
    all.filter(|((_, address), _)| *address == socket)
        .map(|((id, _), pid)| (id, pid))
        .collect()
}

/// Id and daemon's address of a serving shim's command line: one without an action.
fn shim_of(line: &str) -> Option<(String, String)> {
    let words: Vec<&str> = line.split('\0').filter(|word| !word.is_empty()).collect();
    let value = |flag: &str| {
        let at = words.iter().position(|word| *word == flag)?;
        words.get(at + 1).map(|word| (*word).to_owned())
    };
    let serving = !words.iter().any(|word| matches!(*word, "start" | "delete"));
    serving.then(|| Some((value("-id")?, value("-address")?)))?
}

fn processes() -> impl Iterator<Item = (i32, String)> {
    names(Path::new("/proc")).filter_map(|name| {
        let line = std::fs::read(format!("/proc/{name}/cmdline")).ok()?;
        Some((
            name.parse().ok()?,
            String::from_utf8_lossy(&line).into_owned(),
        ))
    })
}
