//! Images: names that point at a manifest.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{
    Labels, MetadataError, Result, Store, attempt, bad_path, checked_labels, from_json, identifier,
    mask_map, namespaces, to_json,
};
use crate::time::{Nanos, now};

/// An image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) labels: Labels,
    pub(crate) target: Target,
    pub(crate) created_at: Nanos,
    pub(crate) updated_at: Nanos,
}

/// The manifest or index that an image points at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: i64,
    pub(crate) annotations: Labels,
}

/// The images of a store.
#[derive(Debug)]
pub(crate) struct Images<'a>(&'a Store);

impl Store {
    /// The images.
    pub(crate) fn images(&self) -> Images<'_> {
        Images(self)
    }
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Image> {
    Ok(Image {
        name: row.get("name")?,
        labels: from_json(row, "labels")?,
        target: Target {
            media_type: row.get("media_type")?,
            digest: row.get("digest")?,
            size: row.get("size")?,
            annotations: from_json(row, "annotations")?,
        },
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn not_found(name: &str) -> MetadataError {
    MetadataError::NotFound(format!("image {name:?}"))
}

fn find(c: &Connection, ns: &str, name: &str) -> Result<Option<Image>> {
    c.prepare_cached("SELECT * FROM images WHERE ns = ?1 AND name = ?2")
        .and_then(|mut s| s.query_row([ns, name], row).optional())
        .map_err(attempt("read image"))
}

fn put(c: &Connection, ns: &str, image: &Image) -> Result<()> {
    c.prepare_cached(
        "INSERT INTO images (ns, name, media_type, digest, size, annotations, labels, created_at, updated_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (ns, name) DO UPDATE SET media_type = excluded.media_type, digest = excluded.digest,
           size = excluded.size, annotations = excluded.annotations, labels = excluded.labels,
           updated_at = excluded.updated_at",
    )
    .and_then(|mut s| {
        s.execute(params![
            ns,
            image.name,
            image.target.media_type,
            image.target.digest,
            image.target.size,
            to_json(&image.target.annotations),
            to_json(&image.labels),
            image.created_at,
            image.updated_at
        ])
    })
    .map_err(attempt("write image"))?;
    Ok(())
}

fn check(image: &Image) -> Result<()> {
    let invalid = |what: String| {
        Err(MetadataError::Invalid(format!(
            "image {:?}: {what}",
            image.name
        )))
    };
    if image.name.is_empty() {
        return invalid("name must not be empty".into());
    }
    if image.target.size <= 0 {
        return invalid("target size must be positive".into());
    }
    if image.target.media_type.is_empty() {
        return invalid("target media type must be set".into());
    }
    crate::content::Digest::parse(&image.target.digest)
        .map_err(|e| MetadataError::Invalid(format!("image {:?}: target: {e}", image.name)))?;
    Ok(())
}

impl Images<'_> {
    /// One image.
    pub(crate) fn get(&self, ns: &str, name: &str) -> Result<Image> {
        self.0
            .read(|c| find(c, ns, name))?
            .ok_or_else(|| not_found(name))
    }

    /// All images of a namespace, by name.
    pub(crate) fn list(&self, ns: &str) -> Result<Vec<Image>> {
        self.0.read(|c| {
            c.prepare_cached("SELECT * FROM images WHERE ns = ?1 ORDER BY name")
                .and_then(|mut s| s.query_map([ns], row)?.collect())
                .map_err(attempt("list images"))
        })
    }

    /// Makes one.
    pub(crate) async fn create(&self, ns: &str, mut image: Image) -> Result<Image> {
        identifier("namespace", ns)?;
        check(&image)?;
        image.labels = checked_labels(&image.labels)?;
        let ns = ns.to_owned();
        self.0
            .write(move |c| {
                if find(c, &ns, &image.name)?.is_some() {
                    return Err(MetadataError::AlreadyExists(format!(
                        "image {:?}",
                        image.name
                    )));
                }
                namespaces::ensure(c, &ns)?;
                image.created_at = now();
                image.updated_at = image.created_at;
                put(c, &ns, &image)?;
                Ok(image)
            })
            .await
    }

    /// Changes the fields that the mask names; without one labels and target.
    pub(crate) async fn update(&self, ns: &str, new: Image, mask: Vec<String>) -> Result<Image> {
        let ns = ns.to_owned();
        self.0
            .write(move |c| {
                let mut current = find(c, &ns, &new.name)?.ok_or_else(|| not_found(&new.name))?;
                if mask.is_empty() {
                    current.labels = new.labels.clone();
                    current.target = new.target.clone();
                }
                for path in &mask {
                    if mask_map(&mut current.labels, &new.labels, "labels", path)
                        || mask_map(
                            &mut current.target.annotations,
                            &new.target.annotations,
                            "annotations",
                            path,
                        )
                    {
                        continue;
                    }
                    match path.as_str() {
                        "target" => current.target = new.target.clone(),
                        _ => return Err(bad_path(path, "image", &new.name)),
                    }
                }
                check(&current)?;
                current.labels = checked_labels(&current.labels)?;
                current.updated_at = now();
                put(c, &ns, &current)?;
                Ok(current)
            })
            .await
    }

    /// Removes the name; if `target` is given, only while it points there.
    pub(crate) async fn delete(&self, ns: &str, name: &str, target: Option<String>) -> Result<()> {
        let (ns, name) = (ns.to_owned(), name.to_owned());
        self.0
            .write(move |c| {
                let current = find(c, &ns, &name)?.ok_or_else(|| not_found(&name))?;
                if target.is_some_and(|t| t != current.target.digest) {
                    return Err(MetadataError::NotFound(format!(
                        "image {name:?} has a different target"
                    )));
                }
                c.execute(
                    "DELETE FROM images WHERE ns = ?1 AND name = ?2",
                    [&ns, &name],
                )
                .map_err(attempt("delete image"))?;
                Ok(())
            })
            .await
    }
}
