//! Signals to us that are meant for the container.

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

/// Sends every signal that arrives to the container. Does not end by itself.
pub(crate) async fn forward(client: &Client, container: &str) {
    let mut arrivals = listen(&FORWARDED);
    while let Some(which) = arrivals.recv().await {
        // The names are sent without SIG, as docker does. A container that has just ended has no use for it.
        let name = which.as_str().trim_start_matches("SIG");
        let _ = client
            .post(&format!("/containers/{container}/kill"))
            .query("signal", name)
            .done()
            .await;
    }
}

/// Waits for a signal that asks us to end, and gives the exit code for it.
pub(crate) async fn terminated() -> u8 {
    let mut arrivals = listen(&[
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
    ]);
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
