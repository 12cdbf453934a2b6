//! Image references: what users write, and the one form in which containerd keeps it.
//!
//! ```text
//!  busybox              docker.io/library/busybox:latest
//!  me/app:1             docker.io/me/app:1
//!  127.0.0.1:5000/app   127.0.0.1:5000/app:latest
//!  app@sha256:..        docker.io/library/app@sha256:..
//! ```
//!
//! The long form is the *normalised* one; the short one, which Docker shows, is the *familiar* one. Pure, no I/O.

use std::fmt;

/// The registry that a name without a host means.
pub(crate) const HUB: &str = "docker.io";
const HUB_OLD: &str = "index.docker.io";
const LIBRARY: &str = "library/";
const MAX_NAME: usize = 255;

/// Why a text is no reference. The wording is Docker's, because clients show it and tests look for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReferenceError {
    /// Not of the form NAME[:TAG][@DIGEST].
    #[error("invalid reference format")]
    Format,
    /// The repository holds capital letters.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// The repository is too long.
    #[error("repository name must not be more than {MAX_NAME} characters")]
    TooLong,
    /// The repository could be taken for an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// Neither tag nor digest may follow here.
    #[error("refusing to create a tag with a digest reference")]
    DigestNotAllowed,
}

/// A parsed reference. Host and path are normalised; tag and digest are as given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// Registry host with its port.
    pub(crate) host: String,
    /// Repository in that registry.
    pub(crate) path: String,
    /// Tag, if one was given.
    pub(crate) tag: Option<String>,
    /// Manifest digest, if one was given.
    pub(crate) digest: Option<String>,
}

impl Reference {
    /// Parses what a user wrote. No tag is added: see [`Reference::or_latest`].
    pub(crate) fn parse(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => return Err(ReferenceError::Format),
            None => (text, None),
        };
        let (name, tag) = match rest.rfind(':') {
            Some(at) if !rest[at..].contains('/') => {
                let tag = &rest[at + 1..];
                if !is_tag(tag) {
                    return Err(ReferenceError::Format);
                }
                (&rest[..at], Some(tag.to_owned()))
            }
            _ => (rest, None),
        };
        if name.len() == 64 && is_hex(name) {
            return Err(ReferenceError::LooksLikeId(name.to_owned()));
        }
        let (host, path) = split_host(name);
        if host.as_bytes() != HUB.as_bytes() && !is_host(&host) {
            return Err(ReferenceError::Format);
        }
        if !path.split('/').all(is_component) {
            let lower = path.to_lowercase();
            if lower != path && lower.split('/').all(is_component) {
                return Err(ReferenceError::Uppercase(path));
            }
            return Err(ReferenceError::Format);
        }
        if host.len() + 1 + path.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self {
            host,
            path,
            tag,
            digest,
        })
    }

    /// Parses a name that will be a tag: a digest is refused, a missing tag is `latest`.
    pub(crate) fn parse_tag(text: &str) -> Result<Self, ReferenceError> {
        let reference = Self::parse(text)?;
        if reference.digest.is_some() {
            return Err(ReferenceError::DigestNotAllowed);
        }
        Ok(reference.or_latest())
    }

    /// With the tag `latest`, if neither a tag nor a digest was given.
    pub(crate) fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    /// Host and path: the normalised name without tag and digest.
    pub(crate) fn repository(&self) -> String {
        format!("{}/{}", self.host, self.path)
    }

    /// The repository as Docker shows it.
    pub(crate) fn familiar_repository(&self) -> String {
        if self.host != HUB {
            return self.repository();
        }
        match self.path.strip_prefix(LIBRARY) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as Docker shows it.
    pub(crate) fn familiar(&self) -> String {
        self.with_suffix(self.familiar_repository())
    }

    /// The image name in containerd. A digest wins over a tag, as with docker pull NAME:TAG@DIGEST.
    pub(crate) fn image_name(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.repository()),
            None => self.with_suffix(self.repository()),
        }
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest);
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.repository()))
    }
}

/// Whether a text is `ALGORITHM:HEX` with a hash that we know.
pub(crate) fn is_digest(text: &str) -> bool {
    let lower_hex = |hex: &str| {
        hex.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    match text.split_once(':') {
        Some(("sha256", hex)) => hex.len() == 64 && lower_hex(hex),
        Some(("sha512", hex)) => hex.len() == 128 && lower_hex(hex),
        _ => false,
    }
}

/// Whether a text is made of hexadecimal digits as ids are written.
pub(crate) fn is_hex(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a text can be a tag.
pub(crate) fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= 128
        && bytes.next().is_some_and(word)
        && bytes.all(|b| word(b) || b == b'.' || b == b'-')
}

/// The first part is a host if it could not be a Hub user.
fn split_host(name: &str) -> (String, String) {
    let is_host = |first: &str| {
        first.contains(['.', ':'])
            || first == "localhost"
            || first.bytes().any(|b| b.is_ascii_uppercase())
    };
    let (host, path) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => (HUB, name),
    };
    let host = if host == HUB_OLD { HUB } else { host };
    let path = if host == HUB && !path.contains('/') {
        format!("{LIBRARY}{path}")
    } else {
        path.to_owned()
    };
    (host.to_owned(), path)
}

fn is_host(host: &str) -> bool {
    let (name, port) = if let Some(rest) = host.strip_prefix('[') {
        match rest.split_once(']') {
            Some((v6, port)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        }
    } else {
        match host.find(':') {
            Some(at) => host.split_at(at),
            None => (host, ""),
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let port_is_fine = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    name.split('.').all(label) && port_is_fine
}

/// Lower case words, joined by one dot, one or two underscores, or any number of dashes.
fn is_component(component: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !word(first) || !word(last) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_normalised_and_shown_short() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("app@{digest}");
        let pinned_long = format!("docker.io/library/app@{digest}");
        for (given, long, short) in [
            (
                "busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("me/app:1", "docker.io/me/app:1", "me/app:1"),
            (
                "docker.io/busybox",
                "docker.io/library/busybox:latest",
                "busybox:latest",
            ),
            ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "127.0.0.1:5000/a/b:v",
                "127.0.0.1:5000/a/b:v",
                "127.0.0.1:5000/a/b:v",
            ),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            (
                "docker.io/library/a/b",
                "docker.io/library/a/b:latest",
                "library/a/b:latest",
            ),
            (&pinned, &pinned_long, &pinned),
        ] {
            let reference = Reference::parse(given).unwrap().or_latest();
            assert_eq!(reference.image_name(), long, "{given}");
            assert_eq!(reference.familiar(), short, "{given}");
        }
    }

    #[test]
    fn malformed_names_are_refused() {
        for bad in [
            "",
            ":",
            "a:",
            "/a",
            "a/",
            "a//b",
            "a@b",
            "a:b:c",
            "-a",
            "a-",
            "a..b",
            "a b",
            "a___b",
            "-x.io/a",
            "a@sha256:123",
            "http://a/b",
            "a:.b",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
        assert!(matches!(
            Reference::parse("Busy"),
            Err(ReferenceError::Uppercase(_))
        ));
        assert!(matches!(
            Reference::parse(&"a".repeat(64)),
            Err(ReferenceError::LooksLikeId(_))
        ));
        assert!(matches!(
            Reference::parse("a/".repeat(130).trim_end_matches("/")),
            Err(ReferenceError::TooLong)
        ));
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,80}") {
            let _ = Reference::parse(&text);
        }

        #[test]
        fn the_long_form_parses_to_itself(text in "([a-z0-9.]{1,8}(:[0-9]{1,4})?/)?[a-z0-9]{1,6}(/[a-z]{1,4})?(:[a-z0-9.]{1,5})?") {
            if let Ok(reference) = Reference::parse(&text) {
                let again = Reference::parse(&reference.to_string()).unwrap();
                prop_assert_eq!(&again, &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }
    }
}
