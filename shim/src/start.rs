//! The mode `start`: bind the socket of the container's group, run this program again to serve it, print the address.
//!
//! What a daemon needs to find the shim again (`BUNDLE/address`) is on disk before the address is printed. On success
//! nothing else may be printed, as the caller reads both outputs as one. Sync.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use prost::Message as _;
use proto::containerd::runtime::bootstrap::v1::BootstrapParams;

use crate::args::Args;
use crate::cgroup::Cgroup;
use crate::options::{RuntimeOptions, state_directory};
use crate::spec::Spec;
use crate::sys::Program;
use crate::{BoxError, file, sha256};

/// Longest path of a socket.
const SOCKET_PATH: usize = 106;
/// Most that is read from standard input.
const INPUT: u64 = 4 << 20;

/// Runs the mode.
pub(crate) fn run(args: &Args) -> Result<(), BoxError> {
    let bundle =
        std::env::current_dir().map_err(|e| format!("find the bundle (working directory): {e}"))?;
    let mut input = Vec::new();
    std::io::stdin().take(INPUT).read_to_end(&mut input)?;
    let input = Input::parse(&input, args)?;
    let group = Spec::load_optional(&bundle)?
        .group()
        .unwrap_or_else(|| args.id.clone());
    let socket = socket_path(args, &group, input.socket_dir.as_deref());
    let address = format!("unix://{}", socket.display());
    // First of all: a socket that a killed `start` leaves must be found by who cleans up.
    file::replace(Path::new(proto::layout::ADDRESS), address.as_bytes())?;
    let listener = match bind(&socket) {
        Ok(listener) => Some(listener),
        Err(BindError::Served) => None, // the group has its shim already
        Err(error) => return Err(error.into()),
    };
    if let Some(listener) = listener
        && let Err(error) = launch(args, listener, &input)
    {
        file::remove(&socket);
        return Err(error);
    }
    std::io::stdout().write_all(address.as_bytes())?;
    Ok(())
}

/// What came on standard input, in one of its three dialects.
#[derive(Debug, Default, PartialEq, Eq)]
struct Input {
    options: RuntimeOptions,
    socket_dir: Option<PathBuf>,
    events_address: Option<String>,
}

impl Input {
    /// Nothing, an `Any` of options, or bootstrap parameters. The latter two each parse as the other; what tells them apart
    /// is that bootstrap parameters begin with our id and namespace.
    fn parse(bytes: &[u8], args: &Args) -> Result<Self, BoxError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        if let Ok(params) = BootstrapParams::decode(bytes)
            && params.instance_id == args.id
            && params.namespace == args.namespace
        {
            // An extension of a kind that we do not know is somebody else's.
            let options = params
                .extensions
                .iter()
                .filter_map(|extension| extension.value.as_ref())
                .find_map(|any| RuntimeOptions::from_any(Some(any)).ok());
            return Ok(Self {
                options: options.unwrap_or_default(),
                socket_dir: params
                    .socket_dir
                    .filter(|dir| dir.starts_with('/'))
                    .map(Into::into),
                events_address: Some(params.containerd_ttrpc_address).filter(|a| !a.is_empty()),
            });
        }
        let any =
            prost_types::Any::decode(bytes).map_err(|e| format!("decode standard input: {e}"))?;
        // Options of another runtime's kind fail the create, which carries them too.
        let options = RuntimeOptions::from_any(Some(&any)).unwrap_or_default();
        Ok(Self {
            options,
            ..Self::default()
        })
    }
}

/// Beside the daemon's socket if the path is short enough, else where containerd's shims have theirs.
fn socket_path(args: &Args, group: &str, folder: Option<&Path>) -> PathBuf {
    let name = sha256::hex(format!("{}/{}/{group}", args.address, args.namespace).as_bytes());
    if let Some(folder) = folder {
        return folder.join(name);
    }
    let beside = state_directory(&args.address).join("s").join(&name);
    if beside.as_os_str().len() <= SOCKET_PATH {
        return beside;
    }
    Path::new("/run/containerd/s").join(name)
}

/// The socket cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("a shim serves the socket already")]
    Served,
    #[error("listen at {}", path.display())]
    Failed {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// Listens at `path`, mode 0600 in a folder of mode 0700. A socket that nobody serves is replaced.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |source| BindError::Failed {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
    }
    // One thread: nobody else makes a file under this mask.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let result = bind_or_replace(path);
    rustix::process::umask(before);
    let listener = match result {
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => return Err(BindError::Served),
        other => other.map_err(failed)?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

fn bind_or_replace(path: &Path) -> std::io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Err(e);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }
}

/// Runs this program again as the server.
fn launch(args: &Args, listener: UnixListener, input: &Input) -> Result<(), BoxError> {
    let program = std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
    let mut words = vec![
        "-namespace".to_owned(),
        args.namespace.clone(),
        "-id".to_owned(),
        args.id.clone(),
        "-address".to_owned(),
        args.address.clone(),
    ];
    if args.debug {
        words.push("-debug".to_owned());
    }
    let events = input
        .events_address
        .iter()
        .map(|address| ("TTRPC_ADDRESS".into(), address.into()));
    let pid = Program {
        path: program.into(),
        args: words.into_iter().map(Into::into).collect(),
        env: events.collect(),
        descriptors: vec![(OwnedFd::from(listener), 3)],
        own_group: true,
        ..Program::default()
    }
    .spawn()
    .map_err(|e| format!("run the serving shim: {e}"))?;
    let adopted = join_cgroup(&input.options.shim_cgroup, pid).and_then(|()| adjust_oom_score(pid));
    if adopted.is_err() {
        // A shim outside of its limits is not what was asked for; it has served nobody yet.
        let _ = crate::sys::signal(pid, 9);
    }
    adopted
}

/// Puts the shim into the control group that the options name.
fn join_cgroup(name: &str, pid: u32) -> Result<(), BoxError> {
    if name.is_empty() {
        return Ok(());
    }
    let own = Cgroup::of(std::process::id());
    let relative = Path::new(name.trim_start_matches('/'));
    let normal = |c: std::path::Component<'_>| matches!(c, std::path::Component::Normal(_));
    if !relative.components().all(normal) {
        return Err(format!("shim cgroup {name:?} leaves the hierarchy").into());
    }
    let mount = Path::new("/sys/fs/cgroup");
    let roots: Vec<PathBuf> = match own.v2 {
        Some(_) => vec![mount.to_owned()],
        None => own
            .v1
            .iter()
            .map(|(controller, _)| mount.join(controller))
            .collect(),
    };
    for root in roots {
        let folder = root.join(relative);
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join("cgroup.procs"), pid.to_string()))
            .map_err(|e| format!("put the shim into cgroup {}: {e}", folder.display()))?;
    }
    Ok(())
}

/// The shim goes one step before its daemon when memory runs out.
fn adjust_oom_score(pid: u32) -> Result<(), BoxError> {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj")?;
    let score = own.trim().parse::<i32>()?.saturating_add(1).min(1000);
    let path = format!("/proc/{pid}/oom_score_adj");
    std::fs::write(&path, score.to_string()).map_err(|e| format!("write {path}: {e}").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::containerd::runc::v1::Options;
    use proto::containerd::runtime::bootstrap::v1::Extension;

    fn args() -> Args {
        let words = [
            "-namespace",
            "n",
            "-id",
            "c1",
            "-address",
            "/run/x/c.sock",
            "start",
        ];
        Args::parse(words.iter().map(|w| (*w).to_owned())).unwrap()
    }

    #[test]
    fn tells_the_three_dialects_apart() {
        let options = proto::any::pack(&Options {
            shim_cgroup: "/shims".into(),
            ..Options::default()
        });
        assert_eq!(Input::parse(b"", &args()).unwrap(), Input::default());
        let any = Input::parse(&options.encode_to_vec(), &args()).unwrap();
        assert_eq!(any.options.shim_cgroup, "/shims");
        let params = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "n".into(),
            containerd_ttrpc_address: "/run/x/c.sock.ttrpc".into(),
            extensions: vec![Extension {
                value: Some(options),
            }],
            socket_dir: Some("/run/y".into()),
            ..BootstrapParams::default()
        };
        let input = Input::parse(&params.encode_to_vec(), &args()).unwrap();
        assert_eq!(input.options.shim_cgroup, "/shims");
        assert_eq!(input.socket_dir.as_deref(), Some(Path::new("/run/y")));
        assert_eq!(input.events_address.as_deref(), Some("/run/x/c.sock.ttrpc"));
        assert!(Input::parse(&[0xff, 0xff], &args()).is_err());
    }

    #[test]
    fn the_socket_is_named_by_address_namespace_and_group() {
        let name = sha256::hex(b"/run/x/c.sock/n/c1");
        assert_eq!(
            socket_path(&args(), "c1", None),
            Path::new("/run/x/s").join(&name)
        );
        let long = Args {
            address: format!("/{}/c.sock", "d".repeat(60)),
            ..args()
        };
        assert!(socket_path(&long, "c1", None).starts_with("/run/containerd/s"));
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_served_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s/one");
        let first = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::Served)));
        drop(first);
        let second = bind(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        drop(second);
    }
}
