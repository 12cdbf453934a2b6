//! The same day of a user over every pairing of CLI and daemon; the real pairing proves the scenario itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use integration::images::Registry;
use integration::peers::Dockerd;
use integration::stack::Stack;
use integration::{programs, require};

fn scenario(cli: &Path, host: &str, config: &Path, registry: &Registry) -> Result<()> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/scenario");
    let mut command = Command::new(script);
    command
        .env("DOCKER", cli)
        .env("BUSYBOX", require::peer("busybox")?)
        .env("DOCKER_HOST", host)
        .env("DOCKER_CONFIG", config)
        .env("REGISTRY", registry.address())
        .env_remove("DOCKER_CONTEXT");
    let out = programs::run(&mut command, b"", Duration::from_secs(600))?;
    println!("{}{}", out.stdout, out.stderr);
    out.exits(0).map(drop)
}

/// On a stack of ours, with a registry beside it.
fn on_dockerd_lite(cli: &Path) -> Result<()> {
    let stack = Stack::start()?;
    let registry = Registry::start(&stack)?;
    scenario(cli, &stack.host(), &stack.path("config"), &registry)?;
    drop(registry);
    stack.stop()
}

/// On the real daemon, with a registry beside it.
fn on_dockerd(cli: &Path) -> Result<()> {
    let real = Dockerd::start(&[])?;
    let registry = Registry::beside(real.dir(), |program| real.in_namespace(program))?;
    scenario(cli, &real.host(), &real.dir().join("config"), &registry)
}

#[test]
fn docker_lite_on_dockerd_lite() -> Result<()> {
    on_dockerd_lite(&programs::path("docker-lite")?)
}

#[test]
fn docker_on_dockerd_lite() -> Result<()> {
    on_dockerd_lite(&require::peer("docker")?)
}

#[test]
fn docker_lite_on_dockerd() -> Result<()> {
    on_dockerd(&programs::path("docker-lite")?)
}

#[test]
fn docker_on_dockerd() -> Result<()> {
    on_dockerd(&require::peer("docker")?)
}
