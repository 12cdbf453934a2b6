//! `dockerd-lite certs DIRECTORY [HOST...]`: a CA, and certificates for the daemon and for one client, as `--tlsverify` wants them.
//!
//! | file | who has it |
//! |---|---|
//! | `ca.pem` | daemon and clients |
//! | `ca-key.pem` | nobody but whoever makes further certificates |
//! | `server-cert.pem`, `server-key.pem` | the daemon |
//! | `cert.pem`, `key.pem` | a client, as `DOCKER_CERT_PATH` |

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use crate::error::{During, Error, Result};

/// The word that asks for it.
const CERTS: &str = "certs";

/// How long certificates are good.
const DAYS: i64 = 825;

const USAGE: &str = "usage: dockerd-lite certs DIRECTORY [HOST...]
makes ca.pem, server-cert.pem, server-key.pem, cert.pem and key.pem in DIRECTORY; the daemon's certificate is for the
names and addresses HOST, localhost and 127.0.0.1
";

/// Makes them, if these are the arguments for that.
pub(crate) fn run(arguments: &[OsString]) -> Option<ExitCode> {
    if arguments.get(1).is_none_or(|word| word != CERTS) {
        return None;
    }
    let mut words = arguments[2..]
        .iter()
        .map(|w| w.to_string_lossy().into_owned());
    let Some(dir) = words.next().filter(|dir| !dir.starts_with('-')) else {
        eprint!("{USAGE}");
        return Some(ExitCode::from(125));
    };
    let hosts = words.collect();
    Some(match make(Path::new(&dir), hosts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("dockerd-lite: {e}");
            ExitCode::FAILURE
        }
    })
}

fn wrong(error: rcgen::Error) -> Error {
    Error::invalid(format!("make a certificate: {error}"))
}

fn make(dir: &Path, mut hosts: Vec<String>) -> Result<()> {
    for own in ["localhost", "127.0.0.1"] {
        if !hosts.iter().any(|host| host == own) {
            hosts.push(own.to_owned());
        }
    }
    crate::make_private(dir)?;
    let key = KeyPair::generate().map_err(wrong)?;
    let mut params = named("docker-lite CA", Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = params.self_signed(&key).map_err(wrong)?;
    let mut files = vec![
        ("ca.pem", ca.pem(), 0o644),
        ("ca-key.pem", key.serialize_pem(), 0o600),
    ];
    let issuer = Issuer::new(params, key);
    for (name, hosts, purpose, cert_file, key_file) in [
        (
            "dockerd-lite",
            hosts,
            ExtendedKeyUsagePurpose::ServerAuth,
            "server-cert.pem",
            "server-key.pem",
        ),
        (
            "client",
            Vec::new(),
            ExtendedKeyUsagePurpose::ClientAuth,
            "cert.pem",
            "key.pem",
        ),
    ] {
        let key = KeyPair::generate().map_err(wrong)?;
        let mut params = named(name, hosts)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &issuer).map_err(wrong)?;
        files.push((cert_file, cert.pem(), 0o644));
        files.push((key_file, key.serialize_pem(), 0o600));
    }
    // None is written over: whoever has one made by the former CA would be locked out.
    if let Some((name, ..)) = files.iter().find(|(name, ..)| dir.join(name).exists()) {
        return Err(Error::conflict(format!(
            "{} is there already",
            dir.join(name).display()
        )));
    }
    for (name, text, mode) in files {
        write(&dir.join(name), &text, mode)?;
    }
    Ok(())
}

fn named(name: &str, hosts: Vec<String>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(hosts).map_err(wrong)?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    // Clocks differ.
    params.not_before = now - Duration::hours(1);
    params.not_after = now + Duration::days(DAYS);
    Ok(params)
}

fn write(path: &PathBuf, text: &str, mode: u32) -> Result<()> {
    let what = || format!("write {}", path.display());
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .during(what)?;
    file.write_all(text.as_bytes()).during(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tls;

    #[test]
    fn what_is_made_is_taken_and_never_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certs");
        make(&dir, vec!["docker.example".into(), "10.0.0.1".into()]).unwrap();
        let tls = Tls {
            verify: Some(dir.join("ca.pem")),
            cert: dir.join("server-cert.pem"),
            key: dir.join("server-key.pem"),
        };
        assert!(crate::tls::acceptor(&tls).is_ok());
        let mixed = Tls {
            key: dir.join("key.pem"),
            ..tls
        };
        assert!(crate::tls::acceptor(&mixed).is_err());
        assert!(
            make(&dir, Vec::new())
                .unwrap_err()
                .message()
                .contains("already")
        );
        assert!(make(&dir.join("x"), vec!["\u{e9}".into()]).is_err());
    }
}
