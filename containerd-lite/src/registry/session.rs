//! The conversation with the places of one repository: resolve a name, fetch bytes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use tokio::sync::mpsc;

use super::answers::{body, later, lost, pause, plain_type, refused, retry_after};
use super::auth::Helper;
use super::hosts::hosts;
use super::place::Place;
use super::{Reference, RegistryError, Result};
use crate::content::Digest;

/// What we can read, in the order of preference.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json, */*";
/// How often one request is tried.
const TRIES: u32 = 4;
/// How often a blob is resumed without having got any further.
const RESUMES: u32 = 4;

/// How the registry is to be reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Folders with the configuration of hosts; the first that knows a host counts.
    pub(crate) folders: Vec<PathBuf>,
    /// Scheme of hosts that have none in their configuration.
    pub(crate) scheme: String,
    /// Sent with every request.
    pub(crate) headers: Vec<(String, String)>,
    /// Who knows credentials.
    pub(crate) helper: Option<Arc<Helper>>,
}

/// A repository and the places that serve it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) reference: Reference,
    pub(super) places: Vec<Place>,
    headers: Vec<(String, String)>,
    helper: Option<Arc<Helper>>,
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

impl Session {
    /// Reads the configuration; nothing is connected yet.
    pub(crate) fn open(reference: Reference, options: &Options) -> Result<Self> {
        let hosts = hosts(&reference.host, &options.folders, &options.scheme)?;
        let places = hosts.into_iter().map(Place::new).collect::<Result<_>>()?;
        Ok(Self {
            reference,
            places,
            headers: options.headers.clone(),
            helper: options.helper.clone(),
        })
    }

    /// The repository.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Asks what the reference means.
    pub(crate) async fn resolve(&self) -> Result<Resolved> {
        let what = format!("resolve reference {:?}", self.reference.to_string());
        let path = format!("manifests/{}", self.reference.object());
        let mut failure = None;
        for place in self.places.iter().filter(|p| p.host.resolve) {
            match self.resolve_at(place, &path, &what).await {
                Ok(found) => return Ok(found),
                Err(error) => failure = Some(later(failure, error)),
            }
        }
        Err(failure.unwrap_or_else(|| {
            RegistryError::Answer(format!("{what}: no configured host may resolve"))
        }))
    }

    async fn resolve_at(&self, place: &Place, path: &str, what: &str) -> Result<Resolved> {
        let accept = |request: RequestBuilder| request.header("accept", ACCEPTED);
        let scope = self.pull_scope();
        let answer = self
            .send(place, Method::HEAD, path, &scope, what, accept)
            .await?;
        let header = |name: &str| {
            let value = answer.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let digest = header("docker-content-digest").and_then(|d| Digest::parse(&d).ok());
        let size = header("content-length").and_then(|l| l.parse().ok());
        let media_type = header("content-type").map(|t| plain_type(&t));
        let found = match (digest, size, media_type) {
            (Some(digest), Some(size), Some(media_type)) if size > 0 => Resolved {
                media_type,
                digest,
                size,
            },
            // Some registries say nothing in answer to HEAD: the bytes tell.
            _ => {
                let answer = self
                    .send(place, Method::GET, path, &scope, what, accept)
                    .await?;
                let media_type = answer.headers().get("content-type");
                let media_type = media_type.and_then(|t| t.to_str().ok()).map(plain_type);
                let bytes = body(answer, what).await?;
                Resolved {
                    media_type: media_type.unwrap_or_default(),
                    digest: Digest::of_bytes(&bytes),
                    size: bytes.len() as u64,
                }
            }
        };
        match &self.reference.digest {
            Some(wanted) if *wanted != found.digest => Err(RegistryError::Answer(format!(
                "{what}: the registry has {} there",
                found.digest
            ))),
            _ => Ok(found),
        }
    }

    /// Fetches a blob or manifest from `offset` on, chunk by chunk into a queue. Resumes by itself where a connection
    /// breaks off, and gives up when nobody takes the chunks any more.
    pub(crate) async fn fetch(
        &self,
        is_manifest: bool,
        digest: &Digest,
        size: u64,
        mut offset: u64,
        chunks: &mpsc::Sender<bytes::Bytes>,
    ) -> Result<()> {
        let kind = if is_manifest { "manifests" } else { "blobs" };
        let what = format!("fetch {digest} of {}", self.reference.path);
        let path = format!("{kind}/{digest}");
        let mut failure = None;
        for place in self.places.iter().filter(|p| p.host.pull) {
            let mut idle = 0;
            loop {
                let before = offset;
                match self
                    .fetch_at(place, &path, &what, size, &mut offset, chunks)
                    .await
                {
                    Ok(()) => return Ok(()),
                    Err(error @ RegistryError::Request { .. }) => {
                        tracing::debug!("{}: {}", place.host.name, crate::error::chain(&error));
                        idle = if offset > before { 0 } else { idle + 1 };
                        failure = Some(later(failure, error));
                        // A host that is out of reach has been tried several times by now.
                        if idle >= RESUMES || offset == before && offset == 0 {
                            break;
                        }
                        tokio::time::sleep(pause(idle)).await;
                    }
                    Err(error) => {
                        failure = Some(later(failure, error));
                        break;
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| {
            RegistryError::Answer(format!("{what}: no host may be pulled from"))
        }))
    }

    async fn fetch_at(
        &self,
        place: &Place,
        path: &str,
        what: &str,
        size: u64,
        offset: &mut u64,
        chunks: &mpsc::Sender<bytes::Bytes>,
    ) -> Result<()> {
        let from = *offset;
        let build = |request: RequestBuilder| {
            let request = request
                .header("accept", ACCEPTED)
                .header("accept-encoding", "identity");
            match from {
                0 => request,
                from => request.header("range", format!("bytes={from}-")),
            }
        };
        let scope = self.pull_scope();
        let mut answer = self
            .send(place, Method::GET, path, &scope, what, build)
            .await?;
        // A server that knows no ranges begins anew.
        let mut skip = if answer.status() == StatusCode::PARTIAL_CONTENT {
            0
        } else {
            from
        };
        while let Some(mut chunk) = answer.chunk().await.map_err(lost(what))? {
            if skip > 0 {
                let known = skip.min(chunk.len() as u64);
                skip -= known;
                chunk = chunk.split_off(usize::try_from(known).unwrap_or(usize::MAX));
            }
            if chunk.is_empty() {
                continue;
            }
            *offset += chunk.len() as u64;
            if *offset > size {
                return Err(self.wrong_size(what, *offset, size));
            }
            if chunks.send(chunk).await.is_err() {
                return Err(RegistryError::Answer(format!("{what}: given up")));
            }
        }
        if *offset < size {
            let cut = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            return Err(lost(what)(cut));
        }
        Ok(())
    }

    fn wrong_size(&self, what: &str, found: u64, expected: u64) -> RegistryError {
        RegistryError::Size {
            what: what.to_owned(),
            found,
            expected,
        }
    }

    fn pull_scope(&self) -> String {
        format!("repository:{}:pull", self.reference.path)
    }

    /// The address of `path` in the repository at a place.
    pub(super) fn url(&self, place: &Place, path: &str) -> Result<reqwest::Url> {
        let text = format!("{}/{}/{path}", place.host.base, self.reference.path);
        let mut url = reqwest::Url::parse(&text)
            .map_err(|e| RegistryError::Invalid(format!("address {text:?}: {e}")))?;
        if place.host.mirror {
            url.query_pairs_mut()
                .append_pair("ns", &self.reference.host);
        }
        Ok(url)
    }

    /// Sends a request below the repository and follows what the answer asks for.
    pub(super) async fn send(
        &self,
        place: &Place,
        method: Method,
        path: &str,
        scope: &str,
        what: &str,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let url = self.url(place, path)?;
        self.send_to(place, method, url, scope, what, build).await
    }

    /// The same for any address of the place. `build` is called anew for each try.
    pub(super) async fn send_to(
        &self,
        place: &Place,
        method: Method,
        url: reqwest::Url,
        scope: &str,
        what: &str,
        build: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response> {
        let (mut tries, mut answered) = (0, 0);
        loop {
            let request = self
                .request(place, &method, url.clone(), scope, &build)
                .await;
            let answer = match request.send().await {
                Ok(answer) => answer,
                Err(error) if place.fall_back(&url, &error) => continue,
                Err(error) => {
                    tries += 1;
                    if tries >= TRIES || !(error.is_connect() || error.is_timeout()) {
                        return Err(lost(what)(error.without_url()));
                    }
                    tokio::time::sleep(pause(tries)).await;
                    continue;
                }
            };
            let status = answer.status();
            if status.is_success() {
                return Ok(answer);
            }
            if status == StatusCode::UNAUTHORIZED && answered < 2 {
                answered += 1;
                self.authenticate(place, &answer, scope).await?;
                continue;
            }
            let busy = status == StatusCode::TOO_MANY_REQUESTS
                || status == StatusCode::REQUEST_TIMEOUT
                || status.is_server_error();
            tries += 1;
            if busy && tries < TRIES {
                tokio::time::sleep(retry_after(&answer).unwrap_or(pause(tries))).await;
                continue;
            }
            return Err(refused(what, answer).await);
        }
    }

    async fn request(
        &self,
        place: &Place,
        method: &Method,
        mut url: reqwest::Url,
        scope: &str,
        build: &impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> RequestBuilder {
        if place.plain.load(Ordering::Relaxed) {
            let _ = url.set_scheme("http");
        }
        let mut request = build(place.http.request(method.clone(), url));
        for (name, value) in self.headers.iter().chain(&place.host.headers) {
            request = request.header(name, value);
        }
        if let Some(header) = place.auth.lock().await.header(scope) {
            request = request.header("authorization", header);
        }
        request
    }

    async fn authenticate(&self, place: &Place, answer: &Response, scope: &str) -> Result<()> {
        let headers = answer.headers().get_all("www-authenticate");
        let challenges: Vec<String> = headers
            .iter()
            .filter_map(|h| h.to_str().ok().map(str::to_owned))
            .collect();
        let name = match place.host.name.as_str() {
            "registry-1.docker.io" => "docker.io",
            name => name,
        };
        place
            .auth
            .lock()
            .await
            .answer(
                &place.http,
                name,
                &self.reference.to_string(),
                &challenges,
                scope,
                self.helper.as_deref(),
            )
            .await
    }
}
