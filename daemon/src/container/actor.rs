//! The owner of one container: the only place where its record changes.
//!
//! Commands and news of its task come in one queue, so that nothing has to be locked and no exit can overtake the start that
//! caused it. A view is published after every change, before the change is answered and before its event is told. What
//! takes long because the container takes long (stop, wait) is done by the caller, with commands and the view.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::containerd::v1::types::Process;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::attach::Connection;
use super::record::{self, Held, Record};
use super::why::Asked;
use super::{Handle, Order, QUEUE, Shared, View};
use crate::App;
use crate::backend::TRACE;
use crate::error::Result;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// What an owner is asked or told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Start it; not modified if it runs.
    Start(Reply<()>),
    /// Send a signal to the init process. `stops` says that a user wants it down, `asked` who asks.
    Kill {
        signal: u32,
        stops: bool,
        asked: Asked,
        reply: Reply<()>,
    },
    /// Attach now if it runs, at its next start if not.
    Attach {
        input: bool,
        reply: Reply<Connection>,
    },
    /// Freeze or thaw.
    Freeze { on: bool, reply: Reply<()> },
    /// Give it another name, already reserved.
    Rename { name: String, reply: Reply<()> },
    /// Put it on a network.
    Connect {
        network: Arc<crate::network::Record>,
        settings: Box<proto::engine::EndpointSettings>,
        reply: Reply<()>,
    },
    /// Take it off a network.
    Disconnect {
        network: Arc<crate::network::Record>,
        reply: Reply<()>,
    },
    /// Change limits and restart policy.
    Update {
        body: Box<proto::engine::UpdateBody>,
        reply: Reply<()>,
    },
    /// Remove it.
    Remove {
        force: bool,
        volumes: bool,
        reply: Reply<()>,
    },
    /// Its task has ended.
    Exited(Exit),
    /// A process of it was killed for memory.
    Oom,
    /// What containerd says of its task, after a connect.
    Reconcile {
        task: Option<Box<Process>>,
        first: bool,
        reply: Reply<()>,
    },
}

/// An exit as containerd tells it.
#[derive(Debug, Clone)]
pub(crate) struct Exit {
    pub(crate) pid: u32,
    pub(crate) code: u32,
    /// RFC 3339.
    pub(crate) at: String,
}

/// The owner.
pub(super) struct Actor {
    pub(super) app: Arc<App>,
    pub(super) shared: Arc<Shared>,
    pub(super) record: Held,
    commands: mpsc::Receiver<Order>,
    pub(super) exits: u64,
    pub(super) code: i64,
    pub(super) confirmed: bool,
    /// Nothing of an ended task is left, its output included.
    pub(super) settled: bool,
    /// The reconciliation that waits for the truth, which is known before it is dealt with.
    pub(super) unanswered: Option<Reply<()>>,
    /// When the policy starts it again.
    pub(super) timer: Option<Instant>,
    /// The pause before the last start that the policy made.
    pub(super) pause: Duration,
    /// Attachers that wait for the next start.
    pub(super) waiting: Vec<(bool, Reply<Connection>)>,
    pub(super) removed: bool,
    /// Nobody knows what came of the last start.
    pub(super) unsure: bool,
    /// The last signal that was sent to the running task, and for whom.
    pub(super) asked: Option<(u32, Asked)>,
    /// Looks after its health while it runs.
    pub(super) monitor: Option<super::health::Monitor>,
}

/// Starts the owner of a record.
pub(super) fn spawn(app: Arc<App>, record: Record, confirmed: bool) -> Handle {
    let (sender, commands) = mpsc::channel(QUEUE);
    let record = Held::new(record);
    let view = View {
        record: record.share(),
        exits: 0,
        code: record.state.code(),
        gone: false,
        confirmed,
        settled: true,
    };
    let shared = Arc::new(Shared {
        id: record.id.clone(),
        view: watch::channel(view).0,
        commands: sender,
        execs: Mutex::default(),
        health: super::health::Cell::default(),
    });
    super::health::load(&app, &record, &shared.health);
    let actor = Actor {
        app,
        shared: shared.clone(),
        code: record.state.code(),
        record,
        commands,
        exits: 0,
        confirmed,
        settled: true,
        unanswered: None,
        timer: None,
        pause: Duration::ZERO,
        waiting: Vec::new(),
        removed: false,
        unsure: false,
        asked: None,
        monitor: None,
    };
    tokio::spawn(actor.run());
    Handle(shared)
}

impl Actor {
    async fn run(mut self) {
        while !self.removed {
            let timer = self.timer;
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Order { command, trace: Some(trace) }) => {
                        TRACE.scope(trace, self.handle(command)).await;
                    }
                    Some(Order { command, trace: None }) => self.handle(command).await,
                    None => break,
                },
                () = tokio::time::sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    self.timer = None;
                    self.start_again().await;
                }
            }
        }
    }

    async fn handle(&mut self, command: Command) {
        // Boxed where there is much in it: an unoptimized build would have all of it on the thread's small stack.
        // Whoever asked may have gone; then nobody needs the answer.
        match command {
            Command::Start(reply) => drop(reply.send(Box::pin(self.start()).await)),
            Command::Kill {
                signal,
                stops,
                asked,
                reply,
            } => drop(reply.send(self.kill(signal, stops, asked).await)),
            Command::Attach { input, reply } => self.attach(input, reply).await,
            Command::Freeze { on, reply } => drop(reply.send(self.freeze(on).await)),
            Command::Rename { name, reply } => drop(reply.send(Box::pin(self.rename(name)).await)),
            Command::Connect {
                network,
                settings,
                reply,
            } => drop(reply.send(Box::pin(self.connect(network, *settings)).await)),
            Command::Disconnect { network, reply } => {
                drop(reply.send(Box::pin(self.disconnect(network)).await));
            }
            Command::Update { body, reply } => drop(reply.send(Box::pin(self.update(*body)).await)),
            Command::Remove {
                force,
                volumes,
                reply,
            } => drop(reply.send(self.remove(force, volumes).await)),
            Command::Exited(exit) => Box::pin(self.exited(exit)).await,
            Command::Oom => self.oom().await,
            Command::Reconcile { task, first, reply } => {
                self.unanswered = Some(reply);
                let outcome = Box::pin(self.reconcile(task, first)).await;
                self.answer(outcome);
            }
        }
    }

    /// Tells the reconciliation, if one waits, that the record is true now.
    pub(super) fn answer(&mut self, outcome: Result<()>) {
        if let Some(reply) = self.unanswered.take() {
            self.confirmed |= outcome.is_ok();
            self.publish();
            drop(reply.send(outcome));
        }
    }

    /// Shows the record to everybody.
    pub(super) fn publish(&mut self) {
        super::health::follow(self);
        self.shared.view.send_replace(View {
            record: self.record.share(),
            exits: self.exits,
            code: self.code,
            gone: self.removed,
            confirmed: self.confirmed,
            settled: self.settled,
        });
    }

    /// Makes the record durable.
    pub(super) async fn persist(&self) -> Result<()> {
        self.app
            .db
            .put(record::KIND, &self.record.id, &*self.record)
            .await
    }

    /// Makes the record durable where nobody can be told that it failed.
    pub(super) async fn persist_or_log(&self) {
        if let Err(e) = self.persist().await {
            tracing::error!("container {}: {e}", self.record.id);
        }
    }

    /// Tells an event about the container, with further attributes.
    pub(super) fn emit(&self, action: &str, more: &[(&str, String)]) {
        let mut attributes = self.record.attributes();
        for (key, value) in more {
            attributes.insert((*key).to_owned(), value.clone());
        }
        self.app
            .events
            .emit("container", action, &self.record.id, attributes);
    }
}
