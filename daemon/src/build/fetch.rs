//! ADD of addresses: each file is fetched into a folder of its own, and is then brought in like one of the context.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, Url};
use sha2::{Digest as _, Sha256};

use super::context::Context;
use crate::App;
use crate::error::{During, Error, Result};
use crate::registry::causes;

/// Longest time to reach a server, and longest silence of one.
const CONNECT: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(60);

/// Whether a source is an address that is fetched.
pub(super) fn is_address(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// Files that were fetched, and where they lie.
pub(super) struct Fetched {
    pub(super) folder: Arc<Context>,
    pub(super) files: Vec<PathBuf>,
}

/// Fetches all addresses. A checksum is that of each of them.
pub(super) async fn all(
    app: &App,
    addresses: &[String],
    checksum: Option<&str>,
) -> Result<Fetched> {
    let wanted = checksum.map(digest).transpose()?;
    let folder = Arc::new(Context::empty(app).await?);
    let client = client()?;
    let mut files = Vec::new();
    for (number, address) in addresses.iter().enumerate() {
        let url = Url::parse(address)
            .map_err(|e| Error::invalid(format!("invalid address {address}: {e}")))?;
        let name = name(&url)?;
        // two addresses may end alike
        let place = PathBuf::from(number.to_string()).join(&name);
        let got = fetch(&client, url, &folder.path(&place))
            .await
            .map_err(|e| e.during(format!("fetch {address}")))?;
        if let Some(wanted) = wanted.as_ref().filter(|wanted| **wanted != got) {
            return Err(Error::invalid(format!(
                "digest mismatch of {address}: expected sha256:{wanted}, got sha256:{got}"
            )));
        }
        files.push(PathBuf::from("/").join(place));
    }
    Ok(Fetched { folder, files })
}

/// The digits of `sha256:HEX`.
fn digest(text: &str) -> Result<String> {
    let wrong = || Error::invalid(format!("invalid checksum {text:?}: want sha256:HEX"));
    let digits = text.strip_prefix("sha256:").ok_or_else(wrong)?;
    match digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => Ok(digits.to_ascii_lowercase()),
        false => Err(wrong()),
    }
}

/// The file name that an address ends with.
fn name(url: &Url) -> Result<String> {
    let last = url.path_segments().and_then(|mut parts| parts.next_back());
    let name = last.unwrap_or_default();
    match name {
        "" | "." | ".." => Err(Error::invalid(format!(
            "cannot determine filename for source {url}"
        ))),
        name => Ok(name.to_owned()),
    }
}

fn client() -> Result<Client> {
    crate::registry::prepare_tls();
    Client::builder()
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .user_agent(concat!("docker-lite/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| Error::internal(format!("make a client: {}", causes(&e))))
}

/// Writes what an address holds to a file that only its owner may read, as Docker does; the digest of it. The build's thread
/// may block.
async fn fetch(client: &Client, url: Url, file: &std::path::Path) -> Result<String> {
    let failed = |e: reqwest::Error| Error::internal(causes(&e));
    let mut answer = client.get(url).send().await.map_err(failed)?;
    if !answer.status().is_success() {
        return Err(Error::invalid(format!(
            "failed to GET with status {}",
            answer.status()
        )));
    }
    let above = file.parent().unwrap_or(file);
    std::fs::create_dir_all(above).during(|| format!("make {}", above.display()))?;
    let mut to = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .during(|| format!("make {}", file.display()))?;
    let mut sum = Sha256::new();
    loop {
        let part: Option<bytes::Bytes> = answer.chunk().await.map_err(failed)?;
        let Some(part) = part else { break };
        sum.update(part.as_ref());
        to.write_all(part.as_ref())
            .during(|| format!("write {}", file.display()))?;
    }
    Ok(hex::encode(sum.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_checksums() {
        let named = |text: &str| name(&Url::parse(text).unwrap()).ok();
        assert_eq!(named("http://h/a/b.tar?x=/y").as_deref(), Some("b.tar"));
        for none in ["http://h", "http://h/", "https://h/a/", "http://h/a/.."] {
            assert_eq!(named(none), None, "{none}");
        }
        let digits = "AB".repeat(32);
        assert_eq!(
            digest(&format!("sha256:{digits}")).unwrap(),
            digits.to_lowercase()
        );
        for bad in ["", "sha256:", "sha512:ab", &digits] {
            assert!(digest(bad).is_err(), "{bad}");
        }
        assert!(is_address("https://h/x") && !is_address("git@h:x") && !is_address("http"));
    }
}
