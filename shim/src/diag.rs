//! The shim's own log: one line per event on descriptor 2, which the serving shim points at the fifo `BUNDLE/log`.
//!
//! Nobody may be reading, so a line that cannot be written at once is lost; nothing here blocks or fails.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

static DEBUG: AtomicBool = AtomicBool::new(false);

/// Turns debug lines on or off.
pub(crate) fn set_debug(on: bool) {
    DEBUG.store(on, Ordering::Relaxed);
}

/// A step that helps to understand a fault later.
pub(crate) fn debug(text: std::fmt::Arguments<'_>) {
    if DEBUG.load(Ordering::Relaxed) {
        line("debug", text);
    }
}

/// Something went wrong that the shim can live with.
pub(crate) fn warn(text: std::fmt::Arguments<'_>) {
    line("warning", text);
}

fn line(level: &str, text: std::fmt::Arguments<'_>) {
    let time = crate::clock::rfc3339_nano(SystemTime::now());
    let line = format!("time=\"{time}\" level={level} msg={:?}\n", text.to_string());
    // A full or closed fifo is not our fault and nobody could be told.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
