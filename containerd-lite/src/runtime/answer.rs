//! What a shim prints when it has started: four dialects, one meaning.
//!
//! ```text
//!  1.6 and older shims    unix:///run/containerd/s/HEX
//!  1.7 to 2.2             {"version":2,"address":"unix://...","protocol":"ttrpc"}   (version 3 from 2.0 on)
//!  2.3 and newer          BootstrapResult as binary protobuf
//! ```
//!
//! A bare `unix://` text and a `{` are both invalid protobuf, so the dialects cannot be mistaken for each other. Pure.

use proto::containerd::runtime::bootstrap::v1::BootstrapResult;
use proto::prost::Message as _;
use serde::{Deserialize, Serialize};

/// Where a shim listens, and what it speaks there. Also the content of `bootstrap.json` in the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Version of the task service; 2 or 3.
    pub(crate) version: u32,
    /// `unix://PATH`.
    pub(crate) address: String,
    /// `ttrpc` or `grpc`.
    pub(crate) protocol: String,
    /// What newer daemons wrote into the file and we do not know.
    #[serde(flatten)]
    pub(crate) unknown: serde_json::Map<String, serde_json::Value>,
}

/// Why a shim's answer is of no use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum AnswerError {
    /// It printed nothing.
    #[error("the shim answered nothing")]
    Empty,
    /// It printed something else than an address.
    #[error("the shim's answer {0:?} is neither an address, nor JSON, nor a bootstrap result")]
    Malformed(String),
    /// It answered with an address that is no unix socket.
    #[error("the shim's address {0:?} is no unix socket")]
    Address(String),
    /// It speaks a task API that we do not.
    #[error("the shim speaks version {version} of the task api over {protocol}")]
    Unsupported {
        /// The version it named.
        version: u32,
        /// The protocol it named.
        protocol: String,
    },
}

/// Text of the answer that an error may quote.
const QUOTED: usize = 400;

impl Answer {
    /// An address without further words is version 2 over ttrpc.
    pub(crate) fn bare(address: &str) -> Self {
        Self {
            version: 2,
            address: address.to_owned(),
            protocol: "ttrpc".to_owned(),
            unknown: serde_json::Map::new(),
        }
    }

    /// Reads what a shim printed, or what a bundle holds.
    pub(crate) fn parse(output: &[u8]) -> Result<Self, AnswerError> {
        let text = std::str::from_utf8(output).map(str::trim);
        let answer = match text {
            Ok("") => return Err(AnswerError::Empty),
            Ok(json) if json.starts_with('{') => {
                serde_json::from_str(json).map_err(|_| malformed(output))?
            }
            Ok(bare) if bare.starts_with("unix://") && !bare.contains('\n') => Self::bare(bare),
            _ => Self::from_protobuf(output)?,
        };
        answer.check()
    }

    fn from_protobuf(output: &[u8]) -> Result<Self, AnswerError> {
        let result = BootstrapResult::decode(output).map_err(|_| malformed(output))?;
        if result.address.is_empty() {
            return Err(malformed(output));
        }
        Ok(Self {
            version: u32::try_from(result.version).unwrap_or(0),
            address: result.address,
            protocol: result.protocol,
            unknown: serde_json::Map::new(),
        })
    }

    fn check(mut self) -> Result<Self, AnswerError> {
        if self.protocol.is_empty() {
            self.protocol = "ttrpc".to_owned();
        }
        if self.path().is_none() {
            return Err(AnswerError::Address(self.address));
        }
        if !(2..=3).contains(&self.version) || self.protocol != "ttrpc" {
            return Err(AnswerError::Unsupported {
                version: self.version,
                protocol: self.protocol,
            });
        }
        Ok(self)
    }

    /// The socket's path; none if the address is of another kind.
    pub(crate) fn path(&self) -> Option<&str> {
        let path = self.address.strip_prefix("unix://")?;
        (path.starts_with('/') && !path.contains('\0')).then_some(path)
    }
}

fn malformed(output: &[u8]) -> AnswerError {
    let quoted = &output[..output.len().min(QUOTED)];
    AnswerError::Malformed(String::from_utf8_lossy(quoted).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_four_forms_name_the_same_socket() {
        let bare = Answer::parse(b"unix:///run/s/a\n").expect("bare");
        assert_eq!((bare.version, bare.path()), (2, Some("/run/s/a")));
        for version in [2, 3] {
            let json = format!(
                r#"{{"version":{version},"address":"unix:///run/s/a","protocol":"ttrpc"}}"#
            );
            let answer = Answer::parse(json.as_bytes()).expect("json");
            assert_eq!((answer.version, answer.path()), (version, Some("/run/s/a")));
        }
        let result = BootstrapResult {
            version: 3,
            address: "unix:///run/s/a".into(),
            protocol: "ttrpc".into(),
            ..BootstrapResult::default()
        };
        let answer = Answer::parse(&result.encode_to_vec()).expect("protobuf");
        assert_eq!((answer.version, answer.path()), (3, Some("/run/s/a")));
    }

    #[test]
    fn unknown_json_fields_are_kept() {
        let answer = Answer::parse(br#"{"version":2,"address":"unix:///a","protocol":"","x":[1]}"#)
            .expect("answer");
        let text = serde_json::to_string(&answer).expect("text");
        assert!(text.contains(r#""x":[1]"#), "{text}");
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        assert_eq!(Answer::parse(b" \n"), Err(AnswerError::Empty));
        for bad in ["panic: x", "unix:///a\nnoise", "{", "{}"] {
            let error = Answer::parse(bad.as_bytes()).expect_err(bad);
            assert!(matches!(error, AnswerError::Malformed(_)), "{bad}: {error}");
        }
        let error = Answer::parse(br#"{"version":2,"address":"vsock://1","protocol":"ttrpc"}"#);
        assert!(matches!(error, Err(AnswerError::Address(_))));
        for (version, protocol) in [(3, "grpc"), (4, "ttrpc"), (0, "ttrpc")] {
            let json =
                format!(r#"{{"version":{version},"address":"unix:///a","protocol":"{protocol}"}}"#);
            assert!(matches!(
                Answer::parse(json.as_bytes()),
                Err(AnswerError::Unsupported { .. })
            ));
        }
    }

    proptest! {
        #[test]
        fn no_output_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(answer) = Answer::parse(&bytes) {
                prop_assert!(answer.path().is_some());
            }
        }
    }
}
