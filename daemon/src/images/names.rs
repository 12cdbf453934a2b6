//! `tag`: one more name for an image.

use super::Images;
use super::reference::Reference;
use crate::error::{Error, Result};

impl Images {
    /// Names the image `source` also `repository:tag`. Answers the image's id and the name as users see it.
    pub(crate) async fn tag(
        &self,
        source: &str,
        repository: &str,
        tag: &str,
    ) -> Result<(String, String)> {
        let reference = new_name(repository, tag)?;
        let named = self.resolve(source).await?;
        self.name(&reference.image_name(), &named.image.target)
            .await?;
        Ok((named.image.id.clone(), reference.familiar()))
    }
}

/// The name that `repo=` and `tag=` mean together.
pub(crate) fn new_name(repository: &str, tag: &str) -> Result<Reference> {
    let invalid = |e: super::reference::ReferenceError| Error::invalid(e.to_string());
    if tag.is_empty() {
        return Reference::parse_tag(repository).map_err(invalid);
    }
    let mut reference = Reference::parse(repository).map_err(invalid)?;
    if reference.digest.is_some() {
        return Err(invalid(super::reference::ReferenceError::DigestNotAllowed));
    }
    if !super::reference::is_tag(tag) {
        return Err(Error::invalid("invalid tag format"));
    }
    reference.tag = Some(tag.to_owned());
    Ok(reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_and_tag_make_a_name() {
        assert_eq!(new_name("a", "").unwrap().familiar(), "a:latest");
        assert_eq!(new_name("a:1", "2").unwrap().familiar(), "a:2");
        assert_eq!(new_name("r:5000/a", "x").unwrap().familiar(), "r:5000/a:x");
        assert!(new_name("a", "-").is_err());
        assert!(new_name("", "x").is_err());
        assert!(new_name(&format!("a@sha256:{}", "0".repeat(64)), "x").is_err());
    }
}
