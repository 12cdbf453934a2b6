//! The image store as the end of a transfer: under which names an image is kept, and which images are meant.

use proto::containerd::services::images::v1::{ImageCreate, ImageUpdate};
use proto::containerd::types::transfer::{ImageReference, ImageStore};
use proto::error::ErrorKind;

use super::image::Descriptor;
use super::platform::{Filter, Platform};
use super::{Job, Result, TransferError};
use crate::error::Kind as _;
use crate::metadata::{Image, Labels};

/// Annotation of an archive's entry with the whole name of an image.
pub(super) const NAME: &str = "io.containerd.image.name";
/// Annotation of an archive's entry with the tag of an image, or its whole name.
pub(super) const REF: &str = "org.opencontainers.image.ref.name";

/// Which parts of an image a client wants.
pub(super) fn filter(store: &ImageStore) -> Filter {
    Filter {
        platforms: store.platforms.iter().map(Platform::of_wire).collect(),
        limit: store.manifest_limit as usize,
        all_metadata: store.all_metadata,
    }
}

/// The names that a client gives to an image as a whole.
fn whole(store: &ImageStore, what: &Descriptor) -> Vec<String> {
    let mut names = Vec::new();
    if !store.name.is_empty() {
        names.push(store.name.clone());
    }
    for extra in store.extra_references.iter().filter(|r| !r.is_prefix) {
        names.push(match extra.add_digest {
            true => format!("{}@{}", extra.name, what.digest),
            false => extra.name.clone(),
        });
    }
    names
}

/// The names that an entry of an archive gets from its annotations.
fn annotated(store: &ImageStore, what: &Descriptor) -> Vec<String> {
    let mut names = Vec::new();
    for rule in store.extra_references.iter().filter(|r| r.is_prefix) {
        let digested = || format!("{}@{}", rule.name, what.digest);
        match annotated_name(&what.annotations, rule) {
            Some(name) => {
                names.push(name);
                if rule.add_digest && !rule.skip_named_digest {
                    names.push(digested());
                }
            }
            None if rule.add_digest => names.push(digested()),
            None => {}
        }
    }
    names
}

/// A whole name is taken as it is or not at all; a tag is put behind the prefix.
fn annotated_name(annotations: &Labels, rule: &ImageReference) -> Option<String> {
    let fits = |name: &str| {
        rule.allow_overwrite
            || name
                .strip_prefix(&rule.name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']))
    };
    let given = |key: &str| annotations.get(key).filter(|name| !name.is_empty());
    if let Some(name) = given(NAME) {
        return (name.contains(['/', ':', '@']) && fits(name)).then(|| name.clone());
    }
    let name = given(REF)?;
    if name.contains(['/', ':', '@']) {
        return fits(name).then(|| name.clone());
    }
    (!rule.name.is_empty()).then(|| format!("{}:{name}", rule.name))
}

impl Job {
    /// Keeps an image under the names that the client gives it.
    pub(super) async fn save(&self, store: &ImageStore, what: &Descriptor) -> Result<()> {
        let names = whole(store, what);
        if names.is_empty() {
            return Err(TransferError::NotFound("a name for the image".into()));
        }
        self.save_as(names, store, what).await
    }

    /// Keeps an entry of an archive under the names that its annotations give it; says whether there were any.
    pub(super) async fn save_entry(&self, store: &ImageStore, what: &Descriptor) -> Result<bool> {
        let names = annotated(store, what);
        let any = !names.is_empty();
        self.save_as(names, store, what).await?;
        Ok(any)
    }

    /// Keeps the index of an archive if the client names it.
    pub(super) async fn save_index(&self, store: &ImageStore, what: &Descriptor) -> Result<bool> {
        let names = whole(store, what);
        let any = !names.is_empty();
        self.save_as(names, store, what).await?;
        Ok(any)
    }

    async fn save_as(
        &self,
        names: Vec<String>,
        store: &ImageStore,
        what: &Descriptor,
    ) -> Result<()> {
        for name in names {
            let image = Image {
                name: name.clone(),
                labels: store.labels.clone().into_iter().collect(),
                target: what.target(),
                ..Image::default()
            };
            self.put(image).await?;
            self.progress.about("saved", &name, what);
        }
        Ok(())
    }

    /// Creates the image or points it elsewhere, whichever it takes.
    async fn put(&self, image: Image) -> Result<()> {
        let images = self.parts.store.images();
        let labels = |image: &Image| image.labels.clone().into_iter().collect();
        loop {
            match images.create(&self.ns, image.clone()).await {
                Ok(made) => {
                    let event = ImageCreate {
                        labels: labels(&made),
                        name: made.name,
                    };
                    self.publish("/images/create", proto::any::pack(&event));
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            match images.update(&self.ns, image.clone(), Vec::new()).await {
                Ok(made) => {
                    let event = ImageUpdate {
                        labels: labels(&made),
                        name: made.name,
                    };
                    self.publish("/images/update", proto::any::pack(&event));
                    self.parts.gc.soon();
                    return Ok(());
                }
                // Removed in between: make it after all.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn publish(&self, topic: &str, event: prost_types::Any) {
        self.parts.events.publish(&self.ns, topic, event);
    }

    /// The images that a client means, with their names.
    pub(super) fn lookup(&self, store: &ImageStore) -> Result<Vec<(String, Descriptor)>> {
        let mut names = Vec::new();
        if !store.name.is_empty() {
            names.push(store.name.clone());
        }
        for extra in &store.extra_references {
            if extra.is_prefix {
                return Err(TransferError::Unsupported(format!(
                    "looking images up by the prefix {:?}",
                    extra.name
                )));
            }
            names.push(extra.name.clone());
        }
        if names.is_empty() {
            return Err(TransferError::Invalid("no image is named".into()));
        }
        let find = |name: String| {
            let image = self.parts.store.images().get(&self.ns, &name)?;
            Ok((name, Descriptor::of_target(&image.target)?))
        };
        names.into_iter().map(find).collect()
    }
}

/// Gives an image another name.
pub(super) async fn tag(job: &Job, from: &ImageStore, to: &ImageStore) -> Result<()> {
    let image = job.parts.store.images().get(&job.ns, &from.name)?;
    let what = Descriptor::of_target(&image.target)?;
    job.save(to, &what).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Digest;

    fn named(key: &str, value: &str) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest: Digest::of_bytes(b"x"),
            size: 1,
            annotations: Labels::from([(key.to_owned(), value.to_owned())]),
            platform: None,
        }
    }

    fn rule(name: &str, overwrite: bool, digest: bool, skip: bool) -> ImageStore {
        ImageStore {
            extra_references: vec![ImageReference {
                name: name.into(),
                is_prefix: true,
                allow_overwrite: overwrite,
                add_digest: digest,
                skip_named_digest: skip,
            }],
            ..ImageStore::default()
        }
    }

    #[test]
    fn annotations_name_entries_of_archives() {
        let digest = Digest::of_bytes(b"x");
        let names = |store: &ImageStore, key, value| annotated(store, &named(key, value));
        let strict = rule("r.io/a", false, false, false);
        assert_eq!(names(&strict, REF, "v1"), ["r.io/a:v1"]);
        assert_eq!(names(&strict, NAME, "r.io/a:v2"), ["r.io/a:v2"]);
        assert_eq!(names(&strict, NAME, "r.io/ab:v2"), [""; 0]);
        let free = rule("r.io/a", true, true, true);
        assert_eq!(names(&free, NAME, "x.io/b:1"), ["x.io/b:1"]);
        assert_eq!(names(&free, "other", "x"), [format!("r.io/a@{digest}")]);
        let both = rule("p", true, true, false);
        assert_eq!(
            names(&both, REF, "t"),
            ["p:t".to_owned(), format!("p@{digest}")]
        );
    }
}
