//! Images made from images: a step of a build has a config of its own and at most one layer more than what it stands on.
//!
//! A step has a name that no list shows, made of a key. The key says all that the step depends on, so that the name is the
//! builder's cache: what has it is what the step would make. It keeps layers and snapshots from the garbage collector.

use std::sync::Arc;

use proto::containerd::types;
use proto::engine::ImageConfig;

use super::commit::{Source, changes};
use super::ingest::LeaseGuard;
use super::manifest::{History, ImageFile};
use super::{Image, Images, STEP, now, write};
use crate::backend::{SLOW, within};
use crate::error::{During, Result};

/// What a step makes.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    /// What it stands on; nothing for a first step upon nothing.
    pub(crate) base: Option<&'a Image>,
    /// Its config.
    pub(crate) config: ImageConfig,
    /// Who made it, where anybody is named.
    pub(crate) author: String,
    /// The instruction, as the history shows it.
    pub(crate) made_by: String,
    /// The container whose changes are its layer.
    pub(crate) layer: Option<Source>,
    /// Its key.
    pub(crate) key: &'a str,
}

impl Images {
    /// The image that a step of this key has made before.
    pub(crate) async fn step(&self, key: &str) -> Result<Option<Arc<Image>>> {
        let named = self.by_name(&format!("{STEP}{key}")).await?;
        Ok(named.map(|named| named.image))
    }

    /// Makes a step's image.
    pub(crate) async fn derive(&self, step: Step<'_>) -> Result<Arc<Image>> {
        let mut file = match step.base {
            Some(base) => base.file.clone(),
            None => ImageFile::for_host(now()),
        };
        let mut layers: Vec<types::Descriptor> = match step.base {
            Some(base) => base
                .layers
                .layers()
                .iter()
                .map(super::unpack::wire)
                .collect(),
            None => Vec::new(),
        };
        let guard = LeaseGuard::new(&self.backend, "build").await?;
        let leased = guard.backend();
        let work = async {
            let empty_layer = step.layer.is_none();
            if let Some(source) = &step.layer {
                let (layer, diff_id) = changes(leased, source).await?;
                layers.push(layer);
                file.rootfs.diff_ids.push(diff_id);
            }
            file.rootfs.kind = "layers".into();
            file.created = Some(now());
            file.config = Some(step.config);
            if !step.author.is_empty() {
                file.author = Some(step.author.clone());
            }
            let history = file.history.get_or_insert_default();
            history.push(History {
                created: file.created.clone(),
                created_by: Some(step.made_by),
                author: Some(step.author).filter(|author| !author.is_empty()),
                empty_layer,
                ..History::default()
            });
            let target = write::documents(leased, &file, layers).await?;
            self.finish(leased, &target, Some(&format!("{STEP}{}", step.key)))
                .await
        };
        let outcome = work.await;
        guard.end(outcome).await
    }

    /// What nobody names any more goes now.
    pub(crate) async fn collect(&self) -> Result<()> {
        use proto::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
        // A lease that goes with `sync` makes containerd collect before it answers.
        let id = format!("prune-{}", crate::random::hex(8));
        let create = CreateRequest {
            id: id.clone(),
            ..CreateRequest::default()
        };
        within(SLOW, self.backend.leases().create(create))
            .await
            .during(|| "collect what nobody names")?;
        within(
            SLOW,
            self.backend
                .leases()
                .delete(DeleteRequest { id, sync: true }),
        )
        .await
        .during(|| "collect what nobody names")?;
        Ok(())
    }
}
