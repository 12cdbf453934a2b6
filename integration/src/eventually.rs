//! Waiting for a condition instead of sleeping.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks `probe` until it says `Ok`, at most for `limit`; the error holds what was seen last.
pub fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= limit => {
                bail!("not within {limit:?}: {what}; last seen: {last:#}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
