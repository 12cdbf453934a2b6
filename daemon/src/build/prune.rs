//! `POST /build/prune`: the steps of former builds, which are the cache, go.

use std::collections::BTreeSet;

use proto::engine::BuildPruned;

use crate::App;
use crate::error::Result;

/// Forgets all steps. Images that have a name of their own stay, and so do containers' layers.
pub(crate) async fn prune(app: &App) -> Result<BuildPruned> {
    let images = &app.images;
    let mut kept: BTreeSet<String> = BTreeSet::new();
    for named in images.all().await? {
        kept.extend(named.image.chain.iter().cloned());
    }
    for handle in app.containers.all() {
        kept.insert(handle.record().chain.clone());
    }
    let steps = images.steps().await?;
    let mut layers: BTreeSet<&String> = BTreeSet::new();
    for step in &steps {
        layers.extend(
            step.image
                .chain
                .iter()
                .filter(|layer| !kept.contains(*layer)),
        );
    }
    let mut reclaimed = 0;
    for layer in layers {
        reclaimed += images.layer_size(layer).await?;
    }
    let caches_deleted: Vec<String> = steps.iter().map(|step| step.image.id.clone()).collect();
    for step in &steps {
        images.unname(&step.name, false).await?;
    }
    images.collect().await?;
    Ok(BuildPruned {
        caches_deleted: Some(caches_deleted).filter(|list| !list.is_empty()),
        space_reclaimed: reclaimed,
    })
}
