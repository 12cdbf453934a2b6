//! SIGHUP: the configuration is read again, and what can change under running containers changes.
//!
//! That is debug and log level, labels, runtimes and the default runtime, mirrors and insecure registries, and the shutdown
//! timeout. Everything else keeps its value until the next start. A file that is wrong changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::{Registry, reload};

use crate::App;
use crate::config::{Config, Flags};
use crate::error::{Error, Result};

/// Changes which messages are wanted.
pub(crate) type LogLevel = reload::Handle<Targets, Registry>;

/// Which messages a level lets through: of the libraries below only what goes wrong, unless all is wanted.
pub(crate) fn targets(level: &str) -> Targets {
    let level = match level {
        "trace" => tracing::Level::TRACE,
        "debug" => tracing::Level::DEBUG,
        "warn" => tracing::Level::WARN,
        "error" | "fatal" => tracing::Level::ERROR,
        _ => tracing::Level::INFO,
    };
    let others = match level {
        tracing::Level::TRACE => level,
        _ => level.min(tracing::Level::WARN),
    };
    Targets::new()
        .with_default(others)
        .with_target(env!("CARGO_CRATE_NAME"), level)
}

/// Reads the configuration again and puts into effect what may change.
pub(crate) fn reload(app: &App, flags: &Flags, level: &LogLevel) -> Result<()> {
    let read = Config::load(flags)?;
    app.images.reload(&read)?;
    level
        .reload(targets(&read.log_level))
        .map_err(|e| Error::internal(format!("change the log level: {e}")))?;
    let now = app.live();
    let next = Config {
        debug: read.debug,
        log_level: read.log_level,
        labels: read.labels,
        runtimes: read.runtimes,
        default_runtime: read.default_runtime,
        registry_mirrors: read.registry_mirrors,
        insecure_registries: read.insecure_registries,
        shutdown_timeout: read.shutdown_timeout,
        ..Config::clone(&now)
    };
    let list = |list: &[String]| serde_json::to_string(list).unwrap_or_default();
    let attributes = BTreeMap::from([
        ("name".to_owned(), host_name()),
        ("debug".to_owned(), next.debug.to_string()),
        ("labels".to_owned(), list(&next.labels)),
        ("default-runtime".to_owned(), next.default_runtime.clone()),
        ("registry-mirrors".to_owned(), list(&next.registry_mirrors)),
        (
            "insecure-registries".to_owned(),
            list(&next.insecure_registries),
        ),
        (
            "shutdown-timeout".to_owned(),
            next.shutdown_timeout.as_secs().to_string(),
        ),
    ]);
    app.replace_live(Arc::new(next));
    app.events
        .emit("daemon", "reload", &app.instance, attributes);
    Ok(())
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
