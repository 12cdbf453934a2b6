//! TLS of the daemon's TCP sockets, with certificates of clients checked where that is wanted, and what makes such certificates.
//!
//! The files are read once, at the start: whoever replaces a certificate restarts the daemon, which no container notices.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::Tls;
use crate::error::{Error, Result};

/// How long a client may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Reads the files and makes the settings of the connections.
pub(crate) fn acceptor(tls: &Tls) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal(format!("set TLS up: {e}")))?;
    let builder =
        match &tls.verify {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates(ca)?);
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|e| {
                    Error::invalid(format!("CA certificates {}: {e}", ca.display()))
                })?)
            }
        };
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|e| Error::invalid(format!("key {}: {e}", tls.key.display())))?;
    let mut config = builder
        .with_single_cert(certificates(&tls.cert)?, key)
        .map_err(|e| {
            Error::invalid(format!(
                "certificate {} with key {}: {e}",
                tls.cert.display(),
                tls.key.display()
            ))
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bad = |why: String| Error::invalid(format!("certificates {}: {why}", path.display()));
    let all: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| bad(e.to_string()))?;
    match all.is_empty() {
        true => Err(bad("there is none in it".into())),
        false => Ok(all),
    }
}

/// Shakes hands; a client that takes too long or has no good certificate is let go.
pub(crate) async fn accept(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(e)) => {
            tracing::debug!("TLS handshake: {e}");
            None
        }
        Err(_) => {
            tracing::debug!("TLS handshake: not within {} s", HANDSHAKE.as_secs());
            None
        }
    }
}
