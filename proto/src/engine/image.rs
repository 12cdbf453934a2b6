//! Images as they are listed and inspected, and what their verbs answer.

use std::collections::BTreeMap;

use serde_json::Value;

use super::wire::wire;
use super::{GraphDriver, HealthConfig, Set};

wire! {
    /// The answer to `GET /images/NAME/json`. `Parent`, `DockerVersion` and `VirtualSize` are for older versions.
    pub struct ImageInspect {
        "Id" id: String,
        "RepoTags" repo_tags: Vec<String>,
        "RepoDigests" repo_digests: Vec<String>,
        "Parent" [omitempty] parent: Option<String>,
        "Comment" comment: String,
        "Created" [omitempty] created: String,
        "DockerVersion" [omitempty] docker_version: Option<String>,
        "Author" author: String,
        "Config" config: Option<ImageConfig>,
        "Architecture" architecture: String,
        "Variant" [omitempty] variant: String,
        "Os" os: String,
        "OsVersion" [omitempty] os_version: String,
        "Size" size: i64,
        "VirtualSize" [omitempty] virtual_size: Option<i64>,
        "GraphDriver" [omitempty] graph_driver: Option<GraphDriver>,
        "RootFS" root_fs: RootFs,
        "Metadata" metadata: ImageMetadata,
        "Descriptor" [omitempty] descriptor: Option<Value>,
        "Manifests" [omitempty] manifests: Option<Value>,
        "Identity" [omitempty] identity: Option<Value>,
    }

    /// How containers of an image run when nothing else is said.
    pub struct ImageConfig {
        "User" [omitempty] user: String,
        "ExposedPorts" [omitempty] exposed_ports: Set,
        "Env" [omitempty] env: Vec<String>,
        "Entrypoint" [omitempty] entrypoint: Vec<String>,
        "Cmd" [omitempty] cmd: Vec<String>,
        "Volumes" [omitempty] volumes: Set,
        "WorkingDir" [omitempty] working_dir: String,
        "Labels" [omitempty] labels: BTreeMap<String, String>,
        "StopSignal" [omitempty] stop_signal: String,
        "ArgsEscaped" [omitempty] args_escaped: bool,
        "Healthcheck" [omitempty] healthcheck: Option<HealthConfig>,
        "OnBuild" [omitempty] on_build: Vec<String>,
        "Shell" [omitempty] shell: Vec<String>,
        "What we do not know, kept as read" [flatten] other: BTreeMap<String, Value>,
    }

    /// The layers of an image, as digests of their uncompressed tars.
    pub struct RootFs {
        "Type" [omitempty] kind: String,
        "Layers" [omitempty] layers: Vec<String>,
    }

    /// What only this host knows of an image.
    pub struct ImageMetadata {
        "LastTagTime" last_tag_time: String,
    }

    /// One element of `GET /images/json`; `Containers` and `SharedSize` are -1 when not counted.
    pub struct ImageSummary {
        "Containers" containers: i64,
        "Created" created: i64,
        "Id" id: String,
        "Labels" labels: Option<BTreeMap<String, String>>,
        "ParentId" parent_id: String,
        "Descriptor" [omitempty] descriptor: Option<Value>,
        "Manifests" [omitempty] manifests: Option<Value>,
        "RepoDigests" repo_digests: Vec<String>,
        "RepoTags" repo_tags: Vec<String>,
        "SharedSize" shared_size: i64,
        "Size" size: i64,
        "VirtualSize" [omitempty] virtual_size: Option<i64>,
    }

    /// One element of `GET /images/NAME/history`, newest first; `Id` may be `<missing>`.
    pub struct HistoryItem {
        "Comment" comment: String,
        "Created" created: i64,
        "CreatedBy" created_by: String,
        "Id" id: String,
        "Size" size: i64,
        "Tags" tags: Option<Vec<String>>,
    }

    /// One element of the answer to `DELETE /images/NAME`: one of the two.
    pub struct ImageDeleteItem {
        "Deleted" [omitempty] deleted: String,
        "Untagged" [omitempty] untagged: String,
    }

    /// The answer to `POST /images/prune`.
    pub struct ImagesPruned {
        "ImagesDeleted" images_deleted: Option<Vec<ImageDeleteItem>>,
        "SpaceReclaimed" space_reclaimed: u64,
    }

    /// The answer to `POST /build/prune`.
    pub struct BuildPruned {
        "CachesDeleted" caches_deleted: Option<Vec<String>>,
        "SpaceReclaimed" space_reclaimed: i64,
    }

    /// One element of `GET /images/search`.
    pub struct SearchResult {
        "star_count" star_count: i64,
        "is_official" is_official: bool,
        "name" name: String,
        "is_automated" is_automated: bool,
        "description" description: String,
    }

    /// Credentials for a registry: base64url JSON in the header `X-Registry-Auth`, and the body of `POST /auth`.
    pub struct AuthConfig {
        "username" [omitempty] username: String,
        "password" [omitempty] password: String,
        "auth" [omitempty] auth: String,
        "serveraddress" [omitempty] server_address: String,
        "identitytoken" [omitempty] identity_token: String,
        "registrytoken" [omitempty] registry_token: String,
    }

    /// The answer to `POST /auth`.
    pub struct AuthResponse {
        "IdentityToken" identity_token: String,
        "Status" status: String,
    }
}
