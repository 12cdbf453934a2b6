//! One place that serves a registry, with its connections.

use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::auth::Auth;
use super::hosts::Host;
use super::{RegistryError, Result};

/// Longest time to reach a host.
const CONNECT: Duration = Duration::from_secs(15);
/// Longest silence of a host.
const SILENCE: Duration = Duration::from_secs(60);

/// One place with its connections.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) host: Host,
    pub(super) http: reqwest::Client,
    pub(super) auth: Mutex<Auth>,
    /// Encryption could not be had where none is needed.
    pub(super) plain: AtomicBool,
}

impl Place {
    /// Reads the files that the host's configuration names; nothing is connected yet.
    pub(super) fn new(host: Host) -> Result<Self> {
        static PROVIDER: Once = Once::new();
        // An earlier installation is as good.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("containerd-lite/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(host.dial_timeout.unwrap_or(CONNECT))
            .read_timeout(SILENCE)
            .pool_max_idle_per_host(4)
            .tls_danger_accept_invalid_certs(host.skip_verify);
        let config = |path: &Path, what: String| RegistryError::Config {
            path: path.to_owned(),
            what,
        };
        let read = |path: &Path| std::fs::read(path).map_err(|e| config(path, e.to_string()));
        for path in &host.authorities {
            let certificates = reqwest::Certificate::from_pem_bundle(&read(path)?)
                .map_err(|e| config(path, e.to_string()))?;
            builder = builder.tls_certs_merge(certificates);
        }
        if let Some((certificate, key)) = &host.identity {
            let mut pem = read(certificate)?;
            if key != certificate {
                pem.push(b'\n');
                pem.extend(read(key)?);
            }
            let identity = reqwest::Identity::from_pem(&pem)
                .map_err(|e| config(certificate, e.to_string()))?;
            builder = builder.identity(identity);
        }
        let http = builder
            .build()
            .map_err(|e| RegistryError::Invalid(format!("make a client for {}: {e}", host.name)))?;
        Ok(Self {
            host,
            http,
            auth: Mutex::default(),
            plain: AtomicBool::new(false),
        })
    }

    /// Whether to go on without encryption, once.
    pub(super) fn fall_back(&self, url: &reqwest::Url, error: &reqwest::Error) -> bool {
        self.host.fallback
            && url.scheme() == "https"
            && (error.is_connect() || error.is_request())
            && !self.plain.swap(true, Ordering::Relaxed)
    }
}
