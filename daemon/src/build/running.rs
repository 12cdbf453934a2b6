//! The builds that run and were given a name (`buildid`), so that somebody else can cancel them by it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

type Names = Mutex<HashMap<String, CancellationToken>>;

/// All named builds.
#[derive(Debug, Default)]
pub(crate) struct Running(Arc<Names>);

/// One build's entry; gone with it.
#[derive(Debug)]
pub(crate) struct Entry {
    names: Arc<Names>,
    name: String,
    token: CancellationToken,
}

impl Running {
    /// Enters a build. A name that is in use goes over to the newer build; an empty one is none.
    pub(crate) fn enter(&self, name: &str) -> Entry {
        let token = CancellationToken::new();
        if !name.is_empty() {
            lock(&self.0).insert(name.to_owned(), token.clone());
        }
        Entry {
            names: Arc::clone(&self.0),
            name: name.to_owned(),
            token,
        }
    }

    /// Cancels the build of that name, if there is one.
    pub(crate) fn cancel(&self, name: &str) {
        if let Some(token) = lock(&self.0).get(name) {
            token.cancel();
        }
    }
}

impl Entry {
    /// Resolves when the build has been cancelled.
    pub(crate) async fn cancelled(&self) {
        self.token.cancelled().await;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // a token that was not cancelled is known by nothing but its address: the name may be a newer build's by now
        let mut names = lock(&self.names);
        self.token.cancel();
        if names
            .get(&self.name)
            .is_some_and(CancellationToken::is_cancelled)
        {
            names.remove(&self.name);
        }
    }
}

fn lock(names: &Names) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_build_is_known_by_its_name_while_it_runs() {
        let running = Running::default();
        let first = running.enter("a");
        let second = running.enter("a");
        drop(first);
        running.cancel("a");
        second.cancelled().await;
        drop(second);
        assert!(lock(&running.0).is_empty());
        running.cancel("a");
        let unnamed = running.enter("");
        running.cancel("");
        assert!(!unnamed.token.is_cancelled());
    }
}
