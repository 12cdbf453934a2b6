//! Registries: pull and push, as a client of containerd's content store.
//!
//! ```text
//!  reference ─▶ places (mirrors, then the registry itself) ─▶ first that answers
//!                    manifest ─▶ choose platform ─▶ config
//!                    layers, three at once, each resumed where it broke off ─▶ ingest ─▶ blob
//!                    unpacked in order, as soon as the next one is there
//! ```
//!
//! The wire is oci-client's; retries, resuming, mirrors with fallback and the progress are ours.

mod ask;
mod client;
mod pull;
mod push;
mod search;

use proto::engine::AuthConfig;

use crate::error::{Error, Result};

pub(crate) use client::{Registries, prepare_tls};
pub(crate) use search::Wanted as SearchWanted;

/// An error with all that led to it, but for what its own text says already.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// Reads the header `X-Registry-Auth`: JSON in base64, in either alphabet. Empty and `{}` are nobody.
pub(crate) fn credentials(header: &str) -> Result<AuthConfig> {
    use base64::Engine as _;
    use base64::engine::DecodePaddingMode;
    use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
    let text = header.trim();
    if text.is_empty() {
        return Ok(AuthConfig::default());
    }
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let url_safe = GeneralPurpose::new(&base64::alphabet::URL_SAFE, config);
    let standard = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let bytes = url_safe
        .decode(text)
        .or_else(|_| standard.decode(text))
        .map_err(|e| Error::invalid(format!("invalid X-Registry-Auth header: {e}")))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::invalid(format!("invalid X-Registry-Auth header: invalid JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    #[test]
    fn both_alphabets_are_read() {
        let json = r#"{"username":"a","password":"~~~???"}"#;
        let standard = base64::engine::general_purpose::STANDARD.encode(json);
        let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
        for header in [standard, url_safe] {
            assert_eq!(credentials(&header).unwrap().username, "a");
        }
        assert_eq!(credentials("").unwrap(), AuthConfig::default());
        assert_eq!(credentials("e30=").unwrap(), AuthConfig::default());
        assert!(credentials("!").is_err());
        assert!(credentials("aGVsbG8=").is_err());
    }
}
