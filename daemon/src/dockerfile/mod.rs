//! Dockerfiles: text to instructions, and what an instruction does to an image's config. Pure.
//!
//! ```text
//!  text ─▶ lines (comments, continuations, heredocs) ─▶ Instruction ─▶ expand (variables) ─▶ config::apply
//! ```
//!
//! The builder reads whole files; `commit --change` and `import --change` read single lines by the same rules.

mod arguments;
pub(crate) mod config;
pub(crate) mod heredoc;
pub(crate) mod ignore;
pub(crate) mod instruction;
pub(crate) mod lines;
pub(crate) mod words;

pub(crate) use instruction::{Command, Instruction, Transfer};

use proto::engine::ImageConfig;

use crate::error::{Error, Result};
use words::Expander;

/// Applies the changes of a commit or an import, in their order. Variables are those of the config.
pub(crate) fn change(config: &mut ImageConfig, changes: &[&str]) -> Result<()> {
    for text in changes.iter().filter(|text| !text.trim().is_empty()) {
        let file = lines::parse(text)?;
        for line in &file.lines {
            let instruction = Instruction::parse(line, file.escape)?;
            if !instruction.changes_only_config() {
                return Err(Error::invalid(format!(
                    "{} is not a valid change command",
                    line.word
                )));
            }
            let env = config.env.clone();
            let lookup = |name: &str| config::variable(&env, name);
            let with = Expander {
                escape: file.escape,
                lookup: &lookup,
            };
            config::apply(config, instruction.expand(&with)?)?;
        }
    }
    Ok(())
}
