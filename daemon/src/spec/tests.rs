//! Whole specs of whole records.

use serde_json::{Value, json};

use super::*;

fn spec(config: &Config, host: &HostConfig) -> Value {
    let args = ["-c".to_owned(), "true".to_owned()];
    let input = Input {
        id: "0123",
        path: "sh",
        args: &args,
        config,
        host,
        security: host.security_opt.as_deref().unwrap_or_default(),
        user: User::default(),
        mounts: Vec::new(),
        network: Join::New,
        ipc: Join::New,
        pid: Join::New,
        uts: Join::New,
        cgroup: Join::Host,
        shm: Shm::Own(64 << 20),
        held: &capabilities::of_mask(u64::MAX),
        machine: Machine {
            arch: "x86_64",
            kernel: (6, 1),
        },
        cgroup_parent: "/docker",
        default_ulimits: &[],
        hostname: "node",
        rootless: false,
        last_group: u32::MAX,
    };
    serde_json::to_value(build(input).unwrap()).unwrap()
}

#[test]
fn a_plain_container() {
    let config = Config {
        hostname: "web".into(),
        env: Some(vec!["A=1".into()]),
        ..Config::default()
    };
    let got = spec(&config, &HostConfig::default());
    assert_eq!(got["process"]["args"], json!(["sh", "-c", "true"]));
    assert_eq!(got["process"]["cwd"], "/");
    assert_eq!(
        got["process"]["env"],
        json!([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME=web",
            "A=1"
        ])
    );
    assert_eq!(
        got["process"]["capabilities"]["bounding"]
            .as_array()
            .unwrap()
            .len(),
        14
    );
    assert_eq!(got["hostname"], "web");
    assert_eq!(got["linux"]["cgroupsPath"], "/docker/0123");
    assert_eq!(
        got["linux"]["namespaces"],
        json!([{"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc"}])
    );
    assert_eq!(
        got["linux"]["maskedPaths"].as_array().unwrap().len(),
        MASKED.len()
    );
    assert_eq!(got["linux"]["seccomp"]["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(
        got["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"],
        "0"
    );
    assert_eq!(got["mounts"].as_array().unwrap().len(), 7);
    assert_eq!(got["linux"]["resources"]["devices"][0]["allow"], false);
}

#[test]
fn a_privileged_one() {
    let host = HostConfig {
        privileged: true,
        ..HostConfig::default()
    };
    let got = spec(&Config::default(), &host);
    assert_eq!(
        got["process"]["capabilities"]["effective"]
            .as_array()
            .unwrap()
            .len(),
        41
    );
    assert!(got["linux"]["seccomp"].is_null());
    assert_eq!(got["linux"]["maskedPaths"], json!([]));
    assert_eq!(
        got["linux"]["resources"]["devices"],
        json!([{"allow": true, "type": "a", "access": "rwm"}])
    );
    let sys = &got["mounts"][3];
    assert!(
        sys["options"].as_array().unwrap().contains(&json!("rw")),
        "{sys}"
    );
}

#[test]
fn security_options() {
    let parse = |options: &[&str]| {
        Security::parse(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>())
    };
    assert!(parse(&["no-new-privileges"]).unwrap().no_new_privileges);
    assert!(
        parse(&["no-new-privileges:true"])
            .unwrap()
            .no_new_privileges
    );
    assert_eq!(
        parse(&["seccomp=unconfined"]).unwrap().seccomp,
        Seccomp::Unconfined
    );
    let profile = parse(&["seccomp={\"a\":\"b=c\"}"]).unwrap().seccomp;
    assert_eq!(profile, Seccomp::Custom("{\"a\":\"b=c\"}".into()));
    assert!(parse(&["nope"]).is_err());
}
