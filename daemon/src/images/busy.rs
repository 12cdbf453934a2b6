//! Work that must not be done twice at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::lock;

/// Locks by name, so that two pulls of one layer fetch it once.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy {
    locks: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

/// A held lock; gone with it.
#[derive(Debug)]
pub(crate) struct BusyGuard {
    busy: Busy,
    name: String,
    held: Option<tokio::sync::OwnedMutexGuard<()>>,
}

impl Busy {
    /// Waits for the lock of this name.
    pub(super) async fn take(&self, name: &str) -> BusyGuard {
        let mutex = lock(&self.locks)
            .entry(name.to_owned())
            .or_default()
            .clone();
        BusyGuard {
            busy: self.clone(),
            name: name.to_owned(),
            held: Some(mutex.lock_owned().await),
        }
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.held = None;
        let mut locks = lock(&self.busy.locks);
        // One count is the map's; more are other waiters'.
        if locks
            .get(&self.name)
            .is_some_and(|mutex| Arc::strong_count(mutex) == 1)
        {
            locks.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn locks_exclude_and_leave_nothing() {
        let busy = Busy::default();
        let first = busy.take("a").await;
        let other = busy.clone();
        let waiter = tokio::spawn(async move { drop(other.take("a").await) });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(first);
        waiter.await.unwrap();
        drop(busy.take("b").await);
        assert!(lock(&busy.locks).is_empty());
    }
}
