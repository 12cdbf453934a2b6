//! The context: the files that a client sends along, in a private folder for as long as the build runs.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use axum::body::Body;

use crate::App;
use crate::archive::extract::{Options, extract};
use crate::archive::root::Root;
use crate::dockerfile::ignore::Ignore;
use crate::error::{During, Error, Result};
use crate::images::{BodyReader, Compression};
use crate::volumes::blocking;

/// Folder of the contexts, below data-root.
const FOLDER: &str = "builds";

/// A context.
#[derive(Debug)]
pub(crate) struct Context {
    folder: PathBuf,
    /// Its files.
    pub(crate) root: Root,
}

impl Drop for Context {
    fn drop(&mut self) {
        let folder = std::mem::take(&mut self.folder);
        // It may be large, and this is no place to wait. What stays is swept at the next start.
        std::thread::spawn(move || {
            if let Err(e) = std::fs::remove_dir_all(&folder) {
                tracing::warn!("remove build context {}: {e}", folder.display());
            }
        });
    }
}

impl Context {
    /// One without files.
    pub(super) async fn empty(app: &App) -> Result<Self> {
        let above = app.config.data_root.join(FOLDER);
        let folder = above.join(crate::random::hex(8));
        blocking(move || {
            crate::make_private(&folder)?;
            Ok(Self {
                root: Root::of_directory(&folder)?,
                folder,
            })
        })
        .await
    }

    /// The path of a file in it, for whoever fills it.
    pub(super) fn path(&self, file: &Path) -> PathBuf {
        self.folder.join(file)
    }

    /// Takes in a context.
    pub(crate) async fn receive(app: &App, body: Body) -> Result<Self> {
        let context = Self::empty(app).await?;
        let reader = BodyReader::new(body);
        blocking(move || {
            let mut source = BufReader::with_capacity(128 << 10, reader);
            let wrong = |e: std::io::Error| Error::invalid(format!("read the build context: {e}"));
            let start = std::io::BufRead::fill_buf(&mut source).map_err(wrong)?;
            let content = Compression::sniff(start)?.decoder(source).map_err(wrong)?;
            extract(&context.root, Path::new("/"), content, Options::default())
                .during(|| "read the build context")?;
            Ok(context)
        })
        .await
    }

    /// The Dockerfile's text.
    pub(crate) fn dockerfile(&self, path: &str) -> Result<String> {
        let missing = || Error::internal(format!("Cannot locate specified Dockerfile: {path}"));
        match self.root.status(Path::new(path)) {
            Ok(_) => self.root.read_text(Path::new(path)),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Err(missing()),
            Err(e) => Err(Error::from(e).during(format!("open {path} of the build context"))),
        }
    }

    /// Takes away what `.dockerignore` leaves out; clients that know the file have not sent it in the first place.
    pub(crate) fn apply_ignore(&self) -> Result<()> {
        let text = self.root.read_text(Path::new(".dockerignore"))?;
        let ignore = Ignore::parse(&text)?;
        sweep(&self.folder, "", &ignore).during(|| "apply .dockerignore")
    }
}

/// The folder is private and nobody else writes in it: its paths are safe. Links are not followed.
fn sweep(folder: &Path, relative: &str, ignore: &Ignore) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = format!("{relative}{}", entry.file_name().to_string_lossy());
        let out = ignore.leaves_out(&path);
        if entry.file_type()?.is_dir() {
            sweep(&entry.path(), &format!("{path}/"), ignore)?;
            if out {
                match std::fs::remove_dir(entry.path()) {
                    // what is in it was taken back by a later pattern
                    Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
                    other => other?,
                }
            }
        } else if out {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Takes away what a former daemon left.
pub(crate) fn sweep_former(data_root: &Path) {
    let folder = data_root.join(FOLDER);
    match std::fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!("remove former build contexts {}: {e}", folder.display());
        }
        _ => {}
    }
}
