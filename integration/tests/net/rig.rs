//! What these tests share: a stack with a machine beside it, and short words for what they look at.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use integration::http::{Answer, ask};
use integration::outside::Outside;
use integration::programs::{Output, run};
use integration::stack::{Stack, tail};
use integration::{eventually, images};
use serde_json::Value;

/// How long something may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A stack with a machine beside it.
pub(crate) struct Rig {
    pub(crate) stack: Stack,
    pub(crate) outside: Outside,
}

impl Rig {
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let mut stack = Stack::unstarted(arguments)?;
        let outside = Outside::beside(&stack)?;
        stack.start_daemon()?;
        images::busybox(&stack)?;
        Ok(Self { stack, outside })
    }

    /// Runs docker-lite; a failure shows the daemon's log.
    pub(crate) fn lite(&self, args: &str) -> Result<String> {
        let out = self.try_lite(args)?.exits(0);
        let out = out.with_context(|| {
            format!(
                "docker-lite {args}; log: {}",
                tail(&self.stack.path("dockerd.log"))
            )
        })?;
        Ok(out.stdout.trim().to_owned())
    }

    pub(crate) fn try_lite(&self, args: &str) -> Result<Output> {
        self.stack.lite(words(args))
    }

    /// A container that sleeps, with these flags.
    pub(crate) fn sleeper(&self, name: &str, flags: &str) -> Result<String> {
        self.lite(&format!("run -d --name {name} {flags} busybox sleep 10000"))
    }

    /// A container that answers each connection to port 80 with its own name, over IPv4 and IPv6.
    pub(crate) fn server(&self, name: &str, flags: &str) -> Result<String> {
        let id = self.lite(&format!(
            "run -d --name {name} {flags} busybox nc -ll -p 80 -e echo {name}"
        ))?;
        self.listens(name)?;
        Ok(id)
    }

    /// Waits until something in a container listens.
    pub(crate) fn listens(&self, name: &str) -> Result<()> {
        eventually::within(SOON, "the server in the container listens", || {
            let out = self.try_lite(&format!("exec {name} cat /proc/net/tcp /proc/net/tcp6"))?;
            ensure!(out.stdout.contains(":0050 "), "{out:?}");
            Ok(())
        })
    }

    /// Runs a script in a container.
    pub(crate) fn exec(&self, name: &str, script: &str) -> Result<Output> {
        self.stack.lite(["exec", name, "sh", "-c", script])
    }

    /// Runs a script in the stack's own network namespace.
    pub(crate) fn host(&self, script: &str) -> Result<Output> {
        let mut command = self.stack.in_namespace(Path::new("/bin/sh"));
        command.args(["-c", script]);
        run(&mut command, b"", Duration::from_secs(30))
    }

    pub(crate) fn ruleset(&self) -> Result<String> {
        Ok(self.host("nft list ruleset")?.exits(0)?.stdout)
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> Result<Answer> {
        ask(
            &self.stack.path("docker.sock"),
            method,
            &format!("/v1.53{path}"),
            body,
        )
    }

    /// Fails unless a request is answered so.
    pub(crate) fn answers(
        &self,
        method: &str,
        path: &str,
        body: &str,
        status: u16,
        text: &str,
    ) -> Result<Answer> {
        let answer = self.ask(method, path, body)?;
        ensure!(
            answer.status == status && answer.text().contains(text),
            "{method} {path} {body}: wanted {status} with {text:?}, got {} {}",
            answer.status,
            answer.text()
        );
        Ok(answer)
    }

    pub(crate) fn json(&self, args: &str) -> Result<Value> {
        let text = self.lite(args)?;
        serde_json::from_str(&text).with_context(|| text)
    }

    /// The address of a container on a network.
    pub(crate) fn address(&self, name: &str, network: &str) -> Result<String> {
        self.settings(name, network, "IPAddress")
    }

    pub(crate) fn settings(&self, name: &str, network: &str, field: &str) -> Result<String> {
        let inspected = self.json(&format!("inspect {name}"))?;
        let value = &inspected[0]["NetworkSettings"]["Networks"][network][field];
        let value = value.as_str().with_context(|| format!("{inspected:#}"))?;
        Ok(value.to_owned())
    }

    pub(crate) fn stop(self) -> Result<()> {
        drop(self.outside);
        self.stack.stop()
    }
}

/// A client that prints what a server says, for [`reaches`]. It comes back as soon as it has been answered or refused, and is patient
/// otherwise: a first packet that is lost (a question for a neighbour, a SYN before an interface's queue is there) is sent again
/// after a second only, and a machine under load takes its time to start a server's answer.
pub(crate) fn fetch(address: &str, port: u16) -> String {
    client(address, port, 15)
}

/// A client for [`cut_off`], which gives up after a second.
pub(crate) fn knock(address: &str, port: u16) -> String {
    client(address, port, 1)
}

fn client(address: &str, port: u16, seconds: u32) -> String {
    let end = seconds + 4;
    format!("busybox timeout {end} busybox nc -w {seconds} {address} {port} </dev/null")
}

/// Fails unless a client was answered by that server.
pub(crate) fn reaches(out: Result<Output>, server: &str) -> Result<()> {
    let out = out?;
    ensure!(
        out.stdout.trim() == server,
        "wanted an answer of {server}: {out:?}"
    );
    Ok(())
}

/// Fails if a client was answered.
pub(crate) fn cut_off(out: Result<Output>) -> Result<()> {
    let out = out?;
    ensure!(
        out.stdout.trim().is_empty(),
        "nothing should come through: {out:?}"
    );
    Ok(())
}

/// An address of IPv4 as `/proc/net/tcp` shows it.
pub(crate) fn in_proc(address: &str) -> String {
    let octets = address.split('.').filter_map(|o| o.parse::<u8>().ok());
    octets.rev().map(|o| format!("{o:02X}")).collect()
}

/// Words, split at blanks.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
