//! Images as the API shows them: the list with its filters, and one image in full.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::containerd::services::snapshots::v1::UsageRequest;
use proto::engine::{GraphDriver, ImageInspect, ImageMetadata, ImageSummary, RootFs};

use super::{Image, Images, Named, lock, unix};
use crate::api::request::Filters;
use crate::backend::{QUICK, within};
use crate::error::{Error, Result};

/// The filters that a list knows.
pub(crate) const FILTERS: [&str; 7] = [
    "dangling",
    "label",
    "label!",
    "before",
    "since",
    "reference",
    "until",
];

/// One image with all its names.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// The image.
    pub(crate) image: Arc<Image>,
    /// Its names that are references.
    pub(crate) names: Vec<Named>,
    /// When a name was last pointed at it, in seconds since 1970.
    pub(crate) tagged: i64,
}

impl Group {
    /// Names with a tag, as users see them.
    pub(crate) fn tags(&self) -> Vec<String> {
        let with_tag = |named: &Named| {
            let reference = named.reference()?;
            let tagged = reference.tag.is_some() && reference.digest.is_none();
            tagged.then(|| reference.familiar())
        };
        let mut tags: Vec<String> = self.names.iter().filter_map(with_tag).collect();
        tags.sort();
        tags
    }

    /// Names with a digest, as users see them.
    pub(crate) fn digests(&self) -> Vec<String> {
        let mut digests: Vec<String> = self
            .names
            .iter()
            .filter_map(|named| {
                let repository = named.reference()?.familiar_repository();
                Some(format!("{repository}@{}", named.image.target.digest))
            })
            .collect();
        digests.sort();
        digests.dedup();
        digests
    }

    /// Whether no name but the dangling one is left.
    pub(crate) fn is_dangling(&self) -> bool {
        self.names.is_empty()
    }

    fn created(&self) -> i64 {
        unix(self.image.file.created.as_deref())
    }

    fn labels(&self) -> BTreeMap<String, String> {
        self.image.config().labels
    }
}

impl Images {
    /// All images with their names, the newest first.
    pub(crate) async fn groups(&self) -> Result<Vec<Group>> {
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for named in self.all().await? {
            let tagged = named.updated.as_ref().map_or(0, |t| t.seconds);
            let group = groups
                .entry(named.image.id.clone())
                .or_insert_with(|| Group {
                    image: named.image.clone(),
                    names: Vec::new(),
                    tagged: 0,
                });
            group.tagged = group.tagged.max(tagged);
            if named.reference().is_some() {
                group.names.push(named);
            }
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse((group.created(), group.tagged)));
        Ok(groups)
    }

    /// The image with all its names.
    pub(crate) async fn group(&self, image: &Arc<Image>) -> Result<Group> {
        let groups = self.groups().await?;
        let found = groups.into_iter().find(|group| group.image.id == image.id);
        Ok(found.unwrap_or_else(|| Group {
            image: image.clone(),
            names: Vec::new(),
            tagged: 0,
        }))
    }

    /// The groups that pass the filters.
    pub(crate) async fn filtered(&self, filters: &Filters) -> Result<Vec<Group>> {
        let dangling = filters.flag("dangling")?;
        let before = self.boundary(filters, "before").await?;
        let since = self.boundary(filters, "since").await?;
        let until = until(filters)?;
        let mut groups = self.groups().await?;
        groups.retain_mut(|group| {
            let created = group.created();
            let fits = dangling.is_none_or(|wanted| wanted == group.is_dangling())
                && before.is_none_or(|limit| created < limit)
                && since.is_none_or(|limit| created > limit)
                && until.is_none_or(|limit| created < limit)
                && filters.labels("label", &group.labels());
            if fits && filters.has("reference") {
                group.names.retain(|named| {
                    named.reference().is_some_and(|reference| {
                        let full = reference.familiar();
                        let name = reference.familiar_repository();
                        filters.any("reference", |pattern| {
                            glob(pattern, &full) || glob(pattern, &name)
                        })
                    })
                });
                return !group.names.is_empty();
            }
            fits
        });
        Ok(groups)
    }

    async fn boundary(&self, filters: &Filters, key: &str) -> Result<Option<i64>> {
        match filters.get(key).next() {
            None => Ok(None),
            Some(name) => {
                let named = self.resolve(name).await?;
                Ok(Some(unix(named.image.file.created.as_deref())))
            }
        }
    }

    /// The list.
    pub(crate) async fn list(&self, filters: &Filters) -> Result<Vec<ImageSummary>> {
        let mut summaries = Vec::new();
        for group in self.filtered(filters).await? {
            let labels = group.labels();
            summaries.push(ImageSummary {
                containers: -1,
                created: group.created(),
                id: group.image.id.clone(),
                labels: (!labels.is_empty()).then_some(labels),
                repo_digests: group.digests(),
                repo_tags: group.tags(),
                shared_size: -1,
                size: self.size(&group.image).await?,
                ..ImageSummary::default()
            });
        }
        Ok(summaries)
    }

    /// Bytes of the image's unpacked layers; those not unpacked count nothing.
    pub(crate) async fn size(&self, image: &Image) -> Result<i64> {
        let mut sum = 0;
        for name in &image.chain {
            sum += self.layer_size(name).await?;
        }
        Ok(sum)
    }

    /// Bytes of one unpacked layer.
    pub(crate) async fn layer_size(&self, name: &str) -> Result<i64> {
        if let Some(size) = lock(&self.sizes).get(name) {
            return Ok(*size);
        }
        let request = UsageRequest {
            snapshotter: self.backend.snapshotter().to_owned(),
            key: name.to_owned(),
        };
        let size = match within(QUICK, self.backend.snapshots().usage(request)).await {
            Ok(usage) => usage.size,
            Err(e) if e.is_not_found() => return Ok(0),
            Err(e) => return Err(e.during(format!("measure snapshot {name}"))),
        };
        let mut sizes = lock(&self.sizes);
        if sizes.len() >= 8 * super::REMEMBERED {
            sizes.clear();
        }
        sizes.insert(name.to_owned(), size);
        Ok(size)
    }

    /// One image in full.
    pub(crate) async fn inspect(&self, text: &str) -> Result<ImageInspect> {
        let named = self.resolve(text).await?;
        let group = self.group(&named.image).await?;
        let image = &group.image;
        let file = &image.file;
        let layers = file.rootfs.diff_ids.clone();
        let comment = file.history.iter().flatten().next_back();
        Ok(ImageInspect {
            id: image.id.clone(),
            repo_tags: group.tags(),
            repo_digests: group.digests(),
            comment: comment.and_then(|h| h.comment.clone()).unwrap_or_default(),
            created: file.created.clone().unwrap_or_default(),
            author: file.author.clone().unwrap_or_default(),
            config: Some(image.config()),
            architecture: file.architecture.clone(),
            variant: file.variant.clone().unwrap_or_default(),
            os: file.os.clone(),
            size: self.size(image).await?,
            graph_driver: Some(GraphDriver {
                data: None,
                name: self.backend.snapshotter().to_owned(),
            }),
            root_fs: RootFs {
                kind: "layers".into(),
                layers,
            },
            metadata: ImageMetadata {
                last_tag_time: time_text(group.tagged),
            },
            descriptor: Some(serde_json::json!({
                "mediaType": image.target.media_type,
                "digest": image.target.digest,
                "size": image.target.size,
            })),
            ..ImageInspect::default()
        })
    }
}

fn time_text(seconds: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .filter(|_| seconds > 0)
        .and_then(|t| {
            t.format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_else(|| "0001-01-01T00:00:00Z".into())
}

/// The filter `until`: a time, or how long ago.
pub(crate) fn until(filters: &Filters) -> Result<Option<i64>> {
    let Some(text) = filters.get("until").next() else {
        return Ok(None);
    };
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(Some(seconds as i64));
    }
    if let Some(ago) = crate::clock::duration(text) {
        return Ok(Some(now - ago.whole_seconds()));
    }
    let parsed = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
    parsed.map(|t| Some(t.unix_timestamp())).map_err(|_| {
        Error::invalid(format!(
            "invalid filter 'until={text}': neither a time nor a duration"
        ))
    })
}

/// Shell patterns where `*` and `?` do not match a slash.
fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Position to go back to: one more character for the last star.
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some('*') => {
                back = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('?') if text[t] != '/' => Some(1),
            Some('[') => class(&pattern[p..], text[t]),
            Some('\\') if pattern.get(p + 1) == Some(&text[t]) => Some(2),
            Some(c) if *c == text[t] && *c != '\\' => Some(1),
            _ => None,
        };
        match (step, back) {
            (Some(step), _) => {
                p += step;
                t += 1;
            }
            (None, Some((after, from))) if text[from] != '/' => {
                back = Some((after, from + 1));
                p = after;
                t = from + 1;
            }
            _ => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Length of the class at the pattern's start if it holds the character.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let negated = pattern.get(1) == Some(&'^');
    let mut at = if negated { 2 } else { 1 };
    let mut holds = false;
    loop {
        let low = *pattern.get(at)?;
        if low == ']' {
            return (holds != negated && c != '/').then_some(at + 1);
        }
        if pattern.get(at + 1) == Some(&'-') && pattern.get(at + 2).is_some_and(|h| *h != ']') {
            holds |= (low..=pattern[at + 2]).contains(&c);
            at += 3;
        } else {
            holds |= low == c;
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns() {
        for (pattern, text, want) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox:latest", true),
            ("busy*", "a/busybox", false),
            ("*/*:v?", "a/b:v1", true),
            ("*", "a/b", false),
            ("a[b-d]c", "acc", true),
            ("a[^b-d]c", "acc", false),
            ("*box:*", "busybox:1", true),
            ("x*y*z", "xaybz", true),
            ("", "", true),
            ("[", "a", false),
        ] {
            assert_eq!(glob(pattern, text), want, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern in "[a-c*?\\[\\]^\\\\/-]{0,12}", text in "[a-c/]{0,12}") {
            let _ = glob(&pattern, &text);
        }
    }
}
