//! How things are printed: tables, templates, sizes, times.

mod json;
mod local;
mod rows;
mod table;
mod template;
mod units;

use std::io::{self, Write as _};

pub(crate) use json::{compact, indent};
pub(crate) use local::local;
pub(crate) use rows::{Row, Style, print_rows};
pub(crate) use table::{TabWriter, VERSION_STYLE};
pub(crate) use template::{FormatError, Template};
pub(crate) use units::{
    ago, bytes_1000, bytes_1000_precise, bytes_1024, duration, ellipsis, short_id,
};

/// Writes text to standard output. A closed pipe is an error, not a panic.
pub(crate) fn print(text: &str) -> io::Result<()> {
    print_bytes(text.as_bytes())
}

/// Tells the user something on standard error. If nobody can hear it, nothing else can be done.
pub(crate) fn tell(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Writes bytes to standard output and flushes them.
pub(crate) fn print_bytes(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}
