//! Volumes, and what is mounted into a container.
//!
//! ```text
//!  request ─▶ request::collect ─▶ prepare ─▶ populate ─▶ record ─▶ runtime::mounts at each start
//!             pure                volumes    copy-up     (kept)    bind sources checked
//!                                 made
//! ```
//!
//! A named volume is a directory `DATA-ROOT/volumes/NAME/_data` and a record. The record comes first and goes last but for
//! the bytes: a crash leaves a record without a directory (made again, empty, for nothing was in it yet) or a directory that
//! is already renamed for removal (removed at the next start), never data that nobody knows of.
//!
//! Who uses a volume is known by the containers' records alone. Between `prepare` and the moment when a container's record
//! is written, [`Pins`] stand for it.

mod directory;
mod long;
pub(crate) mod populate;
pub(crate) mod request;
pub(crate) mod runtime;
mod tmpfs;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use proto::engine::{Volume, VolumeCreate, VolumesPruned};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::request::Filters;
use crate::config::Config;
use crate::db::Db;
use crate::error::{During, Error, Result};

use directory::{REMOVING, disk_usage, make_dir, sweep};
pub(crate) use directory::{blocking, set_mode};
use request::{Mount, Source};

/// Kind of the records.
const KIND: &str = "volume";

/// The only driver there is.
const LOCAL: &str = "local";

/// Label of volumes whose name was made up.
pub(crate) const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// Filters of the list.
pub(crate) const FILTERS: [&str; 5] = ["dangling", "driver", "label", "label!", "name"];

/// A volume as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    version: u32,
    created: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// Handle of the volumes.
#[derive(Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    db: Db,
    known: Mutex<BTreeMap<String, Record>>,
    pins: Arc<Mutex<HashMap<String, usize>>>,
    /// Making and removing take turns; reading does not wait for them.
    turn: tokio::sync::Mutex<()>,
}

/// Volumes held for a container that has no record yet.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    names: Vec<String>,
    made: Vec<String>,
    counts: Arc<Mutex<HashMap<String, usize>>>,
}

impl Pins {
    fn hold(&mut self, name: &str) {
        *lock(&self.counts).entry(name.to_owned()).or_default() += 1;
        self.names.push(name.to_owned());
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        for name in &self.names {
            if let Some(count) = counts.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(name);
                }
            }
        }
    }
}

impl Volumes {
    /// Reads the records and finishes removals that were cut short.
    pub(crate) async fn open(config: &Config, db: &Db) -> Result<Self> {
        let root = config.data_root.join("volumes");
        let known: Vec<(String, Record)> = db.all(KIND).await?;
        make_dir(&root)?;
        let at = root.clone();
        blocking(move || sweep(&at)).await?;
        Ok(Self {
            root,
            db: db.clone(),
            known: Mutex::new(known.into_iter().collect()),
            pins: Arc::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// The directory of a volume's data.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.root.join(name).join("_data")
    }

    /// Makes a volume; one that is there is answered as it is.
    pub(crate) async fn create(&self, wanted: VolumeCreate) -> Result<Volume> {
        let _turn = self.turn.lock().await;
        self.make(wanted).await.map(|(volume, _)| volume)
    }

    /// Answers whether it was made now. The turn must be held.
    async fn make(&self, wanted: VolumeCreate) -> Result<(Volume, bool)> {
        if !matches!(wanted.driver.as_str(), "" | LOCAL) {
            return Err(Error::not_found(format!(
                "error looking up volume plugin {0}: plugin \"{0}\" not found",
                wanted.driver
            )));
        }
        if wanted.cluster_volume_spec.is_some() {
            return Err(Error::unimplemented("cluster volumes are not supported"));
        }
        if let Some(option) = wanted.driver_opts.keys().next() {
            return Err(Error::unimplemented(format!(
                "option {option:?} of the local volume driver is not supported yet"
            )));
        }
        let mut labels = wanted.labels;
        let name = if wanted.name.is_empty() {
            labels.insert(ANONYMOUS.into(), String::new());
            crate::random::hex(32)
        } else {
            request::check_volume_name(&wanted.name)
                .map_err(|e| Error::invalid(format!("create {}: {e}", wanted.name)))?;
            wanted.name
        };
        if let Some(record) = self.record(&name) {
            self.make_data(&name).await?;
            return Ok((self.shown(&name, &record), false));
        }
        let record = Record {
            version: 1,
            created: crate::images::now(),
            labels: Some(labels),
            other: BTreeMap::new(),
        };
        self.db.add(KIND, &name, &record).await?;
        if let Err(e) = self.make_data(&name).await {
            self.delete(&name).await?;
            return Err(e);
        }
        lock(&self.known).insert(name.clone(), record.clone());
        Ok((self.shown(&name, &record), true))
    }

    async fn make_data(&self, name: &str) -> Result<()> {
        let data = self.data(name);
        let name = name.to_owned();
        blocking(move || {
            let what = || format!("make the directory of volume {name}");
            if let Some(above) = data.parent() {
                make_dir(above).during(what)?;
            }
            // Any user of a container must be able to pass; what is within has modes of its own.
            let made = fs::DirBuilder::new().mode(0o755).create(&data);
            match made {
                // The umask of the daemon takes away what other users need.
                Ok(()) => set_mode(&data, 0o755).during(what),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                Err(e) => Err(Error::from(e).during(what())),
            }
        })
        .await
    }

    fn record(&self, name: &str) -> Option<Record> {
        lock(&self.known).get(name).cloned()
    }

    fn shown(&self, name: &str, record: &Record) -> Volume {
        Volume {
            created_at: record.created.clone(),
            driver: LOCAL.into(),
            labels: record.labels.clone(),
            mountpoint: self.data(name).display().to_string(),
            name: name.to_owned(),
            options: None,
            scope: "local".into(),
            ..Volume::default()
        }
    }

    /// One volume.
    pub(crate) fn get(&self, name: &str) -> Result<Volume> {
        let record = self.record(name).ok_or_else(|| no_such(name))?;
        Ok(self.shown(name, &record))
    }

    /// The volumes that pass the filters; `users` answers the containers that use one.
    pub(crate) fn list(
        &self,
        filters: &Filters,
        users: impl Fn(&str) -> Vec<String>,
    ) -> Result<Vec<Volume>> {
        let dangling = filters.flag("dangling")?;
        let known = lock(&self.known).clone();
        let fits = |name: &str, record: &Record| {
            let labels = record.labels.clone().unwrap_or_default();
            filters.any("name", |part| name.contains(part))
                && filters.any("driver", |driver| driver == LOCAL)
                && filters.labels("label", &labels)
                && dangling.is_none_or(|wanted| wanted == users(name).is_empty())
        };
        Ok(known
            .iter()
            .filter(|(name, record)| fits(name, record))
            .map(|(name, record)| self.shown(name, record))
            .collect())
    }

    /// Removes a volume that nobody uses.
    pub(crate) async fn remove(
        &self,
        name: &str,
        force: bool,
        users: impl Fn(&str) -> Vec<String>,
    ) -> Result<()> {
        let _turn = self.turn.lock().await;
        if self.record(name).is_none() {
            return if force { Ok(()) } else { Err(no_such(name)) };
        }
        let users = users(name);
        if !users.is_empty() || lock(&self.pins).contains_key(name) {
            return Err(Error::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        self.delete(name).await
    }

    /// Drops a volume. The turn must be held, and nobody may use it.
    async fn delete(&self, name: &str) -> Result<()> {
        let from = self.root.join(name);
        let to = self
            .root
            .join(format!("{REMOVING}{}", crate::random::hex(8)));
        let what = format!("remove volume {name}");
        let moved = {
            let to = to.clone();
            blocking(move || match fs::rename(&from, &to) {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
                Err(e) => Err(e.into()),
            })
            .await
            .during(|| &what)?
        };
        self.db.delete(KIND, name).await.during(|| &what)?;
        lock(&self.known).remove(name);
        if moved {
            blocking(move || Ok(fs::remove_dir_all(&to)?))
                .await
                .during(|| &what)?;
        }
        Ok(())
    }

    /// Removes the volumes that nobody uses: those whose names were made up, or with `all=true` every one.
    pub(crate) async fn prune(
        &self,
        filters: &Filters,
        all_by_default: bool,
        users: impl Fn(&str) -> Vec<String>,
    ) -> Result<VolumesPruned> {
        let all = filters.flag("all")?.unwrap_or(all_by_default);
        let _turn = self.turn.lock().await;
        let known = lock(&self.known).clone();
        let mut pruned = VolumesPruned::default();
        let mut names = Vec::new();
        for (name, record) in known {
            let labels = record.labels.unwrap_or_default();
            let spared = !all && !labels.contains_key(ANONYMOUS);
            let used = !users(&name).is_empty() || lock(&self.pins).contains_key(&name);
            if spared || used || !filters.labels("label", &labels) {
                continue;
            }
            let size = self.size(&name).await.unwrap_or(0);
            self.delete(&name).await?;
            pruned.space_reclaimed += size;
            names.push(name);
        }
        pruned.volumes_deleted = Some(names).filter(|names| !names.is_empty());
        Ok(pruned)
    }

    /// Bytes that a volume's files take on the disk.
    pub(crate) async fn size(&self, name: &str) -> Result<u64> {
        let data = self.data(name);
        blocking(move || disk_usage(&data)).await
    }

    /// Makes the volumes that `mounts` speak of, and gives the nameless ones names. A failure leaves none of them behind.
    pub(crate) async fn prepare(&self, mounts: &mut [Mount]) -> Result<Pins> {
        let _turn = self.turn.lock().await;
        let mut pins = Pins {
            names: Vec::new(),
            made: Vec::new(),
            counts: self.pins.clone(),
        };
        for mount in mounts.iter_mut() {
            let Source::Volume {
                name,
                driver,
                options,
                labels,
                ..
            } = &mut mount.source
            else {
                continue;
            };
            let wanted = VolumeCreate {
                name: name.clone(),
                driver: driver.clone(),
                driver_opts: options.clone(),
                labels: labels.clone(),
                ..VolumeCreate::default()
            };
            match self.make(wanted).await {
                Ok((volume, made)) => {
                    pins.hold(&volume.name);
                    if made {
                        pins.made.push(volume.name.clone());
                    }
                    *name = volume.name;
                }
                Err(e) => {
                    self.undo(&pins).await;
                    return Err(e);
                }
            }
        }
        Ok(pins)
    }

    /// Removes what [`Volumes::prepare`] made, after the container it was for could not be created.
    pub(crate) async fn abandon(&self, pins: Pins) {
        let _turn = self.turn.lock().await;
        self.undo(&pins).await;
    }

    async fn undo(&self, pins: &Pins) {
        for name in &pins.made {
            // Another container may have taken it up in the meantime.
            if lock(&self.pins).get(name).copied().unwrap_or(0) > 1 {
                continue;
            }
            if let Err(e) = self.delete(name).await {
                tracing::warn!("{e}");
            }
        }
    }
}

fn no_such(name: &str) -> Error {
    Error::not_found(format!("get {name}: no such volume"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    async fn volumes(dir: &Path) -> Volumes {
        let db = Db::open(&dir.join("r.db")).unwrap();
        let root = dir.join("volumes");
        make_dir(&root).unwrap();
        sweep(&root).unwrap();
        Volumes {
            root,
            known: Mutex::new(db.all(KIND).await.unwrap().into_iter().collect()),
            db,
            pins: Arc::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    fn named(name: &str) -> VolumeCreate {
        VolumeCreate {
            name: name.into(),
            ..VolumeCreate::default()
        }
    }

    #[tokio::test]
    async fn a_volume_lives_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let nobody = |_: &str| Vec::new();
        let first = volumes(dir.path()).await;
        first.create(named("data")).await.unwrap();
        fs::write(first.data("data").join("f"), "x").unwrap();
        assert!(first.create(named("../x")).await.is_err());
        drop(first);
        fs::create_dir(dir.path().join("volumes/.removing-1")).unwrap();
        let again = volumes(dir.path()).await;
        assert!(!dir.path().join("volumes/.removing-1").exists());
        assert_eq!(again.get("data").unwrap().name, "data");
        let used = |_: &str| vec!["c".to_owned()];
        assert!(again.remove("data", true, used).await.is_err());
        again.remove("data", false, nobody).await.unwrap();
        assert!(!again.root.join("data").exists());
        assert!(
            again
                .remove("data", false, nobody)
                .await
                .unwrap_err()
                .is_not_found()
        );
        assert!(again.remove("data", true, nobody).await.is_ok());
    }

    #[tokio::test]
    async fn what_a_failed_create_made_goes_again() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = volumes(dir.path()).await;
        volumes.create(named("old")).await.unwrap();
        let mount = |name: &str, driver: &str| Mount {
            destination: "/d".into(),
            read_only: false,
            mode: String::new(),
            source: Source::Volume {
                name: name.into(),
                driver: driver.into(),
                options: BTreeMap::new(),
                labels: BTreeMap::new(),
                no_copy: false,
                subpath: String::new(),
                anonymous: name.is_empty(),
            },
        };
        let mut bad = [mount("old", ""), mount("new", ""), mount("", "nope")];
        assert!(volumes.prepare(&mut bad).await.is_err());
        assert!(volumes.get("new").is_err() && volumes.get("old").is_ok());
        let mut good = [mount("", ""), mount("old", "")];
        let pins = volumes.prepare(&mut good).await.unwrap();
        let nobody = |_: &str| Vec::new();
        assert!(volumes.remove("old", false, nobody).await.is_err());
        assert_eq!(pins.made.len(), 1);
        let pruned = volumes
            .prune(&Filters::default(), false, nobody)
            .await
            .unwrap();
        assert_eq!(pruned.volumes_deleted, None);
        drop(pins);
        let pruned = volumes
            .prune(&Filters::default(), false, nobody)
            .await
            .unwrap();
        assert_eq!(pruned.volumes_deleted.unwrap().len(), 1);
        assert!(volumes.get("old").is_ok());
    }
}
