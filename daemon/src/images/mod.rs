//! Images: names in containerd, and what stands behind them.
//!
//! ```text
//!  docker.io/library/busybox:latest ─▶ target (index or manifest) ─▶ config ─▶ chain ids ─▶ snapshot
//!  moby-dangling@sha256:..           an image whose last name went elsewhere
//! ```
//!
//! containerd owns all of it; this module keeps nothing but a memory of documents it has read, which cannot change under
//! their digests. So an image that ctr or nerdctl brought into our namespace is an image here, and after a crash there is
//! nothing to repair: what was half written hangs on a lease that expires.
//!
//! An image's id is the digest of its config. Several names may have one id.

pub(crate) mod blob;
mod busy;
mod commit;
mod contents;
pub(crate) mod derive;
mod history;
mod import;
pub(crate) mod ingest;
pub(crate) mod list;
mod load;
pub(crate) mod manifest;
mod names;
pub(crate) mod progress;
pub(crate) mod reference;
mod remove;
mod save;
pub(crate) mod tarball;
pub(crate) mod unpack;
pub(crate) mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use oci_spec::image::{Descriptor, ImageManifest};
use proto::containerd::services::images::v1 as wire;
use proto::containerd::types;

use crate::backend::{Backend, QUICK, within};
use crate::config::Config;
use crate::db::Db;
use crate::error::{During, Error, Result};
use crate::registry::Registries;

use busy::{Busy, BusyGuard};
use manifest::{Document, ImageFile, Platform};
use reference::Reference;

pub(crate) use commit::{CommitOptions, Source as CommitSource};
pub(crate) use import::ImportOptions;
pub(crate) use names::new_name;
pub(crate) use remove::User;
pub(crate) use tarball::{BodyReader, Compression, stays_inside};

/// Names of images that have no name.
pub(crate) const DANGLING: &str = "moby-dangling@";

/// Names of the steps of builds, which no list shows: the cache of the builder.
pub(crate) const STEP: &str = "moby-build@";

/// How many images' documents are remembered.
const REMEMBERED: usize = 512;

/// An image as it is in containerd: documents that never change.
#[derive(Debug)]
pub(crate) struct Image {
    /// Digest of the config.
    pub(crate) id: String,
    /// What the name points at.
    pub(crate) target: types::Descriptor,
    /// The manifest; the target itself unless that is an index.
    pub(crate) manifest: types::Descriptor,
    /// The manifest's content.
    pub(crate) layers: ImageManifest,
    /// The config's content.
    pub(crate) file: ImageFile,
    /// Names of the layers' snapshots, bottom first.
    pub(crate) chain: Vec<String>,
}

impl Image {
    /// The snapshot that a container's is made from; empty for an image without layers.
    pub(crate) fn snapshot(&self) -> &str {
        self.chain.last().map_or("", String::as_str)
    }

    /// The part of the config that a container takes over.
    pub(crate) fn config(&self) -> proto::engine::ImageConfig {
        self.file.config.clone().unwrap_or_default()
    }
}

/// A name and the image behind it.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    /// The name in containerd.
    pub(crate) name: String,
    /// The image.
    pub(crate) image: Arc<Image>,
    /// When the name was last pointed at it.
    pub(crate) updated: Option<proto::prost_types::Timestamp>,
}

impl Named {
    /// The parsed name; none for a dangling image and for names of other programs that are no references.
    pub(crate) fn reference(&self) -> Option<Reference> {
        if self.name.starts_with(DANGLING) {
            return None;
        }
        Reference::parse(&self.name).ok()
    }
}

/// Handle of the images; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    backend: Backend,
    registries: Arc<RwLock<Arc<Registries>>>,
    known: Arc<Mutex<HashMap<String, Arc<Image>>>>,
    sizes: Arc<Mutex<HashMap<String, i64>>>,
    busy: Busy,
    /// When this daemon started, in seconds since 1970.
    started: i64,
}

impl Images {
    /// A handle; nothing is read yet.
    pub(crate) async fn open(config: &Config, _db: &Db, backend: &Backend) -> Result<Self> {
        Ok(Self {
            backend: backend.clone(),
            registries: Arc::new(RwLock::new(Arc::new(Registries::new(config)?))),
            known: Arc::default(),
            sizes: Arc::default(),
            busy: Busy::default(),
            started: time::OffsetDateTime::now_utc().unix_timestamp(),
        })
    }

    /// The containerd below.
    pub(crate) fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Takes over what a changed configuration says of registries.
    pub(crate) fn reload(&self, config: &Config) -> Result<()> {
        let next = Arc::new(Registries::new(config)?);
        *self
            .registries
            .write()
            .unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// The registries.
    pub(crate) fn registries(&self) -> Arc<Registries> {
        self.registries
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends the leases of a former daemon whose work nobody takes up. Those made since this one's start are left alone.
    pub(crate) async fn sweep(&self) -> Result<()> {
        use proto::containerd::services::leases::v1::{DeleteRequest, ListRequest};
        let request = ListRequest {
            filters: vec![format!("id~=^{}", ingest::TRANSIENT)],
        };
        let leases = within(QUICK, self.backend.leases().list(request))
            .await
            .during(|| "list leases")?
            .leases;
        for lease in leases {
            let made = lease.created_at.map_or(i64::MAX, |time| time.seconds);
            if made >= self.started || !lease.id.starts_with(ingest::TRANSIENT) {
                continue;
            }
            let request = DeleteRequest {
                id: lease.id.clone(),
                sync: false,
            };
            match within(QUICK, self.backend.leases().delete(request)).await {
                Err(e) if !e.is_not_found() => {
                    return Err(e.during(format!("delete lease {}", lease.id)));
                }
                _ => tracing::info!("lease {} of a former daemon has ended", lease.id),
            }
        }
        Ok(())
    }

    /// Waits for everybody else who works on `what` (a layer, a name); they wait until the guard goes.
    pub(crate) async fn exclusive(&self, what: &str) -> BusyGuard {
        self.busy.take(what).await
    }

    /// The image that a user means by a name, a digest, an id or the beginning of an id.
    pub(crate) async fn resolve(&self, text: &str) -> Result<Named> {
        if let Some(id) = full_id(text) {
            return self.by_id(&id, text).await;
        }
        if let Ok(reference) = Reference::parse(text) {
            let reference = reference.or_latest();
            if let Some(named) = self.by_name(&reference.image_name()).await? {
                return Ok(named);
            }
            if let Some(digest) = &reference.digest {
                let repository = reference.repository();
                let all = self.all().await?;
                let found = all.into_iter().find(|named| {
                    let same = named
                        .reference()
                        .is_some_and(|r| r.repository() == repository);
                    same && (named.image.target.digest == *digest
                        || named.image.manifest.digest == *digest)
                });
                if let Some(named) = found {
                    return Ok(named);
                }
            }
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        if reference::is_hex(prefix) && prefix.len() < 64 {
            return self.by_prefix(prefix, text).await;
        }
        Err(no_such(text))
    }

    async fn by_id(&self, id: &str, text: &str) -> Result<Named> {
        let all = self.all().await?;
        let with = |test: &dyn Fn(&Image) -> bool| all.iter().find(|n| test(&n.image)).cloned();
        let found = with(&|image| image.id == id)
            .or_else(|| with(&|image| image.target.digest == id || image.manifest.digest == id));
        match found {
            Some(named) => Ok(named),
            None => {
                let mut steps = self.steps().await?.into_iter();
                let step = steps.find(|named| named.image.id == id);
                step.ok_or_else(|| no_such(text))
            }
        }
    }

    async fn by_prefix(&self, prefix: &str, text: &str) -> Result<Named> {
        let named = self.named(|_| true).await?;
        let (steps, all): (Vec<_>, Vec<_>) = named
            .into_iter()
            .partition(|named| named.name.starts_with(STEP));
        let mut found: Option<Named> = None;
        for named in all.into_iter().chain(steps) {
            if !hex_of(&named.image.id).starts_with(prefix) {
                continue;
            }
            match &found {
                Some(other) if other.image.id != named.image.id => {
                    return Err(Error::invalid(format!(
                        "image reference {text:?} is ambiguous"
                    )));
                }
                Some(_) => {}
                None => found = Some(named),
            }
        }
        found.ok_or_else(|| no_such(text))
    }

    /// The image of exactly this name in containerd.
    pub(crate) async fn by_name(&self, name: &str) -> Result<Option<Named>> {
        let get = || {
            let request = wire::GetImageRequest {
                name: name.to_owned(),
            };
            let mut client = self.backend.images();
            async move { within(QUICK, client.get(request)).await }
        };
        match patiently(get).await {
            Ok(reply) => match reply.image {
                Some(image) => self.read(image).await.map(Some),
                None => Ok(None),
            },
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e.during(format!("look up image {name}"))),
        }
    }

    /// Every name with its image, but for the steps of builds. What cannot be read (another platform's, a signature, a
    /// broken one) is left out.
    pub(crate) async fn all(&self) -> Result<Vec<Named>> {
        self.named(|name| !name.starts_with(STEP)).await
    }

    /// The steps of builds.
    pub(crate) async fn steps(&self) -> Result<Vec<Named>> {
        self.named(|name| name.starts_with(STEP)).await
    }

    async fn named(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Named>> {
        let list = || {
            let mut client = self.backend.images();
            async move { within(QUICK, client.list(wire::ListImagesRequest::default())).await }
        };
        let images = patiently(list).await.during(|| "list images")?.images;
        let mut all = Vec::with_capacity(images.len());
        for image in images.into_iter().filter(|image| wanted(&image.name)) {
            let name = image.name.clone();
            match self.read(image).await {
                Ok(named) => all.push(named),
                Err(e) => tracing::debug!("image {name} is left out: {e}"),
            }
        }
        Ok(all)
    }

    async fn read(&self, image: wire::Image) -> Result<Named> {
        let name = image.name;
        let target = image
            .target
            .ok_or_else(|| Error::internal(format!("image {name} has no target")))?;
        let image_behind = self
            .behind(target)
            .await
            .during(|| format!("read image {name}"))?;
        Ok(Named {
            name,
            image: image_behind,
            updated: image.updated_at,
        })
    }

    /// The image behind a target, for this host's platform.
    pub(crate) async fn behind(&self, target: types::Descriptor) -> Result<Arc<Image>> {
        let key = target.digest.clone();
        if let Some(image) = lock(&self.known).get(&key) {
            return Ok(image.clone());
        }
        let image = Arc::new(read_image(&self.backend, target, &Platform::host()).await?);
        let mut known = lock(&self.known);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(key, image.clone());
        Ok(image)
    }
}

/// Asks again for a while when containerd is away: it is back a moment after it was killed.
async fn patiently<T, F: Future<Output = Result<T>>>(ask: impl Fn() -> F) -> Result<T> {
    const PAUSES: [u64; 7] = [20, 40, 80, 160, 250, 250, 250];
    for pause in PAUSES {
        match ask().await {
            Err(e) if e.kind() == proto::error::ErrorKind::Unavailable => {
                tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
            }
            answer => return answer,
        }
    }
    ask().await
}

/// Reads an image's documents. Of an index, the manifest that `platform` runs is taken, if containerd has it.
pub(crate) async fn read_image(
    backend: &Backend,
    target: types::Descriptor,
    platform: &Platform,
) -> Result<Image> {
    let bytes = blob::read(backend, &target.digest).await?;
    let (manifest, layers) = match Document::parse(&target.media_type, &bytes)? {
        Document::Manifest(layers) => (target.clone(), *layers),
        Document::Index(index) => {
            chosen(backend, platform.choose(&index))
                .await?
                .ok_or_else(|| {
                    Error::not_found(format!(
                        "no manifest of index {} for {platform} is here",
                        target.digest
                    ))
                })?
        }
    };
    let config = layers.config().digest().to_string();
    let file = ImageFile::parse(&blob::read(backend, &config).await?)?;
    unpack::check_count(&file, layers.layers())?;
    Ok(Image {
        id: config,
        chain: file.chain_ids(),
        target,
        manifest,
        layers,
        file,
    })
}

async fn chosen(
    backend: &Backend,
    candidates: Vec<&Descriptor>,
) -> Result<Option<(types::Descriptor, ImageManifest)>> {
    for candidate in candidates {
        let digest = candidate.digest().to_string();
        let bytes = match blob::read(backend, &digest).await {
            Ok(bytes) => bytes,
            Err(e) if e.is_not_found() => continue,
            Err(e) => return Err(e),
        };
        if let Document::Manifest(manifest) =
            Document::parse(candidate.media_type().as_ref(), &bytes)?
        {
            return Ok(Some((unpack::wire(candidate), *manifest)));
        }
    }
    Ok(None)
}

/// The error for an image that is not here, in Docker's words.
pub(crate) fn no_such(text: &str) -> Error {
    let shown = match Reference::parse(text) {
        Ok(reference) if full_id(text).is_none() => reference.or_latest().familiar(),
        _ => text.to_owned(),
    };
    Error::not_found(format!("No such image: {shown}"))
}

/// A whole image id, with its algorithm.
fn full_id(text: &str) -> Option<String> {
    if reference::is_digest(text) {
        return Some(text.to_owned());
    }
    (text.len() == 64 && reference::is_hex(text)).then(|| format!("sha256:{text}"))
}

/// The digits of a digest.
pub(crate) fn hex_of(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}

/// The twelve digits that users see.
pub(crate) fn short(digest: &str) -> &str {
    let hex = hex_of(digest);
    hex.get(..12).unwrap_or(hex)
}

/// The time now as Docker writes it.
pub(crate) fn now() -> String {
    time::OffsetDateTime::now_utc()
        .format(&time::format_description::well_known::Rfc3339)
        .expect("the current time can be written as RFC 3339")
}

/// Seconds since 1970 of an RFC 3339 time; 0 if it is none.
pub(crate) fn unix(text: Option<&str>) -> i64 {
    let parse = |text| {
        time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
    };
    text.and_then(parse)
        .map_or(0, time::OffsetDateTime::unix_timestamp)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_messages() {
        let hex = "a".repeat(64);
        assert_eq!(full_id(&hex), Some(format!("sha256:{hex}")));
        assert_eq!(full_id("abc"), None);
        assert_eq!(no_such("nope").message(), "No such image: nope:latest");
        assert_eq!(short(&format!("sha256:{hex}")).len(), 12);
        assert_eq!(unix(Some("1970-01-01T00:01:00Z")), 60);
        assert_eq!(unix(Some("junk")), 0);
    }
}
