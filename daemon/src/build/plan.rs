//! The stages of a Dockerfile, up to the one that is wanted.

use super::Options;
use crate::dockerfile::Instruction;
use crate::dockerfile::lines::{self, Line};
use crate::error::{Error, Result};

/// Most instructions of one Dockerfile.
const LONGEST: usize = 10_000;

/// An instruction and the line that it stands in.
#[derive(Debug)]
pub(super) struct Item {
    /// The line as it is shown.
    pub(super) shown: String,
    pub(super) instruction: Instruction,
}

/// One stage.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) name: Option<String>,
    /// Its FROM.
    pub(super) from: Item,
    pub(super) items: Vec<Item>,
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) escape: char,
    /// ARG before the first FROM.
    pub(super) global: Vec<Line>,
    pub(super) stages: Vec<Planned>,
}

impl Plan {
    /// Reads a Dockerfile.
    pub(super) fn read(text: &str, options: &Options) -> Result<Self> {
        let prefix = |line: &Line, e: Error| {
            e.during(format!("dockerfile parse error on line {}", line.number))
        };
        let file = lines::parse(text)?;
        if file.lines.len() > LONGEST {
            return Err(Error::invalid(format!(
                "Dockerfile has more than {LONGEST} instructions"
            )));
        }
        let mut plan = Self {
            escape: file.escape,
            global: Vec::new(),
            stages: Vec::new(),
        };
        for line in file.lines {
            let instruction =
                Instruction::parse(&line, file.escape).map_err(|e| prefix(&line, e))?;
            let item = Item {
                shown: line.shown(),
                instruction,
            };
            match (&item.instruction, plan.stages.last_mut()) {
                (Instruction::From { name, .. }, _) => {
                    let name = name.clone();
                    plan.stages.push(Planned {
                        name,
                        from: item,
                        items: Vec::new(),
                    });
                }
                (_, Some(stage)) => stage.items.push(item),
                (Instruction::Arg(_), None) => plan.global.push(line),
                (_, None) => {
                    return Err(prefix(
                        &line,
                        Error::invalid("no build stage in current context"),
                    ));
                }
            }
        }
        plan.cut(&options.target)?;
        if let Some(last) = plan.stages.last_mut()
            && !options.labels.is_empty()
        {
            last.items.push(labels(options));
        }
        Ok(plan)
    }

    /// Leaves out what comes after the wanted stage.
    fn cut(&mut self, target: &str) -> Result<()> {
        if self.stages.is_empty() {
            return Err(Error::invalid("no build stage in current context"));
        }
        if target.is_empty() {
            return Ok(());
        }
        let named = |stage: &Planned| stage.name.as_deref() == Some(target);
        let index = self.stages.iter().position(named);
        let index = index.or_else(|| target.parse().ok().filter(|n| *n < self.stages.len()));
        let index = index.ok_or_else(|| {
            Error::invalid(format!(
                "failed to reach build target {target} in Dockerfile"
            ))
        })?;
        self.stages.truncate(index + 1);
        Ok(())
    }

    /// How many steps are told.
    pub(super) fn steps(&self) -> usize {
        let stages = self.stages.iter().map(|stage| 1 + stage.items.len());
        self.global.len() + stages.sum::<usize>()
    }
}

/// The labels of the query, as a last instruction.
fn labels(options: &Options) -> Item {
    let pairs: Vec<(String, String)> = options.labels.clone().into_iter().collect();
    let shown = pairs.iter().map(|(key, value)| format!(" {key}={value}"));
    Item {
        shown: format!("LABEL{}", shown.collect::<String>()),
        instruction: Instruction::Label(
            pairs
                .iter()
                .map(|(key, value)| (quoted(key), quoted(value)))
                .collect(),
        ),
    }
}

/// A text in which nothing is a variable.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
    use super::*;

    const TEXT: &str = "ARG v=1\nFROM a:$v AS one\nRUN x\nFROM one\nCOPY --from=one a b\n";

    fn read(text: &str, target: &str) -> Result<Plan> {
        let options = Options {
            target: target.into(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            ..Options::default()
        };
        Plan::read(text, &options)
    }

    #[test]
    fn stages_and_targets() {
        let plan = read(TEXT, "").unwrap();
        assert_eq!(
            (plan.global.len(), plan.stages.len(), plan.steps()),
            (1, 2, 6)
        );
        assert_eq!(read(TEXT, "one").unwrap().stages.len(), 1);
        assert_eq!(read(TEXT, "1").unwrap().stages.len(), 2);
        assert_eq!(
            read(TEXT, "x").unwrap_err().message(),
            "failed to reach build target x in Dockerfile"
        );
    }

    #[test]
    fn errors_name_the_line() {
        for (text, told) in [
            (
                "FROM a\n\nNOPE x",
                "dockerfile parse error on line 3: unknown instruction: NOPE",
            ),
            (
                "RUN x",
                "dockerfile parse error on line 1: no build stage in current context",
            ),
            ("ARG x", "no build stage in current context"),
            ("", "file with no instructions"),
        ] {
            assert_eq!(read(text, "").unwrap_err().message(), told, "{text}");
        }
    }
}
