//! Names of images: `registry/path:tag@digest`, checked and completed as Docker does. Pure.

/// The registry of names that name none.
const HUB: &str = "docker.io";

/// A name, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reference {
    /// Registry and path, such as `docker.io/library/busybox`.
    pub(crate) name: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<String>,
}

impl Reference {
    /// Reads a name as a user writes it.
    pub(crate) fn parse(text: &str) -> Result<Reference, String> {
        const WRONG: &str = "invalid reference format";
        if text.len() == 64 && text.bytes().all(is_hex) {
            return Err(format!(
                "{WRONG}: cannot specify 64-byte hexadecimal strings"
            ));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (path, tag) = split_tag(rest);
        let (domain, path) = domain(path);
        if path.chars().any(char::is_uppercase) {
            return Err(format!(
                "{WRONG}: repository name ({path}) must be lowercase"
            ));
        }
        let good = path.split('/').all(is_component)
            && is_domain(&domain)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        if !good {
            return Err(WRONG.to_string());
        }
        Ok(Reference {
            name: format!("{domain}/{path}"),
            tag: tag.map(str::to_string),
            digest: digest.map(str::to_string),
        })
    }

    /// Neither tag nor digest was given.
    pub(crate) fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// The tag, or the one that is meant.
    pub(crate) fn tag_or_latest(&self) -> &str {
        self.tag.as_deref().unwrap_or("latest")
    }
}

/// Splits a name from its tag; the colon of a registry's port is none.
pub(crate) fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((repo, tag)) if !tag.contains('/') => (repo, Some(tag)),
        _ => (name, None),
    }
}

/// The registry of a name (the hub's if it names none) and the path there.
fn domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((host, path))
            if host.contains(['.', ':'])
                || host == "localhost"
                || host.chars().any(char::is_uppercase) =>
        {
            (host, path)
        }
        _ => (HUB, name),
    };
    let domain = if domain == "index.docker.io" {
        HUB
    } else {
        domain
    };
    match domain == HUB && !path.contains('/') {
        true => (domain.to_string(), format!("library/{path}")),
        false => (domain.to_string(), path.to_string()),
    }
}

fn is_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// Lower case letters and digits, in between one dot, one or two underscores, or dashes.
fn is_component(text: &str) -> bool {
    let alnum = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let mut at = 0;
    if bytes.is_empty() || !alnum(bytes[0]) || !alnum(bytes[bytes.len() - 1]) {
        return false;
    }
    while at < bytes.len() {
        if alnum(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && bytes[at] == bytes[start] {
            at += 1;
        }
        let good = match bytes[start] {
            b'-' => true,
            b'_' => at - start <= 2,
            b'.' => at - start == 1,
            _ => false,
        };
        if !good || (at < bytes.len() && !alnum(bytes[at])) {
            return false;
        }
    }
    true
}

fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let good = bracketed.map_or_else(
        || host.split('.').all(part),
        |ip| ip.parse::<std::net::Ipv6Addr>().is_ok(),
    );
    good && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text
            .bytes()
            .all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, digits)| {
        algorithm
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic())
            && digits.len() >= 32
            && digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_completed() {
        for (text, name, tag) in [
            ("busybox", "docker.io/library/busybox", None),
            ("me/x:1", "docker.io/me/x", Some("1")),
            ("localhost:5000/x", "localhost:5000/x", None),
            ("reg.example/a/b:v1.2", "reg.example/a/b", Some("v1.2")),
        ] {
            let got = Reference::parse(text).unwrap();
            assert_eq!(
                (got.name.as_str(), got.tag.as_deref()),
                (name, tag),
                "{text}"
            );
        }
    }

    #[test]
    fn wrong_names_are_refused() {
        let lower = "invalid reference format: repository name (library/X Y) must be lowercase";
        assert_eq!(Reference::parse("X Y").unwrap_err(), lower);
        for bad in [
            "",
            "a b",
            "a__-b",
            "-a",
            "a:",
            "a@sha256:1",
            "a..b",
            "a/",
            "reg.example:x/a",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
        assert!(Reference::parse(&"a".repeat(64)).is_err());
        assert_eq!(split_tag("reg:5000/a"), ("reg:5000/a", None));
    }

    proptest! {
        #[test]
        fn no_name_is_too_odd(text in ".{0,24}") {
            let _ = Reference::parse(&text);
        }
    }
}
