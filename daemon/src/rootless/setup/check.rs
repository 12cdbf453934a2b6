//! What a rootless daemon needs of the host, found by trying.

use std::process::ExitCode;

use super::super::ids::{self, Kind, Whoami};
use super::super::user::User;
use super::probe;
use crate::error::Result;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    what: String,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Good(String),
    /// It goes without, less comfortably.
    Lacks(String),
    /// It does not go without.
    Missing {
        why: String,
        root: String,
    },
}

/// Prints everything; the code tells whether a daemon would run.
pub(super) fn main() -> Result<ExitCode> {
    let items = look()?;
    for item in &items {
        match &item.state {
            State::Good(text) if text.is_empty() => println!("[ok]      {}", item.what),
            State::Good(text) => println!("[ok]      {}: {text}", item.what),
            State::Lacks(text) => println!("[lacks]   {}: {text}", item.what),
            State::Missing { why, .. } => println!("[MISSING] {}: {why}", item.what),
        }
    }
    let commands = commands(&items);
    if items.iter().all(|item| !item.is_missing()) {
        println!("\nStart it by: dockerd-lite rootless");
        return Ok(ExitCode::SUCCESS);
    }
    if !commands.is_empty() {
        println!("\n########## BEGIN: to be run once, as root");
        println!("cat <<'EOT' | sudo sh -eux");
        for command in commands {
            println!("{command}");
        }
        println!("EOT\n########## END");
    }
    Ok(ExitCode::FAILURE)
}

/// Whether a daemon would run.
pub(super) fn passes() -> Result<bool> {
    Ok(look()?.iter().all(|item| !item.is_missing()))
}

impl Item {
    fn is_missing(&self) -> bool {
        matches!(self.state, State::Missing { .. })
    }
}

fn commands(items: &[Item]) -> Vec<String> {
    let mut commands = Vec::new();
    for item in items {
        if let State::Missing { root, .. } = &item.state
            && !root.is_empty()
            && !commands.contains(root)
        {
            commands.push(root.clone());
        }
    }
    commands
}

fn look() -> Result<Vec<Item>> {
    let who = ids::whoami();
    let mut items = Vec::new();
    let mut add = |what: &str, state| {
        items.push(Item {
            what: what.to_owned(),
            state,
        });
    };
    if who.uid == 0 {
        let why = "this is root; rootless mode is for ordinary users".to_owned();
        let root = String::new();
        add("user", State::Missing { why, root });
        return Ok(items);
    }
    add("user", State::Good(format!("{} ({})", who.name, who.uid)));
    add("runtime directory", runtime_dir()?);
    add("id map programs", programs());
    for kind in [Kind::User, Kind::Group] {
        add(kind.file(), subordinate(kind, &who));
    }
    if items.iter().all(|item| !item.is_missing()) {
        for tried in probe::run(&who)? {
            let state = match tried.failure.as_str() {
                "" => State::Good(String::new()),
                why => failed(&tried.what, why),
            };
            items.push(Item {
                what: tried.what,
                state,
            });
        }
    }
    let mut add = |what: &str, state| {
        items.push(Item {
            what: what.to_owned(),
            state,
        });
    };
    add("network helper", helper());
    add("limits", limits());
    add("ports below 1024", low_ports());
    Ok(items)
}

fn runtime_dir() -> Result<State> {
    let user = User::of_environment()?;
    let text = user.runtime_dir.display().to_string();
    Ok(match std::env::var_os("XDG_RUNTIME_DIR") {
        None => State::Lacks(format!(
            "XDG_RUNTIME_DIR is not set; {text} is used, and clients need DOCKER_HOST or the context"
        )),
        Some(_) => match nix::unistd::access(&user.runtime_dir, nix::unistd::AccessFlags::W_OK) {
            Ok(()) => State::Good(text),
            Err(e) => State::Missing {
                why: format!("{text}: {}", e.desc()),
                root: String::new(),
            },
        },
    })
}

fn programs() -> State {
    let missing: Vec<_> = [Kind::User, Kind::Group]
        .map(Kind::program)
        .into_iter()
        .filter(|program| !ids::found(program))
        .collect();
    match missing.as_slice() {
        [] => State::Good("newuidmap, newgidmap".into()),
        list => State::Missing {
            why: format!("{} not found", list.join(", ")),
            root: "apt-get install -y uidmap || dnf install -y shadow-utils".into(),
        },
    }
}

fn subordinate(kind: Kind, who: &Whoami) -> State {
    match ids::subordinate(kind, who) {
        Ok(ranges) => {
            let count: u64 = ranges.iter().map(|range| u64::from(range.count)).sum();
            match count < 65536 {
                true => State::Lacks(format!("{count} ids; images expect 65536")),
                false => State::Good(format!("{count} ids")),
            }
        }
        Err(e) => {
            let flag = match kind {
                Kind::User => "--add-subuids",
                Kind::Group => "--add-subgids",
            };
            State::Missing {
                why: e.to_string(),
                root: format!("usermod {flag} {}-{} {}", FIRST, FIRST + 65535, who.name),
            }
        }
    }
}

/// Where the suggested range begins; below it are those that Debian gives out first.
const FIRST: u32 = 524_288;

fn failed(what: &str, why: &str) -> State {
    let missing = |root: &str| State::Missing {
        why: why.to_owned(),
        root: root.to_owned(),
    };
    match what {
        "user namespace" => missing(
            "sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0 user.max_user_namespaces=28633 || true",
        ),
        "device /dev/net/tun" => missing("modprobe tun || true; chmod 0666 /dev/net/tun"),
        "nftables" => missing("modprobe nf_tables nft_chain_nat nft_masq"),
        "overlayfs with userxattr" => State::Lacks(format!("{why}; Linux 5.11 is needed")),
        _ => missing(""),
    }
}

fn helper() -> State {
    let found: Vec<_> = ["slirp4netns", "pasta"]
        .into_iter()
        .filter(|program| ids::found(program))
        .collect();
    match found.first() {
        Some(program) => State::Good((*program).to_owned()),
        None => State::Missing {
            why: "neither slirp4netns nor pasta is installed; --net none does without".into(),
            root: "apt-get install -y slirp4netns || dnf install -y slirp4netns".into(),
        },
    }
}

/// The controllers that systemd has handed to the user.
fn limits() -> State {
    if !crate::container::start::cgroup_v2() {
        return State::Lacks(
            "cgroup v1 cannot be handed to a user; limits are refused with a warning".into(),
        );
    }
    let uid = nix::unistd::Uid::current();
    let path =
        format!("/sys/fs/cgroup/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers");
    let list = std::fs::read_to_string(path).unwrap_or_default();
    let has = |name: &str| list.split_whitespace().any(|word| word == name);
    let lacking: Vec<_> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|name| !has(name))
        .collect();
    match lacking.is_empty() {
        true => State::Good(list.trim().to_owned()),
        false => State::Lacks(format!(
            "controllers {} are not delegated",
            lacking.join(", ")
        )),
    }
}

fn low_ports() -> State {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    match text.map(|text| text.trim().parse::<u16>()) {
        Ok(Ok(first)) if first > 80 => State::Lacks(format!(
            "ports below {first} are root's (sysctl net.ipv4.ip_unprivileged_port_start)"
        )),
        _ => State::Good(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_once() {
        let item = |root: &str| Item {
            what: "x".into(),
            state: State::Missing {
                why: "y".into(),
                root: root.into(),
            },
        };
        assert_eq!(
            commands(&[item("a"), item(""), item("b"), item("a")]),
            ["a", "b"]
        );
    }
}
