//! COPY, ADD and WORKDIR: files come into the image without a process being run.
//!
//! A container is created and not started; into its root, opened as a descriptor, the files are extracted by the same code
//! as `cp` uses: no path of an image or of a context is ever followed by the daemon outside of its root.

use std::path::Path;
use std::sync::Arc;

use super::parcel::{Parcel, find, owner, place, sum};
use super::run::Temporary;
use super::stage::{Made, Stage};
use super::{Build, context::Context};
use crate::archive::container;
use crate::archive::extract;
use crate::archive::root::Root;
use crate::dockerfile::Transfer;
use crate::dockerfile::config::below;
use crate::error::{During, Error, Result};
use crate::volumes::blocking;

/// Where files come from.
enum Tree {
    Context(Arc<Context>),
    /// A container of the stage or image, that is never started.
    Image(
        Root,
        #[expect(dead_code, reason = "holds the snapshot")] Temporary,
    ),
}

impl Tree {
    fn root(&self) -> &Root {
        match self {
            Self::Context(context) => &context.root,
            Self::Image(root, _) => root,
        }
    }
}

impl Build<'_> {
    /// COPY, or ADD with `add`.
    pub(super) async fn transfer(
        &mut self,
        stage: &mut Stage,
        transfer: Transfer,
        add: bool,
    ) -> Result<()> {
        let word = if add { "ADD" } else { "COPY" };
        self.upon_something(stage).await?;
        if add {
            refuse_addresses(&transfer)?;
        }
        let tree = Arc::new(self.tree(stage, transfer.from.as_deref()).await?);
        let folder = transfer.target.ends_with('/')
            || transfer.target.ends_with("/.")
            || transfer.target == ".";
        let parcel = {
            let (tree, transfer) = (tree.clone(), transfer.clone());
            let target = below(&stage.config.working_dir, &transfer.target);
            let parcel = blocking(move || {
                let mut sources = Vec::new();
                for pattern in &transfer.sources {
                    sources.extend(
                        find(tree.root(), pattern)
                            .map_err(|e| e.during(format!("{word} failed")))?,
                    );
                }
                Ok(Parcel {
                    sources,
                    documents: transfer.documents,
                    target,
                    folder,
                    unpack: add,
                })
            })
            .await?;
            Arc::new(parcel)
        };
        if parcel.sources.len() + parcel.documents.len() > 1 && !folder {
            return Err(Error::invalid(format!(
                "When using {word} with more than one source file, the destination must be a directory and end with a /"
            )));
        }
        let sum = {
            let (tree, parcel) = (tree.clone(), parcel.clone());
            blocking(move || sum(tree.root(), &parcel))
                .await
                .map_err(|e| e.during(format!("{word} failed")))?
        };
        let kind = match parcel.sources.len() + parcel.documents.len() {
            1 => "file",
            _ => "multi",
        };
        let content = format!("{:?} {:?} {sum}", transfer.chown, transfer.chmod);
        let made = Made {
            made_by: format!(
                "/bin/sh -c #(nop) {word} {kind}:{sum} in {} ",
                transfer.target
            ),
            content: &content,
        };
        if self.cached(stage, &made).await? {
            return Ok(());
        }
        let container = self.silent(stage).await?;
        let root = container::root(self.app, &container.handle.record()).await?;
        let chown = transfer.chown.clone();
        let mode = transfer.chmod;
        let work = move || {
            let owner = match &chown {
                Some(text) => Some(owner(&root, text)?),
                None => None,
            };
            place(tree.root(), &root, &parcel, owner, mode)
        };
        blocking(work)
            .await
            .map_err(|e| e.during(format!("{word} failed")))?;
        let source = container.changes().await?;
        self.keep_and_remove(stage, &made, source, container)
            .await?;
        self.say_image(stage).await
    }

    /// Sets the working directory and makes it, if it is not there.
    pub(super) async fn workdir(&mut self, stage: &mut Stage, path: &str) -> Result<()> {
        self.upon_something(stage).await?;
        let path = below(&stage.config.working_dir, path);
        stage.config.working_dir.clone_from(&path);
        let made = Made {
            made_by: format!("/bin/sh -c #(nop) WORKDIR {path}"),
            content: "",
        };
        if self.cached(stage, &made).await? {
            return Ok(());
        }
        let container = self.silent(stage).await?;
        let root = container::root(self.app, &container.handle.record()).await?;
        blocking(move || {
            extract::folder(&root, Path::new(&path)).during(|| format!("make {path}"))
        })
        .await?;
        let source = container.changes().await?;
        self.keep_and_remove(stage, &made, source, container)
            .await?;
        self.say_image(stage).await
    }

    /// A container that is not started.
    async fn silent(&self, stage: &Stage) -> Result<Temporary> {
        let config = proto::engine::Config {
            cmd: Some(vec!["#(nop)".into()]),
            entrypoint: Some(vec![String::new()]),
            ..Default::default()
        };
        let host = proto::engine::HostConfig {
            network_mode: "none".into(),
            ..Default::default()
        };
        Temporary::create(self.app, config, host, stage).await
    }

    /// Where the files come from.
    async fn tree(&self, stage: &Stage, from: Option<&str>) -> Result<Tree> {
        let Some(name) = from else {
            return Ok(Tree::Context(self.context.clone()));
        };
        let by_number = || name.parse().ok().and_then(|n: usize| self.done.get(n));
        let image = match by_number() {
            Some((_, image)) => image.clone(),
            None => match self.stage_named(name) {
                Some(image) => image,
                None => self
                    .image(name, None)
                    .await
                    .map_err(|e| e.during(format!("invalid from flag value {name}")))?,
            },
        };
        let other = stage.upon(image);
        let container = self.silent(&other).await?;
        let root = container::root(self.app, &container.handle.record()).await?;
        Ok(Tree::Image(root, container))
    }
}

fn refuse_addresses(transfer: &Transfer) -> Result<()> {
    let remote = |source: &&String| {
        source.starts_with("http://")
            || source.starts_with("https://")
            || source.starts_with("git@")
    };
    match transfer.sources.iter().find(remote) {
        Some(source) => Err(Error::unimplemented(format!(
            "ADD of the remote address {source} is not supported yet"
        ))),
        None if transfer.checksum.is_some() => Err(Error::invalid(
            "checksum can't be specified for non-HTTP(S) sources",
        )),
        None => Ok(()),
    }
}
