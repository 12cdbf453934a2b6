//! Identifiers as containerd takes them (containers, tasks, execs, leases, namespaces).

/// Longest identifier in bytes.
pub const MAX_LENGTH: usize = 76;

/// Why a text is no identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdError {
    /// The text is empty.
    Empty,
    /// The text is longer than [`MAX_LENGTH`].
    TooLong(usize),
    /// The text holds something else than alphanumerics with single `.`, `_` or `-` between them.
    Malformed(String),
}

impl std::fmt::Display for IdError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("identifier must not be empty"),
            Self::TooLong(n) => write!(
                f,
                "identifier greater than maximum length ({n} > {MAX_LENGTH} characters)"
            ),
            Self::Malformed(id) => write!(
                f,
                "identifier {id:?} must be alphanumerics with single '.', '_' or '-' between them"
            ),
        }
    }
}

impl std::error::Error for IdError {}

/// Checks an identifier. One that passes is safe as a single path component.
pub fn validate(id: &str) -> Result<(), IdError> {
    if id.is_empty() {
        return Err(IdError::Empty);
    }
    if id.len() > MAX_LENGTH {
        return Err(IdError::TooLong(id.len()));
    }
    let mut after_separator = true;
    for byte in id.bytes() {
        let separator = matches!(byte, b'.' | b'_' | b'-');
        if !(byte.is_ascii_alphanumeric() || separator && !after_separator) {
            return Err(IdError::Malformed(id.to_owned()));
        }
        after_separator = separator;
    }
    if after_separator {
        return Err(IdError::Malformed(id.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepts_what_containerd_accepts() {
        for good in ["a", "a-b", "k8s.io", "A_1", &"a".repeat(76)] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a--b",
            "a/b",
            "..",
            "a b",
            "ä",
            &"a".repeat(77),
        ] {
            assert!(validate(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_valid_id_is_one_path_component(id in any::<String>()) {
            if validate(&id).is_ok() {
                prop_assert!(!id.contains('/') && id != "." && id != ".." && !id.contains('\0'));
            }
        }
    }
}
