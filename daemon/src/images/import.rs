//! `import`: a tar of a root file system becomes an image of one layer.
//!
//! The stream is stored as it comes, compressed or not, and read on the way: its content must be hashed for the config, and
//! an archive that is cut short or reaches out of its root is refused before anything is unpacked.

use std::io::{BufRead, BufReader};

use axum::body::Body;
use proto::containerd::types;

use super::ingest::{Hashing, Ingest, LeaseGuard, Tee};
use super::manifest::{History, ImageFile, Platform};
use super::tarball::{BodyReader, Compression, broken, stays_inside};
use super::{Images, names, now};
use crate::error::{Error, Result};

/// What `POST /images/create?fromSrc=` asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct ImportOptions {
    /// Repository of the new image, or empty for none.
    pub(crate) repository: String,
    /// Tag of the new image, or empty for latest.
    pub(crate) tag: String,
    /// Comment for its history.
    pub(crate) message: String,
    /// Instructions that change its config.
    pub(crate) changes: Vec<String>,
    /// Its platform, or empty for the host's.
    pub(crate) platform: String,
}

impl Images {
    /// Imports a stream. Answers the id and the name as users see it.
    pub(crate) async fn import(
        &self,
        body: Body,
        options: &ImportOptions,
    ) -> Result<(String, Option<String>)> {
        let name = match options.repository.as_str() {
            "" => None,
            repository => Some(names::new_name(repository, &options.tag)?),
        };
        let mut file = self.new_file(options)?;
        let reader = BodyReader::new(body);
        let guard = LeaseGuard::new(&self.backend, "import").await?;
        let leased = guard.backend();
        let work = async {
            let ingest = Ingest::open(leased, "import").await?;
            let (layer, diff_id) = tokio::task::spawn_blocking(move || store(reader, ingest))
                .await
                .map_err(|e| Error::internal(format!("import ended early: {e}")))??;
            file.rootfs.diff_ids.push(diff_id);
            let target = super::write::documents(leased, &file, vec![layer]).await?;
            let long = name.as_ref().map(|name| name.image_name());
            self.finish(leased, &target, long.as_deref()).await
        };
        let outcome = work.await;
        let image = guard.end(outcome).await?;
        Ok((image.id.clone(), name.map(|name| name.familiar())))
    }

    fn new_file(&self, options: &ImportOptions) -> Result<ImageFile> {
        let mut file = ImageFile::for_host(now());
        if !options.platform.is_empty() {
            let platform = Platform::parse(&options.platform)?;
            file.os = platform.os;
            file.architecture = platform.architecture;
            file.variant = (!platform.variant.is_empty()).then_some(platform.variant);
        }
        let mut config = proto::engine::ImageConfig::default();
        let changes: Vec<&str> = options.changes.iter().map(String::as_str).collect();
        crate::dockerfile::change(&mut config, &changes)?;
        file.config = Some(config);
        file.history = Some(vec![History {
            created: file.created.clone(),
            comment: (!options.message.is_empty()).then(|| options.message.clone()),
            ..History::default()
        }]);
        Ok(file)
    }
}

/// Stores the stream as a blob; answers it and the digest of its uncompressed content.
fn store(reader: BodyReader, mut ingest: Ingest) -> Result<(types::Descriptor, String)> {
    let mut failure = None;
    let read = {
        let mut raw =
            BufReader::with_capacity(128 << 10, Tee::new(reader, &mut ingest, &mut failure));
        check(&mut raw)
    };
    if let Some(failure) = failure {
        return Err(failure);
    }
    let (compression, diff_id) = read?;
    let (digest, size) = ingest.commit()?;
    let diff_id = diff_id.unwrap_or_else(|| digest.clone());
    let layer = types::Descriptor {
        media_type: compression.layer().to_owned(),
        digest,
        size: i64::try_from(size).unwrap_or(i64::MAX),
        ..types::Descriptor::default()
    };
    Ok((layer, diff_id))
}

/// Reads the archive to its end; the digest of its content is told where that is not the archive itself.
fn check(raw: &mut impl BufRead) -> Result<(Compression, Option<String>)> {
    let wrong = broken("invalid archive");
    let compression = Compression::sniff(raw.fill_buf().map_err(&wrong)?)?;
    let diff_id = {
        let decoder = compression.decoder(&mut *raw).map_err(&wrong)?;
        let mut content = Hashing::new(decoder, compression != Compression::None);
        let mut archive = tar::Archive::new(&mut content);
        for entry in archive.entries().map_err(&wrong)? {
            let mut entry = entry.map_err(&wrong)?;
            let path = entry.path_bytes();
            if !stays_inside(&path) {
                return Err(Error::invalid(format!(
                    "invalid archive: entry {:?} is outside of the root",
                    String::from_utf8_lossy(&path)
                )));
            }
            let link = entry.link_name_bytes();
            let hard = entry.header().entry_type() == tar::EntryType::Link;
            if let (true, Some(link)) = (hard, link)
                && !stays_inside(&link)
            {
                return Err(Error::invalid(format!(
                    "invalid archive: hard link to {:?} is outside of the root",
                    String::from_utf8_lossy(&link)
                )));
            }
            // Read rather than skipped: a file cut short is only seen so.
            let announced = entry.size();
            let got = std::io::copy(&mut entry, &mut std::io::sink()).map_err(&wrong)?;
            if got != announced && entry.header().entry_type().is_file() {
                return Err(Error::invalid("invalid archive: unexpected EOF"));
            }
        }
        // The padding behind the last entry belongs to the digest.
        std::io::copy(&mut content, &mut std::io::sink()).map_err(&wrong)?;
        content.digest()
    };
    // What follows the compressed stream belongs to the blob.
    let mut rest = [0u8; 4096];
    while raw.read(&mut rest).map_err(&wrong)? > 0 {}
    Ok((compression, diff_id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::blob::digest_of;

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, data) in entries {
            let mut header = tar::Header::new_gnu();
            let name = &mut header.as_old_mut().name;
            name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, *data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn the_digest_is_that_of_the_content() {
        let plain = archive(&[("a", b"hello"), ("b/c", b"")]);
        let (kind, diff_id) = check(&mut plain.as_slice()).unwrap();
        assert_eq!(kind, Compression::None);
        assert_eq!(diff_id, None);
        let packed = zstd::encode_all(plain.as_slice(), 1).unwrap();
        let (kind, diff_id) = check(&mut packed.as_slice()).unwrap();
        assert_eq!(
            (kind, diff_id),
            (Compression::Zstd, Some(digest_of(&plain)))
        );
    }

    #[test]
    fn bad_archives_are_the_clients_fault() {
        let escape = archive(&[("../x", b"1")]);
        let long = archive(&[("a", &[7; 5000])]);
        for bad in [
            escape.as_slice(),
            &long[..2000],
            b"this is no archive at all, but long enough to be one"
                .repeat(20)
                .as_slice(),
        ] {
            let error = check(&mut &*bad).unwrap_err();
            assert_eq!(
                error.kind(),
                proto::error::ErrorKind::InvalidArgument,
                "{error}"
            );
        }
    }
}
