//! Signals to us that are meant for the container.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::client::Client;

/// The signals that are passed on. Those that the kernel keeps, that tell of our own children and
/// pipes, or that mean a fault of our own are not.
const FORWARDED: [Signal; 14] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGWINCH,
    Signal::SIGIO,
    Signal::SIGPWR,
];

/// The signals of which a second one ends us, while the first cannot be sent on.
const ENDING: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];
/// How often a signal that could not be sent on is tried again.
const PAUSE: Duration = Duration::from_millis(300);

/// Sends every signal that arrives to the container. One that the daemon is not there for is kept until it is; the next that
/// asks to end ends us then, and its exit code is returned.
pub(crate) async fn forward(client: &Client, container: &str) -> u8 {
    let mut arrivals = listen(&FORWARDED);
    while let Some(which) = arrivals.recv().await {
        while !send(client, container, which).await {
            match tokio::time::timeout(PAUSE, arrivals.recv()).await {
                Ok(Some(next)) if ENDING.contains(&next) && ENDING.contains(&which) => {
                    return 128 + next as u8;
                }
                _ => {}
            }
        }
    }
    std::future::pending().await
}

/// Whether the daemon took it. A container that has just ended has no use for it.
async fn send(client: &Client, container: &str, which: Signal) -> bool {
    // The names are sent without SIG, as docker does.
    let name = which.as_str().trim_start_matches("SIG");
    let sent = client
        .post(&format!("/containers/{container}/kill"))
        .query("signal", name)
        .done()
        .await;
    !sent.is_err_and(|error| error.is_loss())
}

/// Waits for a signal that asks us to end, and gives the exit code for it.
pub(crate) async fn terminated() -> u8 {
    let mut arrivals = listen(&ENDING);
    match arrivals.recv().await {
        Some(which) => 128 + which as u8,
        None => std::future::pending().await,
    }
}

fn listen(signals: &[Signal]) -> mpsc::Receiver<Signal> {
    let (sender, receiver) = mpsc::channel(16);
    for which in signals.iter().copied() {
        let Ok(mut arrivals) = signal(SignalKind::from_raw(which as i32)) else {
            continue;
        };
        let sender = sender.clone();
        tokio::spawn(async move {
            while arrivals.recv().await.is_some() {
                if sender.send(which).await.is_err() {
                    return;
                }
            }
        });
    }
    receiver
}
