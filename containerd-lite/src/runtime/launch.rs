//! The shim's two commands: `start`, which answers where it listens, and `delete`, which cleans up after a dead one.
//!
//! ```text
//!  runtime name ─ resolve ─▶ program
//!  program -namespace NS -address SOCK -publish-binary EXE -id ID [-debug] start     cwd BUNDLE, options on standard input
//!  program -namespace NS -address SOCK -publish-binary EXE -id ID [-debug] -bundle BUNDLE delete
//! ```
//!
//! Shims disagree about standard input: older ones want the options as one `Any` and fail on anything else, the newest want
//! `BootstrapParams` and fail without. Neither says which beforehand, so the old form is tried first and the other one if
//! that fails; what worked is remembered per program file. Async; every command has a deadline.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use prost_types::Any;
use proto::containerd::runtime::bootstrap::v1::{BootstrapParams, Extension, LogLevel};
use proto::containerd::task::v2::DeleteResponse;
use proto::prost::Message as _;

use super::answer::{Answer, AnswerError};
use super::bundle::{Bundle, BundleError};
use super::spawn::{self, Invocation, SpawnError};
use crate::fault;

/// A shim that takes longer to start is given up.
const START_LIMIT: Duration = Duration::from_secs(60);
/// A cleanup that takes longer is given up.
const DELETE_LIMIT: Duration = Duration::from_secs(30);

/// Why a shim could not be started or cleaned up after.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// The runtime's name names no program.
    #[error("runtime {0:?} is neither an absolute path nor a name with two parts")]
    Name(String),
    /// The program is not installed.
    #[error("runtime {runtime:?} binary not installed {binary:?}: file does not exist")]
    NotInstalled {
        /// What was asked for.
        runtime: String,
        /// What was searched for.
        binary: String,
    },
    /// It could not be run.
    #[error("shim")]
    Spawn(#[from] SpawnError),
    /// It said no.
    #[error("shim {} {action}: {status}: {output}", program.display())]
    Failed {
        /// The program.
        program: PathBuf,
        /// `start` or `delete`.
        action: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it printed.
        output: String,
    },
    /// Its answer is of no use.
    #[error("start shim {}", .0.display())]
    Answer(PathBuf, #[source] AnswerError),
    /// What it left about the dead task is malformed.
    #[error("decode what {} told of the deleted task", .0.display())]
    Deleted(PathBuf, #[source] proto::prost::DecodeError),
    /// The bundle could not be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// What a shim is told about us.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// The gRPC socket.
    pub(crate) address: PathBuf,
    /// The ttrpc socket for events.
    pub(crate) ttrpc_address: PathBuf,
    /// Our own program, as it was found at the start.
    pub(crate) program: PathBuf,
    /// Whether shims shall log in full.
    pub(crate) debug: bool,
}

/// How a shim wants its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// The options as one `Any`, nothing if there are none.
    Any,
    /// `BootstrapParams`.
    Bootstrap,
}

/// One version of one program file.
type Program = (PathBuf, i64, i64, u64);

/// Starts shims.
#[derive(Debug)]
pub(crate) struct Launcher {
    identity: Identity,
    dialects: Mutex<HashMap<Program, Dialect>>,
}

impl Launcher {
    /// A launcher that knows no shim yet.
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity,
            dialects: Mutex::default(),
        }
    }

    /// Finds the program of a runtime: beside our own, then on PATH.
    pub(crate) fn resolve(&self, runtime: &str) -> Result<PathBuf, LaunchError> {
        let beside = self.identity.program.parent();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = beside
            .map(Path::to_owned)
            .into_iter()
            .chain(std::env::split_paths(&path));
        resolve_in(runtime, folders)
    }

    /// Where a shim of this task would listen if it derives the path as containerd's do.
    pub(crate) fn derived_address(&self, namespace: &str, id: &str) -> Answer {
        use sha2::Digest as _;
        let name = format!("{}/{namespace}/{id}", self.identity.address.display());
        let hex = hex::encode(sha2::Sha256::digest(name.as_bytes()));
        Answer::bare(&format!("unix:///run/containerd/s/{hex}"))
    }

    /// Runs `start` in the task's bundle and records the answer there.
    pub(crate) async fn start(
        &self,
        program: &Path,
        task: (&str, &str),
        bundle: &Bundle,
        options: Option<&Any>,
        traceparent: Option<&str>,
    ) -> Result<Answer, LaunchError> {
        let key = program_key(program);
        let known = key.as_ref().and_then(|key| {
            let dialects = self.dialects.lock().expect("no panic under this lock");
            dialects.get(key).copied()
        });
        let order: &[Dialect] = match known {
            Some(Dialect::Any) => &[Dialect::Any],
            Some(Dialect::Bootstrap) => &[Dialect::Bootstrap],
            None => &[Dialect::Any, Dialect::Bootstrap],
        };
        let mut first_error = None;
        for &dialect in order {
            let input = self.start_input(dialect, task, options);
            match self
                .start_once(program, task, bundle, &input, traceparent)
                .await
            {
                Ok(answer) => {
                    if let Some(key) = key {
                        let mut dialects = self.dialects.lock().expect("no panic under this lock");
                        dialects.insert(key, dialect);
                    }
                    fault::point("create.shim-started")?;
                    bundle.record_shim(program, &answer)?;
                    fault::point("create.shim-recorded")?;
                    return Ok(answer);
                }
                // Only a refusal may be about the dialect.
                Err(error @ LaunchError::Failed { .. }) => first_error.get_or_insert(error),
                Err(error) => return Err(first_error.unwrap_or(error)),
            };
        }
        Err(first_error.expect("an order of dialects is never empty"))
    }

    async fn start_once(
        &self,
        program: &Path,
        task: (&str, &str),
        bundle: &Bundle,
        input: &[u8],
        traceparent: Option<&str>,
    ) -> Result<Answer, LaunchError> {
        let mut args = self.arguments(task);
        args.push("start".into());
        let stdin = bundle.start_input(input)?;
        let mut command = self.command(program, args, task.0, bundle.path());
        command.stdin = Some(stdin);
        command.combined = true;
        if let Some(traceparent) = traceparent {
            command
                .env
                .push((proto::trace::TRACEPARENT_ENV, traceparent.into()));
        }
        fault::point("create.shim-asked")?;
        let output = spawn::run(command, START_LIMIT).await?;
        if !output.status.success() {
            return Err(failed(program, "start", &output));
        }
        Answer::parse(&output.bytes).map_err(|e| LaunchError::Answer(program.to_owned(), e))
    }

    /// Runs `delete`: the shim's program ends what is left of the task and tells how its init ended.
    pub(crate) async fn delete(
        &self,
        program: &Path,
        task: (&str, &str),
        bundle: &Bundle,
    ) -> Result<DeleteResponse, LaunchError> {
        let mut args = self.arguments(task);
        args.extend(["-bundle".into(), bundle.path().into(), "delete".into()]);
        let command = self.command(program, args, task.0, bundle.path());
        let output = spawn::run(command, DELETE_LIMIT).await?;
        if !output.status.success() {
            return Err(failed(program, "delete", &output));
        }
        DeleteResponse::decode(output.bytes.as_slice())
            .map_err(|e| LaunchError::Deleted(program.to_owned(), e))
    }

    fn arguments(&self, (namespace, id): (&str, &str)) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec![
            "-namespace".into(),
            namespace.into(),
            "-address".into(),
            self.identity.address.clone().into(),
            "-publish-binary".into(),
            self.identity.program.clone().into(),
            "-id".into(),
            id.into(),
        ];
        if self.identity.debug {
            args.push("-debug".into());
        }
        args
    }

    fn command(
        &self,
        program: &Path,
        args: Vec<OsString>,
        namespace: &str,
        cwd: &Path,
    ) -> Invocation {
        let identity = &self.identity;
        Invocation {
            program: program.to_owned(),
            args,
            env: vec![
                ("GOMAXPROCS", "2".into()),
                ("TTRPC_ADDRESS", identity.ttrpc_address.clone().into()),
                ("GRPC_ADDRESS", identity.address.clone().into()),
                ("NAMESPACE", namespace.into()),
                ("MAX_SHIM_VERSION", "2".into()),
            ],
            cwd: cwd.to_owned(),
            stdin: None,
            combined: false,
        }
    }

    fn start_input(
        &self,
        dialect: Dialect,
        (namespace, id): (&str, &str),
        options: Option<&Any>,
    ) -> Vec<u8> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        match dialect {
            Dialect::Any => options.map(Any::encode_to_vec).unwrap_or_default(),
            Dialect::Bootstrap => BootstrapParams {
                instance_id: id.to_owned(),
                namespace: namespace.to_owned(),
                log_level: if self.identity.debug {
                    LogLevel::Debug.into()
                } else {
                    LogLevel::Info.into()
                },
                containerd_version: crate::version::VERSION.to_owned(),
                containerd_ttrpc_address: text(&self.identity.ttrpc_address),
                containerd_grpc_address: text(&self.identity.address),
                containerd_binary: text(&self.identity.program),
                extensions: options
                    .map(|value| Extension {
                        value: Some(value.clone()),
                    })
                    .into_iter()
                    .collect(),
                socket_dir: None,
            }
            .encode_to_vec(),
        }
    }
}

fn failed(program: &Path, action: &'static str, output: &spawn::Output) -> LaunchError {
    LaunchError::Failed {
        program: program.to_owned(),
        action,
        status: output.status,
        output: String::from_utf8_lossy(&output.bytes).trim().to_owned(),
    }
}

/// What changes when the program file is replaced; none if it cannot be looked at.
fn program_key(program: &Path) -> Option<Program> {
    let meta = std::fs::metadata(program).ok()?;
    Some((
        program.to_owned(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.size(),
    ))
}

fn resolve_in(
    runtime: &str,
    folders: impl Iterator<Item = PathBuf>,
) -> Result<PathBuf, LaunchError> {
    let not_installed = |binary: &str| LaunchError::NotInstalled {
        runtime: runtime.to_owned(),
        binary: binary.to_owned(),
    };
    if runtime.starts_with('/') {
        let path = PathBuf::from(runtime);
        return if is_program(&path) {
            Ok(path)
        } else {
            Err(not_installed(runtime))
        };
    }
    let mut parts = runtime.rsplit('.');
    let (version, name) = match (parts.next(), parts.next()) {
        (Some(version), Some(name)) if !version.is_empty() && !name.is_empty() => (version, name),
        _ => return Err(LaunchError::Name(runtime.to_owned())),
    };
    if runtime.contains(['/', '\0']) {
        return Err(LaunchError::Name(runtime.to_owned()));
    }
    let binary = format!("containerd-shim-{name}-{version}");
    folders
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(&binary))
        .find(|path| is_program(path))
        .ok_or_else(|| not_installed(&binary))
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn launcher() -> Launcher {
        Launcher::new(Identity {
            address: "/run/c/c.sock".into(),
            ttrpc_address: "/run/c/c.sock.ttrpc".into(),
            program: "/usr/bin/containerd-lite".into(),
            debug: false,
        })
    }

    #[test]
    fn a_runtime_name_becomes_a_program() {
        let folder = tempfile::tempdir().expect("folder");
        for (name, mode) in [
            ("containerd-shim-runc-v2", 0o755),
            ("containerd-shim-lite-v2", 0o755),
            ("containerd-shim-text-v2", 0o644),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").expect("write");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("mode");
        }
        let resolve = |runtime: &str| {
            resolve_in(runtime, [folder.path().to_owned()].into_iter()).map(|path| {
                path.file_name()
                    .expect("name")
                    .to_string_lossy()
                    .into_owned()
            })
        };
        assert_eq!(
            resolve("io.containerd.runc.v2").expect("runc"),
            "containerd-shim-runc-v2"
        );
        assert_eq!(
            resolve("io.containerd.runc.lite.v2").expect("alias"),
            "containerd-shim-lite-v2"
        );
        for missing in ["io.containerd.text.v2", "a.b", "/nowhere/shim"] {
            assert!(
                matches!(resolve(missing), Err(LaunchError::NotInstalled { .. })),
                "{missing}"
            );
        }
        for bad in ["", "runc", "a..v2", "../x.v2", "a/b.v2", "x."] {
            assert!(matches!(resolve(bad), Err(LaunchError::Name(_))), "{bad}");
        }
    }

    #[test]
    fn standard_input_has_two_forms() {
        let launcher = launcher();
        let options = Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: vec![8, 1],
        };
        let task = ("ns", "a");
        assert!(launcher.start_input(Dialect::Any, task, None).is_empty());
        let any = launcher.start_input(Dialect::Any, task, Some(&options));
        assert_eq!(Any::decode(any.as_slice()), Ok(options.clone()));
        let bytes = launcher.start_input(Dialect::Bootstrap, task, Some(&options));
        let params = BootstrapParams::decode(bytes.as_slice()).expect("params");
        assert_eq!(
            (params.instance_id.as_str(), params.namespace.as_str()),
            ("a", "ns")
        );
        assert_eq!(params.extensions[0].value, Some(options));
    }

    #[test]
    fn the_derived_address_is_the_reference_shims() {
        let answer = launcher().derived_address("ns", "a");
        let path = answer.path().expect("path");
        assert_eq!(path.len(), "/run/containerd/s/".len() + 64);
    }
}
