//! Sandboxes: their records, and the shims that run them.

mod controller;
mod store;

pub(crate) use controller::Controller;
pub(crate) use store::Store;
