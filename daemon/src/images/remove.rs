//! `rmi` and `image prune`: names go first; with the last name the image goes, unless a container needs it.
//!
//! ```text
//!  by name, others remain       untag
//!  by name, the last one        untag, delete      a container uses it: 409, with force untag only
//!  by id, one repository        untag all, delete  a container uses it: 409, by force only if none runs
//!  by id, several repositories  409 without force
//! ```

use proto::engine::{ImageDeleteItem, ImagesPruned};

use super::list::Group;
use super::reference::Reference;
use super::{DANGLING, Images, short};
use crate::api::request::Filters;
use crate::error::{Error, Result};

/// A container that was made from an image.
#[derive(Debug, Clone)]
pub(crate) struct User {
    /// The container.
    pub(crate) container: String,
    /// Whether it runs.
    pub(crate) running: bool,
}

impl Images {
    /// Removes what `text` means. `users` answers who uses an image id.
    pub(crate) async fn remove(
        &self,
        text: &str,
        force: bool,
        users: impl Fn(&str) -> Vec<User>,
    ) -> Result<Vec<ImageDeleteItem>> {
        let named = self.resolve(text).await?;
        let group = self.group(&named.image).await?;
        let users = users(&group.image.id);
        match self.meant_name(text, &group) {
            Some(name) => self.remove_name(text, &name, &group, force, &users).await,
            None => self.remove_id(text, &group, force, &users).await,
        }
    }

    /// The one name that `text` is, if it is a name and not an id.
    fn meant_name(&self, text: &str, group: &Group) -> Option<String> {
        let reference = Reference::parse(text).ok()?.or_latest();
        let name = reference.image_name();
        let found = group.names.iter().find(|named| {
            named.name == name
                || reference.digest.is_some()
                    && named
                        .reference()
                        .is_some_and(|r| r.repository() == reference.repository())
        });
        found.map(|named| named.name.clone())
    }

    async fn remove_name(
        &self,
        text: &str,
        name: &str,
        group: &Group,
        force: bool,
        users: &[User],
    ) -> Result<Vec<ImageDeleteItem>> {
        let shown = shown(name);
        if group.names.len() > 1 {
            self.unname(name, true).await?;
            return Ok(vec![untagged(shown)]);
        }
        let user = users.iter().find(|u| u.running).or(users.first());
        if let Some(user) = user {
            if !force {
                return Err(Error::conflict(format!(
                    "conflict: unable to remove repository reference \"{text}\" (must force) - container {} is using its referenced image {}",
                    short(&user.container),
                    short(&group.image.id)
                )));
            }
            // The container keeps its image; only the name goes.
            self.dangling(&group.image.target).await?;
            self.unname(name, true).await?;
            return Ok(vec![untagged(shown)]);
        }
        self.unname(name, true).await?;
        self.forget(group).await?;
        Ok(vec![untagged(shown), deleted(&group.image.id)])
    }

    async fn remove_id(
        &self,
        text: &str,
        group: &Group,
        force: bool,
        users: &[User],
    ) -> Result<Vec<ImageDeleteItem>> {
        let id = short(&group.image.id);
        if let Some(user) = users.iter().find(|user| user.running) {
            return Err(Error::conflict(format!(
                "conflict: unable to delete {id} (cannot be forced) - image is being used by running container {}",
                short(&user.container)
            )));
        }
        if let (Some(user), false) = (users.first(), force) {
            return Err(Error::conflict(format!(
                "conflict: unable to delete {id} (must be forced) - image is being used by stopped container {}",
                short(&user.container)
            )));
        }
        let mut repositories: Vec<String> = group
            .names
            .iter()
            .filter_map(|named| named.reference().map(|r| r.repository()))
            .collect();
        repositories.sort();
        repositories.dedup();
        if repositories.len() > 1 && !force {
            return Err(Error::conflict(format!(
                "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
            )));
        }
        let mut items = Vec::new();
        if !users.is_empty() {
            // A stopped container still has its snapshot, which keeps its parents; the documents may go.
            tracing::debug!("image {text} is removed by force while a stopped container uses it");
        }
        for named in &group.names {
            self.unname(&named.name, true).await?;
            let shown = shown(&named.name);
            let digest = format!("{}@{}", repository_of(&shown), named.image.target.digest);
            items.push(untagged(shown.clone()));
            if digest != shown {
                items.push(untagged(digest));
            }
        }
        self.forget(group).await?;
        items.push(deleted(&group.image.id));
        Ok(items)
    }

    /// Drops the dangling name, if there is one, and the memory of the documents.
    async fn forget(&self, group: &Group) -> Result<()> {
        let targets: std::collections::BTreeSet<&str> = group
            .names
            .iter()
            .map(|named| named.image.target.digest.as_str())
            .chain([group.image.target.digest.as_str()])
            .collect();
        for digest in targets {
            match self.unname(&format!("{DANGLING}{digest}"), true).await {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
            super::lock(&self.known).remove(digest);
        }
        Ok(())
    }

    /// Removes the images that nobody uses: the dangling ones, or with `dangling=false` all without a container.
    pub(crate) async fn prune(
        &self,
        filters: &Filters,
        users: impl Fn(&str) -> Vec<User>,
    ) -> Result<ImagesPruned> {
        let only_dangling = filters.flag("dangling")?.unwrap_or(true);
        let mut rest = filters.clone();
        rest.0.remove("dangling");
        let mut pruned = ImagesPruned::default();
        let mut items = Vec::new();
        for group in self.filtered(&rest).await? {
            let spared = only_dangling && !group.is_dangling();
            if spared || !users(&group.image.id).is_empty() {
                continue;
            }
            let size = self.size(&group.image).await?;
            let id = group.image.id.clone();
            match self.remove_id(&id, &group, true, &[]).await {
                Ok(done) => {
                    items.extend(done);
                    pruned.space_reclaimed += u64::try_from(size).unwrap_or(0);
                }
                // Somebody else removed it, or an image lost its last name a moment ago: neither is prune's failure.
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e.during(format!("prune image {}", short(&id)))),
            }
        }
        pruned.images_deleted = (!items.is_empty()).then_some(items);
        Ok(pruned)
    }
}

fn shown(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |r| r.familiar())
}

fn repository_of(shown: &str) -> String {
    Reference::parse(shown).map_or_else(|_| shown.to_owned(), |r| r.familiar_repository())
}

fn untagged(name: String) -> ImageDeleteItem {
    ImageDeleteItem {
        untagged: name,
        ..ImageDeleteItem::default()
    }
}

fn deleted(id: &str) -> ImageDeleteItem {
    ImageDeleteItem {
        deleted: id.to_owned(),
        ..ImageDeleteItem::default()
    }
}
