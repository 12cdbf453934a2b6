//! Who we are: the version and the commit this was built from.

/// Version that clients are told.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit of the build, or empty.
pub(crate) const REVISION: &str = env!("GIT_COMMIT");

/// The line that `--version` prints, in the real daemon's order: program, package, version, revision.
pub(crate) fn line() -> String {
    format!("containerd-lite docker-lite {VERSION} {REVISION}")
        .trim_end()
        .to_owned()
}
