use clap::Parser;

use super::*;

fn flags(args: &[&str]) -> Flags {
    Flags::parse_from(std::iter::once(&"dockerd-lite").chain(args))
}

fn load(args: &[&str], json: &str) -> Result<Config> {
    let defaults = Defaults::of(None);
    join(
        flags(args),
        parse(Path::new("daemon.json"), json)?,
        defaults,
    )
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = load(&[], "").unwrap();
    assert_eq!(config.data_root, Path::new("/var/lib/docker-lite"));
    assert_eq!(config.hosts, ["unix:///var/run/docker.sock"]);
    assert_eq!(config.default_runtime, RUNTIME);
    assert_eq!(config.shm_size, 64 << 20);
    assert!(config.iptables && config.icc && !config.debug);
}

#[test]
fn an_unknown_key_is_an_error_that_names_it() {
    let error = load(&[], r#"{"no-such-key": 1}"#).unwrap_err();
    assert!(error.message().contains("no-such-key"), "{error}");
}

#[test]
fn an_option_in_both_places_is_an_error() {
    for (args, json) in [
        (vec!["--debug"], r#"{"debug": false}"#),
        (vec!["-H", "unix:///a"], r#"{"hosts": ["unix:///b"]}"#),
    ] {
        assert!(load(&args, json).is_err(), "{args:?}");
    }
    assert!(load(&["--debug"], r#"{"icc": false}"#).is_ok());
}

#[test]
fn booleans_are_written_as_docker_has_them() {
    assert!(!load(&["--iptables=false"], "").unwrap().iptables);
    assert!(load(&["-D"], "").unwrap().debug);
}

#[test]
fn sizes() {
    for (text, size) in [
        ("64m", 64 << 20),
        ("1GiB", 1 << 30),
        ("12", 12),
        ("1.5k", 1536),
        ("10 MB", 10 << 20),
    ] {
        assert_eq!(parse_size(text), Some(size), "{text}");
    }
    for bad in ["", "x", "1q", "-1", "99999999999999p"] {
        assert_eq!(parse_size(bad), None, "{bad}");
    }
}

#[test]
fn every_key_of_docker_is_known() {
    let harmless = r#"{"experimental": false, "features": {"containerd-snapshotter": true}, "ipv6": false,
        "storage-opts": [], "userns-remap": "", "max-concurrent-downloads": 3, "builder": {"gc": {"enabled": true}},
        "exec-opts": ["native.cgroupdriver=cgroupfs"], "default-cgroupns-mode": "host", "no-new-privileges": true,
        "log-format": "json", "metrics-addr": "127.0.0.1:9323", "init": true, "selinux-enabled": false}"#;
    let config = load(&[], harmless).unwrap();
    assert!(config.no_new_privileges && config.log_json && config.init);
    assert_eq!(config.cgroupns_mode.as_deref(), Some("host"));
    for (json, word) in [
        (r#"{"userns-remap": "default"}"#, "userns-remap"),
        (r#"{"selinux-enabled": true}"#, "selinux-enabled"),
        (
            r#"{"authorization-plugins": ["x"]}"#,
            "authorization-plugins",
        ),
        (
            r#"{"exec-opts": ["native.cgroupdriver=systemd"]}"#,
            "systemd",
        ),
        (r#"{"default-cgroupns-mode": "x"}"#, "cgroupns"),
        (r#"{"seccomp-profile": "/no/such/file"}"#, "/no/such/file"),
    ] {
        let error = load(&[], json).unwrap_err();
        assert!(error.message().contains(word), "{error}");
    }
}

#[test]
fn tls_is_on_as_docker_has_it_on() {
    let tls = |args: &[&str]| load(args, "").unwrap().tls;
    assert_eq!(tls(&[]), None);
    assert_eq!(tls(&["--tls=false"]), None);
    let given = ["--tlscacert=/ca", "--tlscert=/cert", "--tlskey=/key"];
    let on = tls(&[&["--tlsverify"], given.as_slice()].concat()).unwrap();
    assert_eq!(on.verify.as_deref(), Some(Path::new("/ca")));
    assert_eq!((on.cert, on.key), ("/cert".into(), "/key".into()));
    let unchecked = tls(&[&["--tlsverify=false"], given.as_slice()].concat()).unwrap();
    assert_eq!(unchecked.verify, None);
}

#[test]
fn a_tcp_address_may_leave_out_what_docker_knows() {
    let hosts = |host: &str, tls: bool| {
        let tls = if tls { "--tls" } else { "--tls=false" };
        load(&["-H", host, tls], "").unwrap().hosts.remove(0)
    };
    assert_eq!(hosts("tcp://", false), "tcp://127.0.0.1:2375");
    assert_eq!(hosts("tcp://:80", true), "tcp://127.0.0.1:80");
    assert_eq!(hosts("tcp://10.0.0.1", true), "tcp://10.0.0.1:2376");
    assert_eq!(hosts("tcp://[::1]", false), "tcp://[::1]:2375");
    assert_eq!(hosts("tcp://[::1]:5", false), "tcp://[::1]:5");
    assert_eq!(hosts("unix:///x", true), "unix:///x");
}
