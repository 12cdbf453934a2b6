//! As much of rtnetlink as moving a network device takes: find it, read its
//! addresses, change it, add addresses. One request, one answer, no threads.
//!
//! A socket belongs to the network namespace it was opened in, whoever uses it
//! later: that is how one process works in two namespaces.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const EXCL: u16 = 0x200;
const CREATE: u16 = 0x400;
const DUMP: u16 = 0x300;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_FLAGS: u16 = 8;
/// Told anew by the kernel, so not to be given to it.
const IFA_CACHEINFO: u16 = 6;

const IFF_UP: u32 = 1;
const IFA_F_PERMANENT: u32 = 0x80;
/// Duplicate address detection is the other namespace's to begin.
const IFA_F_TENTATIVE: u32 = 0x40;
const SCOPE_GLOBAL: u8 = 0;

const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// An open conversation with one network namespace.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

/// An address of a device, as the kernel told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// struct ifaddrmsg.
    header: [u8; ADDRESS_HEADER],
    attributes: Vec<u8>,
}

impl Netlink {
    /// In the network namespace of the calling process.
    pub(crate) fn open() -> Result<Self, Errno> {
        socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // Protocol 0 is NETLINK_ROUTE.
            None,
        )
        .map(Self)
    }

    /// The number of a device.
    pub(crate) fn index(&self, name: &str) -> Result<u32, Errno> {
        let mut request = Request::new(RTM_GETLINK, 0, &link_header(0, 0, 0));
        request.text(IFLA_IFNAME, name);
        let mut index = None;
        self.ask(request, |kind, body| {
            if kind == RTM_NEWLINK {
                index = body.get(4..8).and_then(word);
            }
        })?;
        index.ok_or(Errno::NODEV)
    }

    /// Its lasting addresses that reach beyond the link.
    pub(crate) fn addresses(&self, index: u32) -> Result<Vec<Address>, Errno> {
        let mut found = Vec::new();
        let request = Request::new(RTM_GETADDR, DUMP, &[0; ADDRESS_HEADER]);
        self.ask(request, |kind, body| {
            if kind == RTM_NEWADDR
                && let Some(address) = Address::of(body, index)
            {
                found.push(address);
            }
        })?;
        Ok(found)
    }

    /// Puts a device up or down.
    pub(crate) fn set_up(&self, index: u32, up: bool) -> Result<(), Errno> {
        let flags = if up { IFF_UP } else { 0 };
        let header = link_header(index, flags, IFF_UP);
        self.ask(Request::new(RTM_NEWLINK, ACK, &header), |_, _| {})
    }

    /// Moves a device, which is down, into another namespace under a name of there.
    pub(crate) fn hand_over(
        &self,
        index: u32,
        namespace: &OwnedFd,
        name: &str,
    ) -> Result<(), Errno> {
        use std::os::fd::AsRawFd as _;
        let mut request = Request::new(RTM_NEWLINK, ACK, &link_header(index, 0, 0));
        request.attribute(
            IFLA_NET_NS_FD,
            &namespace.as_raw_fd().unsigned_abs().to_ne_bytes(),
        );
        request.text(IFLA_IFNAME, name);
        self.ask(request, |_, _| {})
    }

    /// Gives a device an address.
    pub(crate) fn add(&self, index: u32, address: &Address) -> Result<(), Errno> {
        let mut header = address.header;
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let mut request = Request::new(RTM_NEWADDR, ACK | CREATE | EXCL, &header);
        request.0.extend_from_slice(&address.attributes);
        self.ask(request, |_, _| {})
    }

    /// Sends one request and hands each part of the answer to `each`.
    fn ask(&self, request: Request, mut each: impl FnMut(u16, &[u8])) -> Result<(), Errno> {
        let dump = request.flags() & DUMP == DUMP;
        let wait_for_ack = request.flags() & ACK != 0;
        send(self.0.as_fd(), &request.finish(), SendFlags::empty())?;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let (n, _) = recv(self.0.as_fd(), &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..n];
            while let Some((kind, body, next)) = split(rest) {
                match kind {
                    NLMSG_ERROR => {
                        let code = body.get(..4).and_then(word).unwrap_or(0) as i32;
                        return if code == 0 {
                            Ok(())
                        } else {
                            Err(Errno::from_raw_os_error(code.wrapping_neg()))
                        };
                    }
                    NLMSG_DONE => return Ok(()),
                    _ => each(kind, body),
                }
                rest = next;
            }
            if !dump && !wait_for_ack {
                return Ok(());
            }
        }
    }
}

impl Address {
    /// Reads an address message, if it is one to take along.
    fn of(body: &[u8], index: u32) -> Option<Self> {
        let header: [u8; ADDRESS_HEADER] = *body.first_chunk()?;
        let mut attributes = Vec::new();
        let mut flags = u32::from(header[2]);
        for (kind, value) in Attributes(body.get(ADDRESS_HEADER..)?) {
            match kind {
                IFA_FLAGS => flags = word(value)?,
                IFA_CACHEINFO => {}
                _ => put(&mut attributes, kind, value),
            }
        }
        let wanted = word(&header[4..8])? == index
            && header[3] == SCOPE_GLOBAL
            && flags & IFA_F_PERMANENT != 0;
        put(
            &mut attributes,
            IFA_FLAGS,
            &(flags & !IFA_F_TENTATIVE).to_ne_bytes(),
        );
        wanted.then_some(Self { header, attributes })
    }
}

/// A message under construction.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        // Sequence number and sender: one conversation, the kernel knows us.
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(header);
        Self(bytes)
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        put(&mut self.0, kind, value);
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn flags(&self) -> u16 {
        u16::from_ne_bytes([self.0[6], self.0[7]])
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// struct ifinfomsg.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

/// Appends an attribute, padded to four bytes.
fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    bytes.extend_from_slice(&(value.len() as u16 + 4).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

/// The first message: its kind, its body, and what follows.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = word(bytes)? as usize;
    let body = bytes.get(HEADER..length)?;
    let kind = u16::from_ne_bytes(*bytes.get(4..6)?.first_chunk()?);
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

/// Kind and value of each attribute.
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head: [u8; 4] = *self.0.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([head[2], head[3]]), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_loopback_is_found_and_keeps_no_lasting_global_address() {
        let netlink = Netlink::open().unwrap();
        let index = netlink.index("lo").unwrap();
        assert!(index > 0);
        // 127.0.0.1 has scope host.
        assert_eq!(netlink.addresses(index).unwrap(), []);
        assert_eq!(netlink.index("no-such-0").unwrap_err(), Errno::NODEV);
    }

    #[test]
    fn what_is_put_is_read() {
        let mut bytes = Vec::new();
        put(&mut bytes, 7, b"abc");
        put(&mut bytes, 8, b"");
        let read: Vec<_> = Attributes(&bytes).collect();
        assert_eq!(read, [(7, &b"abc"[..]), (8, &b""[..])]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_left(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Address::of(&bytes, 1);
            let mut rest = &bytes[..];
            while let Some((_, _, next)) = split(rest) {
                prop_assert!(next.len() < rest.len());
                rest = next;
            }
        }
    }
}
