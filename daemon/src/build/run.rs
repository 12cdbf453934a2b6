//! RUN: a container of the image so far runs the command; what it changed becomes a layer.

use std::sync::Arc;

use proto::engine::{Config, ContainerCreateBody, HealthConfig, HostConfig};
use tokio::io::AsyncReadExt;

use super::Build;
use super::stage::{Made, Stage};
use crate::App;
use crate::archive::container::snapshot;
use crate::container::stop::{self, Condition};
use crate::container::{self, Connection, Handle};
use crate::dockerfile::Command;
use crate::dockerfile::config::through_shell;
use crate::dockerfile::heredoc::Heredoc;
use crate::error::{Error, Result};
use crate::frames::Unframer;
use crate::images::{CommitSource, short};

/// A container of a build. It goes when this is dropped: a build that is abandoned leaves none.
pub(super) struct Temporary {
    app: Arc<App>,
    pub(super) handle: Handle,
    keep: bool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let handle = self.handle.clone();
        tokio::spawn(async move {
            if let Err(e) = remove(&handle).await {
                tracing::warn!("remove container {} of a build: {e}", handle.id());
            }
        });
    }
}

async fn remove(handle: &Handle) -> Result<()> {
    let asked = handle.ask(|reply| container::Command::Remove {
        force: true,
        volumes: true,
        reply,
    });
    match asked.await {
        Err(e) if !e.is_not_found() => Err(e),
        _ => Ok(()),
    }
}

impl Temporary {
    /// Creates a container of the stage's image.
    pub(super) async fn create(
        app: &Arc<App>,
        mut config: Config,
        host: HostConfig,
        stage: &Stage,
    ) -> Result<Self> {
        config.image.clone_from(&stage.image()?.id);
        let body = ContainerCreateBody {
            config,
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let created = container::create::create(app, "", body).await?;
        Ok(Self {
            app: app.clone(),
            handle: app.containers.find(&created.id)?,
            keep: false,
        })
    }

    /// Its changes, to be committed.
    pub(super) async fn changes(&self) -> Result<CommitSource> {
        let record = self.handle.record();
        Ok(CommitSource {
            container: record.id.clone(),
            image: record.image.clone(),
            chain: record.chain.clone(),
            mounts: snapshot(&self.app, &record).await?,
            config: Default::default(),
            command: String::new(),
        })
    }

    /// Leaves it for the user to look at.
    fn leave(mut self) {
        self.keep = true;
    }

    /// Removes it now.
    pub(super) async fn remove(mut self) -> Result<()> {
        self.keep = true;
        remove(&self.handle).await
    }
}

impl Build<'_> {
    /// Runs a command.
    pub(super) async fn run(
        &mut self,
        stage: &mut Stage,
        command: Command,
        documents: &[Heredoc],
    ) -> Result<()> {
        self.upon_something(stage).await?;
        let command = with_documents(command, documents);
        let words = through_shell(&stage.config, command);
        let args = self.args.for_run(&stage.config.env);
        let shown = words.join(" ");
        let made = Made {
            made_by: match args.len() {
                0 => shown,
                n => format!("|{n} {} {shown}", args.join(" ")),
            },
            content: &self.options.host.network_mode,
        };
        if self.cached(stage, &made).await? {
            return Ok(());
        }
        let mut env = stage.config.env.clone();
        env.extend(args);
        env.extend(self.args.proxies(&stage.config.env));
        let config = Config {
            user: stage.config.user.clone(),
            working_dir: stage.config.working_dir.clone(),
            env: Some(env),
            cmd: Some(words.clone()),
            entrypoint: Some(vec![String::new()]),
            healthcheck: Some(HealthConfig {
                test: vec!["NONE".into()],
                ..HealthConfig::default()
            }),
            ..Config::default()
        };
        let container =
            Temporary::create(self.app, config, self.options.host.clone(), stage).await?;
        self.say(format!(
            " ---> Running in {}\n",
            short(container.handle.id())
        ))
        .await;
        match self.to_its_end(&container).await {
            Ok(0) => {}
            outcome => return self.failed(container, outcome, &words).await,
        }
        let source = container.changes().await?;
        let id = container.handle.id().to_owned();
        self.keep_and_remove(stage, &made, source, container)
            .await?;
        if self.options.remove {
            self.say(format!(
                " ---> Removed intermediate container {}\n",
                short(&id)
            ))
            .await;
        }
        self.say_image(stage).await
    }

    /// Commits the step and takes its container away.
    pub(super) async fn keep_and_remove(
        &self,
        stage: &mut Stage,
        made: &Made<'_>,
        source: CommitSource,
        container: Temporary,
    ) -> Result<()> {
        self.keep(stage, made, Some(source)).await?;
        match self.options.remove {
            true => container.remove().await?,
            false => container.leave(),
        }
        Ok(())
    }

    /// Starts the container, shows its output, and waits for its end.
    async fn to_its_end(&self, container: &Temporary) -> Result<i64> {
        let handle = &container.handle;
        let (watch, before) = (handle.watch(), handle.view().exits);
        let attach = |reply| container::Command::Attach {
            input: false,
            reply,
        };
        let attached = handle.begin(attach).await?;
        handle.ask(container::Command::Start).await?;
        self.relay(attached.answer().await?).await?;
        Ok(stop::wait(watch, before, Condition::NextExit).await)
    }

    /// Shows output as it comes.
    async fn relay(&self, mut from: Connection) -> Result<()> {
        let mut frames = Unframer::default();
        let mut bytes = vec![0; 16 << 10];
        loop {
            let n = from.output.read(&mut bytes).await?;
            if n == 0 {
                return Ok(());
            }
            let mut text = Vec::new();
            frames.push(&bytes[..n], |payload| text.extend_from_slice(payload));
            // the end of a stream is a frame without content
            if !text.is_empty() {
                self.say(String::from_utf8_lossy(&text)).await;
            }
        }
    }

    /// Tells a failure as Docker does: in the stream, with the code.
    async fn failed(
        &self,
        container: Temporary,
        outcome: Result<i64>,
        words: &[String],
    ) -> Result<()> {
        if self.options.force_remove {
            let id = container.handle.id().to_owned();
            container.remove().await?;
            self.say(format!("Removing intermediate container {}\n", short(&id)))
                .await;
        } else {
            container.leave();
        }
        let code = outcome?;
        let words = words.join(" ");
        let message = format!("The command '{words}' returned a non-zero code: {code}");
        Err(Error::internal(message).with_code(code))
    }

    /// A container needs an image: upon `scratch` an empty one is made first.
    pub(super) async fn upon_something(&self, stage: &mut Stage) -> Result<()> {
        if stage.image.is_some() {
            return Ok(());
        }
        let step = crate::images::derive::Step {
            base: None,
            config: stage.config.clone(),
            author: String::new(),
            made_by: "FROM scratch".into(),
            layer: None,
            key: "scratch",
        };
        let image = match self.app.images.step("scratch").await? {
            Some(image) => image,
            None => self.app.images.derive(step).await?,
        };
        stage.image = Some(image);
        Ok(())
    }
}

/// A heredoc is the script of a bare `<<NAME`, and the input of a command that names it: the shell reads it there.
fn with_documents(command: Command, documents: &[Heredoc]) -> Command {
    let (Command::Shell(text), Some(first)) = (&command, documents.first()) else {
        return command;
    };
    let bare = crate::dockerfile::heredoc::parse(text.trim()).is_some();
    if bare {
        return Command::Shell(first.content.clone());
    }
    let mut script = format!("{text}\n");
    for document in documents {
        script.push_str(&document.content);
        script.push_str(&document.name);
        script.push('\n');
    }
    Command::Shell(script)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
    use super::*;
    use crate::dockerfile::Instruction;
    use crate::dockerfile::lines;

    #[test]
    fn heredocs_of_run() {
        let run = |text: &str| {
            let file = lines::parse(text).unwrap();
            match Instruction::parse(&file.lines[0], file.escape).unwrap() {
                Instruction::Run { command, documents } => with_documents(command, &documents),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(run("RUN <<E\na\nb\nE"), Command::Shell("a\nb\n".into()));
        assert_eq!(
            run("RUN cat <<E >x\na\nE"),
            Command::Shell("cat <<E >x\na\nE\n".into())
        );
        assert_eq!(run("RUN a"), Command::Shell("a".into()));
    }
}
