//! A program that may take our place: opened once, looked at, and made to prove itself as a child. Async.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::UpgradeError;
use super::handover::{self, VARIABLE};

/// How long the program may take to prove itself.
const PROOF: Duration = Duration::from_secs(10);
/// Most of what it says that is passed on.
const WORDS: usize = 300;

/// A program that has proved itself.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// The file, which is run by this descriptor and no other way.
    pub(crate) program: File,
    /// What it calls itself.
    pub(crate) version: String,
}

/// What a program says when it could take over.
pub(super) fn ready_line() -> String {
    format!(
        "{} {} ready",
        proto::layout::program::CONTAINERD,
        crate::version::VERSION
    )
}

fn version_in(line: &str) -> Option<&str> {
    let rest = line
        .trim()
        .strip_prefix(proto::layout::program::CONTAINERD)?;
    rest.strip_suffix(" ready").map(str::trim)
}

impl Candidate {
    /// Opens the program at `path` and has it read our state.
    pub(super) async fn check(path: &Path) -> Result<Self, UpgradeError> {
        if !path.is_absolute() {
            return Err(UpgradeError::Relative(path.to_owned()));
        }
        let program = open(path)?;
        let version = prove(&program, path).await?;
        Ok(Self { program, version })
    }
}

/// Opens it if nobody but our user and root can have written it.
fn open(path: &Path) -> Result<File, UpgradeError> {
    let failed = |attempt| {
        move |source| UpgradeError::Open {
            attempt,
            path: path.to_owned(),
            source,
        }
    };
    let program = std::fs::OpenOptions::new()
        .read(true)
        // A fifo must not hold us up.
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(failed("open"))?;
    let meta = program.metadata().map_err(failed("look at"))?;
    let own = nix::unistd::geteuid().as_raw();
    let problem = if !meta.is_file() {
        "it is no file".to_owned()
    } else if meta.uid() != own && meta.uid() != 0 {
        format!("it belongs to user {}", meta.uid())
    } else if meta.mode() & 0o022 != 0 {
        format!("its mode {:o} lets others write it", meta.mode() & 0o7777)
    } else if meta.mode() & 0o111 == 0 {
        "it is not executable".to_owned()
    } else {
        return Ok(program);
    };
    Err(UpgradeError::Untrusted {
        path: path.to_owned(),
        problem,
    })
}

/// Runs it on our arguments with the word that makes it read the state and say so.
async fn prove(program: &File, path: &Path) -> Result<String, UpgradeError> {
    let unfit = |problem: String| UpgradeError::Unfit {
        path: path.to_owned(),
        problem,
    };
    // Through us, so that a script's interpreter can open it as well.
    let file = PathBuf::from(format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        program.as_raw_fd()
    ));
    let mut command = tokio::process::Command::new(file);
    command
        .args(std::env::args_os().skip(1))
        .args(["check-state", "--handover"])
        .arg(handover::VERSION.to_string())
        .env_remove(VARIABLE)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = match tokio::time::timeout(PROOF, command.output()).await {
        Err(_) => return Err(unfit(format!("it said nothing within {PROOF:?}"))),
        Ok(Err(error)) => return Err(unfit(format!("run it: {error}"))),
        Ok(Ok(output)) => output,
    };
    let said = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.trim().chars().take(WORDS).collect::<String>()
    };
    if !output.status.success() {
        let words = said(&output.stderr);
        return Err(unfit(format!("{}: {words}", output.status)));
    }
    let words = said(&output.stdout);
    version_in(&words)
        .map(str::to_owned)
        .ok_or_else(|| unfit(format!("it says {words:?}, not that it is ready")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_program_calls_itself_by_its_version() {
        assert_eq!(version_in(&ready_line()), Some(crate::version::VERSION));
        assert_eq!(version_in("containerd-lite 9.1 ready\n"), Some("9.1"));
        assert_eq!(version_in("dockerd-lite 9.1 ready"), None);
        assert_eq!(version_in("containerd-lite 9.1"), None);
    }

    #[tokio::test]
    async fn what_others_can_write_or_what_fails_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("program");
        let script = |text: &str, mode| {
            std::fs::write(&path, text).expect("write");
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode).expect("mode");
        };
        for (text, mode, want) in [
            ("#!/bin/sh\n", 0o775, "lets others write it"),
            ("#!/bin/sh\n", 0o644, "not executable"),
            (
                "#!/bin/sh\necho no >&2; exit 3\n",
                0o755,
                "exit status: 3: no",
            ),
            ("#!/bin/sh\necho hello\n", 0o755, "not that it is ready"),
            ("neither\0", 0o755, "run it"),
        ] {
            script(text, mode);
            let error = Candidate::check(&path).await.expect_err(text).to_string();
            assert!(error.contains(want), "{error}");
        }
        script("#!/bin/sh\necho containerd-lite 7 ready\n", 0o755);
        let candidate = Candidate::check(&path).await.expect("fit");
        assert_eq!(candidate.version, "7");
        assert!(Candidate::check(Path::new("program")).await.is_err());
    }
}
