//! A container's mounts as the runtime takes them, made at every start, and as inspect shows them.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use oci_spec::runtime;
use proto::engine::MountPoint;

use super::request::{Mount, Source};
use super::{Volumes, blocking};
use crate::error::{During, Error, Result};

impl Volumes {
    /// The mounts for the runtime, parents first. Bind sources are checked, and made where `-v` asked for it.
    pub(crate) async fn runtime_mounts(&self, mounts: &[Mount]) -> Result<Vec<runtime::Mount>> {
        let mut out = Vec::with_capacity(mounts.len());
        for mount in mounts {
            out.push(match &mount.source {
                Source::Bind {
                    path,
                    create,
                    recursive,
                    propagation,
                } => {
                    source_exists(path, *create).await?;
                    let propagation = match propagation.as_str() {
                        "" => "rprivate",
                        given => given,
                    };
                    bind(path, mount, *recursive, propagation)?
                }
                Source::Volume { name, subpath, .. } => {
                    self.get(name)?;
                    let data = self.data(name);
                    let path = match subpath.as_str() {
                        "" => data,
                        subpath => inside(&data, subpath).await?,
                    };
                    bind(&path.display().to_string(), mount, true, "rprivate")?
                }
                Source::Tmpfs { options, .. } => {
                    let mut options = options.clone();
                    options.push("rprivate".into());
                    if mount.read_only && !options.iter().any(|o| o == "ro") {
                        options.push("ro".into());
                    }
                    oci("tmpfs", "tmpfs", &mount.destination, options)?
                }
            });
        }
        Ok(out)
    }

    /// The mounts as inspect and list show them; `--tmpfs` is not among them.
    pub(crate) fn points(&self, mounts: &[Mount]) -> Vec<MountPoint> {
        mounts
            .iter()
            .filter_map(|mount| self.point(mount))
            .collect()
    }

    fn point(&self, mount: &Mount) -> Option<MountPoint> {
        let mut point = MountPoint {
            destination: mount.destination.clone(),
            mode: mount.mode.clone(),
            rw: !mount.read_only,
            ..MountPoint::default()
        };
        match &mount.source {
            Source::Bind {
                path, propagation, ..
            } => {
                point.kind = "bind".into();
                point.source.clone_from(path);
                point.propagation = match propagation.as_str() {
                    "" => "rprivate".into(),
                    given => given.to_owned(),
                };
            }
            Source::Volume { name, .. } => {
                point.kind = "volume".into();
                point.name.clone_from(name);
                point.source = self.data(name).display().to_string();
                point.driver = "local".into();
            }
            Source::Tmpfs { listed, .. } => {
                if !listed {
                    return None;
                }
                point.kind = "tmpfs".into();
            }
        }
        Some(point)
    }
}

/// Names of the volumes among the mounts; with `anonymous` only those that go with the container.
pub(crate) fn volume_names(mounts: &[Mount], only_anonymous: bool) -> Vec<String> {
    mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            Source::Volume {
                name, anonymous, ..
            } if *anonymous || !only_anonymous => Some(name.clone()),
            _ => None,
        })
        .collect()
}

/// Checks at creation what `--mount` promises: that its source exists.
pub(crate) async fn check_sources(mounts: &[Mount]) -> Result<()> {
    for mount in mounts {
        if let Source::Bind {
            path,
            create: false,
            ..
        } = &mount.source
        {
            source_exists(path, false).await?;
        }
    }
    Ok(())
}

async fn source_exists(path: &str, create: bool) -> Result<()> {
    let owned = path.to_owned();
    blocking(move || match Path::new(&owned).symlink_metadata() {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && create => {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&owned)
                .during(|| format!("error while creating mount source path '{owned}'"))?;
            super::set_mode(Path::new(&owned), 0o755)?;
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::invalid(format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {owned}"
        ))),
        Err(e) => Err(Error::from(e).during(format!("look at bind source {owned}"))),
    })
    .await
}

/// The path of a directory within a volume that no link in the volume leads out of.
async fn inside(data: &Path, subpath: &str) -> Result<std::path::PathBuf> {
    let (data, subpath) = (data.to_owned(), subpath.to_owned());
    blocking(move || {
        let what = || format!("open subpath {subpath:?} of the volume");
        let root = data.canonicalize().during(what)?;
        let path = root.join(&subpath).canonicalize().map_err(|e| {
            let kind = match e.kind() {
                std::io::ErrorKind::NotFound => proto::error::ErrorKind::InvalidArgument,
                _ => proto::error::ErrorKind::Internal,
            };
            Error::new(kind, format!("{}: {e}", what()))
        })?;
        if path.starts_with(&root) {
            Ok(path)
        } else {
            Err(Error::invalid(format!(
                "{}: it is outside of the volume",
                what()
            )))
        }
    })
    .await
}

fn bind(source: &str, mount: &Mount, recursive: bool, propagation: &str) -> Result<runtime::Mount> {
    let options = vec![
        if recursive { "rbind" } else { "bind" }.to_owned(),
        if mount.read_only { "ro" } else { "rw" }.to_owned(),
        propagation.to_owned(),
    ];
    oci("bind", source, &mount.destination, options)
}

fn oci(
    kind: &str,
    source: &str,
    destination: &str,
    options: Vec<String>,
) -> Result<runtime::Mount> {
    runtime::MountBuilder::default()
        .typ(kind)
        .source(source)
        .destination(destination)
        .options(options)
        .build()
        .map_err(|e| Error::internal(format!("mount of {destination}: {e}")))
}
