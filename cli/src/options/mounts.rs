//! `--mount`, `--volume` and `--tmpfs`. Pure.

use proto::engine::{
    BindOptions, Empty, ImageOptions, Mount, MountDriver, Set, TmpfsOptions, VolumeOptions,
};

use super::values::{boolean, byte_size, comma_fields};

/// Reads the value of `--mount`: `type=bind,src=/a,dst=/b,readonly`.
pub(crate) fn parse_mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount {
        kind: "volume".to_string(),
        ..Mount::default()
    };
    for field in comma_fields(text)? {
        match field.split_once('=') {
            Some((key, value)) => assign(&mut mount, &key.to_lowercase(), value, &field)?,
            None => match field.to_lowercase().as_str() {
                "readonly" | "ro" => mount.read_only = true,
                "volume-nocopy" => volume(&mut mount).no_copy = true,
                "bind-nonrecursive" => bind(&mut mount).non_recursive = true,
                _ => return Err(format!("invalid field '{field}' must be a key=value pair")),
            },
        }
    }
    check(&mount)?;
    Ok(mount)
}

fn assign(mount: &mut Mount, key: &str, value: &str, field: &str) -> Result<(), String> {
    let wrong = || format!("invalid value for {key}: {value}");
    match key {
        "type" => mount.kind = value.to_lowercase(),
        "source" | "src" => mount.source = absolute(value),
        "target" | "dst" | "destination" => mount.target = value.to_string(),
        "readonly" | "ro" => mount.read_only = boolean(value).ok_or_else(wrong)?,
        "consistency" => mount.consistency = value.to_lowercase(),
        "bind-propagation" => bind(mount).propagation = value.to_lowercase(),
        "bind-nonrecursive" => bind(mount).non_recursive = boolean(value).ok_or_else(wrong)?,
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => bind(mount).non_recursive = true,
            "writable" => bind(mount).read_only_non_recursive = true,
            "readonly" => bind(mount).read_only_force_recursive = true,
            _ => {
                let choices = r#"must be "enabled", "disabled", "writable", or "readonly""#;
                return Err(format!("{} ({choices})", wrong()));
            }
        },
        "volume-subpath" => volume(mount).subpath = value.to_string(),
        "volume-nocopy" => volume(mount).no_copy = boolean(value).ok_or_else(wrong)?,
        "volume-label" => pair(&mut volume(mount).labels, value),
        "volume-driver" => driver(mount).name = value.to_string(),
        "volume-opt" => pair(&mut driver(mount).options, value),
        "image-subpath" => {
            mount
                .image_options
                .get_or_insert_with(ImageOptions::default)
                .subpath = value.to_string();
        }
        "tmpfs-size" => tmpfs(mount).size_bytes = byte_size(value).map_err(|_| wrong())?,
        "tmpfs-mode" => tmpfs(mount).mode = u32::from_str_radix(value, 8).map_err(|_| wrong())?,
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

/// Options of one kind of mount do not go with another kind.
fn check(mount: &Mount) -> Result<(), String> {
    if mount.kind.is_empty() {
        return Err("type is required".to_string());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_string());
    }
    for (given, kind) in [
        (mount.volume_options.is_some(), "volume"),
        (mount.image_options.is_some(), "image"),
        (mount.bind_options.is_some(), "bind"),
        (mount.tmpfs_options.is_some(), "tmpfs"),
    ] {
        if given && mount.kind != kind {
            return Err(format!(
                "cannot mix '{kind}-*' options with mount type '{}'",
                mount.kind
            ));
        }
    }
    let Some(bind) = &mount.bind_options else {
        return Ok(());
    };
    let needs = |value: &str, other: &str| {
        Err(format!(
            "option 'bind-recursive={value}' requires '{other}' to be specified in conjunction"
        ))
    };
    if bind.read_only_non_recursive && !mount.read_only {
        return needs("writable", "readonly");
    }
    if bind.read_only_force_recursive && !mount.read_only {
        return needs("readonly", "readonly");
    }
    if bind.read_only_force_recursive && bind.propagation != "rprivate" {
        return needs("readonly", "bind-propagation=rprivate");
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_with(BindOptions::default)
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    // The driver's part is sent even when it says nothing.
    mount.volume_options.get_or_insert_with(|| VolumeOptions {
        driver_config: Some(MountDriver::default()),
        ..VolumeOptions::default()
    })
}

fn driver(mount: &mut Mount) -> &mut MountDriver {
    volume(mount)
        .driver_config
        .get_or_insert_with(MountDriver::default)
}

fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount
        .tmpfs_options
        .get_or_insert_with(TmpfsOptions::default)
}

fn pair(map: &mut std::collections::BTreeMap<String, String>, value: &str) {
    let (key, value) = value.split_once('=').unwrap_or((value, ""));
    if !key.is_empty() {
        map.insert(key.to_string(), value.to_string());
    }
}

/// A path that starts with a dot is meant from where the user stands; the daemon stands elsewhere.
fn absolute(path: &str) -> String {
    if !path.starts_with('.') {
        return path.to_string();
    }
    let Ok(here) = std::env::current_dir() else {
        return path.to_string();
    };
    let mut clean = here;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            name => clean.push(name),
        }
    }
    clean.to_string_lossy().into_owned()
}

/// Splits the values of `--volume` into binds (with a source) and anonymous volumes.
pub(crate) fn volumes(given: &[String]) -> Result<(Vec<String>, Set), String> {
    let (mut binds, mut anonymous) = (Vec::new(), Set::new());
    for spec in given {
        let parts: Vec<&str> = spec.split(':').collect();
        let wrong = |why: &str| Err(format!("invalid spec: {spec}: {why}"));
        if spec.is_empty() {
            return Err("invalid empty volume spec".to_string());
        }
        if parts.iter().any(|part| part.is_empty()) {
            return wrong("empty section between colons");
        }
        match parts.as_slice() {
            [target] => {
                anonymous.insert(target.to_string(), Empty {});
            }
            [source, rest @ ..] if rest.len() <= 2 => {
                let bind = format!("{}:{}", absolute(source), rest.join(":"));
                if !binds.contains(&bind) {
                    binds.push(bind);
                }
            }
            _ => return wrong("too many colons"),
        }
    }
    Ok((binds, anonymous))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_mount_is_read_field_by_field() {
        let mount =
            parse_mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap();
        assert_eq!(
            (
                mount.kind.as_str(),
                mount.source.as_str(),
                mount.target.as_str()
            ),
            ("bind", "/a", "/b")
        );
        assert!(mount.read_only);
        assert_eq!(mount.bind_options.unwrap().propagation, "rslave");
        let tmpfs = parse_mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770")
            .unwrap()
            .tmpfs_options
            .unwrap();
        assert_eq!((tmpfs.size_bytes, tmpfs.mode), (1 << 20, 0o1770));
        let volume = parse_mount("src=v,dst=/v,volume-opt=a=b,volume-label=x")
            .unwrap()
            .volume_options
            .unwrap();
        assert_eq!(volume.driver_config.unwrap().options["a"], "b");
    }

    #[test]
    fn wrong_mounts_are_told_in_dockers_words() {
        for (text, want) in [
            ("type=bind,src=/a", "target is required"),
            ("foo", "invalid field 'foo' must be a key=value pair"),
            ("foo=1,dst=/b", "unexpected key 'foo' in 'foo=1'"),
            (
                "type=bind,dst=/b,tmpfs-size=1m",
                "cannot mix 'tmpfs-*' options with mount type 'bind'",
            ),
            (
                "type=tmpfs,dst=/b,tmpfs-size=x",
                "invalid value for tmpfs-size: x",
            ),
        ] {
            assert_eq!(parse_mount(text).unwrap_err(), want);
        }
    }

    #[test]
    fn volumes_are_binds_or_anonymous() {
        let given = [
            "/a:/b:ro".to_string(),
            "/data".to_string(),
            "v:/v".to_string(),
        ];
        let (binds, anonymous) = volumes(&given).unwrap();
        assert_eq!(binds, ["/a:/b:ro", "v:/v"]);
        assert_eq!(anonymous.keys().collect::<Vec<_>>(), ["/data"]);
        assert!(volumes(&["/a::/b".into()]).is_err());
        assert!(
            volumes(&["a:b:c:d".into()])
                .unwrap_err()
                .contains("too many colons")
        );
        let (binds, _) = volumes(&["./x:/x".into()]).unwrap();
        assert!(
            binds[0].starts_with('/') && binds[0].ends_with("/x:/x"),
            "{binds:?}"
        );
    }

    proptest! {
        #[test]
        fn no_mount_is_too_odd(text in ".{0,40}") {
            let _ = parse_mount(&text);
            let _ = volumes(&[text]);
        }
    }
}
