//! Messages of nf_tables as the kernel reads and writes them: attributes, transactions, dumps.
//!
//! A transaction is one datagram: begin, the changes, end. The kernel takes all of it or nothing, and between the two states
//! there is no third. Its answers carry the sequence number of the message that they are about; the last change asks for
//! an answer, so that reading ends when that one has come.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    setsockopt, socket, sockopt,
};

use crate::error::{During, Error, Result};

/// The family of tables for IPv4 and IPv6 together.
pub(super) const INET: u8 = 1;
/// The family of tables for IPv4.
pub(crate) const IPV4: u8 = 2;

/// The kinds of messages, led by the number of their subsystem.
pub(crate) mod kind {
    const TABLES: u16 = 10 << 8;
    const TRACKED: u16 = 1 << 8;
    pub(crate) const NEW_TABLE: u16 = TABLES;
    pub(crate) const GET_TABLE: u16 = TABLES | 1;
    pub(crate) const DEL_TABLE: u16 = TABLES | 2;
    pub(crate) const NEW_CHAIN: u16 = TABLES | 3;
    pub(crate) const GET_CHAIN: u16 = TABLES | 4;
    pub(crate) const DEL_CHAIN: u16 = TABLES | 5;
    pub(crate) const NEW_RULE: u16 = TABLES | 6;
    pub(crate) const GET_RULE: u16 = TABLES | 7;
    pub(crate) const DEL_RULE: u16 = TABLES | 8;
    pub(crate) const NEW_SET: u16 = TABLES | 9;
    pub(crate) const GET_SET: u16 = TABLES | 10;
    pub(crate) const DEL_SET: u16 = TABLES | 11;
    pub(crate) const NEW_ELEMENT: u16 = TABLES | 12;
    pub(crate) const GET_ELEMENT: u16 = TABLES | 13;
    pub(crate) const DEL_ELEMENT: u16 = TABLES | 14;
    pub(crate) const GET_TRACKED: u16 = TRACKED | 1;
    pub(crate) const DEL_TRACKED: u16 = TRACKED | 2;
}

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
/// Make what is not there.
pub(crate) const CREATE: u16 = 0x400;
/// Put at the end of a list.
pub(crate) const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
/// Length of the two headers of a message.
const HEADERS: usize = 20;

/// Attributes being written.
#[derive(Debug)]
pub(crate) struct Attributes<'a>(&'a mut Vec<u8>);

impl<'a> Attributes<'a> {
    /// Writes behind what is there.
    pub(crate) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self(bytes)
    }

    /// An attribute of plain bytes.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        let length = (value.len() + 4) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// A number, in network order as this protocol has it.
    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// A text with its final zero.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes);
    }

    /// An attribute of attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend((kind | NESTED).to_ne_bytes());
        fill(&mut Attributes(self.0));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// Attributes being read: kind and bytes of each. What is cut short ends the list.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut list = Vec::new();
    while bytes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3fff;
        if length < 4 || length > bytes.len() {
            break;
        }
        list.push((kind, &bytes[4..length]));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    list
}

/// The bytes of one attribute.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes)
        .into_iter()
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

/// The text of one attribute.
pub(crate) fn text(bytes: &[u8], kind: u16) -> Option<String> {
    let value = attribute(bytes, kind)?;
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    Some(String::from_utf8_lossy(&value[..end]).into_owned())
}

/// The number of one attribute.
pub(crate) fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    let value = attribute(bytes, kind)?.get(..4)?;
    Some(u32::from_be_bytes([value[0], value[1], value[2], value[3]]))
}

/// A transaction being written.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    family: u8,
    sequence: u32,
    last: usize,
    /// What each message does, for its error.
    what: Vec<String>,
}

impl Batch {
    /// An empty transaction on tables of a family.
    pub(crate) fn new(family: u8) -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            family,
            sequence: 0,
            last: 0,
            what: Vec::new(),
        };
        batch.bound(BATCH_BEGIN);
        batch
    }

    /// Whether nothing is to be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.what.is_empty()
    }

    fn bound(&mut self, kind: u16) {
        let start = self.header(kind, REQUEST, 0, 10);
        self.close(start);
    }

    fn header(&mut self, kind: u16, flags: u16, family: u8, resource: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        start
    }

    fn close(&mut self, start: usize) {
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Adds a change; `what` says it for an error.
    pub(crate) fn change(
        &mut self,
        kind: u16,
        flags: u16,
        what: impl Into<String>,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.sequence += 1;
        self.what.push(what.into());
        let start = self.header(kind, REQUEST | flags, self.family, 0);
        fill(&mut Attributes(&mut self.bytes));
        self.close(start);
        self.last = start;
    }

    /// Hands it to the kernel and waits for its word.
    pub(crate) fn commit(mut self, socket: &Socket) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let flags = u16::from_ne_bytes([self.bytes[self.last + 6], self.bytes[self.last + 7]]);
        self.bytes[self.last + 6..self.last + 8].copy_from_slice(&(flags | ACK).to_ne_bytes());
        let last = self.sequence;
        self.bound(BATCH_END);
        socket.send(&self.bytes)?;
        let mut failed = None;
        loop {
            for message in socket.receive()?.messages() {
                if message.kind != ERROR {
                    continue;
                }
                let code = message.code();
                if code != 0 && failed.is_none() {
                    let at = (message.sequence as usize).saturating_sub(1);
                    let what = self.what.get(at).map_or("change the rules", String::as_str);
                    let cause = std::io::Error::from_raw_os_error(-code);
                    failed = Some(Error::from(cause).during(what));
                }
                // A refusal of the whole carries the number of its beginning.
                if message.sequence == last || (code != 0 && message.sequence == 0) {
                    return failed.map_or(Ok(()), Err);
                }
            }
        }
    }
}

/// A socket to the packet filter of this thread's network namespace.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// One read's worth of messages.
#[derive(Debug)]
struct Read(Vec<u8>);

/// A message of the kernel.
#[derive(Debug)]
struct Message<'a> {
    kind: u16,
    sequence: u32,
    /// What follows the first header.
    body: &'a [u8],
}

impl Message<'_> {
    /// The error number of an answer: zero or negative.
    fn code(&self) -> i32 {
        match self.body.get(..4) {
            Some(b) => i32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            None => 0,
        }
    }
}

impl Read {
    fn messages(&self) -> Vec<Message<'_>> {
        let mut list = Vec::new();
        let mut bytes = self.0.as_slice();
        while bytes.len() >= 16 {
            let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
            if length < 16 || length > bytes.len() {
                break;
            }
            list.push(Message {
                kind: u16::from_ne_bytes([bytes[4], bytes[5]]),
                sequence: u32::from_ne_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
                body: &bytes[16..length],
            });
            bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
        }
        list
    }
}

/// Room for the largest transaction: some ten thousands of elements.
const SEND_BUFFER: usize = 16 << 20;

impl Socket {
    /// Opens one.
    pub(crate) fn open() -> Result<Self> {
        let what = || "open the packet filter of the kernel (nf_tables)";
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .during(what)?;
        // Without the privilege the ordinary size must do.
        let _ = setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER);
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &(1 << 20));
        // The kernel answers at once; whatever keeps it from it must not hold up the daemon for ever.
        let patience = nix::sys::time::TimeVal::new(10, 0);
        setsockopt(&fd, sockopt::ReceiveTimeout, &patience).during(what)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).during(what)?;
        Ok(Self(fd))
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        let to = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), bytes, &to, MsgFlags::empty())
            .during(|| format!("send {} bytes to the packet filter", bytes.len()))?;
        Ok(())
    }

    fn receive(&self) -> Result<Read> {
        let mut bytes = vec![0; 64 << 10];
        let length = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty())
            .during(|| "read from the packet filter")?;
        bytes.truncate(length);
        Ok(Read(bytes))
    }

    /// Asks for one thing outside of a transaction, and waits for the kernel's word.
    pub(crate) fn request(
        &self,
        kind: u16,
        family: u8,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) -> Result<(), nix::errno::Errno> {
        let mut request = Batch {
            bytes: Vec::new(),
            family,
            sequence: 8,
            last: 0,
            what: Vec::new(),
        };
        let start = request.header(kind, REQUEST | ACK, family, 0);
        fill(&mut Attributes(&mut request.bytes));
        request.close(start);
        let to = NetlinkAddr::new(0, 0);
        sendto(self.0.as_raw_fd(), &request.bytes, &to, MsgFlags::empty())?;
        let mut bytes = vec![0; 4096];
        let length = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
        bytes.truncate(length);
        let read = Read(bytes);
        let code = read.messages().first().map_or(0, Message::code);
        match code {
            0 => Ok(()),
            code => Err(nix::errno::Errno::from_raw(-code)),
        }
    }

    /// Lists what a question is about: the attributes of each object. What is not there is an empty list.
    pub(crate) fn list(
        &self,
        kind: u16,
        family: u8,
        fill: impl FnOnce(&mut Attributes<'_>),
    ) -> Result<Vec<Vec<u8>>> {
        let mut question = Batch {
            bytes: Vec::new(),
            family,
            sequence: 7,
            last: 0,
            what: Vec::new(),
        };
        let start = question.header(kind, REQUEST | DUMP, family, 0);
        fill(&mut Attributes(&mut question.bytes));
        question.close(start);
        self.send(&question.bytes)?;
        let mut found = Vec::new();
        loop {
            for message in self.receive()?.messages() {
                match message.kind {
                    DONE => return Ok(found),
                    ERROR => {
                        let code = message.code();
                        if code == -(nix::errno::Errno::ENOENT as i32) {
                            return Ok(found);
                        }
                        let cause = std::io::Error::from_raw_os_error(-code);
                        return Err(Error::from(cause).during("list the packet filter's rules"));
                    }
                    _ => found.extend(message.body.get(HEADERS - 16..).map(<[u8]>::to_vec)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        let mut attributes = Attributes::new(&mut bytes);
        attributes.text(1, "table");
        attributes.nest(4, |inner| {
            inner.number(2, 7);
            inner.put(3, &[1]);
        });
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(text(&bytes, 1).unwrap(), "table");
        let inner = attribute(&bytes, 4).unwrap();
        assert_eq!(number(inner, 2), Some(7));
        assert_eq!(attribute(inner, 3), Some(&[1u8][..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for (kind, value) in attributes(&bytes) {
                let _ = (kind, number(value, 1), text(value, 1));
            }
            for message in Read(bytes).messages() {
                let _ = message.code();
            }
        }
    }
}
