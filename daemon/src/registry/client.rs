//! Where an image may be fetched from, and the connection to the place that has it.

use std::net::IpAddr;
use std::sync::Once;
use std::time::Duration;

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as OciReference};
use proto::engine::AuthConfig;
use proto::error::ErrorKind;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::images::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use crate::images::reference::{HUB, Reference};

/// What we can read, in the order of preference.
const ACCEPTED: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];

/// Longest time to reach a registry.
const CONNECT: Duration = Duration::from_secs(15);

/// Longest silence of a registry.
const SILENCE: Duration = Duration::from_secs(60);

/// The registries as they are configured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registries {
    mirrors: Vec<Mirror>,
    insecure: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    host: String,
    plain: bool,
}

/// One way to reach a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Host with port; another than the image's if it is a mirror.
    host: String,
    mirror: bool,
    plain: bool,
    /// Any certificate is taken.
    insecure: bool,
}

/// A registry that answers.
#[derive(Clone)]
pub(crate) struct Session {
    client: Client,
    place: Place,
    auth: RegistryAuth,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Registries {
    /// Reads the configuration.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let mirrors = config
            .registry_mirrors
            .iter()
            .map(|text| mirror(text))
            .collect::<Result<_>>()?;
        Ok(Self {
            mirrors,
            insecure: config.insecure_registries.clone(),
        })
    }

    fn places(&self, host: &str) -> Vec<Place> {
        let place = |host: &str| Place {
            host: host.to_owned(),
            mirror: false,
            plain: false,
            insecure: false,
        };
        if host == HUB {
            let mirrors = self.mirrors.iter().map(|mirror| Place {
                mirror: true,
                plain: mirror.plain,
                insecure: self.is_insecure(&mirror.host),
                ..place(&mirror.host)
            });
            return mirrors.chain([place(HUB)]).collect();
        }
        if !self.is_insecure(host) {
            return vec![place(host)];
        }
        // Encrypted if it can be had, whoever is at the other end.
        vec![
            Place {
                insecure: true,
                ..place(host)
            },
            Place {
                plain: true,
                ..place(host)
            },
        ]
    }

    /// Whether a host may be spoken to without a proven identity: this host's own, and those that are configured.
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        let name = host_name(host);
        let address: Option<IpAddr> = name.parse().ok();
        if name == "localhost" || address.is_some_and(|a| a.is_loopback()) {
            return true;
        }
        self.insecure.iter().any(|entry| {
            entry == host
                || entry == name
                || address.is_some_and(|address| in_range(entry, address))
        })
    }

    /// Fetches the manifest or index of a reference from the first place that has it; answers the place too.
    pub(crate) async fn manifest(
        &self,
        reference: &Reference,
        credentials: &AuthConfig,
    ) -> Result<(Session, Vec<u8>, String)> {
        let auth = auth(credentials)?;
        let mut failure = None;
        for place in self.places(&reference.host) {
            let session = Session::new(place, auth.clone())?;
            match session.manifest(reference).await {
                Ok((bytes, digest)) => return Ok((session, bytes, digest)),
                Err(e) => {
                    let unreachable = matches!(&e, OciDistributionError::RequestError(_));
                    let try_next = session.place.mirror || unreachable;
                    tracing::debug!("{} at {:?}: {e}", reference, session.place);
                    // Plain text after a failed handshake: the first error says less than the second.
                    failure = Some(translate(reference, &e));
                    if !try_next {
                        break;
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::internal(format!("{reference}: no place to look"))))
    }

    /// All tags of a repository at the first place that has it.
    pub(crate) async fn tags(
        &self,
        reference: &Reference,
        credentials: &AuthConfig,
    ) -> Result<Vec<String>> {
        let auth = auth(credentials)?;
        let mut failure = None;
        for place in self.places(&reference.host) {
            let session = Session::new(place, auth.clone())?;
            match session.tags(reference).await {
                Ok(tags) => return Ok(tags),
                Err(e) => {
                    let unreachable = matches!(&e, OciDistributionError::RequestError(_));
                    let try_next = session.place.mirror || unreachable;
                    failure = Some(translate(reference, &e));
                    if !try_next {
                        break;
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| Error::internal(format!("{reference}: no place to look"))))
    }

    /// A session with the registry itself, for a push: the first way in which it answers.
    pub(crate) async fn writable(
        &self,
        reference: &Reference,
        credentials: &AuthConfig,
    ) -> Result<Session> {
        let auth = auth(credentials)?;
        let mut failure = None;
        let places = self.places(&reference.host);
        for place in places.into_iter().filter(|place| !place.mirror) {
            let session = Session::new(place, auth.clone())?;
            let image = session.name(reference);
            let operation = oci_client::RegistryOperation::Push;
            match session.client.auth(&image, &session.auth, operation).await {
                Ok(_) => return Ok(session),
                Err(e @ OciDistributionError::RequestError(_)) => {
                    failure = Some(translate(reference, &e));
                }
                Err(e) => return Err(translate(reference, &e)),
            }
        }
        Err(failure.unwrap_or_else(|| Error::internal(format!("{reference}: no place to push to"))))
    }
}

/// Says which cryptography all clients of this process have.
pub(crate) fn prepare_tls() {
    static PROVIDER: Once = Once::new();
    // An earlier installation is as good.
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

impl Session {
    fn new(place: Place, auth: RegistryAuth) -> Result<Self> {
        prepare_tls();
        let config = ClientConfig {
            protocol: if place.plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            accept_invalid_certificates: place.insecure,
            connect_timeout: Some(CONNECT),
            read_timeout: Some(SILENCE),
            user_agent: concat!("docker-lite/", env!("CARGO_PKG_VERSION")),
            platform_resolver: None,
            ..ClientConfig::default()
        };
        let client = Client::try_from(config)
            .map_err(|e| Error::internal(format!("make a client for {}: {e}", place.host)))?;
        Ok(Self {
            client,
            place,
            auth,
        })
    }

    /// The client.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The reference as the client has it, at this place.
    pub(super) fn name(&self, reference: &Reference) -> OciReference {
        let registry = match reference.host.as_str() {
            HUB => "docker.io".to_owned(),
            host => host.to_owned(),
        };
        let path = reference.path.clone();
        let mut name = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => OciReference::with_digest(registry, path, digest.clone()),
            (None, tag) => {
                let tag = tag.clone().unwrap_or_else(|| "latest".into());
                OciReference::with_tag(registry, path, tag)
            }
        };
        if self.place.mirror {
            name.set_mirror_registry(self.place.host.clone());
        }
        name
    }

    /// All tags, page by page.
    async fn tags(&self, reference: &Reference) -> Result<Vec<String>, OciDistributionError> {
        const PAGE: usize = 100;
        let name = self.name(reference);
        let mut tags: Vec<String> = Vec::new();
        loop {
            let last = tags.last().cloned();
            let page = self
                .client
                .list_tags(&name, &self.auth, Some(PAGE), last.as_deref())
                .await?
                .tags;
            let whole = page.len() < PAGE || page.last() == last.as_ref();
            tags.extend(page);
            if whole {
                tags.sort();
                tags.dedup();
                return Ok(tags);
            }
        }
    }

    /// The manifest or index, with its digest.
    pub(super) async fn manifest(
        &self,
        reference: &Reference,
    ) -> Result<(Vec<u8>, String), OciDistributionError> {
        let name = self.name(reference);
        let (bytes, digest) = self
            .client
            .pull_manifest_raw(&name, &self.auth, &ACCEPTED)
            .await?;
        Ok((bytes.to_vec(), digest))
    }
}

fn auth(credentials: &AuthConfig) -> Result<RegistryAuth> {
    if !credentials.identity_token.is_empty() {
        return Err(Error::unimplemented(
            "logging in to a registry by an identity token is not supported yet",
        ));
    }
    if !credentials.registry_token.is_empty() {
        return Ok(RegistryAuth::Bearer(credentials.registry_token.clone()));
    }
    if credentials.username.is_empty() {
        return Ok(RegistryAuth::Anonymous);
    }
    Ok(RegistryAuth::Basic(
        credentials.username.clone(),
        credentials.password.clone(),
    ))
}

/// A client's error in Docker's words.
pub(super) fn translate(reference: &Reference, error: &OciDistributionError) -> Error {
    let shown = reference.familiar();
    let repository = reference.familiar_repository();
    let denied = || {
        Error::not_found(format!(
            "pull access denied for {repository}, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
        ))
    };
    match error {
        OciDistributionError::RegistryError { envelope, .. } => {
            let first = envelope.errors.first();
            match first.map(|e| &e.code) {
                Some(OciErrorCode::ManifestUnknown | OciErrorCode::NotFound) => Error::not_found(
                    format!("manifest for {shown} not found: manifest unknown: manifest unknown"),
                ),
                Some(OciErrorCode::NameUnknown) => Error::not_found(format!(
                    "manifest for {shown} not found: name unknown: repository name not known to registry"
                )),
                Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => denied(),
                Some(OciErrorCode::Toomanyrequests) => Error::new(
                    ErrorKind::ResourceExhausted,
                    format!("{shown}: too many requests to the registry"),
                ),
                _ => Error::internal(format!(
                    "{shown}: the registry answered: {}",
                    first.map_or("nothing", |e| e.message.as_str())
                )),
            }
        }
        OciDistributionError::ImageManifestNotFoundError(_)
        | OciDistributionError::ServerError { code: 404, .. } => Error::not_found(format!(
            "manifest for {shown} not found: manifest unknown: manifest unknown"
        )),
        OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::AuthenticationFailure(_)
        | OciDistributionError::ServerError {
            code: 401 | 403, ..
        } => denied(),
        other => Error::internal(format!("{shown}: {}", super::causes(other))),
    }
}

fn mirror(text: &str) -> Result<Mirror> {
    let wrong = |why: &str| Error::invalid(format!("invalid mirror {text:?}: {why}"));
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| wrong("no scheme, http:// or https:// expected"))?;
    let plain = match scheme {
        "http" => true,
        "https" => false,
        _ => return Err(wrong("unsupported scheme")),
    };
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@']) {
        return Err(wrong("path, query, fragment and user are not supported"));
    }
    Ok(Mirror {
        host: host.to_owned(),
        plain,
    })
}

/// The host without its port.
fn host_name(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Whether `entry` is a range that holds the address.
fn in_range(entry: &str, address: IpAddr) -> bool {
    let Some((base, bits)) = entry.split_once('/') else {
        return false;
    };
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            u32::from(base) & mask == u32::from(address) & mask
        }
        (IpAddr::V6(base), IpAddr::V6(address)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            u128::from(base) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(mirrors: &[&str], insecure: &[&str]) -> Registries {
        Registries {
            mirrors: mirrors.iter().map(|text| mirror(text).unwrap()).collect(),
            insecure: insecure.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn mirrors_come_first_and_only_for_the_hub() {
        let registries = registries(&["http://m:5000/"], &[]);
        let hosts = |host| -> Vec<String> {
            registries
                .places(host)
                .into_iter()
                .map(|p| p.host)
                .collect()
        };
        assert_eq!(hosts(HUB), ["m:5000", HUB]);
        assert_eq!(hosts("quay.io"), ["quay.io"]);
        for bad in ["m:5000", "ftp://m", "http://", "http://m/x", "http://u@m"] {
            assert!(mirror(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_named_and_own_registries_are_insecure() {
        let registries = registries(
            &[],
            &["10.0.0.0/8", "reg.lan:5000", "plain.lan", "fd00::/8"],
        );
        for host in [
            "127.0.0.1:5000",
            "localhost",
            "[::1]:5000",
            "10.1.2.3",
            "reg.lan:5000",
            "plain.lan:80",
            "[fd00::1]:1",
        ] {
            assert!(registries.is_insecure(host), "{host}");
        }
        for host in ["11.0.0.1", "reg.lan", "quay.io", "[fe80::1]"] {
            assert!(!registries.is_insecure(host), "{host}");
        }
        let places = registries.places("127.0.0.1:5000");
        assert_eq!((places[0].plain, places[1].plain), (false, true));
    }
}
