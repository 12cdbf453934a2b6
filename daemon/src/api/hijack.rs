//! Upgraded streams.
