//! One scenario on a runtime through everybody who may sit above it: the real dockerd, podman, containerd's ctr, and our own
//! shim (through dockerd-lite). On the installed runc it proves the scenario itself.
//!
//! The everyday run takes every client on runc-lite, and one client on runc by a printed seed (`LITE_SEED` repeats it);
//! `make drill` takes them all.

mod cgroup;
mod ctr;
mod docker;
mod engine;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use integration::rig::parts::{Part as _, Runtime};

/// Who drives the runtime.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Client {
    Dockerd,
    Podman,
    Ctr,
    OurShim,
}

const CLIENTS: [Client; 4] = [
    Client::Dockerd,
    Client::Podman,
    Client::Ctr,
    Client::OurShim,
];

/// Runs the scenario; the error names client, runtime and step. All that fail are told.
fn run(clients: &[Client], runtime: Runtime) -> Result<()> {
    let mut failed = Vec::new();
    for &client in clients {
        if client == Client::Podman
            && integration::require::optional("podman", "runtime_peers").is_none()
        {
            continue;
        }
        let began = Instant::now();
        let result = match client {
            Client::Ctr => ctr::scenario(runtime),
            _ => engine::Engine::start(client, runtime)
                .context("start")
                .and_then(|engine| docker::scenario(&engine)),
        };
        let name = format!("{client:?} on {}", runtime.label());
        let took = began.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("{took:>6.1} s  {name}: every step holds"),
            Err(error) => {
                println!("{took:>6.1} s  {name}: FAILED {error:#}");
                failed.push(format!("{name}: {error:#}"));
            }
        }
    }
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

#[test]
fn every_client_on_runc_lite() -> Result<()> {
    run(&CLIENTS, Runtime::Lite)
}

#[test]
fn one_client_on_runc() -> Result<()> {
    let given = std::env::var("LITE_SEED").ok().and_then(|s| s.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed: usize = given.unwrap_or(now.subsec_nanos() as usize);
    println!("LITE_SEED={seed}");
    run(&[CLIENTS[seed % CLIENTS.len()]], Runtime::Runc)
}

#[test]
#[ignore = "a minute; make drill runs it"]
fn every_client_on_runc() -> Result<()> {
    run(&CLIENTS, Runtime::Runc)
}
