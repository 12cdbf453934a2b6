//! Copy-up: an empty volume takes over what the image has at its place, and that directory's owner and mode.
//!
//! The image's files are read through a detached mount of the container's snapshot and travel as a tar stream between two
//! threads, by the same code that `cp` uses. A volume that holds anything is left as it is; so is one whose place in the
//! image is missing or no directory. Half a copy is possible if the daemon is killed: the container's record is not
//! written yet then, and the volume goes with the failed creation unless it was there before.

use std::io;
use std::path::Path;

use proto::containerd::types;

use super::request::{Mount, Source};
use super::{Volumes, blocking};
use crate::archive::extract::{self, extract};
use crate::archive::pack::Packer;
use crate::archive::root::Root;
use crate::error::{During, Error, Result};

impl Volumes {
    /// Fills the empty volumes among `mounts` from the snapshot. Mounts nothing if there is none to fill.
    pub(crate) async fn populate(&self, mounts: &[Mount], snapshot: &[types::Mount]) -> Result<()> {
        let mut todo = Vec::new();
        for mount in mounts {
            if let Source::Volume {
                name,
                no_copy: false,
                subpath,
                ..
            } = &mount.source
                && subpath.is_empty()
            {
                todo.push((self.data(name), mount.destination.clone()));
            }
        }
        if todo.is_empty() {
            return Ok(());
        }
        let snapshot = snapshot.to_vec();
        blocking(move || {
            let mut root: Option<Root> = None;
            for (data, destination) in todo {
                if std::fs::read_dir(&data)?.next().is_some() {
                    continue;
                }
                let image = match &mut root {
                    Some(image) => image,
                    empty => empty.insert(Root::of_snapshot(&snapshot)?),
                };
                fill(image, &destination, &data)
                    .during(|| format!("copy {destination} of the image to its volume"))?;
            }
            Ok(())
        })
        .await
    }
}

fn fill(image: &Root, from: &str, to: &Path) -> Result<()> {
    use rustix::io::Errno;
    let source = match image.directory(Path::new(from)) {
        Ok(source) => source,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let (input, output) = io::pipe()?;
    let target = Root::of_directory(to)?;
    let status = rustix::fs::fstat(&source)?;
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || -> Result<()> {
            let mut packer = Packer::new(io::BufWriter::with_capacity(64 << 10, output));
            packer.tree(&source, Path::new(""))?;
            packer
                .finish()?
                .into_inner()
                .map_err(|e| Error::from(e.into_error()))?;
            Ok(())
        });
        let read = extract(
            &target,
            Path::new("/"),
            io::BufReader::with_capacity(64 << 10, input),
            extract::Options::default(),
        );
        let written = writer
            .join()
            .map_err(|_| Error::internal("the thread that reads the image has ended early"))?;
        // A failed reader closes the pipe, which the writer only sees as broken.
        read.and(written)
    })?;
    let owner = (Some(status.st_uid), Some(status.st_gid));
    std::os::unix::fs::chown(to, owner.0, owner.1)?;
    super::set_mode(to, status.st_mode & 0o7777)?;
    Ok(())
}
