//! What the configuration promises.

use super::*;

fn parse(text: &str, flags: &Flags) -> Result<(Config, Vec<String>), ConfigError> {
    Config::parse(text, Path::new("c.toml"), flags)
}

#[test]
fn flags_win_over_the_file_and_sockets_follow_the_state() {
    let flags = Flags {
        state: Some("/s".into()),
        ..Flags::default()
    };
    let (config, warnings) = parse(
        "root = \"/r\"\nstate = \"/x\"\n[debug]\nlevel = \"debug\"",
        &flags,
    )
    .unwrap();
    assert_eq!(config.root, Path::new("/r"));
    assert_eq!(config.address, Path::new("/s/containerd.sock"));
    assert_eq!(config.ttrpc_address, Path::new("/s/containerd.sock.ttrpc"));
    assert_eq!(config.level, Level::Debug);
    assert!(warnings.is_empty());
}

#[test]
fn unknown_keys_are_named_and_wrong_values_refused() {
    let (_, warnings) = parse(
        "oom_score = 1\n[plugins.\"io.x\"]\na = 1\n[grpc]\nnope = 2",
        &Flags::default(),
    )
    .unwrap();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    // Of a plugin that we know each key is named, of others the plugin.
    let (config, warnings) = parse(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x\"\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/a:/b\"\n[timeouts]\n",
        &Flags::default(),
    )
    .unwrap();
    assert_eq!(config.transfer.hosts, [Path::new("/a"), Path::new("/b")]);
    let [one] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert!(
        one.contains("plugins.\"io.containerd.grpc.v1.cri\".sandbox_image"),
        "{one}"
    );
    for bad in [
        "root = 1",
        "version = 1",
        "root = \"rel\"",
        "[debug]\nlevel = \"loud\"",
        "[metrics]\ngrpc_histogram = 1",
        "[plugins.\"io.containerd.transfer.v1.local\"]\nmax_concurrent_downloads = 0",
        "x =",
    ] {
        assert!(parse(bad, &Flags::default()).is_err(), "{bad}");
    }
}

#[test]
fn migration_moves_what_has_moved_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    let old = "version = 2\noom_score = 7\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"x\"\n\
               [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/certs\"\n";
    std::fs::write(&path, old).unwrap();
    let flags = Flags {
        config: Some(path),
        ..Flags::default()
    };
    let new = Config::migrated(&flags).unwrap();
    assert!(
        new.contains("version = 3") && new.contains("oom_score = 7"),
        "{new}"
    );
    assert!(new.contains("sandbox_image"), "{new}");
    assert!(
        !new.contains("config_path = \"/certs\"\n[plugins.\"io.containerd.grpc"),
        "{new}"
    );
    let (config, _) = parse(&new, &Flags::default()).unwrap();
    assert_eq!(config.transfer.hosts, [Path::new("/certs")]);
}

#[test]
fn what_is_dumped_loads_as_the_same() {
    let flags = Flags {
        root: Some("/a\"b".into()),
        ..Flags::default()
    };
    let text = "[metrics]\naddress = \"127.0.0.1:1338\"\ngrpc_histogram = true\n[plugins.\"io.containerd.transfer.v1.local\"]\nconfig_path = \"/c\"";
    let (config, _) = parse(text, &flags).unwrap();
    assert_eq!(
        parse(&config.to_toml(), &Flags::default()).unwrap(),
        (config, Vec::new())
    );
}
