//! Search: a question to the index of a registry, as registries of the first version had it and Docker Hub still has.

use std::time::Duration;

use proto::engine::{AuthConfig, SearchResult};
use serde::Deserialize;

use super::client::{Registries, prepare_tls};
use crate::api::request::Filters;
use crate::error::{Error, Result};

/// Most that one question may ask for, and what is asked for when nobody says.
const MOST: i64 = 100;
const USUAL: i64 = 25;

/// Longest time for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the Hub's index is.
const HUB_INDEX: &str = "index.docker.io";

/// What is looked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    host: String,
    term: String,
    limit: i64,
    filters: Filters,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<SearchResult>,
}

impl Wanted {
    /// The filters that are known.
    pub(crate) const FILTERS: &'static [&'static str] = &["is-automated", "is-official", "stars"];

    /// Reads a term, which may begin with a registry's host.
    pub(crate) fn new(term: &str, limit: Option<i64>, filters: Filters) -> Result<Self> {
        let limit = limit.filter(|limit| *limit != 0).unwrap_or(USUAL);
        if !(1..=MOST).contains(&limit) {
            return Err(Error::invalid(format!(
                "limit {limit} is outside the range of [1, {MOST}]"
            )));
        }
        if term.contains("://") {
            return Err(Error::invalid(format!(
                "invalid repository name ({term}): it has a scheme"
            )));
        }
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (host, term) = match term.split_once('/') {
            Some((host, rest)) if is_host(host) => (host, rest),
            _ => (HUB_INDEX, term),
        };
        let (host, term) = match host {
            "docker.io" | HUB_INDEX => (HUB_INDEX, term.strip_prefix("library/").unwrap_or(term)),
            host => (host, term),
        };
        if term.is_empty() {
            return Err(Error::invalid("a term to search for is needed"));
        }
        let wanted = Self {
            host: host.to_owned(),
            term: term.to_owned(),
            limit,
            filters,
        };
        // A filter that is none is told before anybody is asked.
        wanted.fits(&SearchResult::default())?;
        Ok(wanted)
    }

    fn fits(&self, found: &SearchResult) -> Result<bool> {
        let mut stars = 0;
        for text in self.filters.get("stars") {
            let wrong = || Error::invalid(format!("invalid filter 'stars={text}'"));
            stars = stars.max(text.parse().map_err(|_| wrong())?);
        }
        let is = |key: &str, value: bool| -> Result<bool> {
            let wanted = self.filters.flag(key)?;
            Ok(wanted.is_none_or(|wanted| wanted == value))
        };
        Ok(found.star_count >= stars
            && is("is-official", found.is_official)?
            && is("is-automated", found.is_automated)?)
    }
}

impl Registries {
    /// Asks the index.
    pub(crate) async fn search(
        &self,
        wanted: &Wanted,
        credentials: &AuthConfig,
    ) -> Result<Vec<SearchResult>> {
        let insecure = self.is_insecure(&wanted.host);
        let mut outcome = ask("https", insecure, wanted, credentials).await;
        if insecure && outcome.is_err() {
            outcome = ask("http", insecure, wanted, credentials).await;
        }
        let mut found = outcome.map_err(|e| e.during(format!("search {}", wanted.host)))?;
        let mut fitting = Vec::new();
        for result in found.drain(..) {
            if wanted.fits(&result)? {
                fitting.push(result);
            }
        }
        Ok(fitting)
    }
}

async fn ask(
    scheme: &str,
    insecure: bool,
    wanted: &Wanted,
    credentials: &AuthConfig,
) -> Result<Vec<SearchResult>> {
    prepare_tls();
    let failed = |e: reqwest::Error| Error::internal(super::causes(&e));
    let client = reqwest::Client::builder()
        .timeout(PATIENCE)
        .tls_danger_accept_invalid_certs(insecure)
        .user_agent(concat!("docker-lite/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(failed)?;
    let mut url = reqwest::Url::parse(&format!("{scheme}://{}/v1/search", wanted.host))
        .map_err(|e| Error::invalid(format!("invalid registry {}: {e}", wanted.host)))?;
    url.query_pairs_mut()
        .append_pair("q", &wanted.term)
        .append_pair("n", &wanted.limit.to_string());
    let mut request = client.get(url);
    if !credentials.username.is_empty() {
        request = request.basic_auth(&credentials.username, Some(&credentials.password));
    }
    let answer = request.send().await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(Error::internal(format!(
            "unexpected status code {}",
            answer.status()
        )));
    }
    let body = answer.bytes().await.map_err(failed)?;
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|e| Error::internal(format!("read the answer: {e}")))?;
    Ok(answer.results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_name_hosts_and_filters_are_checked() {
        let wanted = |term: &str, filters: &str| {
            let filters = Filters::parse(filters).unwrap();
            Wanted::new(term, None, filters).map(|w| (w.host, w.term, w.limit))
        };
        let hub = |term: &str| (HUB_INDEX.to_owned(), term.to_owned(), USUAL);
        assert_eq!(wanted("busybox", "").unwrap(), hub("busybox"));
        assert_eq!(wanted("docker.io/library/a", "").unwrap(), hub("a"));
        assert_eq!(wanted("me/a", "").unwrap(), hub("me/a"));
        let own = wanted("127.0.0.1:80/a/b", "").unwrap();
        assert_eq!((own.0.as_str(), own.1.as_str()), ("127.0.0.1:80", "a/b"));
        for term in ["", "http://h/x", "h.lan/"] {
            assert!(wanted(term, "").is_err(), "{term}");
        }
        assert!(wanted("a", r#"{"stars":["x"]}"#).is_err());
        assert!(wanted("a", r#"{"is-official":["x"]}"#).is_err());
        assert!(Wanted::new("a", Some(101), Filters::default()).is_err());
        assert!(Wanted::new("a", Some(-1), Filters::default()).is_err());
        let starred = Filters::parse(r#"{"stars":["3"],"is-official":["true"]}"#).unwrap();
        let wanted = Wanted::new("a", None, starred).unwrap();
        let found = |star_count, is_official| SearchResult {
            star_count,
            is_official,
            ..SearchResult::default()
        };
        assert!(wanted.fits(&found(3, true)).unwrap());
        assert!(!wanted.fits(&found(2, true)).unwrap() && !wanted.fits(&found(3, false)).unwrap());
    }
}
