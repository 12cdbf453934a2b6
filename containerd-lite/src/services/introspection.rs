//! Introspection: what this daemon consists of, in the words of the real one's plugins.

use std::borrow::Cow;
use std::collections::HashMap;

use prost_types::Any;
use proto::containerd::services::introspection::v1 as wire;
use proto::containerd::types::{Platform, RuntimeRequest};
use tonic::{Request, Response, Status};

use super::{Parts, filters};
use crate::config::ProxyKind;
use crate::error::status;
use crate::filters::{Fields, text};

/// Type of the plugin that starts shims.
const RUNTIME: &str = "io.containerd.runtime.v2";

/// The service.
#[derive(Debug)]
pub(crate) struct Service(Parts);

impl Service {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }

    /// Only the runtime has more to tell, and takes options: which shim to ask, and its options.
    async fn runtime_info(&self, kind: &str, options: &Any) -> Result<Any, Status> {
        if kind != RUNTIME {
            return Err(Status::invalid_argument(format!(
                "plugins of type {kind} take no options"
            )));
        }
        let request = proto::any::unpack::<RuntimeRequest>(options)
            .and_then(Result::ok)
            .ok_or_else(|| Status::invalid_argument("options are no runtime request"))?;
        let info = self
            .0
            .runtime
            .info(&request.runtime_path, request.options.as_ref())
            .await
            .map_err(status)?;
        Ok(proto::any::pack(&info))
    }

    fn plugins(&self) -> Vec<Plugin> {
        let root = &self.0.config.root;
        let folder = |name: &str| {
            HashMap::from([("root".to_owned(), root.join(name).display().to_string())])
        };
        let mut all = vec![
            Plugin::new("io.containerd.content.v1", "content").exports(folder(crate::CONTENT)),
            Plugin::new("io.containerd.metadata.v1", "bolt"),
            Plugin::new("io.containerd.differ.v1", "walking").platform(),
            Plugin::new("io.containerd.gc.v1", "scheduler"),
            Plugin::new("io.containerd.event.v1", "exchange"),
            Plugin::new("io.containerd.lease.v1", "manager"),
            Plugin::new("io.containerd.streaming.v1", "manager"),
            Plugin::new("io.containerd.transfer.v1", "local").platform(),
            Plugin::new(RUNTIME, "task").platform(),
            Plugin::new("io.containerd.sandbox.store.v1", "local"),
            Plugin::new("io.containerd.sandbox.controller.v1", "shim").platform(),
        ];
        for name in ["native", "overlayfs"] {
            all.push(
                Plugin::new("io.containerd.snapshotter.v1", name)
                    .platform()
                    .exports(folder(&crate::snapshotter(name))),
            );
        }
        for proxy in &self.0.config.proxies {
            let kind = match proxy.kind {
                ProxyKind::Snapshot => "io.containerd.snapshotter.v1",
                ProxyKind::Diff => "io.containerd.differ.v1",
            };
            let mut plugin = Plugin::new(kind, &proxy.name).platform();
            plugin.exports = proxy.exports.clone().into_iter().collect();
            let address = proxy.address.display().to_string();
            plugin.exports.insert("address".to_owned(), address);
            plugin.capabilities.clone_from(&proxy.capabilities);
            all.push(plugin);
        }
        for name in [
            "containers",
            "content",
            "diff",
            "events",
            "images",
            "introspection",
            "leases",
            "namespaces",
            "sandbox-controllers",
            "sandboxes",
            "snapshots",
            "streaming",
            "tasks",
            "transfer",
            "version",
            "healthcheck",
        ] {
            all.push(Plugin::new("io.containerd.grpc.v1", name));
        }
        all.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
        all
    }
}

#[derive(Debug)]
struct Plugin {
    kind: &'static str,
    id: String,
    has_platform: bool,
    exports: HashMap<String, String>,
    capabilities: Vec<String>,
}

impl Plugin {
    fn new(kind: &'static str, id: &str) -> Self {
        Self {
            kind,
            id: id.to_owned(),
            has_platform: false,
            exports: HashMap::new(),
            capabilities: Vec::new(),
        }
    }

    fn platform(mut self) -> Self {
        self.has_platform = true;
        self
    }

    fn exports(mut self, exports: HashMap<String, String>) -> Self {
        self.exports = exports;
        self
    }

    fn out(self) -> wire::Plugin {
        let platforms = if self.has_platform {
            vec![platform()]
        } else {
            Vec::new()
        };
        wire::Plugin {
            r#type: self.kind.to_owned(),
            id: self.id,
            platforms,
            exports: self.exports,
            capabilities: self.capabilities,
            ..wire::Plugin::default()
        }
    }
}

impl Fields for Plugin {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["type"] => text(self.kind),
            ["id"] => text(&self.id),
            ["platforms"] if self.has_platform => Some(platform_text().into()),
            _ => None,
        }
    }
}

fn platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        ..Platform::default()
    }
}

fn platform_text() -> String {
    let platform = platform();
    format!("{}/{}", platform.os, platform.architecture)
}

#[tonic::async_trait]
impl wire::introspection_server::Introspection for Service {
    async fn plugins(
        &self,
        request: Request<wire::PluginsRequest>,
    ) -> Result<Response<wire::PluginsResponse>, Status> {
        let filters = filters(&request.get_ref().filters)?;
        let plugins = self
            .plugins()
            .into_iter()
            .filter(|p| filters.matches(p))
            .map(Plugin::out)
            .collect();
        Ok(Response::new(wire::PluginsResponse { plugins }))
    }

    async fn server(&self, _: Request<()>) -> Result<Response<wire::ServerResponse>, Status> {
        use std::os::unix::fs::MetadataExt as _;
        let namespace = std::fs::metadata("/proc/self/ns/pid")
            .map_err(|e| Status::internal(format!("read the pid namespace: {e}")))?;
        Ok(Response::new(wire::ServerResponse {
            uuid: self.0.store.uuid().map_err(status)?,
            pid: std::process::id().into(),
            pidns: namespace.ino(),
            deprecations: Vec::new(),
        }))
    }

    async fn plugin_info(
        &self,
        request: Request<wire::PluginInfoRequest>,
    ) -> Result<Response<wire::PluginInfoResponse>, Status> {
        let request = request.into_inner();
        let found = self
            .plugins()
            .into_iter()
            .find(|p| p.kind == request.r#type && p.id == request.id);
        let plugin = found.ok_or_else(|| {
            Status::not_found(format!(
                "plugin {} of type {}: not found",
                request.id, request.r#type
            ))
        })?;
        let extra = match &request.options {
            None => None,
            Some(options) => Some(self.runtime_info(plugin.kind, options).await?),
        };
        Ok(Response::new(wire::PluginInfoResponse {
            plugin: Some(plugin.out()),
            extra,
        }))
    }
}
