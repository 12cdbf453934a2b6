//! TLS to a daemon that is reached by TCP.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::Tls;
use crate::contexts::TlsMaterial;

/// Checks that the texts are what their names say.
pub(crate) fn check(tls: &TlsMaterial) -> Result<(), String> {
    if let Some(ca) = &tls.ca {
        certificates(ca).ok_or("failed to retrieve context tls info: ca.pem seems invalid")?;
    }
    Ok(())
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .ok()?;
    (!all.is_empty()).then_some(all)
}

/// What went wrong with TLS, in the words that docker's users know; none for what is no matter of TLS.
pub(super) fn told(error: &rustls::Error) -> Option<String> {
    use rustls::{AlertDescription, CertificateError, Error};
    let certificate = |why: &str| Some(format!("tls: failed to verify certificate: x509: {why}"));
    let remote = |why: &str| Some(format!("remote error: tls: {why}"));
    match error {
        // A bad signature is that of another CA with the same name.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => certificate("certificate signed by unknown authority"),
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => certificate("certificate has expired or is not yet valid"),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => certificate("certificate is not valid for the name of this host"),
        Error::InvalidCertificate(other) => certificate(&other.to_string()),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::UnknownCA => remote("unknown certificate authority"),
            AlertDescription::BadCertificate => remote("bad certificate"),
            AlertDescription::CertificateRequired => remote("certificate required"),
            AlertDescription::CertificateExpired => remote("expired certificate"),
            other => remote(&format!("{other:?}")),
        },
        _ => None,
    }
}

/// The settings of a connection.
pub(super) fn config(tls: &Tls) -> Result<ClientConfig, String> {
    check(&tls.material)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|cause| cause.to_string())?;
    let builder = if tls.verify {
        builder.with_root_certificates(roots(&tls.material)?)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
    };
    let (cert, key) = match (&tls.material.cert, &tls.material.key) {
        (Some(cert), Some(key)) => (cert, key),
        _ => return Ok(builder.with_no_client_auth()),
    };
    let chain = certificates(cert).ok_or("the client's certificate is no PEM")?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|cause| format!("the client's key is no PEM: {cause}"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|cause| format!("could not load X509 key pair: {cause}"))
}

/// The CA that is named, else those of the system.
fn roots(tls: &TlsMaterial) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let all = match &tls.ca {
        Some(ca) => certificates(ca).unwrap_or_default(),
        None => rustls_native_certs::load_native_certs().certs,
    };
    let (added, _ignored) = roots.add_parsable_certificates(all);
    if added == 0 {
        return Err("no certificate of a CA can be used".to_string());
    }
    Ok(roots)
}

/// Takes any certificate, for `--tls` without `--tlsverify`: encrypted, but not proof of whom one talks to.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
