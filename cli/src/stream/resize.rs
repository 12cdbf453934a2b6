//! Keeps the container's terminal as large as ours.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::client::Client;
use crate::terminal;

/// Whose terminal.
#[derive(Debug, Clone)]
pub(crate) enum Resize {
    Container(String),
    Exec(String),
}

impl Resize {
    async fn send(&self, client: &Client, (rows, columns): (u16, u16)) -> bool {
        let path = match self {
            Resize::Container(id) => format!("/containers/{id}/resize"),
            Resize::Exec(id) => format!("/exec/{id}/resize"),
        };
        client
            .post(&path)
            .query("h", rows)
            .query("w", columns)
            .done()
            .await
            .is_ok()
    }
}

/// Makes a program that is already running draw its screen again: for a moment the size is another.
pub(crate) async fn redraw(client: &Client, container: &str) {
    if let Some((rows, columns)) = terminal::size() {
        let larger = (rows.saturating_add(1), columns.saturating_add(1));
        Resize::Container(container.to_string())
            .send(client, larger)
            .await;
    }
}

/// Sends the size now, and again whenever it changes. Does not end by itself.
pub(crate) async fn follow_size(client: &Client, whose: Resize) {
    // Registered before the first size is read, so that no change falls between.
    let Ok(mut changes) = signal(SignalKind::window_change()) else {
        return;
    };
    // The process may not have its terminal yet when its start was just answered.
    for pause in [0, 10, 20, 50, 100, 200] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match terminal::size() {
            Some(size) if !whose.send(client, size).await => {}
            _ => break,
        }
    }
    while changes.recv().await.is_some() {
        if let Some(size) = terminal::size() {
            // A container that has just ended cannot be resized; its end is told elsewhere.
            whose.send(client, size).await;
        }
    }
}
