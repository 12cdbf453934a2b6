//! Syslog: where it is reached, and how a line is written, by the options `syslog-address`, `syslog-facility` and `syslog-format`.

use std::io;
use std::path::PathBuf;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UdpSocket, UnixDatagram, UnixStream};

use super::Line;
use crate::clock;
use crate::container::Record;
use crate::error::{Error, Result};

/// Where the host's own syslog may listen.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const PORT: &str = "514";

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
/// The facility of those who name none.
const DAEMON: u32 = 3;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

#[derive(Debug, Clone, PartialEq)]
enum Address {
    Local,
    Udp(String),
    Tcp(String),
    Unix(PathBuf),
    Datagrams(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    /// RFC 3164, with the host's name only where the line leaves the host.
    Plain,
    Rfc3164,
    Rfc5424,
    Rfc5424Micro,
}

#[derive(Debug)]
enum Connection {
    Udp(UdpSocket),
    Tcp(TcpStream),
    Unix(UnixStream),
    Datagrams(UnixDatagram),
}

/// A syslog, as one container writes to it.
#[derive(Debug)]
pub(super) struct Syslog {
    address: Address,
    format: Format,
    facility: u32,
    tag: String,
    host: String,
    connection: Option<Connection>,
}

/// Checks one option.
pub(crate) fn check(key: &str, value: &str) -> Result<()> {
    match key {
        "syslog-address" => address(value).map(drop),
        "syslog-facility" => facility(value).map(drop),
        "syslog-format" => format(value).map(drop),
        _ => Ok(()),
    }
}

fn address(text: &str) -> Result<Address> {
    let wrong = |why: &str| Error::invalid(format!("invalid syslog-address {text:?}: {why}"));
    if text.is_empty() {
        return Ok(Address::Local);
    }
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| wrong("want SCHEME://PLACE"))?;
    let host = || match rest.rsplit_once(':') {
        _ if rest.is_empty() || rest.contains('/') => Err(wrong("want HOST[:PORT]")),
        Some((_, port)) if port.parse::<u16>().is_ok() => Ok(rest.to_owned()),
        Some((_, port)) if !port.ends_with(']') => Err(wrong("the port is no number")),
        _ => Ok(format!("{rest}:{PORT}")),
    };
    let path = || match rest.starts_with('/') {
        true => Ok(PathBuf::from(rest)),
        false => Err(wrong("want an absolute path")),
    };
    match scheme {
        "udp" => host().map(Address::Udp),
        "tcp" => host().map(Address::Tcp),
        "unix" => path().map(Address::Unix),
        "unixgram" => path().map(Address::Datagrams),
        "tcp+tls" => Err(Error::unimplemented("syslog over TLS is not supported yet")),
        _ => Err(wrong("unknown scheme")),
    }
}

fn facility(text: &str) -> Result<u32> {
    let by_name = || FACILITIES.iter().position(|name| *name == text);
    let number = match text {
        "" => Some(DAEMON),
        text => match text.parse::<u32>() {
            Ok(number) => Some(number).filter(|number| *number <= 23),
            Err(_) => by_name().and_then(|at| u32::try_from(at).ok()),
        },
    };
    number.ok_or_else(|| Error::invalid(format!("invalid syslog facility {text}")))
}

fn format(text: &str) -> Result<Format> {
    match text {
        "" => Ok(Format::Plain),
        "rfc3164" => Ok(Format::Rfc3164),
        "rfc5424" => Ok(Format::Rfc5424),
        "rfc5424micro" => Ok(Format::Rfc5424Micro),
        _ => Err(Error::invalid(format!("invalid syslog format {text}"))),
    }
}

impl Syslog {
    pub(super) fn new(record: &Record) -> Result<Self> {
        let options = &record.host.log_config.config;
        let option = |key: &str| options.get(key).map_or("", String::as_str);
        let tag = crate::logs::attributes(record).remove("tag");
        Ok(Self {
            address: address(option("syslog-address"))?,
            format: format(option("syslog-format"))?,
            facility: facility(option("syslog-facility"))?,
            tag: tag.unwrap_or_else(|| record.short().to_owned()),
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            connection: None,
        })
    }

    pub(super) async fn send(&mut self, line: &Line<'_>) -> io::Result<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let text = self.text(line);
        match &mut connection {
            Connection::Udp(socket) => socket.send(text.as_bytes()).await.map(drop)?,
            Connection::Datagrams(socket) => socket.send(text.as_bytes()).await.map(drop)?,
            Connection::Tcp(stream) => stream.write_all(self.framed(text).as_bytes()).await?,
            Connection::Unix(stream) => stream.write_all(self.framed(text).as_bytes()).await?,
        }
        // One that failed is made anew.
        self.connection = Some(connection);
        Ok(())
    }

    async fn connect(&self) -> io::Result<Connection> {
        match &self.address {
            Address::Udp(host) => udp(host).await.map(Connection::Udp),
            Address::Tcp(host) => TcpStream::connect(host).await.map(Connection::Tcp),
            Address::Unix(path) => UnixStream::connect(path).await.map(Connection::Unix),
            Address::Datagrams(path) => datagrams(path),
            Address::Local => {
                let mut outcome = Err(io::ErrorKind::NotFound.into());
                for path in LOCAL {
                    outcome = datagrams(path.as_ref());
                    if outcome.is_err()
                        && let Ok(stream) = UnixStream::connect(path).await
                    {
                        outcome = Ok(Connection::Unix(stream));
                    }
                    if outcome.is_ok() {
                        break;
                    }
                }
                outcome
            }
        }
    }

    fn text(&self, line: &Line<'_>) -> String {
        let severity = if line.error { 3 } else { 6 };
        let priority = self.facility * 8 + severity;
        let (tag, host, pid, text) = (&self.tag, &self.host, std::process::id(), line.text);
        let away = matches!(self.address, Address::Udp(_) | Address::Tcp(_));
        match self.format {
            Format::Plain if !away => {
                format!("<{priority}>{} {tag}[{pid}]: {text}", stamp(line.time))
            }
            Format::Plain | Format::Rfc3164 => {
                format!(
                    "<{priority}>{} {host} {tag}[{pid}]: {text}",
                    stamp(line.time)
                )
            }
            Format::Rfc5424 => {
                let time = cut(line.time, 0);
                format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - {text}")
            }
            Format::Rfc5424Micro => {
                let time = cut(line.time, 6);
                format!("<{priority}>1 {time} {host} {tag} {pid} {tag} - {text}")
            }
        }
    }

    /// How a line ends in a stream.
    fn framed(&self, text: String) -> String {
        match self.format {
            Format::Rfc5424 | Format::Rfc5424Micro => format!("{} {text}", text.len()),
            Format::Plain | Format::Rfc3164 => format!("{text}\n"),
        }
    }
}

async fn udp(host: &str) -> io::Result<UdpSocket> {
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for address in tokio::net::lookup_host(host).await? {
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).await?;
        outcome = socket.connect(address).await.map(|()| socket);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn datagrams(path: &std::path::Path) -> io::Result<Connection> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(Connection::Datagrams(socket))
}

/// `Jan  2 15:04:05` of a moment.
fn stamp(time: &str) -> String {
    let Some(moment) = clock::parse(time) else {
        return "Jan  1 00:00:00".into();
    };
    let month = MONTHS[usize::from(u8::from(moment.month())) - 1];
    let (hour, minute, second) = moment.to_hms();
    format!(
        "{month} {:>2} {hour:02}:{minute:02}:{second:02}",
        moment.day()
    )
}

/// A moment with so many digits of fraction of the nine that it has.
fn cut(time: &str, digits: usize) -> String {
    match time.trim_end_matches('Z').split_once('.') {
        Some((seconds, fraction)) if digits > 0 => {
            format!("{seconds}.{}Z", fraction.get(..digits).unwrap_or(fraction))
        }
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_facilities_and_formats() {
        assert_eq!(address("").unwrap(), Address::Local);
        assert_eq!(address("udp://h").unwrap(), Address::Udp("h:514".into()));
        assert_eq!(
            address("tcp://[::1]:5").unwrap(),
            Address::Tcp("[::1]:5".into())
        );
        assert_eq!(
            address("tcp://[::1]").unwrap(),
            Address::Tcp("[::1]:514".into())
        );
        assert_eq!(
            address("unixgram:///l").unwrap(),
            Address::Datagrams("/l".into())
        );
        for bad in [
            "x",
            "udp://",
            "udp://h:x",
            "unix://l",
            "ftp://h",
            "tcp+tls://h",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert_eq!(facility("local7").unwrap(), 23);
        assert_eq!((facility("").unwrap(), facility("4").unwrap()), (3, 4));
        assert!(facility("24").is_err() && facility("none").is_err());
        assert!(format("rfc5424micro").is_ok() && format("x").is_err());
    }

    #[test]
    fn lines_as_their_format_has_them() {
        let mut syslog = Syslog {
            address: Address::Local,
            format: Format::Plain,
            facility: DAEMON,
            tag: "tag".into(),
            host: "host".into(),
            connection: None,
        };
        let line = Line {
            error: true,
            time: "2020-02-03T04:05:06.123456789Z",
            text: "said",
            partial: false,
        };
        let pid = std::process::id();
        let plain = format!("<27>Feb  3 04:05:06 tag[{pid}]: said");
        assert_eq!(syslog.text(&line), plain);
        assert_eq!(syslog.framed(plain.clone()), format!("{plain}\n"));
        syslog.format = Format::Rfc5424Micro;
        let text = syslog.text(&line);
        assert_eq!(
            text,
            format!("<27>1 2020-02-03T04:05:06.123456Z host tag {pid} tag - said")
        );
        assert!(
            syslog
                .framed(text.clone())
                .starts_with(&format!("{} <27>", text.len()))
        );
        syslog.format = Format::Rfc5424;
        assert!(syslog.text(&line).contains(" 2020-02-03T04:05:06Z "));
    }
}
