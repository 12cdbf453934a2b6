//! `ssh://[USER@]HOST[:PORT][/SOCKET]`: the daemon of another machine, through `system dial-stdio` there.
//!
//! ssh is the one that the user has, with all his settings. The first command opens a connection to the host and leaves it
//! open for a minute (ssh's ControlMaster), so that many requests and many commands share one.

use std::future::Future as _;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

/// What is run at the other end; a machine has one of the two programs, or both.
const REMOTE: &str = "if command -v docker-lite >/dev/null 2>&1; then exec docker-lite";
const OR_DOCKER: &str = "else exec docker";

/// Where a machine is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    user: Option<String>,
    host: String,
    port: Option<u16>,
    /// The daemon's socket there, if not the usual one.
    socket: Option<String>,
}

impl Target {
    /// Reads what follows `ssh://`.
    pub(super) fn parse(rest: &str) -> Result<Target, &'static str> {
        if rest.contains('?') {
            return Err("extra query after the host");
        }
        if rest.contains('#') {
            return Err("extra fragment after the host");
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err("plain-text password is not supported");
        }
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| "invalid port")?))
            }
            _ => (place, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err("no host specified");
        }
        Ok(Target {
            user: user.filter(|user| !user.is_empty()).map(str::to_string),
            host: host.to_string(),
            port,
            socket: Some(path)
                .filter(|path| !path.is_empty() && *path != "/")
                .map(str::to_string),
        })
    }

    /// The words after `ssh`.
    fn arguments(&self, shared: Option<PathBuf>) -> Vec<String> {
        let mut out: Vec<String> = vec!["-o".into(), "ConnectTimeout=30".into(), "-T".into()];
        if let Some(dir) = shared {
            for option in [
                "ControlMaster=auto".to_string(),
                format!("ControlPath={}/%C", dir.display()),
                "ControlPersist=60".to_string(),
            ] {
                out.extend(["-o".into(), option]);
            }
        }
        if let Some(user) = &self.user {
            out.extend(["-l".into(), user.clone()]);
        }
        if let Some(port) = self.port {
            out.extend(["-p".into(), port.to_string()]);
        }
        out.extend(["--".into(), self.host.clone()]);
        let rest = match &self.socket {
            Some(path) => format!(
                " --host {} system dial-stdio",
                quoted(&format!("unix://{path}"))
            ),
            None => " system dial-stdio".to_string(),
        };
        let script = format!("{REMOTE}{rest}; {OR_DOCKER}{rest}; fi");
        out.extend(["sh".into(), "-c".into(), quoted(&script)]);
        out
    }
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A private folder for the sockets of shared connections; without one nothing is shared.
fn shared_folder() -> Option<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
    let own = rustix::process::geteuid().as_raw();
    let dir = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) => PathBuf::from(dir).join("docker-lite"),
        None => std::env::temp_dir().join(format!("docker-lite-ssh-{own}")),
    };
    // It may be there from before; what counts is whose it is.
    let _ = std::fs::DirBuilder::new().mode(0o700).create(&dir);
    let found = std::fs::symlink_metadata(&dir).ok()?;
    let private = found.is_dir() && found.uid() == own && found.mode() & 0o077 == 0;
    // A socket's path has 107 bytes; ssh adds 40 for the name and 17 while it makes the socket.
    (private && dir.as_os_str().len() < 48).then_some(dir)
}

/// The two pipes of a running ssh.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// Gone once our side has said all.
    input: Option<ChildStdin>,
    output: ChildStdout,
    /// Why ssh ended, asked for if it ends before it brought anything.
    end: Option<oneshot::Receiver<String>>,
}

/// Starts ssh.
pub(super) fn open(target: &Target) -> io::Result<Tunnel> {
    let words = target.arguments(shared_folder());
    let mut child = Command::new("ssh")
        .args(&words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|cause| io::Error::new(cause.kind(), format!("start ssh: {cause}")))?;
    let (tell, end) = oneshot::channel();
    let tunnel = Tunnel {
        input: child.stdin.take(),
        output: child.stdout.take().expect("stdout is piped"),
        end: Some(end),
    };
    let mut stderr = child.stderr.take().expect("stderr is piped");
    tokio::spawn(async move {
        let mut said = vec![0; 4096];
        let mut length = 0;
        let status = loop {
            tokio::select! {
                // A shared connection keeps the pipe open after its first user has gone: the end of ssh counts.
                biased;
                read = stderr.read(&mut said[length..]), if length < 4096 => match read {
                    Ok(0) | Err(_) => break child.wait().await,
                    Ok(n) => length += n,
                },
                status = child.wait() => break status,
            }
        };
        let status = status.map_or_else(|cause| cause.to_string(), exit_text);
        let said = String::from_utf8_lossy(&said[..length]).trim().to_string();
        // Nobody asks when the connection did its work.
        let _ = tell.send(format!(
            "command [ssh {}] has {status}, make sure the URL is valid, and Docker 18.09 or later is installed on the remote host: stderr={said}",
            words.join(" ")
        ));
    });
    Ok(tunnel)
}

fn exit_text(status: std::process::ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exited with exit status {code}"),
        None => format!("ended: {status}"),
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.output).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.end = None;
        } else if let Some(end) = &mut self.end {
            let why = ready!(Pin::new(end).poll(cx));
            self.end = None;
            return Poll::Ready(Err(io::Error::other(
                why.unwrap_or_else(|_| "ssh was lost".to_string()),
            )));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.input {
            Some(input) => match ready!(Pin::new(input).poll_write(cx, buf)) {
                // What ssh has to say comes on the other side.
                Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe && self.end.is_some() => {
                    Poll::Ready(Ok(buf.len()))
                }
                other => Poll::Ready(other),
            },
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_apart() {
        let full = Target::parse("me@box:22/run/d.sock").unwrap();
        assert_eq!(
            full,
            Target {
                user: Some("me".into()),
                host: "box".into(),
                port: Some(22),
                socket: Some("/run/d.sock".into()),
            }
        );
        assert_eq!(Target::parse("[::1]:99").unwrap().host, "::1");
        assert_eq!(Target::parse("[::1]").unwrap().port, None);
        for bad in ["", "me:pw@box", "box?x", "box#x", "box:no"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_remote_command_is_one_word_for_the_shell() {
        let words = Target::parse("me@box:22/a'b").unwrap().arguments(None);
        assert_eq!(
            words[..9],
            [
                "-o",
                "ConnectTimeout=30",
                "-T",
                "-l",
                "me",
                "-p",
                "22",
                "--",
                "box"
            ]
        );
        assert_eq!(words[9..11], ["sh", "-c"]);
        let out = std::process::Command::new("sh")
            .args(["-c", &format!("printf %s {}", words[11])])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(out.stdout).unwrap(),
            r"if command -v docker-lite >/dev/null 2>&1; then exec docker-lite --host 'unix:///a'\''b' system dial-stdio; else exec docker --host 'unix:///a'\''b' system dial-stdio; fi"
        );
    }
}
