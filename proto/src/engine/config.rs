//! What a container shall run: the portable half of a create request.

use std::collections::BTreeMap;

use serde_json::Value;

use super::wire::wire;
use super::{Empty, HostConfig, NetworkingConfig};

/// A set as Docker writes it, `{"member": {}}`.
pub type Set = BTreeMap<String, Empty>;

wire! {
    /// The body of `POST /containers/create`: a [`Config`] with two more fields beside its own.
    pub struct ContainerCreateBody {
        "The container's configuration" [flatten] config: Config,
        "HostConfig" [omitempty] host_config: Option<HostConfig>,
        "NetworkingConfig" [omitempty] networking_config: Option<NetworkingConfig>,
    }

    /// The answer to `POST /containers/create`.
    pub struct ContainerCreated {
        "Id" id: String,
        "Warnings" warnings: Vec<String>,
    }

    /// What a container runs, independent of the host.
    pub struct Config {
        "Hostname" hostname: String,
        "Domainname" domainname: String,
        "User" user: String,
        "AttachStdin" attach_stdin: bool,
        "AttachStdout" attach_stdout: bool,
        "AttachStderr" attach_stderr: bool,
        "ExposedPorts" [omitempty] exposed_ports: Set,
        "Tty" tty: bool,
        "OpenStdin" open_stdin: bool,
        "StdinOnce" stdin_once: bool,
        "Env" env: Option<Vec<String>>,
        "Cmd" cmd: Option<Vec<String>>,
        "Healthcheck" [omitempty] healthcheck: Option<HealthConfig>,
        "ArgsEscaped" [omitempty] args_escaped: bool,
        "Image" image: String,
        "Volumes" volumes: Option<Set>,
        "WorkingDir" working_dir: String,
        "Entrypoint" entrypoint: Option<Vec<String>>,
        "NetworkDisabled" [omitempty] network_disabled: bool,
        "MacAddress" [omitempty] mac_address: String,
        "OnBuild" on_build: Option<Vec<String>>,
        "Labels" labels: BTreeMap<String, String>,
        "StopSignal" [omitempty] stop_signal: String,
        "StopTimeout" [omitempty] stop_timeout: Option<i64>,
        "Shell" [omitempty] shell: Option<Vec<String>>,
        "HealthcheckOnFailureAction" [omitempty] health_on_failure: String,
        "What we do not know, kept as sent" [flatten] other: BTreeMap<String, Value>,
    }

    /// How the health of a container is probed; times are nanoseconds, 0 means the default.
    pub struct HealthConfig {
        "Test" [omitempty] test: Vec<String>,
        "Interval" [omitempty] interval: i64,
        "Timeout" [omitempty] timeout: i64,
        "StartPeriod" [omitempty] start_period: i64,
        "StartInterval" [omitempty] start_interval: i64,
        "Retries" [omitempty] retries: i64,
    }
}
