//! Over a real runtime, as root: terminals, memory, shared pid namespaces, mounts, a killed shim.
//!
//! The runtime is what SHIM_TEST_RUNTIME names, else `runc`. Without root, runtime or busybox the tests say that they were
//! skipped; where SHIM_TEST_REQUIRE is set they fail instead.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{LIMIT, Stack, Task, call, eventually, exit_record, is_alive};
use prost::Message as _;
use proto::containerd::runc::v1::Options;
use proto::containerd::task::v2;
use proto::containerd::types::Mount;
use proto::io::containerd::cgroups;
use serde_json::{Value, json};

/// The runtime, or why there is none.
fn runtime() -> Result<PathBuf, String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !status.lines().any(|line| line.starts_with("Uid:\t0\t0")) {
        return Err("not root".to_owned());
    }
    if !Path::new("/bin/busybox").exists() {
        return Err("no /bin/busybox".to_owned());
    }
    let name = std::env::var("SHIM_TEST_RUNTIME").unwrap_or_else(|_| "runc".to_owned());
    match Command::new(&name).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(name.into()),
        other => Err(format!("runtime {name}: {other:?}")),
    }
}

/// The runtime, or leaves the test.
macro_rules! require_runtime {
    () => {
        match runtime() {
            Ok(runtime) => runtime,
            Err(why) => {
                assert!(
                    std::env::var_os("SHIM_TEST_REQUIRE").is_none(),
                    "required: {why}"
                );
                println!("SKIPPED: {why}");
                return;
            }
        }
    };
}

struct Real {
    stack: Stack,
    runtime: PathBuf,
    /// Last part of the cgroup path; no two tests share one.
    name: String,
}

impl Real {
    fn new(runtime: PathBuf) -> Self {
        let stack = Stack::new();
        let folder = stack
            .folder
            .path()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        Self {
            stack,
            runtime,
            name: folder.trim_start_matches('.').to_owned(),
        }
    }

    /// A bundle with busybox as root file system.
    async fn bundle(&self, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> Task {
        let bundle = self.stack.make_bundle(id, "", "{}");
        make_root(&bundle.join("rootfs"));
        std::fs::remove_file(bundle.join("config.json")).unwrap();
        let made = Command::new(&self.runtime)
            .arg("spec")
            .current_dir(&bundle)
            .status()
            .unwrap();
        assert!(made.success());
        let config = bundle.join("config.json");
        let mut spec: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
        spec["root"]["readonly"] = json!(false);
        spec["linux"]["cgroupsPath"] = json!(format!("/shim-test/{}-{id}", self.name));
        change(&mut spec);
        std::fs::write(&config, serde_json::to_vec(&spec).unwrap()).unwrap();
        self.stack.start_shim(id).await
    }

    async fn create(&self, task: &Task, rootfs: Vec<Mount>) -> u32 {
        let options = proto::any::pack(&Options {
            binary_name: self.runtime.to_string_lossy().into_owned(),
            root: self
                .stack
                .folder
                .path()
                .join("root")
                .to_string_lossy()
                .into_owned(),
            ..Options::default()
        });
        let request = v2::CreateTaskRequest {
            id: task.id.clone(),
            bundle: task.bundle.to_string_lossy().into_owned(),
            stdout: format!("file://{}", task.bundle.join("out").display()),
            rootfs,
            options: Some(options),
            ..v2::CreateTaskRequest::default()
        };
        task.client
            .create(&call(), LIMIT, &request)
            .await
            .unwrap()
            .pid
    }

    fn output(&self, task: &Task) -> String {
        std::fs::read_to_string(task.bundle.join("out")).unwrap_or_default()
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for controller in std::fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            // Shared by the tests that run beside this one; the last one's succeeds.
            let _ = std::fs::remove_dir(controller.path().join("shim-test"));
        }
    }
}

fn make_root(root: &Path) {
    for folder in ["bin", "proc", "dev", "sys", "tmp"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in ["sh", "sleep", "tail", "tty", "stty", "cat", "echo"] {
        symlink("busybox", root.join("bin").join(name)).unwrap();
    }
}

fn process(args: &[&str], terminal: bool) -> Option<prost_types::Any> {
    let json = json!({
        "args": args, "cwd": "/", "terminal": terminal, "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"],
    });
    Some(proto::any::json(
        proto::any::PROCESS,
        json.to_string().into_bytes(),
    ))
}

#[tokio::test]
async fn an_exec_has_a_terminal_with_a_size() {
    let real = Real::new(require_runtime!());
    let task = real.bundle("c1", "sleep 1000", |_| ()).await;
    real.create(&task, Vec::new()).await;
    task.start("").await.unwrap();
    let out = task.bundle.join("tty-out");
    std::fs::write(&out, "").unwrap();
    let request = v2::ExecProcessRequest {
        id: task.id.clone(),
        exec_id: "e1".into(),
        terminal: true,
        stdout: out.to_string_lossy().into_owned(),
        spec: process(
            &["/bin/sh", "-c", "tty; sleep 0.5; stty size; exit 4"],
            true,
        ),
        ..v2::ExecProcessRequest::default()
    };
    task.client.exec(&call(), LIMIT, &request).await.unwrap();
    task.start("e1").await.unwrap();
    let resize = v2::ResizePtyRequest {
        id: task.id.clone(),
        exec_id: "e1".into(),
        width: 100,
        height: 40,
    };
    task.client
        .resize_pty(&call(), LIMIT, &resize)
        .await
        .unwrap();
    assert_eq!(task.wait("e1").await.unwrap(), 4);
    assert_eq!(task.delete("e1").await.unwrap().exit_status, 4);
    assert_eq!(
        std::fs::read_to_string(&out).unwrap(),
        "/dev/pts/0\r\n40 100\r\n"
    );
    task.kill("", 9).await.unwrap();
    assert_eq!(task.wait("").await.unwrap(), 137);
    task.delete("").await.unwrap();
}

#[tokio::test]
async fn running_out_of_memory_is_told_and_recorded() {
    let mut real = Real::new(require_runtime!());
    real.stack.daemon_up().await;
    let limit =
        |spec: &mut Value| spec["linux"]["resources"]["memory"] = json!({"limit": 8_000_000});
    let task = real.bundle("c1", "exec tail /dev/zero", limit).await;
    real.create(&task, Vec::new()).await;
    task.start("").await.unwrap();
    assert_eq!(task.wait("").await.unwrap(), 137);
    assert_eq!(
        exit_record(&task.bundle, "exit.json")["reason"],
        "out of memory"
    );
    task.delete("").await.unwrap();
    let told = real.stack.told.wait_for(5).await;
    assert!(told.contains(&"/tasks/oom".to_owned()), "{told:?}");
}

#[tokio::test]
async fn pause_and_stats_and_pids() {
    let real = Real::new(require_runtime!());
    let task = real.bundle("c1", "sleep 1000 & wait", |_| ()).await;
    let pid = real.create(&task, Vec::new()).await;
    task.start("").await.unwrap();
    let id = || task.id.clone();
    let pids = eventually_pids(&task, 2).await;
    assert!(pids.contains(&pid));
    task.client
        .pause(&call(), LIMIT, &v2::PauseRequest { id: id() })
        .await
        .unwrap();
    assert_eq!(task.state("").await.unwrap().status, 4);
    assert!(task.exec("e1", "true", "", "").await.is_err());
    task.client
        .resume(&call(), LIMIT, &v2::ResumeRequest { id: id() })
        .await
        .unwrap();
    assert_eq!(task.state("").await.unwrap().status, 2);
    let stats = task
        .client
        .stats(&call(), LIMIT, &v2::StatsRequest { id: id() })
        .await
        .unwrap();
    let stats = stats.stats.unwrap();
    let memory = match proto::any::unpack::<cgroups::v1::Metrics>(&stats) {
        Some(metrics) => metrics.unwrap().memory.unwrap().usage.unwrap().usage,
        None => {
            let metrics = proto::any::unpack::<cgroups::v2::Metrics>(&stats)
                .unwrap()
                .unwrap();
            metrics.memory.unwrap().usage
        }
    };
    assert!(memory > 0);
    task.kill("", 9).await.unwrap();
    task.wait("").await.unwrap();
    task.delete("").await.unwrap();
}

async fn eventually_pids(task: &Task, count: usize) -> Vec<u32> {
    for _ in 0..200 {
        let request = v2::PidsRequest {
            id: task.id.clone(),
        };
        let pids = task
            .client
            .pids(&call(), LIMIT, &request)
            .await
            .unwrap()
            .processes;
        if pids.len() == count {
            return pids.into_iter().map(|p| p.pid).collect();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never {count} processes");
}

#[tokio::test]
async fn init_takes_the_rest_along_and_is_told_last() {
    let mut real = Real::new(require_runtime!());
    real.stack.daemon_up().await;
    let share = |spec: &mut Value| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "pid");
    };
    let task = real
        .bundle("c1", "sleep 1000 & echo $! > /left; sleep 1; exit 6", share)
        .await;
    real.create(&task, Vec::new()).await;
    task.start("").await.unwrap();
    let request = v2::ExecProcessRequest {
        id: task.id.clone(),
        exec_id: "e1".into(),
        spec: process(&["/bin/sleep", "1000"], false),
        ..v2::ExecProcessRequest::default()
    };
    task.client.exec(&call(), LIMIT, &request).await.unwrap();
    task.start("e1").await.unwrap();
    assert_eq!(task.wait("").await.unwrap(), 6);
    assert_eq!(task.wait("e1").await.unwrap(), 137);
    let left: u32 = std::fs::read_to_string(task.bundle.join("rootfs/left"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    eventually("end of the rest", || {
        (!is_alive(left)).then_some(()).ok_or("alive".into())
    })
    .await;
    task.delete("").await.unwrap();
    let told = real.stack.told.wait_for(7).await;
    assert_eq!(told[4..6], ["/tasks/exit e1=137", "/tasks/exit c1=6"]);
}

#[tokio::test]
async fn many_layers_are_mounted_and_taken_away() {
    let real = Real::new(require_runtime!());
    let task = real.bundle("c1", "cat /layer-0 /layer-39", |_| ()).await;
    let base = task.bundle.join("layers");
    let mut lower = Vec::new();
    for n in 0..40 {
        let layer = base.join(format!("{n:->110}")); // far more than a page in all
        std::fs::create_dir_all(&layer).unwrap();
        std::fs::write(layer.join(format!("layer-{n}")), format!("{n}\n")).unwrap();
        lower.push(layer.to_string_lossy().into_owned());
    }
    let root = base.join("root");
    make_root(&root);
    lower.push(root.to_string_lossy().into_owned());
    let mut options = vec![format!("lowerdir={}", lower.join(":"))];
    for name in ["upperdir", "workdir"] {
        let folder = base.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        options.push(format!("{name}={}", folder.display()));
    }
    let overlay = Mount {
        r#type: "overlay".into(),
        source: "overlay".into(),
        options,
        ..Mount::default()
    };
    real.create(&task, vec![overlay]).await;
    let mounted = || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.contains(&*task.bundle.join("rootfs").to_string_lossy())
    };
    assert!(mounted());
    task.start("").await.unwrap();
    assert_eq!(task.wait("").await.unwrap(), 0);
    task.delete("").await.unwrap();
    assert_eq!(real.output(&task), "0\n39\n");
    assert!(!mounted());
}

#[tokio::test]
async fn delete_cleans_up_behind_a_killed_shim() {
    let real = Real::new(require_runtime!());
    let task = real.bundle("c1", "sleep 1000", |_| ()).await;
    let source = task.bundle.join("source");
    make_root(&source);
    let bind = Mount {
        r#type: "bind".into(),
        source: source.to_string_lossy().into_owned(),
        options: vec!["rbind".into(), "rw".into()],
        ..Mount::default()
    };
    let pid = real.create(&task, vec![bind]).await;
    task.start("").await.unwrap();
    let shim = task.shim_pid().await;
    assert!(
        Command::new("kill")
            .args(["-9", &shim.to_string()])
            .status()
            .unwrap()
            .success()
    );
    let output = real.stack.run_shim("c1", &["delete"], b"");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let response = v2::DeleteResponse::decode(output.stdout.as_slice()).unwrap();
    assert_eq!((response.pid, response.exit_status), (pid, 137));
    assert!(!is_alive(pid));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*task.bundle.to_string_lossy()));
    assert!(source.join("bin/sh").symlink_metadata().is_ok());
    assert!(!Path::new(&format!("/sys/fs/cgroup/pids/shim-test/{}-c1", real.name)).exists());
}
