//! The few expressions of nf_tables that our rules consist of. Each writes itself behind the ones before it.

use super::wire::Attributes;

/// The verdict register.
const VERDICT: u32 = 0;
/// The first of the 4-byte registers; keys of several parts begin here.
const FIRST: u32 = 8;

/// What a packet's fate is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
}

impl Verdict {
    /// Writes it as data.
    pub(super) fn write(&self, data: &mut Attributes<'_>) {
        data.nest(2, |verdict| {
            verdict.number(1, self.code() as u32);
            if let Self::Jump(chain) = self {
                verdict.text(2, chain);
            }
        });
    }

    /// Its number.
    pub(super) fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Return => -5,
        }
    }
}

/// What the kernel knows of a packet beside its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Meta {
    InName = 6,
    OutName = 7,
    Family = 15,
    Protocol = 16,
}

/// A rule being written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Rule {
    bytes: Vec<u8>,
}

impl Rule {
    /// A rule without a condition.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Its expressions as they are sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn add(mut self, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) -> Self {
        Attributes::new(&mut self.bytes).nest(1, |element| {
            element.text(1, name);
            element.nest(2, fill);
        });
        self
    }

    fn meta(self, what: Meta, register: u32) -> Self {
        self.add("meta", |a| {
            a.number(2, what as u32);
            a.number(1, register);
        })
    }

    fn compare(self, register: u32, equal: bool, value: &[u8]) -> Self {
        self.add("cmp", |a| {
            a.number(1, register);
            a.number(2, u32::from(!equal));
            a.nest(3, |data| data.put(1, value));
        })
    }

    fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Self {
        self.add("payload", |a| {
            a.number(1, register);
            a.number(2, base);
            a.number(3, offset);
            a.number(4, length);
        })
    }

    fn mask(self, register: u32, mask: &[u8]) -> Self {
        self.add("bitwise", |a| {
            a.number(1, register);
            a.number(2, register);
            a.number(3, mask.len() as u32);
            a.nest(4, |data| data.put(1, mask));
            a.nest(5, |data| data.put(1, &vec![0; mask.len()]));
        })
    }

    fn name(value: &str) -> [u8; 16] {
        let mut name = [0; 16];
        let length = value.len().min(15);
        name[..length].copy_from_slice(&value.as_bytes()[..length]);
        name
    }

    /// Came in by this interface, or by another one.
    pub(crate) fn came_by(self, interface: &str, equal: bool) -> Self {
        self.meta(Meta::InName, 1)
            .compare(1, equal, &Self::name(interface))
    }

    /// Goes out by this interface, or by another one.
    pub(crate) fn goes_by(self, interface: &str, equal: bool) -> Self {
        self.meta(Meta::OutName, 1)
            .compare(1, equal, &Self::name(interface))
    }

    /// Is of IPv4 or of IPv6.
    pub(crate) fn family(self, v6: bool) -> Self {
        self.meta(Meta::Family, 1)
            .compare(1, true, &[if v6 { 10 } else { 2 }])
    }

    /// Is of this protocol above IP.
    pub(crate) fn protocol(self, number: u8) -> Self {
        self.meta(Meta::Protocol, 1).compare(1, true, &[number])
    }

    /// Belongs to a connection that was let through.
    pub(crate) fn established(self) -> Self {
        const ESTABLISHED_OR_RELATED: u32 = 6;
        self.tracked(0, ESTABLISHED_OR_RELATED)
    }

    /// Had its destination translated.
    pub(crate) fn translated(self) -> Self {
        const DESTINATION: u32 = 1 << 5;
        self.tracked(2, DESTINATION)
    }

    fn tracked(self, key: u32, bits: u32) -> Self {
        self.add("ct", |a| {
            a.number(2, key);
            a.number(1, 1);
        })
        .mask(1, &bits.to_ne_bytes())
        .compare(1, false, &[0; 4])
    }

    /// Is addressed to this host.
    pub(crate) fn addressed_here(self) -> Self {
        const DESTINATION: u32 = 2;
        const ADDRESS_TYPE: u32 = 3;
        const LOCAL: u32 = 2;
        self.add("fib", |a| {
            a.number(1, 1);
            a.number(2, ADDRESS_TYPE);
            a.number(3, DESTINATION);
        })
        .compare(1, true, &LOCAL.to_ne_bytes())
    }

    /// Its source, or else its destination, lies in a subnet; tells the family as well.
    pub(crate) fn within(self, source: bool, subnet: super::super::ipam::Subnet) -> Self {
        let (v6, base, mask) = subnet.bytes();
        let (offset, length) = address(v6, source);
        self.family(v6)
            .payload(1, offset, length, 1)
            .mask(1, &mask)
            .compare(1, true, &base)
    }

    /// Has this destination port.
    pub(crate) fn port(self, port: u16) -> Self {
        self.payload(2, 2, 2, 1)
            .compare(1, true, &port.to_be_bytes())
    }

    /// Looks an interface's name up in a map of verdicts.
    pub(crate) fn verdict_by_interface(self, incoming: bool, map: &str) -> Self {
        let what = if incoming {
            Meta::InName
        } else {
            Meta::OutName
        };
        self.meta(what, 1).look_up(map, Some(VERDICT))
    }

    /// Came in by an interface that a set names.
    pub(crate) fn came_by_one_of(self, set: &str) -> Self {
        self.meta(Meta::InName, 1).look_up(set, None)
    }

    fn look_up(self, set: &str, into: Option<u32>) -> Self {
        self.add("lookup", |a| {
            a.text(1, set);
            a.number(2, FIRST);
            if let Some(register) = into {
                a.number(3, register);
            }
        })
    }

    /// Destination, protocol and port are in a set.
    pub(crate) fn destination_in(self, v6: bool, set: &str) -> Self {
        self.destination_key(v6, true).look_up(set, None)
    }

    fn destination_key(self, v6: bool, with_address: bool) -> Self {
        let mut rule = self;
        let mut register = FIRST;
        if with_address {
            let (offset, length) = address(v6, false);
            rule = rule.payload(1, offset, length, register);
            register += length / 4;
        }
        rule.meta(Meta::Protocol, register)
            .payload(2, 2, 2, register + 1)
    }

    /// Translates the destination to what a map of (address,) protocol and port says.
    pub(crate) fn redirect_by(self, v6: bool, with_address: bool, map: &str) -> Self {
        let port = FIRST + if v6 { 4 } else { 1 };
        self.family(v6)
            .destination_key(v6, with_address)
            .look_up(map, Some(FIRST))
            .nat(true, v6, Some(FIRST), Some(port))
    }

    fn nat(self, destination: bool, v6: bool, address: Option<u32>, port: Option<u32>) -> Self {
        self.add("nat", |a| {
            a.number(1, u32::from(destination));
            a.number(2, if v6 { 10 } else { 2 });
            if let Some(register) = address {
                a.number(3, register);
            }
            if let Some(register) = port {
                a.number(5, register);
            }
        })
    }

    /// Translates the destination to this IPv4 address and port.
    pub(crate) fn redirect_to(self, to: std::net::SocketAddrV4) -> Self {
        self.load(FIRST, &to.ip().octets())
            .load(FIRST + 1, &to.port().to_be_bytes())
            .nat(true, false, Some(FIRST), Some(FIRST + 1))
    }

    /// Gives it this source address.
    pub(crate) fn source(self, address: std::net::IpAddr) -> Self {
        let rule = match address {
            std::net::IpAddr::V4(a) => self.load(FIRST, &a.octets()),
            std::net::IpAddr::V6(a) => self.load(FIRST, &a.octets()),
        };
        rule.nat(false, address.is_ipv6(), Some(FIRST), None)
    }

    fn load(self, register: u32, value: &[u8]) -> Self {
        self.add("immediate", |a| {
            a.number(1, register);
            a.nest(2, |data| data.put(1, value));
        })
    }

    /// Gives it the address of the interface that it goes out by.
    pub(crate) fn masquerade(self) -> Self {
        self.add("masq", |_| {})
    }

    /// Decides.
    pub(crate) fn verdict(self, verdict: &Verdict) -> Self {
        self.add("immediate", |a| {
            a.number(1, VERDICT);
            a.nest(2, |data| verdict.write(data));
        })
    }

    /// Lets it through.
    pub(crate) fn accept(self) -> Self {
        self.verdict(&Verdict::Accept)
    }

    /// Throws it away.
    pub(crate) fn drop(self) -> Self {
        self.verdict(&Verdict::Drop)
    }

    /// Goes on in another chain, and comes back if that decides nothing.
    pub(crate) fn jump(self, chain: &str) -> Self {
        self.verdict(&Verdict::Jump(chain.to_owned()))
    }
}

/// Where an address stands in the header, and how long it is.
fn address(v6: bool, source: bool) -> (u32, u32) {
    match (v6, source) {
        (false, true) => (12, 4),
        (false, false) => (16, 4),
        (true, true) => (8, 16),
        (true, false) => (24, 16),
    }
}
