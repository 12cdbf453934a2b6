//! Packet filter rules: one table of our own, replaced as a whole when it must change.
//!
//! Nothing of anybody else's is touched, and nothing of ours is flushed when it is right already. An empty chain whose name
//! is the hash of the rules tells whether they are: one `nft` run at the daemon's start asks for it. Containers come and go
//! without any.

use std::fmt::Write as _;
use std::process::Stdio;

use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::ipam::Subnet;
use crate::error::{During, Error, Result};

/// What the rules depend on.
#[derive(Debug, Clone)]
pub(super) struct Rules<'a> {
    /// Name of the table.
    pub(super) table: &'a str,
    /// Name of the bridge.
    pub(super) bridge: &'a str,
    /// Its subnet.
    pub(super) subnet: Subnet,
    /// Containers may reach each other.
    pub(super) icc: bool,
    /// Containers go out under the host's address.
    pub(super) masquerade: bool,
}

impl Rules<'_> {
    /// The chains; pure.
    fn chains(&self) -> String {
        let Self {
            bridge,
            subnet,
            icc,
            masquerade,
            ..
        } = self;
        let among = if *icc { "accept" } else { "drop" };
        let mut text = String::new();
        writeln!(
            text,
            "  chain forward {{\n    type filter hook forward priority filter; policy accept;\n    \
             oifname \"{bridge}\" ct state established,related accept\n    \
             iifname \"{bridge}\" oifname \"{bridge}\" {among}\n    \
             iifname \"{bridge}\" accept\n    \
             oifname \"{bridge}\" drop\n  }}"
        )
        .expect("a String can always be written to");
        if *masquerade {
            writeln!(
                text,
                "  chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n    \
                 ip saddr {subnet} oifname != \"{bridge}\" masquerade\n  }}"
            )
            .expect("a String can always be written to");
        }
        text
    }

    fn mark(&self) -> String {
        let sum = hex::encode(Sha256::digest(self.chains()));
        format!("rules_{}", &sum[..16])
    }

    /// The whole change: the table is made if missing, deleted and made anew, in one transaction.
    fn script(&self) -> String {
        let table = self.table;
        format!(
            "table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n  chain {} {{\n  }}\n{}}}\n",
            self.mark(),
            self.chains()
        )
    }

    /// Brings the rules into the kernel, if they are not there.
    pub(super) async fn apply(&self) -> Result<()> {
        let mark = self.mark();
        let there = nft(&["list", "chain", "ip", self.table, &mark], None).await;
        if there.is_ok() {
            return Ok(());
        }
        nft(&["-f", "-"], Some(&self.script()))
            .await
            .during(|| format!("set up the packet filter for {}", self.bridge))
    }
}

/// Removes the table; one that is not there is no error.
pub(super) async fn remove(table: &str) -> Result<()> {
    // Declared first, so that deleting cannot fail for its absence.
    let script = format!("table ip {table}\ndelete table ip {table}\n");
    nft(&["-f", "-"], Some(&script))
        .await
        .during(|| format!("remove the packet filter table {table}"))
}

async fn nft(arguments: &[&str], input: Option<&str>) -> Result<()> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .during(|| "run nft (or start with --iptables=false)")?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        stdin
            .write_all(input.as_bytes())
            .await
            .during(|| "write to nft")?;
    }
    let limit = std::time::Duration::from_secs(30);
    let output = tokio::time::timeout(limit, child.wait_with_output())
        .await
        .map_err(|_| Error::internal("nft has not ended within 30 s"))?
        .during(|| "wait for nft")?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().next().unwrap_or("no reason given");
    Err(Error::internal(format!("nft: {line}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(icc: bool, masquerade: bool) -> Rules<'static> {
        Rules {
            table: "t",
            bridge: "docker0",
            subnet: "172.17.0.0/16".parse().unwrap(),
            icc,
            masquerade,
        }
    }

    #[test]
    fn the_mark_changes_with_the_rules_only() {
        assert_eq!(rules(true, true).mark(), rules(true, true).mark());
        assert_ne!(rules(true, true).mark(), rules(false, true).mark());
        assert_ne!(rules(true, true).mark(), rules(true, false).mark());
    }

    #[test]
    fn the_script_replaces_the_table_in_one_go() {
        let script = rules(false, true).script();
        assert!(script.starts_with("table ip t\ndelete table ip t\ntable ip t {\n"));
        assert!(script.contains("iifname \"docker0\" oifname \"docker0\" drop"));
        assert!(script.contains("ip saddr 172.17.0.0/16 oifname != \"docker0\" masquerade"));
        assert_eq!(script.matches('{').count(), script.matches('}').count());
        assert!(!rules(true, false).script().contains("nat"));
    }
}
