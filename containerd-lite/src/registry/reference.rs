//! References as the daemon gets them: complete, `HOST/PATH[:TAG][@DIGEST]`.

use super::{RegistryError, Result};
use crate::content::Digest;

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Host with its port.
    pub(crate) host: String,
    /// Repository below the host.
    pub(crate) path: String,
    /// Name within the repository.
    pub(crate) tag: Option<String>,
    /// What must be behind it.
    pub(crate) digest: Option<Digest>,
}

impl Reference {
    /// Parses one.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid =
            |why: &str| RegistryError::Invalid(format!("image reference {text:?}: {why}"));
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = Digest::parse(digest).map_err(|e| invalid(&e.to_string()))?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        let (host, rest) = name
            .split_once('/')
            .ok_or_else(|| invalid("no host before the first slash"))?;
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if host.is_empty()
            || !host.chars().all(|c| plain(c) || "[]:".contains(c))
            || !host.contains(['.', ':']) && host != "localhost"
        {
            return Err(invalid("the part before the first slash is no host"));
        }
        if path.is_empty() || !path.chars().all(|c| plain(c) || c == '/') {
            return Err(invalid("malformed repository"));
        }
        if path
            .split('/')
            .any(|part| part.is_empty() || part.starts_with('.'))
        {
            return Err(invalid("malformed repository"));
        }
        if tag.is_some_and(|tag| tag.is_empty() || tag.len() > 128 || !tag.chars().all(plain)) {
            return Err(invalid("malformed tag"));
        }
        if tag.is_none() && digest.is_none() {
            return Err(invalid("neither tag nor digest"));
        }
        Ok(Self {
            host: host.to_owned(),
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }

    /// What a registry is asked for: the digest if there is one.
    pub(crate) fn object(&self) -> &str {
        match &self.digest {
            Some(digest) => digest.as_str(),
            None => self.tag.as_deref().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.host, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_references_parse_and_print_the_same() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in [
            "docker.io/library/busybox:1".to_owned(),
            "127.0.0.1:5000/a:b".to_owned(),
            "[::1]:5000/a/b:c".to_owned(),
            "localhost/a:b".to_owned(),
            format!("quay.io/x/y@{digest}"),
            format!("quay.io/x/y:t@{digest}"),
        ] {
            assert_eq!(Reference::parse(&text).unwrap().to_string(), text);
        }
        for text in [
            "busybox",
            "library/busybox:1",
            "docker.io/x",
            "docker.io/:t",
            "docker.io/x:",
            "docker.io/../x:t",
            "docker.io/x@sha256:1",
            "/x:t",
            "h.io/x y:t",
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,80}") {
            if let Ok(reference) = Reference::parse(&text) {
                proptest::prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
            }
        }
    }
}
