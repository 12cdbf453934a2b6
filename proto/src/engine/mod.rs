//! The nouns of the Docker Engine API, version 1.53, as they are on the wire.
//!
//! docker-lite and dockerd-lite must agree on these, and so must every other Docker client and
//! daemon. Each struct lists its fields in Docker's order under Docker's own names; the name on
//! the wire stands first, the Rust name second.
//!
//! Two habits of the original are kept, because clients compare answers byte by byte:
//!
//! - Output: a list or map that Docker sends as `null` when unset is an `Option` and is sent as
//!   `null`; one that Docker sends as `[]` or `{}` is a plain `Vec` or `BTreeMap`. Only fields
//!   marked `[omitempty]` are left out when empty.
//! - Input: every field may be missing or `null`; both give the default. What a client sends that
//!   we do not know is kept (`other`) in the two structs that a daemon stores, and dropped elsewhere.
//!
//! Nothing here does anything: no defaults of policy, no checks.

mod wire;

mod config;
mod container;
mod disk;
mod events;
mod exec;
mod host;
mod image;
mod mount;
mod network;
mod progress;
mod stats;
mod system;
mod volume;

pub use config::*;
pub use container::*;
pub use disk::*;
pub use events::*;
pub use exec::*;
pub use host::*;
pub use image::*;
pub use mount::*;
pub use network::*;
pub use progress::*;
pub use stats::*;
pub use system::*;
pub use volume::*;

#[cfg(test)]
mod tests;

/// The highest version of the Engine API that this project speaks.
pub const API_VERSION: &str = "1.53";
/// The lowest version of the Engine API that this project speaks.
pub const MIN_API_VERSION: &str = "1.24";

use wire::wire;

wire! {
    /// The body of every failed request.
    pub struct ErrorBody {
        "message" message: String,
    }

    /// The answer to a request that made something.
    pub struct IdResponse {
        "Id" id: String,
    }

    /// The value `{}`, as Docker writes a set: a map from the member to this.
    pub struct Empty {}
}
