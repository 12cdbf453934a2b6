//! A machine beside a stack's: a network namespace joined to the stack's by a wire, for what can only be seen from outside.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::programs::{Output, run};
use crate::stack::{Stack, hold_namespace};

/// The stack's addresses on the wire.
pub const HOST: &str = "198.51.100.1";
/// The stack's address of IPv6 on the wire.
pub const HOST6: &str = "fd51:100::1";
/// The other machine's address.
pub const OUTSIDE: &str = "198.51.100.2";
/// The other machine's address of IPv6.
pub const OUTSIDE6: &str = "fd51:100::2";

/// The other machine.
#[derive(Debug)]
pub struct Outside {
    holder: Child,
}

impl Outside {
    /// Puts one beside a stack. It reaches containers' own addresses by way of the stack's host, as an attacker on the same
    /// wire would.
    pub fn beside(stack: &Stack) -> Result<Self> {
        let outside = Self {
            holder: hold_namespace()?,
        };
        let pid = outside.holder.id();
        let here = format!(
            "ip link add wire type veth peer name wire netns /proc/{pid}/ns/net && \
             ip addr add {HOST}/24 dev wire && ip addr add {HOST6}/64 dev wire nodad && ip link set wire up && \
             ip route add default via {OUTSIDE} && ip -6 route add default via {OUTSIDE6}"
        );
        let there = format!(
            "ip addr add {OUTSIDE}/24 dev wire && ip addr add {OUTSIDE6}/64 dev wire nodad && ip link set wire up && \
             ip route add default via {HOST} && ip -6 route add default via {HOST6}"
        );
        let shell = |mut command: Command, script: &str| {
            command.args(["-c", script]);
            run(&mut command, b"", Duration::from_secs(10))?.exits(0)
        };
        let mut host = stack.in_namespace(Path::new("/bin/sh"));
        host.args(["-c", "ip link set lo up"]);
        run(&mut host, b"", Duration::from_secs(10))?.exits(0)?;
        // the far end is made with the near one, its addresses after; a route needs the wire up at this end only
        let (link, rest) = here.split_once(" && ").context("the script has parts")?;
        shell(stack.in_namespace(Path::new("/bin/sh")), link)?;
        shell(outside.command("/bin/sh"), &there)?;
        shell(stack.in_namespace(Path::new("/bin/sh")), rest)?;
        Ok(outside)
    }

    /// A command that runs on the other machine.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.holder.id()))
            .args(["--", program]);
        command
    }

    /// Runs a shell script there.
    pub fn sh(&self, script: &str) -> Result<Output> {
        let mut command = self.command("/bin/sh");
        command.args(["-c", script]);
        run(&mut command, b"", Duration::from_secs(30))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
