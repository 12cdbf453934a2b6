//! `GET /system/df`: what takes space.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use proto::containerd::services::snapshots::v1::UsageRequest;
use proto::engine::{ContainerSummary, DiskUsage, ImageSummary, Volume, VolumeUsage};

use super::request::Filters;
use super::{Params, ok};
use crate::App;
use crate::backend::{QUICK, within};
use crate::container::list;
use crate::error::{During, Result};

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new().route("/system/df", get(usage))
}

async fn usage(State(app): State<Arc<App>>, params: Params) -> Result<Response> {
    let kinds = params.every("type");
    let asked = |kind: &str| kinds.is_empty() || kinds.contains(&kind);
    let mut usage = DiskUsage::default();
    if asked("image") {
        let (images, layers) = images(&app).await?;
        usage.layers_size = Some(layers);
        usage.images = Some(images);
    }
    if asked("container") {
        usage.containers = Some(containers(&app).await?);
    }
    if asked("volume") {
        usage.volumes = Some(volumes(&app).await?);
    }
    if asked("build-cache") {
        usage.build_cache = Some(Vec::new());
    }
    Ok(ok(&usage))
}

/// The images, and the size of all their layers, each counted once.
async fn images(app: &App) -> Result<(Vec<ImageSummary>, i64)> {
    let groups = app.images.groups().await?;
    let mut users: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for group in &groups {
        for layer in &group.image.chain {
            users.entry(layer).or_default().insert(&group.image.id);
        }
    }
    let mut total = 0;
    for layer in users.keys() {
        total += app.images.layer_size(layer).await?;
    }
    let mut summaries = app.images.list(&Filters::default()).await?;
    for summary in &mut summaries {
        let Some(group) = groups.iter().find(|group| group.image.id == summary.id) else {
            continue;
        };
        summary.shared_size = 0;
        for layer in &group.image.chain {
            if users.get(layer.as_str()).is_some_and(|all| all.len() > 1) {
                summary.shared_size += app.images.layer_size(layer).await?;
            }
        }
        let all = app.containers.all();
        let using = all
            .iter()
            .filter(|handle| handle.record().image == summary.id);
        summary.containers = i64::try_from(using.count()).unwrap_or(i64::MAX);
    }
    Ok((summaries, total))
}

async fn containers(app: &App) -> Result<Vec<ContainerSummary>> {
    let wanted = list::Wanted {
        all: true,
        limit: 0,
        filters: Filters::default(),
    };
    let mut summaries = list::list(app, &wanted).await?;
    for summary in &mut summaries {
        let request = UsageRequest {
            snapshotter: app.backend.snapshotter().to_owned(),
            key: summary.id.clone(),
        };
        summary.size_rw = match within(QUICK, app.backend.snapshots().usage(request)).await {
            Ok(usage) => usage.size,
            // Removed since it was listed.
            Err(e) if e.is_not_found() => 0,
            Err(e) => return Err(e).during(|| format!("measure container {}", summary.id)),
        };
        let root = app.images.resolve(&summary.image_id).await;
        summary.size_root_fs = summary.size_rw
            + match root {
                Ok(named) => app.images.size(&named.image).await?,
                Err(_) => 0,
            };
    }
    Ok(summaries)
}

async fn volumes(app: &App) -> Result<Vec<Volume>> {
    let users = |name: &str| app.containers.volume_users(name, "");
    let mut volumes = app.volumes.list(&Filters::default(), users)?;
    for volume in &mut volumes {
        let size = app.volumes.size(&volume.name).await?;
        volume.usage_data = Some(VolumeUsage {
            ref_count: i64::try_from(users(&volume.name).len()).unwrap_or(i64::MAX),
            size: i64::try_from(size).unwrap_or(i64::MAX),
        });
    }
    Ok(volumes)
}
