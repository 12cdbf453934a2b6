//! The mode `-info`: what containerd 1.7 and newer ask a runtime about itself. Async for the runtime call.

use std::collections::HashMap;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use prost::Message as _;
use proto::containerd::types::{RuntimeInfo, RuntimeVersion};

use crate::BoxError;
use crate::options::RuntimeOptions;
use crate::reaper::Reaper;
use crate::runc::{RuntimeError, SHORT, memory_file};
use crate::sys::Program;

/// Type URL of the runtime's features in JSON.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Runs the mode.
pub(crate) fn run() -> Result<(), BoxError> {
    let mut input = Vec::new();
    std::io::stdin().take(4 << 20).read_to_end(&mut input)?;
    let given = match input.as_slice() {
        [] => None,
        bytes => Some(
            prost_types::Any::decode(bytes).map_err(|e| format!("decode standard input: {e}"))?,
        ),
    };
    let options = RuntimeOptions::from_any(given.as_ref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let features = runtime.block_on(features(&options))?;
    let info = RuntimeInfo {
        name: proto::layout::RUNTIME_TYPE.to_owned(),
        version: Some(RuntimeVersion {
            version: crate::VERSION.to_owned(),
            revision: crate::COMMIT.to_owned(),
        }),
        options: given,
        features: Some(proto::any::json(FEATURES, features)),
        annotations: HashMap::new(),
    };
    std::io::stdout().write_all(&info.encode_to_vec())?;
    Ok(())
}

/// What the runtime says of its features.
async fn features(options: &RuntimeOptions) -> Result<Vec<u8>, BoxError> {
    let reaper = Reaper::start()?;
    let binary = options.binary();
    let mut output = memory_file()?;
    let pid = Program {
        path: binary.clone().into(),
        args: vec!["features".into()],
        stdio: [None, Some(output.try_clone()?.into()), None],
        die_with_parent: true,
        ..Program::default()
    }
    .spawn()
    .map_err(|source| RuntimeError::Spawn { binary, source })?;
    let exit = tokio::time::timeout(SHORT, reaper.claim(pid)).await??;
    if exit.status != 0 {
        return Err(format!("runtime features exited with code {}", exit.status).into());
    }
    let mut json = Vec::new();
    output.seek(SeekFrom::Start(0))?;
    output.read_to_end(&mut json)?;
    serde_json::from_slice::<serde::de::IgnoredAny>(&json)
        .map_err(|e| format!("parse runtime features: {e}"))?;
    Ok(json)
}
