//! `dockerd-lite rootless`: finds or starts what belongs to a rootless daemon, and watches over it until the daemon ends.
//!
//! In this order: the namespaces and who holds them, the network helper, the answers on `api.sock`, the daemon. What runs
//! already is found by its lock and left as it is, so a parent that was killed is replaced by starting it again. SIGTERM and
//! SIGINT are for the daemon, whose end is ours; as in root mode, containers stay, and with them the namespaces and the network.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::{Pid, Signal, pidfd_send_signal};
use tokio::signal::unix::{SignalKind, signal};

use super::inside::STATE_DIR;
use super::place::{Place, Settings};
use super::user::User;
use super::{Options, api, hold, ids, network};
use crate::config::Flags;
use crate::error::{During, Error, Result};
use crate::supervise;

/// One that lives longer than this died of something new.
const YOUNG: Duration = Duration::from_secs(5);
/// The longest pause before another try.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the parent that is told to end may take.
const ENDING: Duration = Duration::from_secs(20);

/// What a parent works with.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) place: Place,
    user: User,
    who: ids::Whoami,
    pub(super) settings: Settings,
    daemon: Vec<OsString>,
}

/// Runs it.
pub(super) fn main(options: Options) -> Result<ExitCode> {
    let who = ids::whoami();
    if who.uid == 0 {
        return Err(Error::invalid(
            "this is for ordinary users; root starts dockerd-lite itself",
        ));
    }
    let user = User::of_environment()?;
    let first = [OsString::from("dockerd-lite")];
    let flags = match Flags::try_parse_from(first.iter().chain(&options.daemon)) {
        Ok(flags) => flags,
        Err(e) => {
            // Nobody reads it if that fails.
            let _ = e.print();
            return Ok(ExitCode::from(if e.use_stderr() { 125 } else { 0 }));
        }
    };
    log_to_stderr(flags.wants_debug());
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let state_dir = options.state_dir.clone().unwrap_or(user.state_dir());
    let exec_root = flags
        .exec_root_given()
        .unwrap_or_else(|| user.runtime_dir.join("docker-lite"));
    let place = Place::new(state_dir, exec_root);
    if options.stop_all {
        return stop_all(&place, &user, &options.daemon);
    }
    crate::make_private(&place.dir)?;
    let _lock = lock(&place)?;
    let settings = settings(&place, &options)?;
    let work = Work {
        place,
        user,
        who,
        settings,
        daemon: options.daemon,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .during(|| "start the runtime")?;
    let outcome = runtime.block_on(run(work));
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

fn log_to_stderr(debug: bool) {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .log_internal_errors(false)
        .with_max_level(match debug {
            true => tracing::Level::DEBUG,
            false => tracing::Level::INFO,
        })
        .init();
}

/// Held as long as this process lives.
fn lock(place: &Place) -> Result<File> {
    let what = || format!("lock {}", place.lock().display());
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(place.lock())
        .during(what)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| Error::conflict("another dockerd-lite rootless of this user runs"))
        .during(what)?;
    Ok(file)
}

/// What the namespaces were made with, or what they shall be made with.
fn settings(place: &Place, options: &Options) -> Result<Settings> {
    let lives = place.inhabitant()?.is_some();
    let wanted = |driver| Settings {
        version: 1,
        network: driver,
        mtu: options.net_mtu,
        other: Default::default(),
    };
    match (place.read_settings().filter(|_| lives), options.net) {
        (Some(made), None) => Ok(made),
        (Some(made), Some(asked)) if made.network == asked => Ok(made),
        (Some(made), Some(asked)) => Err(Error::conflict(format!(
            "containers run with --net {}; stop them by dockerd-lite rootless --stop-all before changing it to {}",
            made.network.name(),
            asked.name()
        ))),
        (None, Some(asked)) => Ok(wanted(asked)),
        (None, None) => Ok(wanted(network::choose()?)),
    }
}

/// A process that is watched.
struct Watched {
    ended: tokio::task::JoinHandle<Result<()>>,
    born: Instant,
    pause: Duration,
}

impl Watched {
    fn new(process: Option<OwnedFd>, pause: Duration) -> Self {
        let ended = async move {
            match process {
                Some(process) => supervise::ended(process).await,
                None => std::future::pending().await,
            }
        };
        Self {
            ended: tokio::spawn(ended),
            born: Instant::now(),
            pause,
        }
    }

    /// The next one, or after a failure, which is told, one that has ended already, so that it is tried again.
    fn or_failed(next: Result<Option<OwnedFd>>, pause: Duration) -> Self {
        match next {
            Ok(process) => Self::new(process, pause),
            Err(e) => {
                tracing::error!("{e}");
                Self {
                    ended: tokio::spawn(async { Ok(()) }),
                    born: Instant::now(),
                    pause: pause.max(Duration::from_millis(100)),
                }
            }
        }
    }

    /// How long to wait before the next one is started.
    fn pause(&self) -> Duration {
        match self.born.elapsed() > YOUNG {
            true => Duration::ZERO,
            false => (self.pause * 2).clamp(Duration::from_millis(20), LONGEST_PAUSE),
        }
    }
}

async fn run(work: Work) -> Result<ExitCode> {
    let holder = ensure_holder(&work).await?;
    work.place.write_settings(&work.settings)?;
    let host = crate::network::files::host_resolv(None);
    let resolv = network::resolv(&host, work.settings.network);
    work.place.write(&work.place.resolv(), resolv.as_bytes())?;
    let network = ensure_network(&work, holder.0).await?;
    let answers = tokio::spawn(api::serve(work.clone())?);
    let (mut daemon, process) = ensure_daemon(&work).await?;
    let mut watched = [
        Watched::new(Some(holder.1), Duration::ZERO),
        Watched::new(network, Duration::ZERO),
        Watched::new(Some(process), Duration::ZERO),
    ];
    let mut signals = [
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    ];
    let mut asked = false;
    let code = loop {
        let [term, int, hup] = &mut signals;
        let [holder, network, process] = &mut watched;
        tokio::select! {
            _ = term.recv() => asked |= tell_daemon(&work, Signal::TERM),
            _ = int.recv() => asked |= tell_daemon(&work, Signal::TERM),
            _ = hup.recv() => drop(tell_daemon(&work, Signal::HUP)),
            _ = &mut holder.ended => {
                let pause = holder.pause();
                tracing::warn!("the holder of the namespaces has ended");
                tokio::time::sleep(pause).await;
                let next = ensure_holder(&work).await.map(|(_, process)| Some(process));
                watched[0] = Watched::or_failed(next, pause);
            }
            _ = &mut network.ended => {
                let pause = network.pause();
                tracing::warn!("{} has ended", work.settings.network.name());
                tokio::time::sleep(pause).await;
                let next = async {
                    let (holder, _) = ensure_holder(&work).await?;
                    ensure_network(&work, holder).await
                };
                watched[1] = Watched::or_failed(next.await, pause);
            }
            _ = &mut process.ended => {
                let pause = process.pause();
                if let Some(code) = end_of_daemon(&work, daemon.take(), asked)? {
                    break code;
                }
                tracing::warn!("dockerd-lite has ended");
                tokio::time::sleep(pause).await;
                let (next, process) = ensure_daemon(&work).await?;
                daemon = next;
                watched[2] = Watched::new(Some(process), pause);
            }
        }
    };
    answers.abort();
    // Absent is as good.
    let _ = std::fs::remove_file(work.place.api());
    Ok(code)
}

async fn ensure_holder(work: &Work) -> Result<(Pid, OwnedFd)> {
    let work = work.clone();
    crate::volumes::blocking(move || {
        let place = &work.place;
        if let Some(found) = place.holder()? {
            return Ok(found);
        }
        match place.inhabitant()? {
            Some(_) => hold::start_again(place)?,
            None => hold::start(place, &work.who)?,
        }
        place
            .holder()?
            .ok_or_else(|| Error::unavailable("the holder of the namespaces has ended at once"))
    })
    .await
}

async fn ensure_network(work: &Work, holder: Pid) -> Result<Option<OwnedFd>> {
    let work = work.clone();
    crate::volumes::blocking(move || {
        let Settings { network, mtu, .. } = work.settings;
        network::ensure(&work.place, network, mtu, holder)
    })
    .await
}

/// Finds the daemon, or starts it; one that was found is nobody's child here.
async fn ensure_daemon(work: &Work) -> Result<(Option<Child>, OwnedFd)> {
    let work = work.clone();
    crate::volumes::blocking(move || {
        if let Some((_, process)) = supervise::find_pid(&work.place.daemon_lock())? {
            tracing::info!("found the running dockerd-lite");
            return Ok((None, process));
        }
        let child = daemon_command(&work.place, &work.user, &work.daemon)?
            .spawn()
            .during(|| "start dockerd-lite")?;
        let process = supervise::watched(&child, "dockerd-lite")?;
        Ok((Some(child), process))
    })
    .await
}

/// The daemon in the namespaces, in a session of its own, holding its lock.
fn daemon_command(place: &Place, user: &User, arguments: &[OsString]) -> Result<Command> {
    let own = supervise::own_program()?;
    let mut command = inside(place, user);
    command
        .arg(&own)
        .args(supervise::detached_words(&place.daemon_lock(), &own))
        .args(arguments);
    Ok(command)
}

/// A command in the namespaces; program and arguments follow.
fn inside(place: &Place, user: &User) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args([super::WORD, "enter"])
        .arg(&place.dir)
        .env(STATE_DIR, &place.dir)
        .env("XDG_RUNTIME_DIR", &user.runtime_dir)
        .stdin(Stdio::null());
    command
}

fn tell_daemon(work: &Work, what: Signal) -> bool {
    match supervise::find_pid(&work.place.daemon_lock()) {
        Ok(Some((_, process))) => pidfd_send_signal(&process, what).is_ok(),
        _ => false,
    }
}

/// What a daemon's end means: an exit code of ours, or none if there is to be another one.
fn end_of_daemon(work: &Work, child: Option<Child>, asked: bool) -> Result<Option<ExitCode>> {
    let status = match child {
        Some(mut child) => Some(child.wait().during(|| "wait for dockerd-lite")?),
        None => None,
    };
    if asked || work.place.stopping().exists() {
        return Ok(Some(ExitCode::SUCCESS));
    }
    let code = status.and_then(|status| status.code());
    // One that ended by itself has said why.
    Ok(code.map(|code| ExitCode::from(u8::try_from(code).unwrap_or(1))))
}

/// Stops everything.
fn stop_all(place: &Place, user: &User, arguments: &[OsString]) -> Result<ExitCode> {
    if !place.dir.exists() {
        return Ok(ExitCode::SUCCESS);
    }
    place.write(&place.stopping(), b"")?;
    let outcome = stop_in_order(place, user, arguments);
    if outcome.is_ok() {
        place.clear();
    }
    // It says something to a living parent only.
    let _ = std::fs::remove_file(place.stopping());
    let _ = std::fs::remove_dir(&place.dir);
    outcome.map(|()| ExitCode::SUCCESS)
}

fn stop_in_order(place: &Place, user: &User, arguments: &[OsString]) -> Result<()> {
    if place.inhabitant()?.is_some() {
        let status = inside(place, user)
            .arg(supervise::own_program()?)
            .args(arguments)
            .arg("--stop-all")
            .status()
            .during(|| "run dockerd-lite --stop-all")?;
        if !status.success() {
            return Err(Error::internal(format!(
                "dockerd-lite --stop-all: {status}"
            )));
        }
    }
    // The parent's end is waited for first, for it replaces what dies.
    let start = Instant::now();
    let _lock = loop {
        match lock(place) {
            Ok(lock) => break lock,
            Err(e) if start.elapsed() > ENDING => return Err(e),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    for lock in [place.network_lock(), place.holder_lock()] {
        end(&lock)?;
    }
    Ok(())
}

/// Ends who holds a lock.
fn end(lock: &Path) -> Result<()> {
    use std::os::fd::AsFd;
    let Some((_, process)) = supervise::find_pid(lock)? else {
        return Ok(());
    };
    pidfd_send_signal(&process, Signal::KILL)
        .during(|| format!("end the process of {}", lock.display()))?;
    let mut fds = [nix::poll::PollFd::new(
        process.as_fd(),
        nix::poll::PollFlags::POLLIN,
    )];
    let _ = nix::poll::poll(&mut fds, 5000u16);
    Ok(())
}
