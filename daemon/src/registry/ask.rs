//! What is asked of a registry without fetching an image: whether credentials are good, and what a name means there.

use oci_client::errors::{OciDistributionError, OciErrorCode};
use proto::engine::AuthConfig;
use proto::error::ErrorKind;
use serde_json::{Value, json};

use super::client::{Registries, Session, translate};
use crate::error::{Error, Result};
use crate::images::manifest::{Document, ImageFile};
use crate::images::reference::{HUB, Reference};
use crate::rootless::outside;

/// A name that is looked up to try credentials; whether it exists does not matter.
const PROBE: &str = "library/login";

impl Registries {
    /// Tries credentials at their registry.
    pub(crate) async fn login(&self, credentials: &AuthConfig) -> Result<()> {
        let (registries, credentials) = (self.clone(), credentials.clone());
        outside::run(async move { registries.login_here(&credentials).await }).await
    }

    async fn login_here(&self, credentials: &AuthConfig) -> Result<()> {
        let reference = Reference {
            host: host(&credentials.server_address)?,
            path: PROBE.to_owned(),
            tag: Some("latest".to_owned()),
            digest: None,
        };
        let refused = || {
            Error::new(
                ErrorKind::Unauthenticated,
                format!(
                    "login attempt to {} failed: unauthorized: incorrect username or password",
                    reference.host
                ),
            )
        };
        let session = self
            .writable(&reference, credentials)
            .await
            .map_err(|e| if e.is_not_found() { refused() } else { e })?;
        match session.manifest(&reference).await {
            Ok(_) => Ok(()),
            Err(
                OciDistributionError::UnauthorizedError { .. }
                | OciDistributionError::AuthenticationFailure(_)
                | OciDistributionError::ServerError { code: 401, .. },
            ) => Err(refused()),
            Err(OciDistributionError::RegistryError { envelope, .. }) => {
                let unauthorized = envelope
                    .errors
                    .iter()
                    .any(|error| error.code == OciErrorCode::Unauthorized);
                if unauthorized { Err(refused()) } else { Ok(()) }
            }
            Err(OciDistributionError::ServerError {
                code: 403 | 404, ..
            }) => Ok(()),
            Err(e) => Err(translate(&reference, &e)),
        }
    }

    /// Descriptor and platforms of what a name means at its registry.
    pub(crate) async fn describe(
        &self,
        reference: &Reference,
        credentials: &AuthConfig,
    ) -> Result<(Value, Vec<Value>)> {
        let (registries, reference) = (self.clone(), reference.clone());
        let credentials = credentials.clone();
        outside::run(async move { registries.describe_here(&reference, &credentials).await }).await
    }

    async fn describe_here(
        &self,
        reference: &Reference,
        credentials: &AuthConfig,
    ) -> Result<(Value, Vec<Value>)> {
        let (session, bytes, digest) = self.manifest(reference, credentials).await?;
        let media_type = super::pull::media_type(&bytes);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        let platforms = match Document::parse(&media_type, &bytes)? {
            Document::Index(index) => index
                .manifests()
                .iter()
                .filter_map(|entry| serde_json::to_value(entry.platform().as_ref()?).ok())
                .collect(),
            Document::Manifest(manifest) => {
                let config = manifest.config().digest().to_string();
                let file = fetch_config(&session, reference, &config).await?;
                vec![json!({"architecture": file.architecture, "os": file.os})]
            }
        };
        Ok((descriptor, platforms))
    }
}

async fn fetch_config(session: &Session, reference: &Reference, digest: &str) -> Result<ImageFile> {
    let wanted = oci_client::manifest::OciDescriptor {
        digest: digest.to_owned(),
        ..Default::default()
    };
    let mut bytes = Vec::new();
    session
        .client()
        .pull_blob(&session.name(reference), &wanted, &mut bytes)
        .await
        .map_err(|e| translate(reference, &e))?;
    ImageFile::parse(&bytes)
}

/// The registry that a server address means: a host, or the address of old of the Hub's index.
fn host(address: &str) -> Result<String> {
    let text = address.trim();
    let host = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => Ok(HUB.to_owned()),
        host if host.contains(['@', '?', '#', ' ']) => Err(Error::invalid(format!(
            "invalid registry address {address:?}"
        ))),
        host => Ok(host.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_mean_hosts() {
        for (address, want) in [
            ("", HUB),
            ("https://index.docker.io/v1/", HUB),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
            ("http://reg.lan/v2/", "reg.lan"),
        ] {
            assert_eq!(host(address).unwrap(), want, "{address}");
        }
        assert!(host("a@b").is_err());
    }
}
