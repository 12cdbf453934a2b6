//! A container as inspect shows it.

use proto::engine::{ContainerInspect, GraphDriver, NetworkSettings};

use super::exec::Stage;
use super::{Handle, View};
use crate::App;
use crate::backend::{SLOW, within};
use crate::error::{During, Result};

/// The whole of it.
pub(crate) fn inspect(app: &App, handle: &Handle) -> ContainerInspect {
    let View { record, .. } = handle.view();
    let dir = app.config.container_dir(&record.id);
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let execs: Vec<String> = handle
        .execs()
        .values()
        .filter(|exec| matches!(exec.stage(), Stage::Running { .. }))
        .map(|exec| exec.id.clone())
        .collect();
    let networks = super::plumbing::settings(app, &record);
    ContainerInspect {
        id: record.id.clone(),
        created: record.created.clone(),
        path: record.path.clone(),
        args: record.args.clone(),
        state: proto::engine::State {
            health: handle.health().get().map(|health| health.inspect()),
            ..record.state.inspect()
        },
        image: record.image.clone(),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: match record.host.log_config.kind.as_str() {
            kind if crate::logs::is_file(kind) => crate::logs::path(&app.config, &record.id)
                .to_string_lossy()
                .into_owned(),
            _ => String::new(),
        },
        name: format!("/{}", record.name),
        restart_count: record.restarts.into(),
        driver: record.snapshotter.clone(),
        platform: "linux".into(),
        exec_ids: (!execs.is_empty()).then_some(execs),
        host_config: record.host.clone(),
        graph_driver: Some(GraphDriver {
            data: None,
            name: record.snapshotter.clone(),
        }),
        mounts: app.volumes.points(&record.mounts),
        config: record.config.clone(),
        network_settings: NetworkSettings { ..networks },
        ..ContainerInspect::default()
    }
}

/// Bytes that the container's own layer takes, and those of its whole root.
pub(crate) async fn size(app: &App, id: &str) -> Result<(i64, i64)> {
    use proto::containerd::services::snapshots::v1::{StatSnapshotRequest, UsageRequest};
    let record = app.containers.find(id)?.record();
    let mut client = app.backend.snapshots();
    let what = || format!("measure container {id}");
    let mut key = record.id.clone();
    let mut sizes = Vec::new();
    while !key.is_empty() {
        let request = UsageRequest {
            snapshotter: record.snapshotter.clone(),
            key: key.clone(),
        };
        sizes.push(within(SLOW, client.usage(request)).await.during(what)?.size);
        let request = StatSnapshotRequest {
            snapshotter: record.snapshotter.clone(),
            key,
        };
        let info = within(SLOW, client.stat(request)).await.during(what)?.info;
        key = info.map(|info| info.parent).unwrap_or_default();
    }
    let own = sizes.first().copied().unwrap_or(0);
    Ok((own, sizes.iter().sum()))
}
