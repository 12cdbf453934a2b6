//! What a container may do, and whether it did that: the state machine that every observation is held against.
//!
//! An operation whose answer was lost may have happened or not. An exit may not be lost or invented: a code is the declared one,
//! that of a kill that was asked for, or 137 of a container whose shim was killed; once told it stays. Lines of the log are
//! those said, in order, each once; only a container whose shim was killed may lack the last ones.

use anyhow::{Result, bail, ensure};

/// What a container was made to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Deed {
    /// Says this many numbered lines and ends with this code.
    Speak { lines: u32, code: i64 },
    /// Stays until it is killed.
    Stay,
}

/// What is known of one container.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) id: String,
    pub(crate) deed: Deed,
    /// A start was asked for.
    pub(crate) start_asked: bool,
    /// A start was acknowledged.
    pub(crate) started: bool,
    /// A kill was asked for.
    pub(crate) kill_asked: bool,
    exit: Option<i64>,
}

/// One look at a container.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) status: String,
    pub(crate) code: i64,
    pub(crate) error: String,
}

impl Model {
    pub(crate) fn new(id: String, deed: Deed) -> Self {
        Self {
            id,
            deed,
            start_asked: false,
            started: false,
            kill_asked: false,
            exit: None,
        }
    }

    /// Takes a look in, or says what is impossible about it.
    pub(crate) fn see(&mut self, seen: &Seen, was_killed: bool) -> Result<()> {
        match seen.status.as_str() {
            "created" => {
                // A start that failed leaves it so, with the error.
                ensure!(
                    !self.started || was_killed,
                    "it was started and is created: {seen:?}"
                );
                ensure!(self.exit.is_none(), "it had ended and is created: {seen:?}");
            }
            "running" => {
                ensure!(self.start_asked, "it runs and nobody started it: {seen:?}");
                ensure!(self.exit.is_none(), "it had ended and runs: {seen:?}");
            }
            "exited" | "dead" => {
                ensure!(self.start_asked, "it ended and nobody started it: {seen:?}");
                self.ended(seen, was_killed)?;
            }
            "removing" | "restarting" | "paused" => {
                bail!("nobody asked for {seen:?}");
            }
            other => bail!("no such state: {other}"),
        }
        Ok(())
    }

    fn ended(&mut self, seen: &Seen, was_killed: bool) -> Result<()> {
        if let Some(before) = self.exit {
            ensure!(
                before == seen.code,
                "its code was {before} and is now {}",
                seen.code
            );
            return Ok(());
        }
        let declared = match self.deed {
            Deed::Speak { code, .. } => seen.code == code,
            Deed::Stay => false,
        };
        let killed = seen.code == 137 && (self.kill_asked || was_killed);
        // A start whose runtime was killed under it: an error with a text, not an exit.
        let never_ran = !self.started && !seen.error.is_empty();
        ensure!(
            declared || killed || never_ran,
            "an exit out of nowhere: {seen:?}, made to {:?}, kill asked {}, killed by the storm {was_killed}",
            self.deed,
            self.kill_asked
        );
        self.exit = Some(seen.code);
        Ok(())
    }

    /// Whether its end is known.
    pub(crate) fn exit(&self) -> Option<i64> {
        self.exit
    }

    /// Holds the log against what it was made to say.
    pub(crate) fn hear(&self, log: &str, shim_was_killed: bool) -> Result<()> {
        let Deed::Speak { lines, code } = self.deed else {
            return Ok(());
        };
        let mut said = 0;
        for line in log.lines() {
            said += 1;
            ensure!(
                line.trim() == said.to_string(),
                "line {said} of its log is {line:?}"
            );
        }
        let whole = said == lines;
        let cut = self.exit != Some(code) || shim_was_killed;
        ensure!(
            whole || cut && said <= lines,
            "its log has {said} of {lines} lines; exit {:?}",
            self.exit
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: &str, code: i64) -> Seen {
        Seen {
            status: status.to_owned(),
            code,
            error: String::new(),
        }
    }

    #[test]
    fn lost_and_invented_exits_are_found() {
        let deed = Deed::Speak { lines: 2, code: 7 };
        let mut model = Model::new("c".into(), deed);
        assert!(model.see(&seen("created", 0), false).is_ok());
        assert!(model.see(&seen("running", 0), false).is_err());
        model.start_asked = true;
        model.started = true;
        assert!(model.see(&seen("running", 0), false).is_ok());
        assert!(model.see(&seen("exited", 137), false).is_err());
        assert!(model.see(&seen("exited", 255), false).is_err());
        assert!(model.see(&seen("exited", 7), false).is_ok());
        assert!(model.see(&seen("running", 0), false).is_err());
        assert!(model.see(&seen("exited", 0), false).is_err());
        assert!(model.hear("1\n2\n", false).is_ok());
        assert!(model.hear("1\n", false).is_err());
        assert!(model.hear("1\n", true).is_ok());
        assert!(model.hear("1\n1\n", true).is_err());
    }
}
