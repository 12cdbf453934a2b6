//! `stack doctor`: what is wrong with the daemon's host, what is published and to whom, and what to do about it.

use std::path::Path;

use proto::engine::{ContainerSummary, SystemInfo};

use super::super::Session;
use super::chain;
use crate::error::Outcome;
use crate::format::print;

/// The oldest kernel whose openat2 keeps paths inside their root.
const KERNEL: (u32, u32) = (5, 6);
/// Fewer open files than this run out with a few hundred containers.
const FILES: u64 = 65_536;

/// A finding: how bad, what, and what to do.
#[derive(Debug, PartialEq)]
enum Finding {
    Good(String),
    Note(String),
    Bad(String, &'static str),
}

pub(crate) async fn run(session: &Session) -> Outcome {
    let info: SystemInfo = session.client.get("/info").json().await?;
    let containers: Vec<ContainerSummary> = session
        .client
        .get("/containers/json")
        .query("all", 1)
        .json()
        .await?;
    let mut found = of_info(&info);
    found.extend(of_chain(session, &containers).await);
    if session.client.is_local() {
        found.extend(of_host(Path::new("/proc")));
    }
    found.extend(published(&containers));
    let mut bad = 0;
    for finding in &found {
        match finding {
            Finding::Good(what) => print(&format!("ok    {what}\n"))?,
            Finding::Note(what) => print(&format!("note  {what}\n"))?,
            Finding::Bad(what, remedy) => {
                bad += 1;
                print(&format!("BAD   {what}\n      -> {remedy}\n"))?;
            }
        }
    }
    Ok(u8::from(bad > 0))
}

fn of_info(info: &SystemInfo) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut numbers = info
        .kernel_version
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    found.push(match kernel >= KERNEL {
        true => Finding::Good(format!("kernel {}", info.kernel_version)),
        false => Finding::Bad(
            format!(
                "kernel {} is older than {}.{}",
                info.kernel_version, KERNEL.0, KERNEL.1
            ),
            "use a newer kernel: paths inside containers cannot be kept inside without openat2",
        ),
    });
    found.push(Finding::Good(format!(
        "cgroup v{}, driver {}",
        info.cgroup_version, info.cgroup_driver
    )));
    for (there, what) in [
        (info.memory_limit, "memory"),
        (info.pids_limit, "process numbers"),
        (info.cpu_cfs_quota, "CPU time"),
    ] {
        if !there {
            found.push(Finding::Bad(
                format!("limits of {what} do not work on this host"),
                "give the daemon the cgroup controller (kernel command line, or delegation when rootless)",
            ));
        }
    }
    found.push(match info.driver.contains("overlay") {
        true => Finding::Good(format!("storage {}", info.driver)),
        false => Finding::Bad(
            format!("storage driver {} copies whole layers", info.driver),
            "use a file system on which overlayfs works for the daemon's data",
        ),
    });
    for warning in info.warnings.iter().flatten() {
        found.push(Finding::Note(format!("the daemon says: {warning}")));
    }
    found
}

async fn of_chain(session: &Session, containers: &[ContainerSummary]) -> Vec<Finding> {
    let chain = match chain::walk(session).await {
        Ok(chain) => chain,
        Err(error) => return vec![Finding::Note(error.to_string())],
    };
    let mut found: Vec<Finding> = chain.troubles.into_iter().map(Finding::Note).collect();
    let mut versions: Vec<String> = chain
        .programs
        .iter()
        .map(|program| format!("{} {}", program.component, program.version))
        .collect();
    versions.sort();
    versions.dedup();
    let mut numbers: Vec<&str> = chain.programs.iter().map(|p| p.version.as_str()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let all = versions.join(", ");
    found.push(match numbers.len() {
        0 | 1 => Finding::Good(all),
        _ => Finding::Note(format!("programs of different versions: {all}")),
    });
    for listen in chain.programs.iter().flat_map(|program| &program.listen) {
        if listen.starts_with("tcp://") {
            found.push(Finding::Note(format!(
                "the API is served at {listen}; without TLS whoever reaches it is root here"
            )));
        }
    }
    for shim in &chain.shims {
        if !containers.iter().any(|container| container.id == shim.id) {
            found.push(Finding::Bad(
                format!(
                    "shim {} serves {}, which the daemon does not know",
                    shim.pid, shim.id
                ),
                "end it with kill, or restart the daemon, which clears away what is nobody's",
            ));
        }
    }
    found
}

/// What only this machine's own files tell.
fn of_host(proc: &Path) -> Vec<Finding> {
    let read = |name: &str| std::fs::read_to_string(proc.join(name)).unwrap_or_default();
    let mut found = Vec::new();
    found.push(match read("filesystems").contains("overlay") {
        true => Finding::Good("overlayfs is in the kernel".to_string()),
        false => Finding::Bad(
            "the kernel has no overlayfs".to_string(),
            "load the module overlay, or use another kernel",
        ),
    });
    let number = |name: &str| read(name).trim().parse::<u64>().ok();
    if number("sys/net/ipv4/ip_forward") == Some(0) {
        found.push(Finding::Note(
            "IPv4 is not forwarded: containers do not reach other machines (sysctl net.ipv4.ip_forward=1)".to_string(),
        ));
    }
    for (name, least, why) in [
        ("sys/fs/file-max", FILES, "open files of the host"),
        (
            "sys/fs/inotify/max_user_instances",
            512,
            "followers of logs",
        ),
        ("sys/user/max_net_namespaces", 1024, "network namespaces"),
    ] {
        if let Some(value) = number(name).filter(|value| *value < least) {
            let key = name.trim_start_matches("sys/").replace('/', ".");
            found.push(Finding::Note(format!(
                "only {value} {why}: raise it with sysctl {key}={least}"
            )));
        }
    }
    found
}

/// Who reaches what.
fn published(containers: &[ContainerSummary]) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in containers
        .iter()
        .filter(|container| container.state == "running")
    {
        let name = container
            .names
            .first()
            .map_or(container.id.as_str(), |name| name.trim_start_matches('/'));
        if container.host_config.network_mode == "host" {
            found.push(Finding::Note(format!(
                "{name} is on the host's own network: every port that it opens is the host's"
            )));
        }
        for port in container.ports.iter().filter(|port| port.public_port != 0) {
            let who = match port.ip.as_str() {
                "" | "0.0.0.0" | "::" => {
                    "whoever reaches this host, past its firewall's INPUT rules (-p 127.0.0.1:... keeps it here)".to_string()
                }
                ip if ip.starts_with("127.") || ip == "::1" => "this host only".to_string(),
                ip => format!("whoever reaches {ip}"),
            };
            found.push(Finding::Note(format!(
                "{name} publishes {}:{} -> {}/{}: {who}",
                port.ip, port.public_port, port.private_port, port.kind
            )));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_told_with_its_reach() {
        let containers: Vec<ContainerSummary> = serde_json::from_str(
            r#"[{"Id":"1","Names":["/web"],"State":"running","HostConfig":{"NetworkMode":"host"},
                "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
                         {"IP":"127.0.0.1","PrivatePort":81,"PublicPort":8081,"Type":"tcp"},{"PrivatePort":90,"Type":"tcp"}]},
               {"Id":"2","Names":["/down"],"State":"exited","HostConfig":{"NetworkMode":"host"},"Ports":[]}]"#,
        )
        .unwrap();
        let found = published(&containers);
        assert_eq!(found.len(), 3, "{found:?}");
        let text = format!("{found:?}");
        assert!(
            text.contains("web publishes 127.0.0.1:8081 -> 81/tcp: this host only"),
            "{text}"
        );
        assert!(
            text.contains("0.0.0.0:8080 -> 80/tcp: whoever reaches this host"),
            "{text}"
        );
    }

    #[test]
    fn a_host_is_judged_by_its_own_files() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("filesystems", "nodev\tproc\n\text4\n");
        put("sys/net/ipv4/ip_forward", "0\n");
        put("sys/fs/inotify/max_user_instances", "128\n");
        let text = format!("{:?}", of_host(dir.path()));
        for part in [
            "no overlayfs",
            "ip_forward=1",
            "fs.inotify.max_user_instances=512",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn an_old_kernel_is_bad() {
        let info = SystemInfo {
            kernel_version: "4.19.0-25-amd64".to_string(),
            ..SystemInfo::default()
        };
        assert!(matches!(of_info(&info)[0], Finding::Bad(..)));
    }
}
