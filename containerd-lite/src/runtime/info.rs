//! What a shim tells of its runtime: `program -info`, options on standard input, `RuntimeInfo` on standard output.

use std::io::{Seek as _, Write as _};
use std::time::Duration;

use prost_types::Any;
use proto::containerd::types::RuntimeInfo;
use proto::prost::Message as _;

use super::spawn::{self, Invocation};
use super::{Result, Runtime, RuntimeError};

/// A shim that takes longer is given up.
const LIMIT: Duration = Duration::from_secs(10);

impl Runtime {
    /// Asks the shim of a runtime name (or path). Shims of the first generation do not know the question.
    pub(crate) async fn info(&self, runtime: &str, options: Option<&Any>) -> Result<RuntimeInfo> {
        let program = self.launcher.resolve(runtime)?;
        let failed = |source| RuntimeError::Info {
            program: program.clone(),
            source,
        };
        let input = options.map(Any::encode_to_vec).unwrap_or_default();
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let stdin = rustix::fs::memfd_create("options", flags)
            .map_err(std::io::Error::from)
            .map(std::fs::File::from)
            .and_then(|mut file| {
                file.write_all(&input)?;
                file.rewind()?;
                Ok(file)
            })
            .map_err(failed)?;
        let command = Invocation {
            program: program.clone(),
            args: vec!["-info".into()],
            env: Vec::new(),
            cwd: "/".into(),
            stdin: Some(stdin),
            combined: false,
        };
        let output = spawn::run(command, LIMIT)
            .await
            .map_err(super::launch::LaunchError::from)?;
        if !output.status.success() {
            let text = format!("{}", output.status);
            return Err(failed(std::io::Error::other(text)));
        }
        RuntimeInfo::decode(output.bytes.as_slice()).map_err(|e| failed(std::io::Error::other(e)))
    }
}
