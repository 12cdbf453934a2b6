//! What takes space: the answer to `GET /system/df`, in both its shapes.

use serde_json::Value;

use super::wire::wire;
use super::{ContainerSummary, ImageSummary, Volume};

wire! {
    /// The answer to `GET /system/df`: sums since API 1.52, plain lists before.
    pub struct DiskUsage {
        "ImageUsage" [omitempty] image_usage: Option<ImageUsage>,
        "ContainerUsage" [omitempty] container_usage: Option<ContainerUsage>,
        "VolumeUsage" [omitempty] volume_usage: Option<VolumesUsage>,
        "BuildCacheUsage" [omitempty] build_cache_usage: Option<BuildCacheUsage>,
        "LayersSize" [omitempty] layers_size: Option<i64>,
        "Images" [omitempty] images: Option<Vec<ImageSummary>>,
        "Containers" [omitempty] containers: Option<Vec<ContainerSummary>>,
        "Volumes" [omitempty] volumes: Option<Vec<Volume>>,
        "BuildCache" [omitempty] build_cache: Option<Vec<Value>>,
        "BuilderSize" [omitempty] builder_size: Option<i64>,
    }

    /// What images take; items only when asked for (`verbose`).
    pub struct ImageUsage {
        "ActiveCount" [omitempty] active_count: i64,
        "Items" [omitempty] items: Vec<ImageSummary>,
        "Reclaimable" [omitempty] reclaimable: i64,
        "TotalCount" [omitempty] total_count: i64,
        "TotalSize" [omitempty] total_size: i64,
    }

    /// What containers take.
    pub struct ContainerUsage {
        "ActiveCount" [omitempty] active_count: i64,
        "Items" [omitempty] items: Vec<ContainerSummary>,
        "Reclaimable" [omitempty] reclaimable: i64,
        "TotalCount" [omitempty] total_count: i64,
        "TotalSize" [omitempty] total_size: i64,
    }

    /// What volumes take.
    pub struct VolumesUsage {
        "ActiveCount" [omitempty] active_count: i64,
        "Items" [omitempty] items: Vec<Volume>,
        "Reclaimable" [omitempty] reclaimable: i64,
        "TotalCount" [omitempty] total_count: i64,
        "TotalSize" [omitempty] total_size: i64,
    }

    /// What the build cache takes.
    pub struct BuildCacheUsage {
        "ActiveCount" [omitempty] active_count: i64,
        "Items" [omitempty] items: Vec<Value>,
        "Reclaimable" [omitempty] reclaimable: i64,
        "TotalCount" [omitempty] total_count: i64,
        "TotalSize" [omitempty] total_size: i64,
    }

    /// The answer to `POST /build/prune`.
    pub struct CachesPruned {
        "CachesDeleted" caches_deleted: Option<Vec<String>>,
        "SpaceReclaimed" space_reclaimed: u64,
    }
}
