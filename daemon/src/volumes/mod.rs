//! Volumes, and what is mounted into a container.

pub(crate) mod request;

use crate::config::Config;
use crate::db::Db;
use crate::error::Result;

/// The volumes' handle.
#[derive(Debug)]
pub(crate) struct Volumes {}

impl Volumes {
    /// Reads the records.
    pub(crate) async fn open(_: &Config, _: &Db) -> Result<Self> {
        Ok(Self {})
    }
}
