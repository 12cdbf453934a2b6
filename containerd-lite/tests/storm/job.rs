//! One task's life as a client leads it that asks again after each outage, and what must hold in it.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use proto::containerd::v1::types::Status as Phase;
use tonic::{Code, Status};

use crate::support::{Client, Recipe};

/// What the workers share.
pub(crate) struct World {
    pub(crate) recipe: Recipe,
    /// Tasks whose shim was killed. These may end with 137, and calls about them may fail.
    pub(crate) shimless: Mutex<HashSet<String>>,
    pub(crate) stop: AtomicBool,
    pub(crate) cycles: AtomicU32,
}

impl World {
    pub(crate) fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            shimless: Mutex::default(),
            stop: AtomicBool::new(false),
            cycles: AtomicU32::new(0),
        }
    }
}

/// One task and what its worker knows of it; what it does not know is whether an unanswered call took place.
pub(crate) struct Job<'a> {
    pub(crate) world: &'a World,
    pub(crate) id: String,
    pub(crate) code: u32,
    pub(crate) with_exec: bool,
    pub(crate) created: bool,
    pub(crate) started: bool,
    pub(crate) delete_asked: bool,
}

/// Whether the daemon was killed under the call.
pub(crate) fn is_outage(error: &Status) -> bool {
    let text = error.message();
    let ours = text.contains("shim") || text.contains("ttrpc") || text.contains("runtime");
    match error.code() {
        Code::Unavailable | Code::Cancelled => !ours,
        Code::Unknown | Code::Internal => {
            text.contains("h2 protocol") || text.contains("transport")
        }
        _ => false,
    }
}

/// Whether a fault point made the call fail, which may have taken place all the same.
pub(crate) fn is_fault(error: &Status) -> bool {
    error.message().contains("fault point")
}

impl Job<'_> {
    fn is_shimless(&self) -> bool {
        let shimless = self
            .world
            .shimless
            .lock()
            .expect("no panic under this lock");
        shimless.contains(&self.id)
    }

    /// Whether `told` is how a process that exits with `code` can have ended.
    fn is_right(&self, told: u32, code: u32) -> bool {
        told == code || told == 137 && self.is_shimless()
    }

    /// Takes the task through its life, however often the daemon or its shim goes.
    pub(crate) async fn cycle(&mut self) {
        loop {
            let Some(client) = Client::connect(&self.world.recipe.socket()).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            match self.advance(&client).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) if is_outage(&error) || is_fault(&error) => {}
                Err(error) if self.is_shimless() => {
                    eprintln!(
                        "{} without its shim: {:?} {}",
                        self.id,
                        error.code(),
                        error.message()
                    );
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!(
                    "{} (created {}, started {}): {:?} {}",
                    self.id,
                    self.created,
                    self.started,
                    error.code(),
                    error.message()
                ),
            }
        }
    }

    /// Whether the life has come to its end.
    async fn advance(&mut self, client: &Client) -> Result<bool, Status> {
        let (id, code) = (self.id.clone(), self.code);
        let script = if self.with_exec {
            format!("while [ ! -e /tmp/{id} ]; do sleep 0.02; done; exit {code}")
        } else {
            format!("exit {code}")
        };
        match client.make(&self.world.recipe, &id, &script).await {
            Err(error) if error.code() != Code::AlreadyExists => return Err(error),
            _ => {}
        }
        if !self.delete_asked {
            match client.create(&id).await {
                Ok(_) => assert!(!self.created, "{id} was lost: it could be created again"),
                Err(error) if error.code() == Code::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            let phase = match client.get(&id, "").await {
                // The create that was in its way has been taken back meanwhile.
                Err(error) if error.code() == Code::NotFound && !self.created => return Ok(false),
                got => got?.status(),
            };
            self.created = true;
            if phase == Phase::Created {
                assert!(!self.started, "{id} went back to created");
                start(client, &id, "").await?;
            }
            self.started = true;
            if self.with_exec && phase != Phase::Stopped {
                self.exec(client).await?;
            }
            let waited = client.wait(&id, "").await?;
            assert!(
                self.is_right(waited, code),
                "{id}: wait told {waited}, not {code}"
            );
            let process = client.get(&id, "").await?;
            let seen = (process.status(), process.exit_status);
            assert_eq!(seen, (Phase::Stopped, waited), "{id}");
            self.delete_asked = true;
        }
        match client.delete(&id).await {
            Ok(told) => assert!(
                self.is_right(told, code),
                "{id}: delete told {told}, not {code}"
            ),
            // The unanswered delete went through.
            Err(error) if error.code() == Code::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// An exec whose code differs, then the init may end.
    async fn exec(&self, client: &Client) -> Result<(), Status> {
        let (id, code) = (&self.id, self.code + 1);
        let go = self.world.recipe.rootfs().join("tmp").join(id);
        if go.exists() {
            return Ok(());
        }
        match client.exec(id, "e", &format!("exit {code}")).await {
            Err(error) if error.code() != Code::AlreadyExists => return Err(error),
            _ => {}
        }
        let process = client.get(id, "e").await?;
        if process.status() == Phase::Created {
            start(client, id, "e").await?;
        }
        let told = client.wait(id, "e").await?;
        assert!(
            self.is_right(told, code),
            "{id}: the exec ended with {told}, not {code}"
        );
        std::fs::write(go, "").expect("go");
        Ok(())
    }
}

/// Starts a process that was created a moment ago. An unanswered start of before may overtake this one.
async fn start(client: &Client, id: &str, exec: &str) -> Result<(), Status> {
    match client.start(id, exec).await {
        Err(error)
            if error.code() == Code::FailedPrecondition && !error.message().contains("shim") =>
        {
            // That one may still be at it.
            for _ in 0..500 {
                if client.get(id, exec).await?.status() != Phase::Created {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("{id} {exec}: never started after: {error}");
        }
        started => started.map(drop),
    }
}
