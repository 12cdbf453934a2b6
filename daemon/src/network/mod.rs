//! Networks and the endpoints of containers on them.

pub(crate) mod files;
pub(crate) mod ipam;

use crate::config::Config;
use crate::db::Db;
use crate::error::Result;

/// The networks' handle.
#[derive(Debug)]
pub(crate) struct Network {}

impl Network {
    /// Reads the records.
    pub(crate) async fn open(_: &Config, _: &Db) -> Result<Self> {
        Ok(Self {})
    }
}
