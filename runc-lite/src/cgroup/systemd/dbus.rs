//! A connection to a systemd instance: one call at a time, blocking, with a
//! deadline.
//!
//! systemd listens on a socket of its own for the user it runs as, without a bus
//! in between; that is tried first, as it works before there is a bus and saves
//! a process. The bus comes next, where its socket alone was handed into a
//! container.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::wire::{self, FIXED, Method, Reader, Received, Writer};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const OBJECT: &str = "/org/freedesktop/systemd1";
/// How long systemd may take for an answer or a job.
const PATIENCE: Duration = Duration::from_secs(30);

/// What went wrong between us and systemd.
#[derive(Debug, thiserror::Error)]
pub enum DbusError {
    /// Nobody listens.
    #[error("connect to {}", path.display())]
    Connect {
        /// The last socket tried.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The other side does not believe who we are.
    #[error("authentication refused: {0:?}")]
    Refused(String),
    /// The connection broke.
    #[error("talk to systemd")]
    Io(#[from] io::Error),
    /// What arrived cannot be understood.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// systemd said no.
    #[error("{message} ({name})")]
    Remote {
        /// Name of the error.
        name: String,
        /// Its text.
        message: String,
    },
    /// A job ended otherwise than well.
    #[error("the job of unit {unit} ended as {result:?}")]
    Job {
        /// The unit.
        unit: String,
        /// What became of the job.
        result: String,
    },
}

impl DbusError {
    /// Whether it is systemd's error of this name.
    pub(super) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Remote { name, .. } if name.strip_prefix(SYSTEMD).and_then(|n| n.strip_prefix('.')) == Some(wanted))
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<UnixStream>,
    serial: u32,
    /// Jobs that ended while something else was waited for: object, result.
    ended: Vec<(String, String)>,
}

impl Connection {
    /// Connects to the system's instance, or to that of the calling user.
    pub(super) fn open(user: bool) -> Result<Self, DbusError> {
        let (private, bus) = addresses(user);
        match Self::connect(&private) {
            Ok(connection) => return Ok(connection),
            Err(e) => crate::log::debug(|| crate::error::chain(&e)),
        }
        let mut connection = Self::connect(&bus)?;
        connection.join_bus()?;
        Ok(connection)
    }

    fn connect(path: &Path) -> Result<Self, DbusError> {
        let failed = |source| DbusError::Connect {
            path: path.to_owned(),
            source,
        };
        let stream = UnixStream::connect(path).map_err(failed)?;
        Self::greet(stream)
    }

    /// Lets the other side take who we are from the socket. All is said at once:
    /// systemd does not look at a message again that it has read together with
    /// the BEGIN before it, so none is sent until it has answered.
    fn greet(stream: UnixStream) -> Result<Self, DbusError> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut connection = Self {
            stream: BufReader::new(stream),
            serial: 0,
            ended: Vec::new(),
        };
        connection.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let mut line = connection.line()?;
        if line == "DATA" {
            line = connection.line()?;
        }
        if !line.starts_with("OK") {
            return Err(DbusError::Refused(line));
        }
        Ok(connection)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), DbusError> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }

    /// A line before messages begin.
    fn line(&mut self) -> Result<String, DbusError> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(512).read_until(b'\n', &mut line);
        read.map_err(timed)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
            None => Err(DbusError::Malformed("line of the authentication")),
        }
    }

    /// On a bus we need a name, and signals only come to who asks for them.
    fn join_bus(&mut self) -> Result<(), DbusError> {
        let bus = |member, signature| Method {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member,
            signature,
        };
        self.call(&bus("Hello", ""), &Writer::default())?;
        let mut rule = Writer::default();
        rule.text(&format!(
            "type='signal',interface='{MANAGER}',member='JobRemoved'"
        ));
        self.call(&bus("AddMatch", "s"), &rule)?;
        self.manager("Subscribe", "", &Writer::default()).map(drop)
    }

    /// Calls a method of systemd's manager object.
    pub(super) fn manager(
        &mut self,
        member: &str,
        signature: &str,
        body: &Writer,
    ) -> Result<Vec<u8>, DbusError> {
        let method = Method {
            destination: SYSTEMD,
            path: OBJECT,
            interface: MANAGER,
            member,
            signature,
        };
        self.call(&method, body)
    }

    /// A property of the manager that is text.
    pub(super) fn property(&mut self, name: &str) -> Result<String, DbusError> {
        let method = Method {
            destination: SYSTEMD,
            path: OBJECT,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            signature: "ss",
        };
        let mut body = Writer::default();
        body.text(MANAGER).text(name);
        let answer = self.call(&method, &body)?;
        let mut r = Reader::new(&answer);
        match r.signature()? {
            "s" => Ok(r.text()?.to_owned()),
            _ => Err(DbusError::Malformed("type of a property")),
        }
    }

    /// Calls a method that starts a job, and waits for its end.
    pub(super) fn job(
        &mut self,
        unit: &str,
        member: &str,
        signature: &str,
        body: &Writer,
    ) -> Result<(), DbusError> {
        let answer = self.manager(member, signature, body)?;
        let job = Reader::new(&answer).text()?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.ended.iter().position(|(j, _)| j == job) {
                let (_, result) = self.ended.swap_remove(at);
                if result == "done" {
                    return Ok(());
                }
                let unit = unit.to_owned();
                return Err(DbusError::Job { unit, result });
            }
            let signal = self.receive(deadline)?;
            self.note(&signal)?;
        }
    }

    fn call(&mut self, method: &Method<'_>, body: &Writer) -> Result<Vec<u8>, DbusError> {
        self.serial += 1;
        let serial = self.serial;
        self.send(&wire::call(serial, method, &body.0))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let received = self.receive(deadline)?;
            match received.kind {
                2 if received.reply_to == serial => return Ok(received.body),
                3 if received.reply_to == serial => {
                    // Most errors bring a text; the name says it all where there is none.
                    let message = Reader::new(&received.body).text().unwrap_or_default();
                    return Err(DbusError::Remote {
                        message: message.to_owned(),
                        name: received.error,
                    });
                }
                _ => self.note(&received)?,
            }
        }
    }

    /// Remembers the end of a job; other signals are none of our business.
    fn note(&mut self, received: &Received) -> Result<(), DbusError> {
        if received.kind == 4 && received.member == "JobRemoved" {
            let mut r = Reader::new(&received.body);
            let (_id, job, _unit, result) = (r.u32()?, r.text()?, r.text()?, r.text()?);
            self.ended.push((job.to_owned(), result.to_owned()));
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Instant) -> Result<Received, DbusError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        self.stream.get_ref().set_read_timeout(Some(left))?;
        let mut fixed = [0; FIXED];
        self.stream.read_exact(&mut fixed).map_err(timed)?;
        let mut rest = vec![0; wire::rest(&fixed)?];
        self.stream.read_exact(&mut rest).map_err(timed)?;
        wire::parse(&fixed, &rest)
    }
}

/// A socket says "would block" when its time is up.
fn timed(e: io::Error) -> io::Error {
    match e.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => e,
    }
}

/// systemd's own socket, and that of the bus.
fn addresses(user: bool) -> (PathBuf, PathBuf) {
    let from_environment = |name: &str| {
        let address = std::env::var(name).ok()?;
        // A list of transports with options; only sockets with a path are of use.
        let unix = address.split(';').find_map(|a| a.strip_prefix("unix:"))?;
        let path = unix.split(',').find_map(|o| o.strip_prefix("path="))?;
        Some(PathBuf::from(path))
    };
    if !user {
        return (
            PathBuf::from("/run/systemd/private"),
            from_environment("DBUS_SYSTEM_BUS_ADDRESS")
                .unwrap_or_else(|| PathBuf::from("/run/dbus/system_bus_socket")),
        );
    }
    let run = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(
        || PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw())),
        PathBuf::from,
    );
    (
        run.join("systemd/private"),
        from_environment("DBUS_SESSION_BUS_ADDRESS").unwrap_or_else(|| run.join("bus")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays systemd: the lines of the greeting, then the given messages after each call.
    fn peer(answers: Vec<Vec<u8>>) -> (UnixStream, std::thread::JoinHandle<()>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut seen = Vec::new();
            while !seen.ends_with(b"BEGIN\r\n") {
                let n = theirs.read(&mut buffer).unwrap();
                seen.extend_from_slice(&buffer[..n]);
            }
            theirs.write_all(b"DATA\r\nOK 12ab\r\n").unwrap();
            for answer in answers {
                theirs.write_all(&answer).unwrap();
            }
            // Until the other side goes.
            while theirs.read(&mut buffer).is_ok_and(|n| n > 0) {}
        });
        (ours, thread)
    }

    /// A signal with this name.
    fn signal(member: &str, body: &Writer) -> Vec<u8> {
        let method = Method {
            destination: "d",
            path: "/p",
            interface: "i",
            member,
            signature: "",
        };
        let mut bytes = wire::call(1, &method, &body.0);
        bytes[1] = 4;
        bytes
    }

    #[test]
    fn a_job_that_ended_before_its_answer_came_is_not_missed() {
        let mut removed = Writer::default();
        removed.u32(7).text("/job/7").text("x.scope").text("done");
        let signal = signal("JobRemoved", &removed);
        let mut body = Writer::default();
        body.text("/job/7");
        // An answer to serial 1: header with the one field that matters.
        let mut answer = Writer(vec![signal[0], 2, 0, 1]);
        answer.u32(body.0.len() as u32).u32(9).u32(8);
        answer.0.extend_from_slice(&[5, 1, b'u', 0]);
        answer.u32(1);
        answer.0.extend_from_slice(&body.0);
        let (stream, thread) = peer(vec![signal, answer.0]);
        let mut connection = Connection::greet(stream).unwrap();
        connection
            .job("x.scope", "StartTransientUnit", "", &Writer::default())
            .unwrap();
        drop(connection);
        thread.join().unwrap();
    }

    #[test]
    fn errors_keep_their_name() {
        let error = DbusError::Remote {
            name: "org.freedesktop.systemd1.UnitExists".into(),
            message: "Unit x already exists.".into(),
        };
        assert!(error.is("UnitExists") && !error.is("NoSuchUnit"));
        assert_eq!(
            error.to_string(),
            "Unit x already exists. (org.freedesktop.systemd1.UnitExists)"
        );
    }
}
