//! From typed flags to the body of a create request. Pure but for the files that flags name.
//!
//! ```text
//! flags.rs   what was typed            values.rs   512m, 1.5, 1h30m
//! env.rs, mounts.rs, ports.rs, network.rs, resources.rs   one part of the body each
//! here       the order of the parts, and what does not go together
//! ```

pub(crate) mod env;
pub(crate) mod flags;
pub(crate) mod ipam;
pub(crate) mod mounts;
pub(crate) mod network;
pub(crate) mod ports;
pub(crate) mod resources;
pub(crate) mod values;

use std::collections::BTreeMap;

use proto::engine::{
    Config, ContainerCreateBody, HealthConfig, HostConfig, LogConfig, NetworkingConfig,
};

use flags::ContainerFlags;

/// The create request for an image, the words after it, and the flags.
pub(crate) fn create_body(
    flags: &ContainerFlags,
    words: &[String],
) -> Result<ContainerCreateBody, String> {
    let (network_mode, endpoints) = network::endpoints(flags)?;
    let mut config = config(flags, words)?;
    let host_config = host_config(flags, network_mode, &mut config)?;
    if let Some(Some(endpoint)) = endpoints.get(&host_config.network_mode) {
        config.mac_address.clone_from(&endpoint.mac_address);
    }
    Ok(ContainerCreateBody {
        config,
        host_config: Some(host_config),
        networking_config: Some(NetworkingConfig {
            endpoints_config: endpoints,
        }),
    })
}

fn config(flags: &ContainerFlags, words: &[String]) -> Result<Config, String> {
    let (image, command) = words.split_first().ok_or("no image given")?;
    let asked = |stream: &str| flags.attach.iter().any(|given| given == stream);
    let output = flags.attach.is_empty();
    let attach_stdin = asked("stdin") || flags.interactive;
    Ok(Config {
        hostname: flags.hostname.clone(),
        domainname: flags.domainname.clone(),
        user: flags.user.clone(),
        attach_stdin,
        attach_stdout: asked("stdout") || output,
        attach_stderr: asked("stderr") || output,
        tty: flags.tty,
        open_stdin: flags.interactive,
        stdin_once: flags.interactive && attach_stdin,
        env: Some(env::variables(&flags.env_file, &flags.env).map_err(|error| error.to_string())?)
            .filter(|variables| !variables.is_empty()),
        cmd: (!command.is_empty()).then(|| command.to_vec()),
        healthcheck: health(flags)?,
        health_on_failure: health_on_failure(flags)?,
        image: image.clone(),
        working_dir: flags.workdir.clone(),
        entrypoint: flags.entrypoint.clone().map(|program| vec![program]),
        labels: env::labels(&flags.label_file, &flags.label).map_err(|error| error.to_string())?,
        stop_signal: flags.stop_signal.clone(),
        stop_timeout: flags.stop_timeout,
        ..Config::default()
    })
}

/// The half about the host; fills in the ports and volumes of the other half, which come from the same flags.
fn host_config(
    flags: &ContainerFlags,
    network_mode: String,
    config: &mut Config,
) -> Result<HostConfig, String> {
    let (mut exposed, port_bindings) = ports::published(&flags.publish)?;
    ports::expose(&flags.expose, &mut exposed)?;
    let (binds, anonymous) = mounts::volumes(&flags.volume)?;
    config.exposed_ports = exposed;
    config.volumes = Some(anonymous);
    let restart_policy = resources::restart_policy(&flags.restart)?;
    if flags.rm && !matches!(restart_policy.name.as_str(), "" | "no") {
        return Err("conflicting options: cannot specify both --restart and --rm".to_string());
    }
    if flags.log_driver == "none" && !flags.log_opt.is_empty() {
        return Err("invalid logging opts for driver none".to_string());
    }
    check_modes(flags)?;
    let (security_opt, unconfined) = security(&flags.security_opt)?;
    let storage_opt = flags
        .storage_opt
        .iter()
        .map(|pair| {
            pair.split_once('=')
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .ok_or("invalid storage option")
        })
        .collect::<Result<BTreeMap<_, _>, _>>()?;
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let (cap_add, cap_drop) = resources::capabilities(&flags.cap_add, &flags.cap_drop);
    Ok(HostConfig {
        binds: some(&binds),
        container_id_file: flags.cidfile.clone(),
        log_config: LogConfig {
            kind: flags.log_driver.clone(),
            config: env::pairs(&flags.log_opt),
        },
        network_mode,
        port_bindings,
        restart_policy,
        auto_remove: flags.rm,
        volume_driver: flags.volume_driver.clone(),
        volumes_from: some(&flags.volumes_from),
        annotations: env::pairs(&flags.annotation),
        cap_add: some(&cap_add),
        cap_drop: some(&cap_drop),
        cgroupns_mode: flags.cgroupns.clone(),
        dns: Some(flags.dns.clone()),
        dns_options: Some(flags.dns_option.clone()),
        dns_search: Some(flags.dns_search.clone()),
        extra_hosts: some(&flags.add_host),
        group_add: some(&flags.group_add),
        ipc_mode: flags.ipc.clone(),
        links: some(&flags.link),
        oom_score_adj: flags.oom_score_adj,
        pid_mode: flags.pid.clone(),
        privileged: flags.privileged,
        publish_all_ports: flags.publish_all,
        readonly_rootfs: flags.read_only,
        security_opt: some(&security_opt),
        storage_opt,
        tmpfs: flags
            .tmpfs
            .iter()
            .map(|spec| spec.split_once(':').unwrap_or((spec, "")))
            .map(|(path, options)| (path.to_string(), options.to_string()))
            .collect(),
        uts_mode: flags.uts.clone(),
        userns_mode: flags.userns.clone(),
        shm_size: flags.shm_size,
        sysctls: env::pairs(&flags.sysctl),
        runtime: flags.runtime.clone(),
        isolation: flags.isolation.clone(),
        resources: resources::resources(flags)?,
        mounts: (!flags.mount.is_empty()).then(|| flags.mount.clone()),
        masked_paths: unconfined.then(Vec::new),
        readonly_paths: unconfined.then(Vec::new),
        init: flags.init,
        // A field that newer versions of the API have dropped.
        other: (flags.kernel_memory != 0)
            .then(|| ("KernelMemory".to_string(), flags.kernel_memory.into()))
            .into_iter()
            .collect(),
        ..HostConfig::default()
    })
}

fn check_modes(flags: &ContainerFlags) -> Result<(), String> {
    let container = |mode: &str| {
        mode.strip_prefix("container:")
            .is_some_and(|name| !name.is_empty())
    };
    if !matches!(flags.pid.as_str(), "" | "host" | "private") && !container(&flags.pid) {
        return Err("--pid: invalid PID mode".to_string());
    }
    if !matches!(flags.uts.as_str(), "" | "host") {
        return Err("--uts: invalid UTS mode".to_string());
    }
    if !matches!(flags.userns.as_str(), "" | "host") {
        return Err("--userns: invalid USER mode".to_string());
    }
    if !matches!(flags.cgroupns.as_str(), "" | "host" | "private") {
        return Err("--cgroupns: invalid CGROUP mode".to_string());
    }
    Ok(())
}

/// The security options with seccomp profiles read in, and whether the system paths stay open.
fn security(given: &[String]) -> Result<(Vec<String>, bool), String> {
    let mut out = Vec::new();
    let mut unconfined = false;
    for option in given {
        let (key, value) = option
            .split_once('=')
            .or_else(|| option.split_once(':'))
            .unwrap_or((option, ""));
        if value.is_empty() && key != "no-new-privileges" {
            return Err(format!("Invalid --security-opt: {option:?}"));
        }
        if option == "systempaths=unconfined" {
            unconfined = true;
        } else if key == "seccomp" && !matches!(value, "builtin" | "unconfined") {
            let text = std::fs::read(value).map_err(|cause| {
                let why = crate::archive::plain(&cause);
                format!("opening seccomp profile ({value}) failed: open {value}: {why}")
            })?;
            let text = String::from_utf8(crate::format::compact(&text)).map_err(|_| {
                format!("compacting json for seccomp profile ({value}) failed: not UTF-8")
            })?;
            out.push(format!("seccomp={text}"));
        } else {
            out.push(option.clone());
        }
    }
    Ok((out, unconfined))
}

fn health(flags: &ContainerFlags) -> Result<Option<HealthConfig>, String> {
    let times = [
        ("interval", flags.health_interval),
        ("timeout", flags.health_timeout),
        ("retries", flags.health_retries),
        ("start-period", flags.health_start_period),
        ("start-interval", flags.health_start_interval),
    ];
    let given = !flags.health_cmd.is_empty() || times.iter().any(|(_, value)| *value != 0);
    if flags.no_healthcheck {
        if given {
            return Err("--no-healthcheck conflicts with --health-* options".to_string());
        }
        return Ok(Some(HealthConfig {
            test: vec!["NONE".to_string()],
            ..HealthConfig::default()
        }));
    }
    if !given {
        return Ok(None);
    }
    if let Some((name, _)) = times.iter().find(|(_, value)| *value < 0) {
        return Err(format!("--health-{name} cannot be negative"));
    }
    let test = match flags.health_cmd.as_str() {
        "" => Vec::new(),
        command => vec!["CMD-SHELL".to_string(), command.to_string()],
    };
    Ok(Some(HealthConfig {
        test,
        interval: flags.health_interval,
        timeout: flags.health_timeout,
        retries: flags.health_retries,
        start_period: flags.health_start_period,
        start_interval: flags.health_start_interval,
    }))
}

fn health_on_failure(flags: &ContainerFlags) -> Result<String, String> {
    match flags.health_on_failure.as_str() {
        action @ ("" | "none" | "kill" | "restart" | "stop") => Ok(action.to_string()),
        other => Err(format!(
            "invalid argument \"{other}\" for --health-on-failure: use none, kill, restart or stop"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(change: impl FnOnce(&mut ContainerFlags)) -> Result<ContainerCreateBody, String> {
        let mut flags = ContainerFlags {
            memory_swappiness: -1,
            restart: "no".into(),
            ..ContainerFlags::default()
        };
        change(&mut flags);
        create_body(&flags, &["busybox".to_string(), "true".to_string()])
    }

    #[test]
    fn a_plain_run_asks_for_little() {
        let body = body(|_| {}).unwrap();
        assert_eq!(body.config.image, "busybox");
        assert_eq!(body.config.cmd, Some(vec!["true".to_string()]));
        assert!(body.config.attach_stdout && !body.config.attach_stdin);
        let host = body.host_config.unwrap();
        assert_eq!(host.network_mode, "default");
        assert_eq!(host.binds, None);
        assert_eq!(host.restart_policy.name, "no");
        assert!(
            body.networking_config
                .unwrap()
                .endpoints_config
                .contains_key("default")
        );
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        assert!(
            body(|f| {
                f.rm = true;
                f.restart = "always".into()
            })
            .is_err()
        );
        assert!(
            body(|f| {
                f.no_healthcheck = true;
                f.health_cmd = "x".into()
            })
            .is_err()
        );
        assert_eq!(
            body(|f| f.pid = "x".into()).unwrap_err(),
            "--pid: invalid PID mode"
        );
        assert!(body(|f| f.security_opt = vec!["x".into()]).is_err());
    }
}
