//! The form of this crate's errors.
//!
//! Every error says what was attempted on which object; the cause follows as
//! its source. [`chain`] prints both. Causes from the kernel are printed as
//! the C library words them, in lower case and without a number, because
//! callers look for words like "no such file or directory".

use std::error::Error;
use std::io;

/// A failed step: what was attempted, and why the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub(crate) struct StepError {
    doing: String,
    source: io::Error,
}

impl StepError {
    /// The error number of the cause, where there is one.
    pub(crate) fn errno(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// What was attempted.
    pub(crate) fn doing(&self) -> &str {
        &self.doing
    }

    /// A refusal of our own.
    pub(crate) fn refused(doing: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            doing: doing.into(),
            source: io::Error::other(why.into()),
        }
    }
}

/// Adds what was attempted to a failed call.
pub(crate) trait Doing<T> {
    /// The text is made only on failure.
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, StepError> {
        self.map_err(|e| StepError {
            doing: what().into(),
            source: e.into(),
        })
    }
}

/// The text of a kernel error number, as Go programs and C print it.
pub(crate) fn errno_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    plain(&text)
}

/// Strips the " (os error N)" of the standard library and the capital letter.
fn plain(text: &str) -> String {
    let text = match text.rfind(" (os error ") {
        Some(at) => &text[..at],
        None => text,
    };
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        (Some(a), Some(b)) if a.is_ascii_uppercase() && b.is_ascii_lowercase() => {
            a.to_ascii_lowercase().to_string() + chars.as_str()
        }
        _ => text.to_owned(),
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&plain(&cause.to_string()));
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_reads_like_a_sentence() {
        let e = Err::<(), _>(io::Error::from_raw_os_error(libc::ENOENT))
            .doing(|| "open /x")
            .unwrap_err();
        assert_eq!(chain(&e), "open /x: no such file or directory");
        assert_eq!(e.errno(), Some(libc::ENOENT));
    }

    #[test]
    fn acronyms_keep_their_case() {
        assert_eq!(
            plain("RFS specific error (os error 1)"),
            "RFS specific error"
        );
    }
}
