//! A stage: its instructions one after another, each upon the image of the one before.

use std::sync::Arc;

use proto::engine::ImageConfig;
use sha2::{Digest as _, Sha256};

use super::Build;
use super::plan::{Item, Planned};
use crate::dockerfile::config::{apply, through_shell};
use crate::dockerfile::lines;
use crate::dockerfile::words::Expander;
use crate::dockerfile::{Command, Instruction};
use crate::error::{Error, Result};
use crate::images::derive::Step;
use crate::images::{CommitSource, Image, short};

/// Of the keys: raised when a step of the same key would make something else.
const KEYS: &str = "1";

/// The state of the stage that is built.
#[derive(Debug)]
pub(super) struct Stage {
    /// What stands so far; nothing yet upon `scratch`.
    pub(super) image: Option<Arc<Image>>,
    pub(super) config: ImageConfig,
    pub(super) escape: char,
    author: String,
    /// Whether this stage has a CMD: an ENTRYPOINT leaves only such a one.
    own_cmd: bool,
    /// Whether every step so far was taken from a former build.
    pub(super) cached: bool,
}

/// What a step makes.
#[derive(Debug)]
pub(super) struct Made<'a> {
    /// As the history shows it.
    pub(super) made_by: String,
    /// What it depends on besides the image below, the history's text and the config.
    pub(super) content: &'a str,
}

impl Stage {
    /// The key of a step upon the image so far.
    fn key(&self, made: &Made<'_>) -> Result<String> {
        let config = serde_json::to_string(&self.config)
            .map_err(|e| Error::internal(format!("encode the config of a step: {e}")))?;
        let below = self.image.as_ref().map_or("", |image| image.id.as_str());
        let mut sum = Sha256::new();
        for part in [
            KEYS,
            below,
            &made.made_by,
            made.content,
            &config,
            &self.author,
        ] {
            sum.update((part.len() as u64).to_le_bytes());
            sum.update(part);
        }
        Ok(hex::encode(sum.finalize()))
    }

    /// A stage that stands on another image, for its files.
    pub(super) fn upon(&self, image: Arc<Image>) -> Self {
        Self {
            config: image.config(),
            image: Some(image),
            escape: self.escape,
            author: String::new(),
            own_cmd: false,
            cached: false,
        }
    }

    /// The image so far, for whatever needs one.
    pub(super) fn image(&self) -> Result<&Arc<Image>> {
        let image = self.image.as_ref();
        image.ok_or_else(|| Error::internal("a stage has no image yet"))
    }
}

impl Build<'_> {
    /// Builds a stage.
    pub(super) async fn stage(&mut self, planned: Planned, escape: char) -> Result<Arc<Image>> {
        self.announce(&planned.from.shown).await;
        let Instruction::From {
            image, platform, ..
        } = &planned.from.instruction
        else {
            return Err(Error::internal("a stage begins without FROM"));
        };
        let base = self.base(image, platform.as_deref(), escape).await?;
        self.args.enter_stage();
        let mut stage = Stage {
            config: base
                .as_ref()
                .map(|image| image.config())
                .unwrap_or_default(),
            image: base,
            escape,
            author: String::new(),
            own_cmd: false,
            cached: !self.options.no_cache,
        };
        match &stage.image {
            Some(image) => self.say(format!(" ---> {}\n", short(&image.id))).await,
            None => self.say(" ---> \n").await,
        }
        self.triggers(&mut stage).await?;
        for item in planned.items {
            self.announce(&item.shown).await;
            self.item(&mut stage, item).await?;
        }
        match stage.image {
            Some(image) => Ok(image),
            None => Err(Error::invalid(
                "No image was generated. Is your Dockerfile empty?",
            )),
        }
    }

    /// The ONBUILD instructions of the base image.
    async fn triggers(&mut self, stage: &mut Stage) -> Result<()> {
        let triggers = std::mem::take(&mut stage.config.on_build);
        match triggers.len() {
            0 => return Ok(()),
            1 => self.say("# Executing 1 build trigger\n").await,
            n => self.say(format!("# Executing {n} build triggers\n")).await,
        }
        for trigger in triggers {
            let file = lines::parse(&trigger)?;
            for line in &file.lines {
                let instruction = Instruction::parse(line, file.escape)?;
                if matches!(
                    instruction,
                    Instruction::From { .. } | Instruction::OnBuild(_)
                ) {
                    return Err(Error::invalid(format!(
                        "{} isn't allowed as an ONBUILD trigger",
                        line.word
                    )));
                }
                let item = Item {
                    shown: line.shown(),
                    instruction,
                };
                self.item(stage, item).await?;
            }
        }
        Ok(())
    }

    async fn item(&mut self, stage: &mut Stage, item: Item) -> Result<()> {
        if let Instruction::Arg(list) = item.instruction {
            return self.arg(stage, list, &item.shown).await;
        }
        let instruction = {
            let env = &stage.config.env;
            let lookup = |name: &str| self.args.value(env, name);
            let with = Expander {
                escape: stage.escape,
                lookup: &lookup,
            };
            item.instruction.expand(&with)?
        };
        match instruction {
            Instruction::Run { command, documents } => self.run(stage, command, &documents).await,
            Instruction::Copy(transfer) => self.transfer(stage, transfer, false).await,
            Instruction::Add(transfer) => self.transfer(stage, transfer, true).await,
            Instruction::Workdir(path) => self.workdir(stage, &path).await,
            Instruction::Maintainer(name) => {
                stage.author.clone_from(&name);
                self.describe(stage, format!("MAINTAINER {name}")).await
            }
            instruction => {
                let shown = shown(&stage.config, &instruction, &item.shown);
                match &instruction {
                    Instruction::Cmd(_) => stage.own_cmd = true,
                    Instruction::Entrypoint(_) if !stage.own_cmd => stage.config.cmd.clear(),
                    _ => {}
                }
                apply(&mut stage.config, instruction)?;
                self.describe(stage, shown).await
            }
        }
    }

    async fn arg(
        &mut self,
        stage: &mut Stage,
        list: Vec<(String, Option<String>)>,
        shown: &str,
    ) -> Result<()> {
        for (name, default) in list {
            let default = match default {
                Some(text) => {
                    let env = &stage.config.env;
                    let lookup = |name: &str| self.args.value(env, name);
                    let with = Expander {
                        escape: stage.escape,
                        lookup: &lookup,
                    };
                    Some(with.word(&text)?)
                }
                None => None,
            };
            self.args.declare(&name, default);
        }
        self.describe(stage, shown.to_owned()).await
    }

    /// A step that changes the config alone.
    pub(super) async fn describe(&self, stage: &mut Stage, shown: String) -> Result<()> {
        let made = Made {
            made_by: format!("/bin/sh -c #(nop)  {shown}"),
            content: "",
        };
        if self.cached(stage, &made).await? {
            return Ok(());
        }
        self.keep(stage, &made, None).await?;
        self.say_image(stage).await
    }

    /// Takes the step of a former build, if there is one.
    pub(super) async fn cached(&self, stage: &mut Stage, made: &Made<'_>) -> Result<bool> {
        if !stage.cached {
            return Ok(false);
        }
        let Some(image) = self.app.images.step(&stage.key(made)?).await? else {
            // What comes after stands on something new.
            stage.cached = false;
            return Ok(false);
        };
        self.say(" ---> Using cache\n").await;
        stage.image = Some(image);
        self.say_image(stage).await?;
        Ok(true)
    }

    /// Makes a step's image and stands on it.
    pub(super) async fn keep(
        &self,
        stage: &mut Stage,
        made: &Made<'_>,
        layer: Option<CommitSource>,
    ) -> Result<()> {
        let key = stage.key(made)?;
        let step = Step {
            base: stage.image.as_deref(),
            config: stage.config.clone(),
            author: stage.author.clone(),
            made_by: made.made_by.clone(),
            layer,
            key: &key,
        };
        let image = self.app.images.derive(step).await?;
        stage.image = Some(image);
        Ok(())
    }

    /// Says what stands so far.
    pub(super) async fn say_image(&self, stage: &Stage) -> Result<()> {
        let id = stage.image()?.id.clone();
        self.say(format!(" ---> {}\n", short(&id))).await;
        Ok(())
    }
}

/// An instruction as the history shows it: commands as the lists that are run.
fn shown(config: &ImageConfig, instruction: &Instruction, text: &str) -> String {
    let list = |word: &str, command: &Command| {
        let words = through_shell(config, command.clone());
        let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        format!("{word} [{}]", words.join(" "))
    };
    let pairs = |word: &str, pairs: &[(String, String)]| {
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        format!("{word} {}", pairs.join(" "))
    };
    match instruction {
        Instruction::Cmd(command) => list("CMD", command),
        Instruction::Entrypoint(command) => list("ENTRYPOINT", command),
        Instruction::Env(list) => pairs("ENV", list),
        Instruction::Label(list) => pairs("LABEL", list),
        Instruction::User(user) => format!("USER {user}"),
        Instruction::Expose(ports) => format!("EXPOSE {}", ports.join(" ")),
        Instruction::Volume(paths) => format!("VOLUME [{}]", paths.join(" ")),
        Instruction::StopSignal(signal) => format!("STOPSIGNAL {signal}"),
        _ => text.to_owned(),
    }
}
