//! Volumes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::wire::wire;

wire! {
    /// A volume, listed or inspected.
    pub struct Volume {
        "ClusterVolume" [omitempty] cluster_volume: Option<Value>,
        "CreatedAt" [omitempty] created_at: String,
        "Driver" driver: String,
        "Labels" labels: Option<BTreeMap<String, String>>,
        "Mountpoint" mountpoint: String,
        "Name" name: String,
        "Options" options: Option<BTreeMap<String, String>>,
        "Scope" scope: String,
        "Status" [omitempty] status: Option<Value>,
        "UsageData" [omitempty] usage_data: Option<VolumeUsage>,
    }

    /// How much of the disk a volume takes and by how many containers it is used; -1 when not known.
    pub struct VolumeUsage {
        "RefCount" ref_count: i64,
        "Size" size: i64,
    }

    /// The answer to `GET /volumes`.
    pub struct VolumeList {
        "Volumes" volumes: Vec<Volume>,
        "Warnings" warnings: Option<Vec<String>>,
    }

    /// The body of `POST /volumes/create`; without a name one is made up.
    pub struct VolumeCreate {
        "ClusterVolumeSpec" [omitempty] cluster_volume_spec: Option<Value>,
        "Driver" [omitempty] driver: String,
        "DriverOpts" [omitempty] driver_opts: BTreeMap<String, String>,
        "Labels" [omitempty] labels: BTreeMap<String, String>,
        "Name" [omitempty] name: String,
    }

    /// The answer to `POST /volumes/prune`.
    pub struct VolumesPruned {
        "VolumesDeleted" volumes_deleted: Option<Vec<String>>,
        "SpaceReclaimed" space_reclaimed: u64,
    }
}
