//! Somebody who listens to events through all kills, and knows in which order they may come.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

/// The events of one connection, as (container, action).
type Heard = Vec<(String, String)>;

/// The listener; it connects again when the daemon goes.
#[derive(Debug)]
pub(crate) struct Listener {
    over: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<Heard>>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens from now on.
    pub(crate) fn start(socket: PathBuf) -> Self {
        let (over, heard) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stop, list) = (Arc::clone(&over), Arc::clone(&heard));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // A daemon that is away, or goes, is what this is about.
                let _ = listen(&socket, &stop, &list);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self {
            over,
            heard,
            thread: Some(thread),
        }
    }

    /// Ends, and checks each connection's order.
    pub(crate) fn orders(&mut self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            ensure!(thread.join().is_ok(), "the listener has panicked");
        }
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let count: usize = heard.iter().map(Vec::len).sum();
        println!("{count} events heard on {} connections", heard.len());
        ensure!(count > 10, "hardly an event was heard");
        heard.iter().try_for_each(|events| in_order(events))
    }
}

fn listen(socket: &Path, stop: &AtomicBool, list: &Mutex<Vec<Heard>>) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_millis(300)))?;
    write!(
        stream,
        "GET /events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D HTTP/1.1\r\nHost: d\r\n\r\n"
    )?;
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    let connection = {
        let mut all = list.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Heard::new());
        all.len() - 1
    };
    while !stop.load(Ordering::Relaxed) {
        match lines.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        }
        // heads and sizes of chunks are no JSON
        let event: Value = serde_json::from_slice(&line).unwrap_or_default();
        line.clear();
        if let (Some(id), Some(action)) = (event["Actor"]["ID"].as_str(), event["Action"].as_str())
        {
            let mut all = list.lock().unwrap_or_else(PoisonError::into_inner);
            all[connection].push((id.to_owned(), action.to_owned()));
        }
    }
    Ok(())
}

/// What a container is doing, as its events tell; what it did before the first is not known.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Unknown,
    Made,
    Runs,
    Down,
    Gone,
}

/// Whether no container's events contradict each other.
fn in_order(events: &[(String, String)]) -> Result<()> {
    let mut phases: BTreeMap<&str, Phase> = BTreeMap::new();
    for (at, (id, action)) in events.iter().enumerate() {
        let phase = phases.entry(id).or_insert(Phase::Unknown);
        let (allowed, next): (&[Phase], Phase) = match action.as_str() {
            "create" => (&[], Phase::Made),
            "start" => (&[Phase::Made, Phase::Down], Phase::Runs),
            "die" => (&[Phase::Runs], Phase::Down),
            "destroy" => (&[Phase::Made, Phase::Down], Phase::Gone),
            "kill" | "oom" => (&[Phase::Runs], Phase::Runs),
            // the process is gone and the daemon tells why
            "stop" => (&[Phase::Down], Phase::Down),
            other if other.starts_with("exec_") || other.starts_with("health_status") => {
                (&[Phase::Runs], Phase::Runs)
            }
            _ => continue,
        };
        let mut history = events[..=at].iter().filter(|(other, _)| other == id);
        ensure!(
            *phase == Phase::Unknown || allowed.contains(phase),
            "{action} of a container that is {phase:?}: {:?}",
            history
                .by_ref()
                .map(|(_, action)| action)
                .collect::<Vec<_>>()
        );
        *phase = next;
    }
    Ok(())
}

#[test]
fn contradictions_are_found() {
    let events = |actions: &[&str]| -> Vec<(String, String)> {
        let all = actions
            .iter()
            .map(|action| ("x".to_owned(), (*action).to_owned()));
        all.collect()
    };
    for good in [
        &[
            "create", "start", "die", "start", "kill", "die", "stop", "destroy",
        ][..],
        &["die", "destroy"],
        &["exec_die", "die", "start"],
    ] {
        assert!(in_order(&events(good)).is_ok(), "{good:?}");
    }
    for bad in [
        &["start", "start"][..],
        &["die", "die"],
        &["start", "destroy"],
        &["destroy", "die"],
        &["die", "exec_die"],
    ] {
        assert!(in_order(&events(bad)).is_err(), "{bad:?}");
    }
}
