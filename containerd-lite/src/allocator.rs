//! The allocator's settings, which glibc reads once at the start of a program.
//!
//! Blobs pass through in messages of a MiB. Left alone, glibc learns from the first of them to keep such blocks in its heaps,
//! one per thread, and never gives them back: an idle daemon then holds 5 MB more for ever. The settings can only come by
//! the environment, so the program executes itself once more with them: same process id, descriptors and locks.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// The settings. Whoever sets the first one has decided for themselves.
pub(crate) const SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

/// Returns in a program that has the settings, or could not be started with them.
pub(crate) fn settle() {
    if std::env::var_os(SETTINGS[0].0).is_some() {
        return;
    }
    let mut args = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), args.next()) else {
        return;
    };
    let error = Command::new(&program)
        .arg0(name)
        .args(args)
        .envs(SETTINGS)
        .exec();
    tracing::debug!("execute {} once more: {error}", program.display());
}
