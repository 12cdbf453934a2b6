//! FROM: the image that a stage begins with.

use std::sync::Arc;

use super::Build;
use crate::dockerfile::Instruction;
use crate::dockerfile::lines::Line;
use crate::dockerfile::words::Expander;
use crate::error::{Error, Result};
use crate::images::Image;
use crate::images::manifest::Platform;
use crate::images::reference::Reference;

/// The image of nothing.
const SCRATCH: &str = "scratch";

impl Build<'_> {
    /// An ARG before the first FROM.
    pub(super) fn global(&mut self, line: &Line, escape: char) -> Result<()> {
        let Instruction::Arg(list) = Instruction::parse(line, escape)? else {
            return Ok(());
        };
        for (name, default) in list {
            let default = match default {
                Some(text) => Some(self.in_from(&text, escape)?),
                None => None,
            };
            self.args.declare_global(&name, default);
        }
        Ok(())
    }

    fn in_from(&self, text: &str, escape: char) -> Result<String> {
        let lookup = |name: &str| self.args.global(name);
        let with = Expander {
            escape,
            lookup: &lookup,
        };
        with.word(text)
    }

    /// The image that a FROM names; none for `scratch`.
    pub(super) async fn base(
        &self,
        image: &str,
        platform: Option<&str>,
        escape: char,
    ) -> Result<Option<Arc<Image>>> {
        let name = self.in_from(image, escape)?;
        if name.is_empty() {
            return Err(Error::invalid(format!(
                "base name ({image}) should not be blank"
            )));
        }
        let platform = match platform {
            Some(text) => Some(Platform::parse(&self.in_from(text, escape)?)?),
            None => self.options.platform.clone(),
        };
        if name == SCRATCH {
            return Ok(None);
        }
        if let Some(image) = self.stage_named(&name) {
            return Ok(Some(image));
        }
        self.image(&name, platform).await.map(Some)
    }

    /// A stage that is done, by its name.
    pub(super) fn stage_named(&self, name: &str) -> Option<Arc<Image>> {
        let wanted = name.to_lowercase();
        let mut done = self.done.iter().rev();
        done.find(|(name, _)| name.as_deref() == Some(&wanted))
            .map(|(_, image)| image.clone())
    }

    /// An image that is here, or that is pulled.
    pub(super) async fn image(&self, name: &str, platform: Option<Platform>) -> Result<Arc<Image>> {
        let images = &self.app.images;
        if !self.options.pull || name.starts_with("sha256:") {
            match images.resolve(name).await {
                Err(e) if e.is_not_found() => {}
                other => return Ok(other?.image),
            }
        }
        let reference = Reference::parse(name).map_err(|e| Error::invalid(e.to_string()))?;
        let reference = reference.or_latest();
        let credentials = self.credentials(&reference);
        let registries = images.registries();
        let platform = platform.unwrap_or_else(Platform::host);
        registries
            .pull(
                images.clone(),
                &reference,
                &platform,
                &credentials,
                self.progress,
            )
            .await?;
        Ok(images.resolve(name).await?.image)
    }

    fn credentials(&self, reference: &Reference) -> proto::engine::AuthConfig {
        let host = reference.host.as_str();
        let keys = match host {
            "docker.io" => vec![
                "https://index.docker.io/v1/".to_owned(),
                "docker.io".to_owned(),
            ],
            host => vec![
                host.to_owned(),
                format!("https://{host}"),
                format!("http://{host}"),
            ],
        };
        let known = &self.options.credentials;
        let found = keys.iter().find_map(|key| known.get(key));
        found.cloned().unwrap_or_default()
    }
}
