//! The process section: what runs, as whom, with which environment and rights. Pure.

use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, User as SpecUser, UserBuilder,
};

use super::capabilities::Set;
use super::user::User;
use crate::config::Ulimit;
use crate::error::{Error, Result};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a process needs to be described.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: &'a str,
    pub(crate) tty: bool,
    /// Height and width; zero when unknown.
    pub(crate) console: [u32; 2],
    pub(crate) user: User,
    pub(crate) capabilities: &'a Set,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: i64,
    pub(crate) rlimits: Vec<PosixRlimit>,
}

fn wrong(error: oci_spec::OciSpecError) -> Error {
    Error::internal(format!("build the process section: {error}"))
}

/// The section.
pub(crate) fn build(wanted: Wanted<'_>) -> Result<Process> {
    let root = wanted.user.uid == 0;
    let cwd = match wanted.cwd {
        "" => "/",
        given => given,
    };
    if !cwd.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{cwd}' is invalid, it needs to be an absolute path"
        )));
    }
    let adj = i32::try_from(wanted.oom_score_adj).ok();
    let adj = adj
        .filter(|adj| (-1000..=1000).contains(adj))
        .ok_or_else(|| {
            Error::invalid(format!(
                "Invalid value {}, range for oom score adj is [-1000, 1000]",
                wanted.oom_score_adj
            ))
        })?;
    let mut built = ProcessBuilder::default()
        .terminal(wanted.tty)
        .user(user(wanted.user)?)
        .args(wanted.args)
        .env(wanted.env)
        .cwd(cwd)
        .capabilities(capabilities(wanted.capabilities, root)?)
        .no_new_privileges(wanted.no_new_privileges)
        .oom_score_adj(adj);
    if !wanted.rlimits.is_empty() {
        built = built.rlimits(wanted.rlimits);
    }
    let [height, width] = wanted.console;
    if wanted.tty && height > 0 && width > 0 {
        let size = oci_spec::runtime::BoxBuilder::default()
            .height(u64::from(height))
            .width(u64::from(width));
        built = built.console_size(size.build().map_err(wrong)?);
    }
    built.build().map_err(wrong)
}

fn user(user: User) -> Result<SpecUser> {
    let mut built = UserBuilder::default().uid(user.uid).gid(user.gid);
    let mut groups = user.groups;
    // runc's callers put the main group first; programs print it so.
    if !groups.contains(&user.gid) {
        groups.insert(0, user.gid);
    }
    built = built.additional_gids(groups);
    built.build().map_err(wrong)
}

/// A user other than root gets none in effect, as after execve; the bounding set holds for both.
fn capabilities(set: &Set, root: bool) -> Result<LinuxCapabilities> {
    let named = set
        .iter()
        .map(|name| {
            name.parse::<Capability>()
                .map_err(|_| Error::internal(format!("capability {name} has no place in a spec")))
        })
        .collect::<Result<Capabilities>>()?;
    let held = if root {
        named.clone()
    } else {
        Capabilities::new()
    };
    LinuxCapabilitiesBuilder::default()
        .bounding(named)
        .effective(held.clone())
        .permitted(held)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
        .map_err(wrong)
}

/// The environment: PATH, HOSTNAME and TERM, unless given, then what was given. `NAME` alone takes a default away.
pub(crate) fn environment(hostname: &str, tty: bool, given: &[String]) -> Vec<String> {
    let mut env = vec![PATH.to_owned()];
    if !hostname.is_empty() {
        env.push(format!("HOSTNAME={hostname}"));
    }
    if tty {
        env.push("TERM=xterm".into());
    }
    overlay(env, given)
}

/// Sets or replaces each variable of `given`, in place; one without `=` is taken away.
pub(crate) fn overlay(mut env: Vec<String>, given: &[String]) -> Vec<String> {
    for variable in given {
        let name = variable.split('=').next().unwrap_or("");
        let same = |other: &String| other.split('=').next() == Some(name);
        let at = env.iter().position(same);
        match (variable.contains('='), at) {
            (true, Some(at)) => env[at].clone_from(variable),
            (true, None) => env.push(variable.clone()),
            (false, Some(at)) => drop(env.remove(at)),
            (false, None) => {}
        }
    }
    env
}

/// A limit by its lower-case name.
pub(crate) fn rlimit(name: &str, soft: i64, hard: i64) -> Result<PosixRlimit> {
    let bad = |why: String| Error::invalid(format!("invalid ulimit {name}={soft}:{hard}: {why}"));
    let kind = format!("RLIMIT_{}", name.to_ascii_uppercase())
        .parse::<PosixRlimitType>()
        .map_err(|_| bad("unknown type".into()))?;
    let number = |n: i64| match n {
        -1 => Ok(u64::MAX),
        n => u64::try_from(n).map_err(|_| bad("a limit is -1 or not negative".into())),
    };
    let (soft_limit, hard_limit) = (number(soft)?, number(hard)?);
    if soft_limit > hard_limit {
        return Err(bad(
            "ulimit soft limit must be less than or equal to hard limit".into(),
        ));
    }
    PosixRlimitBuilder::default()
        .typ(kind)
        .soft(soft_limit)
        .hard(hard_limit)
        .build()
        .map_err(wrong)
}

/// The container's limits over the daemon's defaults.
pub(crate) fn rlimits(
    defaults: &[Ulimit],
    given: &[proto::engine::Ulimit],
) -> Result<Vec<PosixRlimit>> {
    let kept = defaults
        .iter()
        .filter(|d| !given.iter().any(|g| g.name == d.name))
        .map(|d| rlimit(&d.name, d.soft, d.hard));
    let own = given.iter().map(|g| rlimit(&g.name, g.soft, g.hard));
    kept.chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment() {
        let given = [
            "PATH=/bin".into(),
            "A=1".into(),
            "TERM".into(),
            "A=2".into(),
        ];
        let got = environment("host", true, &given);
        assert_eq!(got, ["PATH=/bin", "HOSTNAME=host", "A=2"]);
    }

    #[test]
    fn ulimits() {
        assert!(rlimit("nofile", 10, 20).is_ok());
        assert!(rlimit("nofile", 20, 10).is_err());
        assert!(rlimit("nofile", -1, -1).is_ok());
        assert!(rlimit("nofile", -2, -1).is_err());
        assert!(rlimit("nope", 1, 1).is_err());
    }
}
