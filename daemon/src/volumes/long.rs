//! One `--mount`: the long form, in which each field has a name. Pure.

use proto::engine::{Mount as MountRequest, TmpfsOptions};

use super::request::{Mount, MountError, Source, check_volume_name, clean, clean_destination};
use super::tmpfs::merge_tmpfs;

/// What mount a request means.
pub(super) fn mount(request: &MountRequest) -> Result<Mount, MountError> {
    if request.target.is_empty() {
        return Err(wrong(request, "field Target must not be empty"));
    }
    let destination = clean_destination(&request.target, &request.target)?;
    let source = match request.kind.as_str() {
        "bind" => bind(request)?,
        "volume" => volume(request)?,
        "tmpfs" => memory(request)?,
        "image" | "npipe" | "cluster" => {
            return Err(wrong(request, "this mount type is not supported"));
        }
        other => {
            return Err(wrong(request, &format!("mount type unknown: {other:?}")));
        }
    };
    let mode = match &source {
        Source::Volume { .. } => "z".to_owned(),
        _ => String::new(),
    };
    Ok(Mount {
        destination,
        read_only: request.read_only,
        mode,
        source,
    })
}

fn wrong(request: &MountRequest, why: &str) -> MountError {
    MountError::Config {
        kind: request.kind.clone(),
        why: why.to_owned(),
    }
}

/// Only the options of the mount's own type may be given.
fn only(request: &MountRequest, kind: &str) -> Result<(), MountError> {
    let given = [
        ("bind", request.bind_options.is_some()),
        ("volume", request.volume_options.is_some()),
        ("tmpfs", request.tmpfs_options.is_some()),
    ];
    match given.iter().any(|(of, given)| *given && *of != kind) {
        true => Err(wrong(request, "options of another mount type are given")),
        false => Ok(()),
    }
}

fn bind(request: &MountRequest) -> Result<Source, MountError> {
    if request.source.is_empty() {
        return Err(wrong(request, "field Source must not be empty"));
    }
    if !request.source.starts_with('/') {
        let why = format!(
            "invalid mount path: '{}' mount path must be absolute",
            request.source
        );
        return Err(wrong(request, &why));
    }
    only(request, "bind")?;
    let options = request.bind_options.clone().unwrap_or_default();
    if !matches!(
        options.propagation.as_str(),
        "" | "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave"
    ) {
        let why = format!("invalid propagation mode: {}", options.propagation);
        return Err(wrong(request, &why));
    }
    Ok(Source::Bind {
        path: clean(&request.source),
        create: options.create_mountpoint,
        recursive: !options.non_recursive,
        propagation: options.propagation,
    })
}

fn volume(request: &MountRequest) -> Result<Source, MountError> {
    only(request, "volume")?;
    if !request.source.is_empty() {
        check_volume_name(&request.source)?;
    }
    let options = request.volume_options.clone().unwrap_or_default();
    if options.subpath.starts_with('/') || options.subpath.split('/').any(|p| p == "..") {
        return Err(wrong(
            request,
            "subpath must be a relative path within the volume",
        ));
    }
    let driver = options.driver_config.unwrap_or_default();
    Ok(Source::Volume {
        anonymous: request.source.is_empty(),
        name: request.source.clone(),
        driver: driver.name,
        options: driver.options,
        labels: options.labels,
        no_copy: options.no_copy,
        subpath: options.subpath,
    })
}

fn memory(request: &MountRequest) -> Result<Source, MountError> {
    if !request.source.is_empty() {
        return Err(wrong(request, "field Source must not be specified"));
    }
    only(request, "tmpfs")?;
    let given: TmpfsOptions = request.tmpfs_options.clone().unwrap_or_default();
    if given.size_bytes < 0 {
        return Err(wrong(request, "size must not be negative"));
    }
    let mut options = Vec::new();
    if given.size_bytes > 0 {
        options.push(format!("size={}", given.size_bytes));
    }
    if given.mode != 0 {
        options.push(format!("mode={:o}", given.mode));
    }
    options.extend(given.options.iter().map(|pair| pair.join("=")));
    Ok(Source::Tmpfs {
        options: merge_tmpfs(options),
        listed: true,
    })
}
