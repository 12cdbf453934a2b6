//! The classic builder: a Dockerfile and a context become an image, step by step.
//!
//! ```text
//!  query ─▶ options    body ─▶ context ─▶ Dockerfile ─▶ plan (stages)
//!                                                        │ each instruction
//!     cached by key? ◀── stage ──▶ run (a container of the chain) ─┐
//!            │              ├────▶ transfer (COPY, ADD, WORKDIR) ──┤ changes become a layer
//!            ▼              └────▶ config only ────────────────────┘
//!        images::derive: a step's image, named by its key
//! ```
//!
//! A step's key says all that it depends on: the image below, the instruction with its variables replaced, the content of
//! the files that it copies. An image of that name is what the step would make; so the cache has no state of its own, and a
//! daemon that is killed in a build loses only the step that it was in. When the client goes away, or somebody cancels the
//! build by its name, it is dropped and its container removed.

mod args;
mod context;
mod fetch;
mod from;
mod options;
mod parcel;
mod plan;
mod prune;
mod run;
mod running;
mod stage;
mod transfer;

use std::sync::Arc;

use axum::body::Body;
use proto::engine::JsonProgress;

use crate::App;
use crate::error::{During, Error, Result};
use crate::images::progress::Progress;
use crate::images::{Image, short};

pub(crate) use context::sweep_former;
pub(crate) use options::Options;
pub(crate) use prune::prune;
pub(crate) use running::Running;

use args::Args;
use context::Context;
use plan::Plan;

/// One build.
struct Build<'a> {
    app: &'a Arc<App>,
    options: &'a Options,
    context: &'a Arc<Context>,
    progress: &'a Progress,
    args: Args<'a>,
    /// The stages that are done, with their names.
    done: Vec<(Option<String>, Arc<Image>)>,
    step: usize,
    steps: usize,
}

/// Stack of a build's thread, in bytes: its calls are nested deeper than those of a request.
const STACK: usize = 8 << 20;

/// Builds, telling the client how it goes. Each build has a thread of its own; it is given up when this is dropped.
pub(crate) async fn build(
    app: Arc<App>,
    options: Options,
    body: Body,
    progress: Progress,
) -> Result<()> {
    let (mut tell, outcome) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let trace = crate::backend::TRACE.try_with(String::clone);
    let entry = app.builds.enter(&options.build_id);
    let work = async move {
        tokio::select! {
            outcome = work(app, options, body, progress) => Some(outcome),
            () = entry.cancelled() => Some(Err(Error::internal("the build was cancelled"))),
            () = tell.closed() => None,
        }
        .map(|outcome| tell.send(outcome))
    };
    let work = crate::backend::TRACE.scope(trace.unwrap_or_default(), work);
    std::thread::Builder::new()
        .name("build".into())
        .stack_size(STACK)
        // whether anybody still hears of the outcome
        .spawn(move || drop(runtime.block_on(work)))
        .during(|| "start the thread of a build")?;
    let ended = |_| Error::internal("the build has ended early");
    outcome.await.map_err(ended)?
}

/// A step that fails is told in the stream as Docker tells it.
async fn work(app: Arc<App>, options: Options, body: Body, progress: Progress) -> Result<()> {
    let context = Arc::new(Context::receive(&app, body).await?);
    let text = {
        let (context, path) = (context.clone(), options.dockerfile.clone());
        crate::volumes::blocking(move || {
            let text = context.dockerfile(&path)?;
            context.apply_ignore()?;
            Ok(text)
        })
        .await?
    };
    let plan = Plan::read(&text, &options)?;
    let mut build = Build {
        app: &app,
        options: &options,
        context: &context,
        progress: &progress,
        args: Args::new(&options.args),
        done: Vec::new(),
        step: 0,
        steps: plan.steps(),
    };
    for warning in &options.warnings {
        build.say(format!("[Warning] {warning}\n")).await;
    }
    let image = build.all(plan).await?;
    build.finish(&image).await
}

impl Build<'_> {
    /// Text for the client, unless it wants none.
    async fn say(&self, text: impl Into<String>) {
        if !self.options.quiet {
            self.progress.text(text).await;
        }
    }

    async fn aux(&self, id: &str) {
        if !self.options.quiet {
            self.progress
                .send(JsonProgress {
                    aux: Some(serde_json::json!({ "ID": id })),
                    ..JsonProgress::default()
                })
                .await;
        }
    }

    /// Says which step begins.
    async fn announce(&mut self, shown: &str) {
        self.step += 1;
        self.say(format!("Step {}/{} : {shown}", self.step, self.steps))
            .await;
        self.say("\n").await;
    }

    async fn all(&mut self, plan: Plan) -> Result<Arc<Image>> {
        for global in &plan.global {
            self.announce(&global.shown()).await;
            self.global(global, plan.escape)?;
        }
        for stage in plan.stages {
            let name = stage.name.clone();
            let image = self.stage(stage, plan.escape).await?;
            self.aux(&image.id).await;
            self.done.push((name, image));
        }
        match self.done.last() {
            Some((_, image)) => Ok(image.clone()),
            None => Err(Error::invalid("no build stage in current context")),
        }
    }

    async fn finish(&self, image: &Arc<Image>) -> Result<()> {
        let unused = self.args.unused();
        if !unused.is_empty() {
            self.say(format!(
                "[Warning] One or more build-args [{}] were not consumed\n",
                unused.join(" ")
            ))
            .await;
        }
        let images = &self.app.images;
        if self.options.tags.is_empty() {
            images.dangling(&image.target).await?;
        }
        self.say(format!("Successfully built {}\n", short(&image.id)))
            .await;
        for tag in &self.options.tags {
            images.name(&tag.image_name(), &image.target).await?;
            let shown = tag.familiar();
            let attributes = [("name".to_owned(), shown.clone())].into();
            self.app.events.emit("image", "tag", &image.id, attributes);
            self.say(format!("Successfully tagged {shown}\n")).await;
        }
        if self.options.quiet {
            self.progress.text(format!("{}\n", image.id)).await;
        }
        Ok(())
    }
}
