//! `checkpoint`: a container's processes into files, by criu.

use std::os::unix::fs::MetadataExt as _;

use super::{CommandError, Container, Context, delete, refuse};
use crate::args::Parsed;
use crate::criu::wire::Message;
use crate::criu::{self, Criu, Directories, Kind, Next, Notice, Options, Session, field};
use crate::error::Doing as _;
use crate::rootfs::mounts;
use crate::rootfs::options::Options as MountOptions;
use crate::spec::Spec;
use crate::state::Status;

pub(super) fn run(context: &Context, parsed: &Parsed) -> Result<(), CommandError> {
    let container = context.container(parsed)?;
    let _lock = container.dir.lock()?;
    match container.status() {
        Status::Running | Status::Paused => {}
        other => {
            return refuse(format!(
                "Container cannot be checkpointed in {} state",
                other.as_str()
            ));
        }
    }
    if !rustix::process::geteuid().is_root() {
        return refuse("checkpointing a container needs root");
    }
    let criu = Criu::find(context.criu.as_deref())?;
    let kind = match parsed.switch("pre-dump") {
        true => Kind::PreDump,
        false => Kind::Dump,
    };
    if kind == Kind::PreDump {
        criu.needs(1, "MemTrack")?;
    }
    if parsed.switch("lazy-pages") {
        criu.needs(2, "LazyPages")?;
    }
    let spec = container.spec()?;
    let directories = Directories::open(parsed, "dump.log", true)?;
    let opts = options(&container, &spec, parsed, &directories, kind)?;
    if kind == Kind::Dump {
        write_descriptors(&container, &directories)?;
    }
    let status_fd = status_fd(parsed)?;
    let session = Session::start(&criu)?;
    session.request(kind, &opts)?;
    let dumped = loop {
        match session.next(kind, &directories.log) {
            Err(e) => break Err(e),
            Ok(Next::Answer(_)) => break Ok(()),
            Ok(Next::Notice(notice)) => {
                tell_ready(&notice, status_fd.as_ref());
                session.go_on()?;
            }
        }
    };
    if let Err(e) = dumped {
        criu::log_errors(&directories.log);
        return Err(e.into());
    }
    session.finish();
    if parsed.switch("leave-running") || kind == Kind::PreDump {
        return Ok(());
    }
    // Its processes are gone; what else it had goes now.
    delete::destroy(&container)
}

fn options(
    container: &Container,
    spec: &Spec,
    parsed: &Parsed,
    directories: &Directories,
    kind: Kind,
) -> Result<Message, CommandError> {
    let mut opts = Message::default();
    directories.tell(&mut opts);
    Options::common(parsed, &mut opts)?;
    Options::config_file(&spec.annotations, &mut opts);
    opts.number(field::PID, container.state.pid.into());
    opts.text(field::ROOT, &container.state.rootfs.to_string_lossy());
    for (name, number) in [
        ("leave-running", field::LEAVE_RUNNING),
        ("tcp-skip-in-flight", field::TCP_SKIP_IN_FLIGHT),
        ("link-remap", field::LINK_REMAP),
    ] {
        opts.flag(number, parsed.switch(name));
    }
    if let Some(saved) = &container.state.cgroup {
        let freezer = if saved.hierarchy == 2 { "" } else { "freezer" };
        if let Some(dir) = saved.paths.get(freezer) {
            opts.text(field::FREEZE_CGROUP, &dir.to_string_lossy());
        }
    }
    if let Some(server) = parsed.value("page-server").filter(|s| !s.is_empty()) {
        opts.message(field::PAGE_SERVER, &page_server(server)?);
    }
    if let Some(parent) = parsed.value("parent-path").filter(|p| !p.is_empty()) {
        check_parent(directories, parent)?;
        opts.text(field::PARENT, parent);
        opts.flag(field::TRACK_MEMORY, true);
    }
    for (kind, name) in [("network", "net"), ("pid", "pid")] {
        let namespaces = &spec.linux.namespaces;
        let found = namespaces
            .iter()
            .find(|n| n.kind == kind && !n.path.is_empty());
        if let Some(namespace) = found {
            let path = &namespace.path;
            let inode = std::fs::metadata(path)
                .doing(|| format!("look at {path}"))?
                .ino();
            opts.text(
                field::EXTERNAL,
                &format!("{name}[{inode}]:{}", criu::external_key(name)),
            );
        }
    }
    if kind == Kind::Dump {
        external_mounts(container, spec, &mut opts)?;
    }
    Ok(opts)
}

/// Mounts whose content is the host's: criu only notes that they were there.
fn external_mounts(
    container: &Container,
    spec: &Spec,
    opts: &mut Message,
) -> Result<(), CommandError> {
    for mount in &spec.mounts {
        let options = MountOptions::parse(&mount.options);
        if mount.kind == "cgroup" {
            for dir in cgroup_mounts(container, spec, &mount.destination)? {
                Options::external_mount(opts, &dir, &dir);
            }
        } else if mounts::bind_of(mount, &options).is_some() {
            Options::external_mount(opts, &mount.destination, &mount.destination);
        }
    }
    for device in &spec.linux.devices {
        Options::external_mount(opts, &device.path, &device.path);
    }
    Ok(())
}

/// Where hierarchies of the host are bound, as happens without a cgroup namespace.
fn cgroup_mounts(
    container: &Container,
    spec: &Spec,
    destination: &str,
) -> Result<Vec<String>, CommandError> {
    let cgroup = container.cgroup()?;
    let own = spec.linux.namespaces.iter().any(|n| n.kind == "cgroup");
    if own || cgroup.unified() {
        return Ok(Vec::new());
    }
    let all = cgroup.mounts_for_container();
    Ok(all
        .iter()
        .map(|m| format!("{destination}/{}", m.name))
        .collect())
}

/// criu follows the path of an earlier image from within the new one.
fn check_parent(directories: &Directories, parent: &str) -> Result<(), CommandError> {
    if parent.starts_with('/') {
        return refuse("--parent-path must be relative to the image directory");
    }
    let path = directories.path.join(parent);
    match path.is_dir() {
        true => Ok(()),
        false => refuse(format!(
            "invalid --parent-path: {} is no directory",
            path.display()
        )),
    }
}

fn page_server(address: &str) -> Result<Message, CommandError> {
    let parts = address.rsplit_once(':');
    let parsed = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let Some((host, port)) = parsed else {
        return refuse("Use --page-server ADDRESS:PORT to specify page server");
    };
    let mut server = Message::default();
    server
        .text(1, host.trim_matches(['[', ']']))
        .number(2, port.into());
    Ok(server)
}

/// The descriptor that hears when lazy pages can be fetched.
fn status_fd(parsed: &Parsed) -> Result<Option<std::fs::File>, CommandError> {
    let Some(number) = parsed.number::<i32>("status-fd")?.filter(|n| *n >= 0) else {
        return Ok(None);
    };
    let fd = crate::sys::exec::inherited(number)
        .doing(|| format!("invalid --status-fd argument {number}"))?;
    Ok(Some(fd.into()))
}

fn tell_ready(notice: &Notice, status_fd: Option<&std::fs::File>) {
    use std::io::Write as _;
    if let (Some(mut file), "status-ready") = (status_fd, notice.script.as_str()) {
        // Whoever does not listen any more has no use for it.
        let _ = file.write_all(&[0]);
    }
}

fn write_descriptors(container: &Container, directories: &Directories) -> Result<(), CommandError> {
    let pid = container.state.pid;
    let mut streams = Vec::new();
    for number in 0..3 {
        let link = format!("/proc/{pid}/fd/{number}");
        let target = std::fs::read_link(&link).doing(|| format!("read {link}"))?;
        streams.push(target.to_string_lossy().into_owned());
    }
    let json = serde_json::json!(streams).to_string();
    let path = directories.path.join(criu::DESCRIPTORS);
    Ok(
        crate::files::write_atomically(&path, json.as_bytes(), 0o600)
            .doing(|| format!("write {}", path.display()))?,
    )
}
