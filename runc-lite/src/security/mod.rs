//! What narrows the privileges of a process: capabilities, resource limits and
//! the filter on system calls.
//!
//! Each part takes what the specification says and does as much of it as the
//! caller may do. Where the caller lacks the right to give something (a
//! capability that it does not have itself, a hard limit above its own) the
//! container gets what there is, and the log says so: refusing would make every
//! container of an unprivileged or nested caller impossible.

pub(crate) mod capabilities;
pub(crate) mod labels;
pub(crate) mod rlimits;
pub mod seccomp;
