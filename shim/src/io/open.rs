//! Opening what a request names, before the runtime is called. Async only for loggers, which take time to get ready.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::attach::Hub;
use super::log::{JsonFile, Lines};
use super::pump::Sink;
use super::uri::Output;
use super::{Input, IoError, Owner, Prepared, Stdio, Stream, logger};
use crate::sys;

/// Opens what `stdio` names. `hub` is its attach socket, bound earlier by [`Stdio::hub`].
pub(crate) async fn prepare(
    stdio: &Stdio,
    hub: Option<Arc<Hub>>,
    owner: &Owner,
) -> Result<Prepared, IoError> {
    let mut prepared = Prepared {
        child: [None, None, None],
        outputs: Vec::new(),
        stdin: None,
        logger: None,
        hub: hub.clone(),
    };
    let output = Output::parse(&stdio.stdout)?;
    if stdio.terminal {
        let sink = match output {
            Output::Null => Sink::Null,
            output => open_sink(output, Stream::Stdout, &mut None, hub)?,
        };
        prepared.outputs.push((None, sink));
    } else if let Output::Binary {
        program,
        args,
        needs_byte,
    } = output
    {
        let (out_read, out_write) = owned_pipe(owner)?;
        let (err_read, err_write) = owned_pipe(owner)?;
        prepared.child[1] = Some(out_write);
        prepared.child[2] = Some(err_write);
        let logger =
            logger::Logger::start(program, args, needs_byte, [out_read, err_read], owner).await?;
        prepared.logger = Some(logger);
    } else {
        let mut shared = None;
        let both = !matches!(output, Output::Null | Output::Path(_));
        let stderr = match both {
            true => Some(output.clone()),
            false => Some(Output::parse(&stdio.stderr)?),
        };
        for (number, stream, output) in [
            (1, Stream::Stdout, Some(output)),
            (2, Stream::Stderr, stderr),
        ] {
            let Some(output) = output.filter(|o| *o != Output::Null) else {
                continue;
            };
            let sink = open_sink(output, stream, &mut shared, hub.clone())?;
            let (read, write) = owned_pipe(owner)?;
            prepared.child[number] = Some(write);
            prepared.outputs.push((Some(read), sink));
        }
    }
    open_stdin(stdio, owner, &mut prepared)?;
    Ok(prepared)
}

/// The sinks of a relay, which takes what a log or attachers can be: of stdout, and of stderr without a terminal.
pub(super) fn sinks(stdio: &Stdio, hub: Option<&Arc<Hub>>) -> Result<Vec<Sink>, IoError> {
    let output = Output::parse(&stdio.stdout)?;
    if !matches!(output, Output::JsonFile(_) | Output::Attach(_)) {
        return Err(IoError::Uri(format!(
            "relay to {:?}: want a log or an attach socket",
            stdio.stdout
        )));
    }
    let streams: &[Stream] = match stdio.terminal {
        true => &[Stream::Stdout],
        false => &[Stream::Stdout, Stream::Stderr],
    };
    let mut shared = None;
    streams
        .iter()
        .map(|stream| open_sink(output.clone(), *stream, &mut shared, hub.cloned()))
        .collect()
}

fn open_stdin(stdio: &Stdio, owner: &Owner, prepared: &mut Prepared) -> Result<(), IoError> {
    if stdio.stdin.is_empty() {
        return Ok(());
    }
    let path = Path::new(&stdio.stdin);
    let from = open(path, OFlags::RDONLY | OFlags::NONBLOCK, "open stdin")?;
    if !is_fifo(path) {
        if !stdio.terminal {
            prepared.child[0] = Some(from);
        }
        return Ok(());
    }
    let keep = Some(open(path, OFlags::WRONLY | OFlags::NONBLOCK, "open stdin")?);
    let to = if stdio.terminal {
        None
    } else {
        let (read, write) = owned_pipe(owner)?;
        prepared.child[0] = Some(read);
        Some(write)
    };
    prepared.stdin = Some(Input { from, keep, to });
    Ok(())
}

fn open_sink(
    output: Output,
    stream: Stream,
    shared: &mut Option<Arc<Mutex<JsonFile>>>,
    hub: Option<Arc<Hub>>,
) -> Result<Sink, IoError> {
    Ok(match output {
        Output::Null => Sink::Null,
        Output::Path(path) if is_fifo(&path) => {
            // Both ends: as long as we live the fifo neither ends nor breaks when its reader leaves and returns.
            let fd = open(&path, OFlags::RDWR | OFlags::NONBLOCK, "open fifo")?;
            let fd = sys::watch(fd).map_err(|source| IoError::Path {
                attempt: "watch fifo",
                path,
                source,
            })?;
            Sink::fifo(fd)
        }
        Output::Path(path) => Sink::File(append(&path, false)?),
        Output::File(path) => Sink::File(append(&path, true)?),
        Output::Attach(_) => Sink::Journal {
            stream,
            log: None,
            lines: Lines::default(),
            hub,
        },
        Output::JsonFile(config) => {
            let log = match shared {
                Some(log) => log.clone(),
                None => {
                    let log = JsonFile::open(&config).map_err(|source| IoError::Path {
                        attempt: "open log",
                        path: config.path.clone(),
                        source,
                    })?;
                    shared.insert(Arc::new(Mutex::new(log))).clone()
                }
            };
            Sink::Journal {
                stream,
                log: Some(log),
                lines: Lines::default(),
                hub,
            }
        }
        Output::Binary { program, .. } => {
            return Err(IoError::Uri(format!(
                "logger {} cannot serve a terminal",
                program.display()
            )));
        }
    })
}

fn append(path: &Path, create: bool) -> Result<File, IoError> {
    std::fs::OpenOptions::new()
        .append(true)
        .create(create)
        .mode(0o644)
        .open(path)
        .map_err(|source| IoError::Path {
            attempt: "open",
            path: path.to_owned(),
            source,
        })
}

fn open(path: &Path, flags: OFlags, attempt: &'static str) -> Result<OwnedFd, IoError> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|e| IoError::Path {
        attempt,
        path: path.to_owned(),
        source: e.into(),
    })
}

fn is_fifo(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.file_type().is_fifo())
}

/// A pipe that belongs to the container's root user, who may open it again through `/proc/self/fd`.
fn owned_pipe(owner: &Owner) -> Result<(OwnedFd, OwnedFd), IoError> {
    let (read, write) = sys::pipe().map_err(IoError::Pipe)?;
    if (owner.uid, owner.gid) != (0, 0) {
        for end in [&read, &write] {
            rustix::fs::fchown(
                end,
                Some(Uid::from_raw(owner.uid)),
                Some(Gid::from_raw(owner.gid)),
            )
            .map_err(|e| IoError::Pipe(e.into()))?;
        }
    }
    Ok((read, write))
}
