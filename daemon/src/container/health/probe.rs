//! One probe: an exec with a deadline, whose output is kept up to a bound.

use std::sync::Arc;
use std::time::Duration;

use proto::containerd::services::tasks::v1::KillRequest;
use proto::engine::{ExecConfig, HealthResult};
use proto::error::ErrorKind;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

use super::state::{OUTPUT, Settings};
use crate::App;
use crate::backend::{QUICK, within};
use crate::clock;
use crate::container::exec::{self, Exec, Stage};
use crate::container::{Connection, Handle};
use crate::error::{Error, Result};
use crate::frames::Unframer;

/// How long a killed probe may take to be gone.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// How long the rest of a probe's output may take: a child of it may hold it open.
const REST: Duration = Duration::from_millis(500);

/// Runs one. None if nothing can be said: the container is ending, or containerd does not answer.
pub(super) async fn run(
    app: &Arc<App>,
    handle: &Handle,
    settings: &Settings,
) -> Option<HealthResult> {
    let start = clock::now();
    let outcome = attempt(app, handle, settings).await;
    let (exit_code, output) = match outcome {
        Ok(Some(told)) => told,
        Ok(None) => return None,
        Err(e) if says_nothing(&e) => {
            tracing::debug!("probe container {}: {e}", handle.id());
            return None;
        }
        Err(e) => (-1, e.message().to_owned()),
    };
    Some(HealthResult {
        start,
        end: clock::now(),
        exit_code,
        output,
    })
}

/// Whether a failed probe is no news of the container.
fn says_nothing(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable
            | ErrorKind::DeadlineExceeded
            | ErrorKind::NotFound
            | ErrorKind::FailedPrecondition
    )
}

/// The exit code and the output; none when it ended in a way that is no news.
async fn attempt(
    app: &Arc<App>,
    handle: &Handle,
    settings: &Settings,
) -> Result<Option<(i64, String)>> {
    let config = ExecConfig {
        attach_stdout: true,
        attach_stderr: true,
        cmd: Some(settings.command.clone()),
        ..ExecConfig::default()
    };
    let exec = exec::create_probe(app, handle, config)?;
    let deadline = tokio::time::Instant::now() + settings.timeout;
    let started = exec::start(app, handle, &exec, true, None).await;
    let connection = match started {
        Ok(connection) => connection,
        Err(e) => {
            exec::drop_probe(app, handle, &exec);
            return Err(e);
        }
    };
    let mut output = Output::default();
    let over = follow(&exec, connection, &mut output);
    if tokio::time::timeout_at(deadline, over).await.is_ok() {
        let code = match exec.stage() {
            Stage::Ended { code, .. } => code,
            _ => return Ok(None),
        };
        return Ok(Some((code, output.text())));
    }
    kill(app, handle, &exec).await?;
    let text = output.text();
    let limit = human(settings.timeout);
    Ok(Some(match text.is_empty() {
        true => (-1, format!("Health check exceeded timeout ({limit})")),
        false => (
            -1,
            format!("Health check exceeded timeout ({limit}): {text}"),
        ),
    }))
}

/// Reads the output until the probe has ended.
async fn follow(exec: &Exec, connection: Option<Connection>, output: &mut Output) {
    let mut watch = exec.watch();
    let ended = watch.wait_for(|stage| matches!(stage, Stage::Ended { .. }));
    let Some(mut connection) = connection else {
        // Fails only when the exec is no more.
        let _ = ended.await;
        return;
    };
    let mut whole = false;
    {
        let read = output.read(&mut connection.output);
        tokio::pin!(read, ended);
        tokio::select! {
            () = &mut read => whole = true,
            _ = &mut ended => {}
        }
        if whole {
            let _ = ended.await;
            return;
        }
    }
    // What a child of the probe writes later is not waited for.
    let _ = tokio::time::timeout(REST, output.read(&mut connection.output)).await;
}

/// Kills a probe and waits for its end.
async fn kill(app: &App, handle: &Handle, exec: &Exec) -> Result<()> {
    let request = KillRequest {
        container_id: handle.id().to_owned(),
        exec_id: exec.id.clone(),
        signal: 9,
        all: false,
    };
    match within(QUICK, app.backend.tasks().kill(request)).await {
        Ok(()) => {}
        Err(e) if e.is_not_found() => return Ok(()),
        Err(e) if e.message().contains("process already finished") => {}
        Err(e) => return Err(e.during(format!("kill health check {}", exec.id))),
    }
    let mut watch = exec.watch();
    let ended = watch.wait_for(|stage| matches!(stage, Stage::Ended { .. }));
    if tokio::time::timeout(AFTER_KILL, ended).await.is_err() {
        tracing::warn!("health check {} does not end", exec.id);
    }
    Ok(())
}

/// Ends the probes that a former monitor of the container left running.
pub(super) async fn end_left_over(app: &Arc<App>, handle: &Handle) {
    let left: Vec<Arc<Exec>> = handle
        .execs()
        .values()
        .filter(|exec| exec.probe)
        .cloned()
        .collect();
    for exec in left {
        if !matches!(exec.stage(), Stage::Ended { .. })
            && let Err(e) = kill(app, handle, &exec).await
        {
            tracing::warn!("{e}");
        }
        exec::drop_probe(app, handle, &exec);
    }
}

/// What a probe has written: both streams as they came, up to the bound.
#[derive(Debug, Default)]
struct Output {
    frames: Unframer,
    bytes: Vec<u8>,
    cut: bool,
}

impl Output {
    /// Reads to the end. Cancelled in the middle, it goes on where it was.
    async fn read(&mut self, from: &mut UnixStream) {
        let mut buffer = [0; 4096];
        loop {
            match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => self.push(&buffer[..n]),
            }
        }
    }

    fn push(&mut self, part: &[u8]) {
        let Self { frames, bytes, cut } = self;
        frames.push(part, |payload| {
            let room = OUTPUT.saturating_sub(bytes.len()).min(payload.len());
            bytes.extend_from_slice(&payload[..room]);
            *cut |= room < payload.len();
        });
    }

    fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.bytes).into_owned();
        if self.cut {
            text.push_str("...");
        }
        text
    }
}

/// A time as Go prints it: `30s`, `1m30s`, `100ms`.
fn human(time: Duration) -> String {
    let (seconds, nanos) = (time.as_secs(), time.subsec_nanos());
    if seconds == 0 {
        return format!("{}ms", f64::from(nanos) / 1e6);
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = (seconds % 60) as f64 + f64::from(nanos) / 1e9;
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_is_cut() {
        let mut long = vec![1, 0, 0, 0, 0, 0, 0x20, 0];
        long.extend(std::iter::repeat_n(b'x', 0x2000));
        let mut output = Output::default();
        output.push(&long);
        assert_eq!(output.text().len(), OUTPUT + 3);
    }

    #[test]
    fn times() {
        for (millis, text) in [
            (100, "100ms"),
            (30_000, "30s"),
            (1500, "1.5s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(human(Duration::from_millis(millis)), text);
        }
    }
}
