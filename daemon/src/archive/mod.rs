//! Files in and out of containers: `cp`, `export`, `diff`.
//!
//! The daemon acts as root on trees that a container's own root may change at any moment. So no path of a container is ever
//! resolved by us: `root` lets the kernel do it, within a descriptor of the container's root, and `pack` and `extract` go
//! down by descriptors from there.

pub(crate) mod changes;
pub(crate) mod container;
pub(crate) mod extract;
pub(crate) mod pack;
pub(crate) mod root;
pub(crate) mod stream;
