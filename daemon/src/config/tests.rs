use clap::Parser;

use super::*;

fn flags(args: &[&str]) -> Flags {
    Flags::parse_from(std::iter::once(&"dockerd-lite").chain(args))
}

fn load(args: &[&str], json: &str) -> Result<Config> {
    join(flags(args), parse(Path::new("daemon.json"), json)?)
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
