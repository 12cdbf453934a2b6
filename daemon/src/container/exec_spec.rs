//! The process section of an exec.

use proto::engine::ExecConfig;

use super::record::Record;
use super::rootfs::Accounts;
use super::state::State;
use crate::App;
use crate::error::{Error, Result};
use crate::spec::{self, capabilities};

/// The process section of an exec: the container's own, but for what the exec says.
pub(super) async fn describe(
    app: &App,
    record: &Record,
    config: &ExecConfig,
    console: Option<[u32; 2]>,
) -> Result<Vec<u8>> {
    let pid = match &record.state {
        State::Running(running) => running.pid,
        _ => {
            return Err(Error::conflict(format!(
                "container {} is not running",
                record.id
            )));
        }
    };
    let user = match config.user.as_str() {
        "" => record.config.user.clone(),
        given => given.to_owned(),
    };
    let accounts = tokio::task::spawn_blocking(move || Accounts::of_process(pid))
        .await
        .map_err(|e| Error::internal(format!("read the accounts of the container: {e}")))??;
    let host = &record.host;
    let added = host.group_add.as_deref().unwrap_or_default();
    let user = accounts.resolve(&user, added)?;
    let capabilities = capabilities::of(
        host.privileged || config.privileged,
        host.cap_add.as_deref().unwrap_or_default(),
        host.cap_drop.as_deref().unwrap_or_default(),
        &capabilities::held(),
    )?;
    let mut given = record.config.env.clone().unwrap_or_default();
    // One that was linked to may have ended: then nothing is said of it.
    given.extend(crate::network::links::link_variables(app, record).unwrap_or_default());
    let env = spec::process::environment(&record.config.hostname, config.tty, &given);
    let security = spec::Security::parse(&spec::security_options(&app.config, host))?;
    let process = spec::process::build(spec::process::Wanted {
        args: config.cmd.clone().unwrap_or_default(),
        env: spec::process::overlay(env, config.env.as_deref().unwrap_or_default()),
        cwd: match config.working_dir.as_str() {
            "" => &record.config.working_dir,
            given => given,
        },
        tty: config.tty,
        console: console.or(config.console_size).unwrap_or_default(),
        user,
        capabilities: &capabilities,
        no_new_privileges: security.no_new_privileges,
        oom_score_adj: host.oom_score_adj,
        rlimits: spec::process::rlimits(
            &app.config.default_ulimits,
            host.resources.ulimits.as_deref().unwrap_or_default(),
        )?,
    })?;
    serde_json::to_vec(&process).map_err(|e| Error::internal(format!("encode the process: {e}")))
}
