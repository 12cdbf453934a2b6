//! How requests are read: query parameters, JSON bodies and filters, by Docker's rules rather than by axum's.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Limited};
use proto::engine::AuthConfig;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Longest JSON body that is read.
const BODY_LIMIT: usize = 8 << 20;

/// What the request says of a registry's user.
pub(crate) fn credentials(headers: &HeaderMap) -> Result<AuthConfig> {
    let header = headers.get("x-registry-auth");
    crate::registry::credentials(header.and_then(|h| h.to_str().ok()).unwrap_or(""))
}

/// Minor number of the API version that the client speaks (the major number is 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32);

impl Version {
    /// The version of a path without one.
    pub(crate) fn max() -> Self {
        let minor = proto::engine::API_VERSION
            .split('.')
            .next_back()
            .and_then(|text| text.parse().ok());
        Self(minor.unwrap_or(u32::MAX))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Version {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts
            .extensions
            .get::<Self>()
            .copied()
            .unwrap_or_else(Self::max))
    }
}

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or("")))
    }
}

impl Params {
    /// Reads `a=1&b=x%20y`.
    pub(crate) fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (unescape(key), unescape(value))
                })
                .collect(),
        )
    }

    /// The first value of a key, if the key is there.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// The first value of a key, or empty.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or("")
    }

    /// Every value of a key.
    pub(crate) fn every(&self, key: &str) -> Vec<&str> {
        let values = self.0.iter().filter(|(name, _)| name == key);
        values.map(|(_, value)| value.as_str()).collect()
    }

    /// A boolean by Docker's rule: empty, 0, no, false and none are false, all else is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        let value = self.text(key).trim().to_ascii_lowercase();
        !matches!(value.as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A boolean that has a default for when the key is absent or empty.
    pub(crate) fn flag_or(&self, key: &str, default: bool) -> bool {
        match self.get(key) {
            None | Some("") => default,
            Some(_) => self.flag(key),
        }
    }

    /// A number, if the key is there and not empty.
    pub(crate) fn int(&self, key: &str) -> Result<Option<i64>> {
        match self.text(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Error::invalid(format!("invalid value for {key}: {text:?} is no number"))
            }),
        }
    }

    /// The filters; a key that is not in `known` is an error.
    pub(crate) fn filters(&self, known: &[&str]) -> Result<Filters> {
        let filters = Filters::parse(self.text("filters"))?;
        match filters.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(Error::invalid(format!("invalid filter '{key}'"))),
            None => Ok(filters),
        }
    }
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |n: usize| bytes.get(at + n).and_then(|b| (*b as char).to_digit(16));
        match (bytes[at], hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (b'+', ..) => {
                out.push(b' ');
                at += 1;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Filters: key to the set of accepted values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(pub(crate) BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads both forms that clients send: `{"k":["v"]}` and `{"k":{"v":true}}`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Values {
            List(Vec<String>),
            Set(BTreeMap<String, bool>),
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        let read: BTreeMap<String, Values> = serde_json::from_str(text)
            .map_err(|e| Error::invalid(format!("invalid filter: {e}")))?;
        let sets = read.into_iter().map(|(key, values)| {
            let set = match values {
                Values::List(list) => list.into_iter().collect(),
                Values::Set(set) => set
                    .into_iter()
                    .filter_map(|(value, on)| on.then_some(value))
                    .collect(),
            };
            (key, set)
        });
        Ok(Self(sets.collect()))
    }

    /// The values of a key.
    pub(crate) fn get(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// Whether the key is there with at least one value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|set| !set.is_empty())
    }

    /// Whether the key is absent, or one of its values satisfies `test`.
    pub(crate) fn any(&self, key: &str, test: impl FnMut(&str) -> bool) -> bool {
        !self.has(key) || self.get(key).any(test)
    }

    /// A boolean filter such as `dangling`; an error if its value is none.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        if !self.has(key) {
            return Ok(None);
        }
        let read = |value: &str| match value.to_ascii_lowercase().as_str() {
            "1" | "true" | "t" => Some(true),
            "0" | "false" | "f" => Some(false),
            _ => None,
        };
        let values: Option<BTreeSet<bool>> = self.get(key).map(read).collect();
        match values {
            Some(set) if set.len() == 1 => Ok(set.first().copied()),
            _ => {
                let given: Vec<_> = self.get(key).collect();
                Err(Error::invalid(format!("invalid filter '{key}={given:?}'")))
            }
        }
    }

    /// Whether the labels have all of the wanted `KEY` or `KEY=VALUE` under `key`, and none of those under `key` + `!`.
    pub(crate) fn labels(&self, key: &str, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &str| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        };
        self.get(key).all(has) && !self.get(&format!("{key}!")).any(has)
    }
}

/// A JSON body by Docker's rules.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Json<T> {
    type Rejection = Error;
    async fn from_request(request: Request<Body>, _: &S) -> Result<Self> {
        let (parts, body) = request.into_parts();
        let bytes = read_body(body, BODY_LIMIT).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        check_content_type(&parts.headers)?;
        let mut stream = serde_json::Deserializer::from_slice(&bytes).into_iter::<T>();
        let value = match stream.next() {
            Some(Ok(value)) => value,
            Some(Err(e)) => return Err(Error::invalid(format!("invalid JSON: {e}"))),
            None => return Ok(Self(T::default())),
        };
        let rest = &bytes[stream.byte_offset()..];
        if !rest.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::invalid("unexpected content after JSON"));
        }
        Ok(Self(value))
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read_body(body: Body, limit: usize) -> Result<bytes::Bytes> {
    match Limited::new(body, limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => Err(Error::invalid(format!(
            "request body is longer than {limit} bytes"
        ))),
        Err(e) => Err(Error::invalid(format!("read request body: {e}"))),
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<()> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let kind = given.split(';').next().unwrap_or("").trim();
    // No content type at all is taken for JSON, as old clients send none.
    if kind.is_empty() || kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "unsupported Content-Type header ({given}): must be 'application/json'"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn booleans() {
        let p = Params::parse("a=1&b=&c=False&d=true&e=none&f&g=anything&h=no");
        let on: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h", "i"]
            .into_iter()
            .filter(|key| p.flag(key))
            .collect();
        assert_eq!(on, ["a", "d", "g"]);
        assert!(p.flag_or("i", true) && !p.flag_or("c", true));
    }

    #[test]
    fn filters_in_both_forms() {
        let list = Filters::parse(r#"{"label":["a","b=c"]}"#).unwrap();
        let set = Filters::parse(r#"{"label":{"a":true,"b=c":true,"x":false}}"#).unwrap();
        assert_eq!(list, set);
        assert!(Filters::parse("{").is_err());
        let p = Params::parse("filters=%7B%22nope%22%3A%5B%22x%22%5D%7D");
        assert_eq!(
            p.filters(&["label"]).unwrap_err().message(),
            "invalid filter 'nope'"
        );
    }

    #[test]
    fn label_filters() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        for (filter, want) in [
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=1"]}"#, true),
            (r#"{"label":["a=2"]}"#, false),
            (r#"{"label":["a","b"]}"#, false),
            (r#"{"label!":["a"]}"#, false),
            (r#"{"label!":["b"]}"#, true),
        ] {
            let filters = Filters::parse(filter).unwrap();
            assert_eq!(filters.labels("label", &labels), want, "{filter}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_read(query in ".*") {
            let p = Params::parse(&query);
            let _ = (p.flag("a"), p.int("a"), p.filters(&[]));
        }
    }
}
