//! The terminal that the user sits at: its size, and its raw mode with the way back.

use std::io::{self, IsTerminal as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Standard input in raw mode; dropping it restores what was before.
#[derive(Debug)]
pub(crate) struct RawGuard {
    before: Termios,
}

impl RawGuard {
    /// Puts the terminal on standard input into raw mode.
    pub(crate) fn enter() -> io::Result<RawGuard> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(RawGuard { before })
    }
}

impl Drop for RawGuard {
    fn drop(&mut self) {
        // Nothing can be done if it fails, and the terminal is probably gone then.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Reads a line that the terminal does not show, after a prompt on standard error.
pub(crate) fn read_hidden(prompt: &str) -> io::Result<String> {
    use rustix::termios::LocalModes;
    let stdin = io::stdin();
    let before = tcgetattr(&stdin)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &hidden)?;
    let _back = RawGuard { before };
    crate::format::tell(prompt);
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    crate::format::tell("\n");
    read.map(|_| line.trim_end_matches(['\r', '\n']).to_string())
}

/// Whether a person types here.
pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Whether a person reads here.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether a person reads what goes wrong here.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Rows and columns of the terminal that output goes to.
pub(crate) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}
