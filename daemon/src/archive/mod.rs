//! Files in and out of containers: `cp`, `export`, `diff`.

pub(crate) mod extract;
pub(crate) mod pack;
pub(crate) mod root;
