//! Pushes: a blob, mounted from another repository or uploaded whole; a manifest under a name.

use reqwest::header::LOCATION;
use reqwest::{Method, RequestBuilder, StatusCode};

use super::answers::refused;
use super::place::Place;
use super::{RegistryError, Result, Session};
use crate::content::Digest;

/// How often the upload of a blob is begun.
const UPLOADS: u32 = 3;

/// How a blob came to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It was there.
    Existed,
    /// From another repository of the same registry, without its bytes.
    Mounted,
    /// By its bytes.
    Uploaded,
}

impl Session {
    fn push_place(&self) -> Result<&Place> {
        self.places
            .iter()
            .find(|place| place.host.push)
            .ok_or_else(|| {
                RegistryError::Answer(format!(
                    "push to {}: no configured host may be pushed to",
                    self.reference.host
                ))
            })
    }

    fn push_scope(&self, from: Option<&str>) -> String {
        let own = format!("repository:{}:pull,push", self.reference.path);
        match from {
            Some(from) => format!("{own} repository:{from}:pull"),
            None => own,
        }
    }

    /// Whether the repository has a blob or a manifest.
    async fn has(&self, place: &Place, path: &str, what: &str) -> Result<bool> {
        let scope = self.push_scope(None);
        let accept = |request: RequestBuilder| request.header("accept", "*/*");
        match self
            .send(place, Method::HEAD, path, &scope, what, accept)
            .await
        {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Pushes a blob. `from` are repositories of this registry that may have it; `body` makes the bytes anew for each try.
    pub(crate) async fn push_blob(
        &self,
        digest: &Digest,
        size: u64,
        from: &[String],
        body: impl Fn() -> reqwest::Body,
    ) -> Result<Pushed> {
        let place = self.push_place()?;
        let what = format!("push {digest} to {}", self.reference.path);
        if self.has(place, &format!("blobs/{digest}"), &what).await? {
            return Ok(Pushed::Existed);
        }
        let mut last = None;
        let mut sources = from.iter().filter(|from| **from != self.reference.path);
        for _ in 0..UPLOADS {
            let source = sources.next().map(String::as_str);
            let Some(location) = self.begin(place, digest, source, &what).await? else {
                return Ok(Pushed::Mounted);
            };
            let mut url = location;
            url.query_pairs_mut().append_pair("digest", digest.as_str());
            let scope = self.push_scope(None);
            let build = |request: RequestBuilder| {
                request
                    .header("content-type", "application/octet-stream")
                    .header("content-length", size)
                    .body(body())
            };
            match self
                .send_to(place, Method::PUT, url, &scope, &what, build)
                .await
            {
                Ok(_) => return Ok(Pushed::Uploaded),
                // The upload is gone with its connection: a new one is begun.
                Err(error @ (RegistryError::Request { .. } | RegistryError::NotFound(_))) => {
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::Answer(format!("{what}: given up"))))
    }

    /// Begins an upload and says where it goes on; none if the registry mounted the blob instead.
    async fn begin(
        &self,
        place: &Place,
        digest: &Digest,
        from: Option<&str>,
        what: &str,
    ) -> Result<Option<reqwest::Url>> {
        let mut url = self.url(place, "blobs/uploads/")?;
        if let Some(from) = from {
            url.query_pairs_mut()
                .append_pair("mount", digest.as_str())
                .append_pair("from", from);
        }
        let scope = self.push_scope(from);
        let empty = |request: RequestBuilder| request.header("content-length", 0);
        let answer = self
            .send_to(place, Method::POST, url, &scope, what, empty)
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            // The other repository may be closed to us; ours is not.
            Err(error) if from.is_some() => {
                tracing::debug!("mount {digest}: {}", crate::error::chain(&error));
                return Box::pin(self.begin(place, digest, None, what)).await;
            }
            Err(error) => return Err(error),
        };
        match answer.status() {
            StatusCode::CREATED => Ok(None),
            StatusCode::ACCEPTED => {
                let location = answer.headers().get(LOCATION);
                let location = location.and_then(|l| l.to_str().ok());
                let url = location.and_then(|l| answer.url().join(l).ok());
                url.map(Some).ok_or_else(|| {
                    RegistryError::Answer(format!("{what}: no place to upload to in the answer"))
                })
            }
            _ => Err(refused(what, answer).await),
        }
    }

    /// Pushes a manifest or index, under the reference's tag if it is the image itself.
    pub(crate) async fn push_manifest(
        &self,
        digest: &Digest,
        media_type: &str,
        bytes: &[u8],
        is_image: bool,
    ) -> Result<Pushed> {
        let place = self.push_place()?;
        let name = match (&self.reference.tag, is_image) {
            (Some(tag), true) => tag.as_str(),
            _ => digest.as_str(),
        };
        let what = format!("push manifest {digest} to {}:{name}", self.reference.path);
        let path = format!("manifests/{name}");
        let scope = self.push_scope(None);
        if name == digest.as_str() && self.has(place, &path, &what).await? {
            return Ok(Pushed::Existed);
        }
        let build = |request: RequestBuilder| {
            request
                .header("content-type", media_type)
                .body(bytes.to_vec())
        };
        self.send(place, Method::PUT, &path, &scope, &what, build)
            .await?;
        Ok(Pushed::Uploaded)
    }
}
