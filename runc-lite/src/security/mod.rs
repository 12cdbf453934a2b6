//! What narrows the privileges of a process.
