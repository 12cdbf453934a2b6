//! `dockerd-lite rootless hold`: the process that makes the namespaces and keeps them while nothing else runs in them.
//!
//! ```text
//!  parent                                    holder
//!    spawn ──────────────────────────────────▶ takes its lock, a session of its own
//!                                              unshare user, mount, network (and cgroup where v2 is)
//!    ◀──────────────────────────── "unshared"
//!    newuidmap, newgidmap
//!    "mapped" ───────────────────────────────▶
//!                                              mounts: /etc, /run, the pin of the network; lo up
//!    ◀──────────────────────────── "ready"     or a line that says what failed
//! ```
//!
//! Both speak in lines over the holder's standard input and output. One that was killed is replaced by `hold again`, which enters the
//! namespaces by another process that lives in them: they last as long as anything does. Nothing is made anew then.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};

use super::copy_up::copy_up;
use super::ids::{self, Whoami};
use super::place::Place;
use crate::error::{During, Error, Result};
use crate::supervise;

const UNSHARED: &str = "unshared";
const MAPPED: &str = "mapped";
const READY: &str = "ready";

/// Starts one that makes the namespaces, and answers when they are ready.
pub(super) fn start(place: &Place, who: &Whoami) -> Result<()> {
    let mut talk = Talk::spawn(place, &["hold"])?;
    talk.expect(UNSHARED)?;
    if let Err(e) = ids::write(talk.child.id(), who) {
        talk.end();
        return Err(e);
    }
    talk.say(MAPPED)?;
    talk.expect(READY)?;
    talk.leave(place)
}

/// Starts one in namespaces that are there.
pub(super) fn start_again(place: &Place) -> Result<()> {
    let mut talk = Talk::spawn(place, &["hold", "again"])?;
    talk.expect(READY)?;
    talk.leave(place)
}

/// The parent's half.
struct Talk {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Talk {
    fn spawn(place: &Place, words: &[&str]) -> Result<Self> {
        let mut arguments: Vec<_> = vec![super::WORD.into()];
        arguments.extend(words.iter().map(Into::into));
        arguments.push(place.dir.clone().into_os_string());
        let program = supervise::own_program()?;
        let mut child = supervise::detached_command(&place.holder_lock(), &program, &arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .during(|| "start the holder of the namespaces")?;
        let output = child.stdout.take();
        let output = output.ok_or_else(|| Error::internal("the holder has no output"))?;
        Ok(Self {
            child,
            lines: BufReader::new(output),
        })
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let mut line = String::new();
        self.lines
            .read_line(&mut line)
            .during(|| "hear from the holder of the namespaces")?;
        match line.trim_end() {
            said if said == word => Ok(()),
            "" => {
                let status = self.child.wait().during(|| "wait for the holder")?;
                Err(Error::internal(format!(
                    "the holder of the namespaces has ended: {status}"
                )))
            }
            said => {
                let said = said.to_owned();
                self.end();
                Err(Error::internal(said))
            }
        }
    }

    fn say(&mut self, word: &str) -> Result<()> {
        let input = self.child.stdin.as_mut();
        let input = input.ok_or_else(|| Error::internal("the holder has no input"))?;
        writeln!(input, "{word}").during(|| "speak to the holder of the namespaces")
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it live on.
    fn leave(self, place: &Place) -> Result<()> {
        let pid = self.child.id();
        place.write(&place.child_pid(), pid.to_string().as_bytes())?;
        supervise::reap(self.child, "holder-end")
    }
}

/// The holder: returns only when something failed, which it has told by then.
pub(super) fn main(place: &Place, again: bool) -> Result<()> {
    let made = match again {
        true => super::enter::all(place, place.other_inhabitant()?),
        false => make(place),
    };
    let mut output = std::io::stdout();
    // A parent that has gone meanwhile does not hear it; the next one finds us by the lock.
    if let Err(e) = made {
        let _ = writeln!(output, "{e}");
        return Err(e);
    }
    let _ = writeln!(output, "{READY}");
    let _ = output.flush();
    quiet()?;
    loop {
        nix::unistd::pause();
    }
}

/// Lets go of the parent's pipes.
fn quiet() -> Result<()> {
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .during(|| "open /dev/null")?;
    nix::unistd::dup2_stdin(&null).during(|| "let go of the input")?;
    nix::unistd::dup2_stdout(&null).during(|| "let go of the output")
}

fn make(place: &Place) -> Result<()> {
    let mut flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    if crate::container::start::cgroup_v2() {
        flags |= CloneFlags::CLONE_NEWCGROUP;
    }
    unshare(flags).during(|| "make a user namespace (see: dockerd-lite rootless setup check)")?;
    let mut output = std::io::stdout();
    writeln!(output, "{UNSHARED}").during(|| "speak to the parent")?;
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .during(|| "hear from the parent")?;
    if line.trim_end() != MAPPED {
        return Err(Error::internal("the parent has gone"));
    }
    // What the host mounts later is to be seen here; what is mounted here, not there.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .during(|| "make / a slave of the host's mounts")?;
    for dir in ["/etc", "/run"] {
        copy_up(Path::new(dir))?;
    }
    // Those of the host's daemons must not be met.
    for name in ["/run/docker", "/run/containerd", "/run/xtables.lock"] {
        match std::fs::remove_file(name) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::from(e).during(format!("remove the link {name}")));
            }
            _ => {}
        }
    }
    pin(&place.netns())?;
    lo_up()
}

/// Pins our network namespace, for the daemon and for a holder to come.
fn pin(netns: &PathBuf) -> Result<()> {
    let what = || format!("pin the network namespace at {}", netns.display());
    std::fs::write(netns, "").during(what)?;
    mount_bind("/proc/self/ns/net", netns).during(what)
}

fn lo_up() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .during(|| "start the runtime of netlink")?;
    let up = async {
        let (connection, handle, _) = rtnetlink::new_connection().during(|| "open netlink")?;
        tokio::spawn(connection);
        let up = rtnetlink::LinkUnspec::new_with_index(1).up().build();
        let set = handle.link().set(up).execute().await;
        set.map_err(|e| Error::internal(format!("set lo up: {e}")))
    };
    runtime.block_on(up)
}
