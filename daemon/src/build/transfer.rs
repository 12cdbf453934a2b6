//! COPY, ADD and WORKDIR: files come into the image without a process being run.
//!
//! A container is created and not started; into its root, opened as a descriptor, the files are extracted by the same code
//! as `cp` uses: no path of an image or of a context is ever followed by the daemon outside of its root.

use std::path::Path;
use std::sync::Arc;

use super::fetch::{self, Fetched, is_address};
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
        let parcels = Arc::new(self.parcels(stage, &transfer, add).await?);
        let count: usize = parcels.iter().map(|(_, parcel)| parcel.count()).sum();
        if count > 1 && !parcels.iter().any(|(_, parcel)| parcel.folder) {
            return Err(Error::invalid(format!(
                "When using {word} with more than one source file, the destination must be a directory and end with a /"
            )));
        }
        let sum = {
            let parcels = parcels.clone();
            let sums = blocking(move || {
                let filled = parcels.iter().filter(|(_, parcel)| parcel.count() > 0);
                let sums = filled.map(|(tree, parcel)| sum(tree.root(), parcel));
                Ok(sums.collect::<Result<Vec<_>>>()?.join(","))
            });
            sums.await.map_err(|e| e.during(format!("{word} failed")))?
        };
        let kind = match count {
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
            parcels
                .iter()
                .try_for_each(|(tree, parcel)| place(tree.root(), &root, parcel, owner, mode))
        };
        blocking(work)
            .await
            .map_err(|e| e.during(format!("{word} failed")))?;
        let source = container.changes().await?;
        self.keep_and_remove(stage, &made, source, container)
            .await?;
        self.say_image(stage).await
    }

    /// What comes from the context or an image, and what from addresses, each with the tree that it lies in.
    async fn parcels(
        &self,
        stage: &Stage,
        transfer: &Transfer,
        add: bool,
    ) -> Result<Vec<(Arc<Tree>, Parcel)>> {
        let remote = self.remote(transfer, add).await?;
        let tree = Arc::new(self.tree(stage, transfer.from.as_deref()).await?);
        let parcel = Parcel {
            sources: Vec::new(),
            documents: Vec::new(),
            target: below(&stage.config.working_dir, &transfer.target),
            folder: transfer.target.ends_with('/')
                || transfer.target.ends_with("/.")
                || transfer.target == ".",
            unpack: false,
        };
        let (patterns, from) = (transfer.sources.clone(), tree.clone());
        let found = blocking(move || {
            let mut sources = Vec::new();
            for pattern in patterns.iter().filter(|s| !add || !is_address(s)) {
                sources.extend(find(from.root(), pattern)?);
            }
            Ok(sources)
        });
        let word = if add { "ADD" } else { "COPY" };
        let own = Parcel {
            sources: found
                .await
                .map_err(|e| e.during(format!("{word} failed")))?,
            documents: transfer.documents.clone(),
            unpack: add,
            ..parcel.clone()
        };
        let mut parcels = vec![(tree, own)];
        if let Some(remote) = remote {
            // what was fetched stays as it is, as in Docker
            let fetched = Parcel {
                sources: remote.files,
                ..parcel
            };
            parcels.push((Arc::new(Tree::Context(remote.folder)), fetched));
        }
        Ok(parcels)
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

    /// The files of ADD that are addresses; none of COPY.
    async fn remote(&self, transfer: &Transfer, add: bool) -> Result<Option<Fetched>> {
        let sources = transfer
            .sources
            .iter()
            .filter(|source| add && is_address(source));
        let addresses: Vec<_> = sources.cloned().collect();
        let checksum = transfer.checksum.as_deref();
        let others = transfer.sources.len() + transfer.documents.len() - addresses.len();
        if checksum.is_some() && others > 0 {
            return Err(Error::invalid(
                "checksum can't be specified for non-HTTP(S) sources",
            ));
        }
        let mut git = transfer.sources.iter().filter(|_| add);
        if let Some(source) = git.find(|source| source.starts_with("git@")) {
            return Err(Error::unimplemented(format!(
                "ADD of the repository {source} is not supported"
            )));
        }
        match addresses.is_empty() {
            true => Ok(None),
            false => {
                let fetched = fetch::all(self.app, &addresses, checksum).await;
                Ok(Some(fetched.map_err(|e| e.during("ADD failed"))?))
            }
        }
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
