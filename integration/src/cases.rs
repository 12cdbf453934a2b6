//! Lists of commands that two programs are held to: where they must say the same, and where they are known to differ.

use anyhow::{Result, bail};

/// What came of a list.
#[derive(Debug, Default)]
pub struct Verdict {
    count: usize,
    wrong: Vec<String>,
}

impl Verdict {
    /// Takes in one command: what each of the two said, by name, and whether that is the same. One that is listed as different
    /// must be, so that the list cannot go stale.
    pub fn add(
        &mut self,
        line: &str,
        differs: Option<&str>,
        same: bool,
        [theirs, ours]: [(&str, &str); 2],
    ) {
        self.count += 1;
        match (differs, same) {
            (None, false) => self.wrong.push(format!(
                "$ {line}\n=== {}\n{}=== {}\n{}",
                theirs.0, theirs.1, ours.0, ours.1
            )),
            (Some(reason), true) => self.wrong.push(format!(
                "$ {line}\nis as with {}, but listed as different: {reason}",
                theirs.0
            )),
            _ => {}
        }
    }

    /// Prints how many were as told, and fails with those that were not.
    pub fn end(self, what: &str) -> Result<()> {
        let right = self.count - self.wrong.len();
        println!("{right} of {} {what} as told", self.count);
        match self.wrong.is_empty() {
            true => Ok(()),
            false => bail!("{}", self.wrong.join("\n")),
        }
    }
}
