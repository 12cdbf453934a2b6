//! Mounts as they are asked for, and as they are reported.

use std::collections::BTreeMap;

use super::wire::wire;

wire! {
    /// A mount asked for by `--mount`: type bind, volume, tmpfs or image.
    pub struct Mount {
        "Type" [omitempty] kind: String,
        "Source" [omitempty] source: String,
        "Target" [omitempty] target: String,
        "ReadOnly" [omitempty] read_only: bool,
        "Consistency" [omitempty] consistency: String,
        "BindOptions" [omitempty] bind_options: Option<BindOptions>,
        "VolumeOptions" [omitempty] volume_options: Option<VolumeOptions>,
        "ImageOptions" [omitempty] image_options: Option<ImageOptions>,
        "TmpfsOptions" [omitempty] tmpfs_options: Option<TmpfsOptions>,
    }

    /// Options of a bind mount.
    pub struct BindOptions {
        "Propagation" [omitempty] propagation: String,
        "NonRecursive" [omitempty] non_recursive: bool,
        "CreateMountpoint" [omitempty] create_mountpoint: bool,
        "ReadOnlyNonRecursive" [omitempty] read_only_non_recursive: bool,
        "ReadOnlyForceRecursive" [omitempty] read_only_force_recursive: bool,
    }

    /// Options of a volume mount.
    pub struct VolumeOptions {
        "NoCopy" [omitempty] no_copy: bool,
        "Labels" [omitempty] labels: BTreeMap<String, String>,
        "Subpath" [omitempty] subpath: String,
        "DriverConfig" [omitempty] driver_config: Option<MountDriver>,
    }

    /// The volume driver that makes a volume which does not exist yet.
    pub struct MountDriver {
        "Name" [omitempty] name: String,
        "Options" [omitempty] options: BTreeMap<String, String>,
    }

    /// Options of an image mount.
    pub struct ImageOptions {
        "Subpath" [omitempty] subpath: String,
    }

    /// Options of a tmpfs mount; the mode is the permission bits as a number.
    pub struct TmpfsOptions {
        "SizeBytes" [omitempty] size_bytes: i64,
        "Mode" [omitempty] mode: u32,
        "Options" [omitempty] options: Vec<Vec<String>>,
    }

    /// A mount that a container has.
    pub struct MountPoint {
        "Type" [omitempty] kind: String,
        "Name" [omitempty] name: String,
        "Source" source: String,
        "Destination" destination: String,
        "Driver" [omitempty] driver: String,
        "Mode" mode: String,
        "RW" rw: bool,
        "Propagation" propagation: String,
    }
}
