//! Start: from a record to a running task, and back when a step fails.
//!
//! In this order, each for its reason: the mounts of the snapshot (the user is looked up in them), the endpoint (its files
//! are mounted), the user's mounts, the spec; then containerd's record, the task, the attachers that wait (before the first
//! byte of output), and last the start of the process.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use proto::containerd::services::containers::v1 as containers;
use proto::containerd::services::snapshots::v1::MountsRequest;
use proto::containerd::services::tasks::v1 as tasks;
use proto::containerd::types::Mount;
use proto::error::ErrorKind;

use super::actor::Actor;
use super::attach::Files;
use super::lost::{self, Made};
use super::record::Record;
use super::rootfs::Accounts;
use super::state::{Running, State};
use crate::App;
use crate::backend::{QUICK, within};
use crate::clock;
use crate::error::{During, Error, Result};
use crate::spec::{self, Join, Shm};

/// A start that failed, with the exit code that stands for it.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) code: i64,
    pub(super) error: Error,
    /// It may run all the same: containerd went away and did not come back to tell.
    pub(super) unknown: bool,
}

/// Starts the container's task.
pub(super) async fn launch(actor: &mut Actor) -> std::result::Result<Running, Failed> {
    let began = std::time::Instant::now();
    actor.asked = None;
    match Box::pin(attempt(actor)).await {
        Ok(running) => {
            let counters = &actor.app.counters;
            counters.took(crate::metrics::Action::Start, began.elapsed());
            Ok(running)
        }
        Err(lost::Failure::Refused(error)) => {
            // Whatever is killed now has not run.
            Files::of(&actor.app.config, &actor.record.id).forget_asked();
            // The task, if it was made; the endpoint; the files.
            super::stop::clear(actor).await;
            Err(classify(error))
        }
        Err(lost::Failure::Unknown(error)) => Err(Failed {
            code: 128,
            error,
            unknown: true,
        }),
    }
}

async fn attempt(actor: &mut Actor) -> std::result::Result<Running, lost::Failure> {
    actor.complete_networks()?;
    let app = actor.app.clone();
    let id = actor.record.id.clone();
    let files = Files::of(&app.config, &id);
    super::foreign::end(&files).await;
    files.prepare(actor.record.config.open_stdin)?;
    let rootfs = snapshot_mounts(&app, &actor.record).await?;
    let spec = Box::pin(describe(&app, &actor.record, &rootfs)).await?;
    let request = tasks::CreateTaskRequest {
        container_id: id.clone(),
        rootfs,
        stdin: stdin(&actor.record, &files),
        stdout: stdout(&app, &actor.record, &files),
        stderr: String::new(),
        terminal: actor.record.config.tty,
        ..Default::default()
    };
    let made = Box::pin(create_task(&app, &actor.record, &files, spec, request))
        .await
        .map_err(|e| e.during("failed to create task for container"))?;
    // They must be connected before the process can write.
    for (input, reply) in std::mem::take(&mut actor.waiting) {
        if !reply.is_closed() {
            drop(reply.send(files.connect(input).await));
        }
    }
    files.note_asked()?;
    let pid = match made {
        Made::Runs { pid } => pid,
        Made::Created => lost::start(&app, &id, None)
            .await
            .map_err(|e| e.during("failed to start task for container"))?,
    };
    Ok(Running {
        pid,
        started_at: clock::now(),
        paused: false,
        oom: false,
        boot_id: boot_id(),
    })
}

/// Records the container in containerd and makes its task: with our shim, or where there is none with containerd's own.
async fn create_task(
    app: &App,
    record: &Record,
    files: &Files,
    spec: Vec<u8>,
    mut request: tasks::CreateTaskRequest,
) -> std::result::Result<Made, lost::Failure> {
    let live = app.live();
    let ours = live.runtimes.get(&record.runtime);
    if ours.is_none_or(super::foreign::is_ours) {
        record_in_containerd(app, record, spec.clone(), false).await?;
        match lost::create(app, request.clone()).await {
            Err(lost::Failure::Refused(e)) if super::foreign::is_missing(&e) => {}
            outcome => return outcome,
        }
    }
    record_in_containerd(app, record, spec, true).await?;
    let streams = super::foreign::begin(files, &request.stdout, request.terminal).await?;
    request.stdout = streams.stdout;
    request.stderr = streams.stderr;
    lost::create(app, request).await
}

/// Docker's exit code and status for a failed start, by the runtime's text.
fn classify(error: Error) -> Failed {
    let text = error.message();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    let runtime = has(&["failed to create task", "failed to start task"]);
    let missing = has(&["executable file not found", "no such file or directory"]);
    let refused = has(&["permission denied", "is a directory"]);
    let misfit = has(&["mount"]) && has(&["not a directory"]);
    let failed = |code, error| Failed {
        code,
        error,
        unknown: false,
    };
    match () {
        () if runtime && has(&["exec"]) && missing => {
            failed(127, error.with_kind(ErrorKind::InvalidArgument))
        }
        () if runtime && refused => failed(126, error.with_kind(ErrorKind::InvalidArgument)),
        () if runtime && misfit => {
            let advice = "Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type";
            failed(127, Error::invalid(format!("{text}: {advice}")))
        }
        () if runtime => failed(128, error.with_kind(ErrorKind::Internal)),
        () => failed(128, error),
    }
}

/// The mounts of the container's snapshot.
pub(crate) async fn snapshot_mounts(app: &App, record: &Record) -> Result<Vec<Mount>> {
    let request = MountsRequest {
        snapshotter: record.snapshotter.clone(),
        key: record.id.clone(),
    };
    let reply = within(QUICK, app.backend.snapshots().mounts(request))
        .await
        .during(|| format!("get the mounts of container {}", record.id))?;
    Ok(reply.mounts)
}

fn stdin(record: &Record, files: &Files) -> String {
    match record.config.open_stdin {
        true => files.stdin.to_string_lossy().into_owned(),
        false => String::new(),
    }
}

/// Where the shim puts the output: the log, if there is one, and whoever attaches.
fn stdout(app: &App, record: &Record, files: &Files) -> String {
    let socket = files.socket.to_string_lossy();
    let log = &record.host.log_config;
    if !crate::logs::is_kept(&log.kind) {
        return format!("attach://{socket}");
    }
    let path = crate::logs::path(&app.config, &record.id);
    let mut uri = format!(
        "json-file://{}?attach={}",
        crate::logs::escape(&path.to_string_lossy()),
        crate::logs::escape(&socket)
    );
    for (key, value) in crate::logs::limits(&log.kind, &log.config) {
        uri.push_str(&format!("&{key}={value}"));
    }
    let attributes = crate::logs::attributes(record);
    if !attributes.is_empty()
        && let Ok(json) = serde_json::to_string(&attributes)
    {
        uri.push_str(&format!("&attrs={}", crate::logs::escape(&json)));
    }
    uri
}

/// Builds the spec, with everything that it needs of the host.
async fn describe(app: &App, record: &Record, rootfs: &[Mount]) -> Result<Vec<u8>> {
    let host = &record.host;
    let dir = app.config.container_dir(&record.id);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .during(|| format!("make {}", dir.display()))?;
    let mounts = rootfs.to_vec();
    let accounts = tokio::task::spawn_blocking(move || Accounts::of_snapshot(&mounts))
        .await
        .map_err(|e| Error::internal(format!("read the accounts of the image: {e}")))??;
    let added = host.group_add.as_deref().unwrap_or_default();
    let user = accounts.resolve(&record.config.user, added)?;
    let (network, mut mounts) = Box::pin(super::plumbing::endpoint(app, record)).await?;
    mounts.extend(super::plumbing::mounts(app, record).await?);
    let (path, args, init) = super::init::wrap(&app.config, record)?;
    mounts.extend(init);
    let ipc = ipc(app, record)?;
    let shm = shm(app, record)?;
    let mut config = record.config.clone();
    let links = crate::network::links::link_variables(app, record)?;
    config.env.get_or_insert_default().extend(links);
    let security = spec::security_options(&app.config, host);
    let held = spec::capabilities::held();
    let hostname = rustix::system::uname();
    let requests = host.resources.device_requests.as_deref();
    let injection = spec::cdi::find(requests.unwrap_or_default(), &app.config.cdi_dirs)?;
    let mut spec = spec::build(spec::Input {
        id: &record.id,
        path: &path,
        args: &args,
        config: &config,
        host,
        security: &security,
        user,
        mounts,
        network,
        ipc,
        pid: shared(app, &host.pid_mode, "pid")?,
        uts: match host.uts_mode.as_str() {
            "host" => Join::Host,
            _ => Join::New,
        },
        cgroup: match host.cgroupns_mode.as_str() {
            "host" => Join::Host,
            "private" => Join::New,
            _ if cgroup_v2() => Join::New,
            _ => Join::Host,
        },
        shm,
        held: &held,
        machine: spec::seccomp::Machine::this(),
        cgroup_parent: &app.config.cgroup_parent,
        default_ulimits: &app.config.default_ulimits,
        hostname: &hostname.nodename().to_string_lossy(),
        rootless: app.config.rootless.is_some(),
        last_group: match &app.config.rootless {
            Some(_) => crate::rootless::inside::last_group(),
            None => u32::MAX,
        },
    })?;
    injection.apply(&mut spec)?;
    serde_json::to_vec(&spec).map_err(|e| Error::internal(format!("encode the spec: {e}")))
}

/// Whether the unified hierarchy is the one in use.
pub(crate) fn cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A namespace by Docker's word: the host's, a new one, or that of another container.
fn shared(app: &App, mode: &str, kind: &str) -> Result<Join> {
    match mode.split_once(':') {
        Some(("container", other)) => {
            let pid = pid_of(app, other, kind)?;
            Ok(Join::Path(PathBuf::from(format!("/proc/{pid}/ns/{kind}"))))
        }
        _ if mode == "host" => Ok(Join::Host),
        _ => Ok(Join::New),
    }
}

/// The pid of a container whose namespace another one joins.
pub(super) fn pid_of(app: &App, reference: &str, kind: &str) -> Result<u32> {
    let handle = app.containers.find(reference)?;
    match &handle.record().state {
        State::Running(running) => Ok(running.pid),
        _ => Err(Error::conflict(format!(
            "cannot join {} of a non running container: {reference}",
            kind.to_ascii_uppercase()
        ))),
    }
}

/// The ipc mode with the daemon's default put in.
fn ipc_mode<'a>(app: &'a App, record: &'a Record) -> &'a str {
    match record.host.ipc_mode.as_str() {
        "" => &app.config.ipc_mode,
        given => given,
    }
}

fn ipc(app: &App, record: &Record) -> Result<Join> {
    let mode = ipc_mode(app, record);
    if let Some(("container", other)) = mode.split_once(':') {
        let donor = app.containers.find(other)?.record();
        if !matches!(ipc_mode(app, &donor), "shareable" | "host") {
            return Err(Error::conflict(format!(
                "can't join IPC of container {other}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
            )));
        }
    }
    shared(app, mode, "ipc")
}

/// Where a shareable container's /dev/shm is mounted on the host.
fn shm_dir(app: &App, id: &str) -> PathBuf {
    app.config.exec_root.join("shm").join(id)
}

fn shm(app: &App, record: &Record) -> Result<Shm> {
    let size = match record.host.shm_size {
        0 => app.config.shm_size,
        given => given,
    };
    let mode = ipc_mode(app, record);
    match mode.split_once(':') {
        Some(("container", other)) => {
            let donor = app.containers.find(other)?;
            let dir = shm_dir(app, donor.id());
            Ok(Shm::Bind(dir.to_string_lossy().into_owned()))
        }
        _ => match mode {
            "none" => Ok(Shm::None),
            "host" => Ok(Shm::Bind("/dev/shm".into())),
            "shareable" => {
                let dir = shm_dir(app, &record.id);
                mount_shm(&dir, size).during(|| format!("mount {}", dir.display()))?;
                Ok(Shm::Bind(dir.to_string_lossy().into_owned()))
            }
            _ => Ok(Shm::Own(size)),
        },
    }
}

fn mount_shm(dir: &Path, size: i64) -> Result<()> {
    use rustix::mount::{MountFlags, mount};
    crate::make_private(dir)?;
    unmount_shm(dir);
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let data = std::ffi::CString::new(format!("mode=1777,size={size}"))
        .map_err(|e| Error::internal(e.to_string()))?;
    Ok(mount("shm", dir, "tmpfs", flags, data.as_c_str())?)
}

fn unmount_shm(dir: &Path) {
    // Not mounted is what is wanted.
    let _ = rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH);
}

/// Writes containerd's record of the container: made at the first start, brought up to date at later ones.
async fn record_in_containerd(
    app: &App,
    record: &Record,
    spec: Vec<u8>,
    foreign: bool,
) -> Result<()> {
    let live = app.live();
    let runtime = live.runtimes.get(&record.runtime).ok_or_else(|| {
        Error::invalid(format!(
            "unknown or invalid runtime name: {}",
            record.runtime
        ))
    })?;
    let container = containers::Container {
        id: record.id.clone(),
        image: record.config.image.clone(),
        runtime: Some(super::foreign::runtime(app, runtime, foreign)),
        spec: Some(proto::any::json(proto::any::SPEC, spec)),
        snapshotter: record.snapshotter.clone(),
        snapshot_key: record.id.clone(),
        ..Default::default()
    };
    let what = || format!("record container {} in containerd", record.id);
    let mut client = app.backend.containers();
    let fresh = matches!(record.state, State::Created { failure: None });
    if !fresh {
        let request = containers::UpdateContainerRequest {
            container: Some(container.clone()),
            update_mask: Some(proto::prost_types::FieldMask {
                paths: vec!["spec".into(), "runtime".into()],
            }),
        };
        match within(QUICK, client.update(request)).await {
            Ok(_) => return Ok(()),
            Err(e) if e.is_not_found() => {}
            // The real one does not let the runtime be changed; a fresh record does.
            Err(e) if e.kind() == ErrorKind::InvalidArgument => {
                delete_record(app, &record.id).await.during(what)?;
            }
            Err(e) => return Err(e.during(what())),
        }
    }
    let request = containers::CreateContainerRequest {
        container: Some(container.clone()),
    };
    match within(QUICK, client.create(request.clone())).await {
        Ok(_) => Ok(()),
        // A former daemon died between this and the next step.
        Err(e) if e.is_exists() => {
            delete_record(app, &record.id).await.during(what)?;
            within(QUICK, client.create(request)).await.during(what)?;
            Ok(())
        }
        Err(e) => Err(e.during(what())),
    }
}

async fn delete_record(app: &App, id: &str) -> Result<()> {
    let request = containers::DeleteContainerRequest { id: id.to_owned() };
    match within(QUICK, app.backend.containers().delete(request)).await {
        Ok(_) => Ok(()),
        Err(e) if e.is_not_found() => Ok(()),
        Err(e) => Err(e),
    }
}

/// Takes back what a start prepared on the host.
pub(super) async fn unprepare(actor: &mut Actor) {
    super::plumbing::release_endpoint(&actor.app, &actor.record).await;
    let dir = shm_dir(&actor.app, &actor.record.id);
    if dir.exists() {
        unmount_shm(&dir);
        if let Err(e) = std::fs::remove_dir(&dir) {
            tracing::warn!("remove {}: {e}", dir.display());
        }
    }
}

/// Tells the network of a container that kept running while the daemon was away.
pub(super) async fn restore(actor: &mut Actor) -> Result<()> {
    super::plumbing::restore_endpoint(&actor.app, &actor.record).await
}

/// Names this boot.
pub(crate) fn boot_id() -> String {
    static ID: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    ID.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned()
    })
    .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_start_has_dockers_code() {
        let prefix = "failed to create task for container: failed to create shim task: OCI runtime create failed: unable to start container process: exec: \"x\": ";
        for (text, code, kind) in [
            (
                "executable file not found in $PATH",
                127,
                ErrorKind::InvalidArgument,
            ),
            ("no such file or directory", 127, ErrorKind::InvalidArgument),
            ("permission denied", 126, ErrorKind::InvalidArgument),
            ("something else", 128, ErrorKind::Internal),
        ] {
            let failed = classify(Error::internal(format!("{prefix}{text}")));
            assert_eq!((failed.code, failed.error.kind()), (code, kind), "{text}");
        }
        let failed = classify(Error::unavailable("no containerd"));
        assert_eq!(failed.error.kind(), ErrorKind::Unavailable);
    }
}
