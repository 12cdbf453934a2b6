//! Addresses: subnets of both families, and which of their addresses are taken. Pure.
//!
//! An address that was given back is not given out again until the others were, so that a neighbour's stale ARP entry or
//! a late packet does not reach the wrong container.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IpamError {
    /// Not `ADDRESS/BITS`.
    #[error("invalid subnet {0:?}: ADDRESS/BITS expected, with room for two hosts")]
    Subnet(String),
    /// No address is left.
    #[error("no available addresses on this network's address pools: {0}")]
    Exhausted(Subnet),
    /// The address is outside of the subnet, or its first or last one.
    #[error("invalid address {0}: it does not belong to {1}")]
    Outside(IpAddr, Subnet),
    /// The address is taken.
    #[error("Address already in use: {0}")]
    Taken(IpAddr),
}

/// A subnet of IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Subnet {
    base: u128,
    bits: u8,
    v6: bool,
}

/// The address as a number.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u32::from(a).into(),
        IpAddr::V6(a) => a.into(),
    }
}

impl Subnet {
    /// The subnet of that size which holds the address.
    pub(crate) fn new(address: IpAddr, bits: u8) -> Self {
        let mut subnet = Self {
            base: 0,
            bits,
            v6: address.is_ipv6(),
        };
        subnet.base = number(address) & !subnet.host_mask();
        subnet
    }

    /// Whether it is of IPv6.
    pub(crate) fn is_v6(self) -> bool {
        self.v6
    }

    /// Number of bits of the prefix.
    pub(crate) fn bits(self) -> u8 {
        self.bits
    }

    fn width(self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    fn host_mask(self) -> u128 {
        let hosts = self.width().saturating_sub(self.bits);
        match hosts {
            128 => u128::MAX,
            hosts => (1 << hosts) - 1,
        }
    }

    fn address(self, number: u128) -> IpAddr {
        match self.v6 {
            true => Ipv6Addr::from(number).into(),
            // Never more than 32 bits: base and mask are that long.
            false => Ipv4Addr::from(number as u32).into(),
        }
    }

    /// Family, address and mask as they stand in packets.
    pub(crate) fn bytes(self) -> (bool, Vec<u8>, Vec<u8>) {
        let skip = 16 - usize::from(self.width() / 8);
        let cut = |number: u128| number.to_be_bytes()[skip..].to_vec();
        (self.v6, cut(self.base), cut(!self.host_mask()))
    }

    /// The first usable address, by custom the gateway's.
    pub(crate) fn first(self) -> IpAddr {
        self.address(self.base + 1)
    }

    /// The highest address: of IPv4 the broadcast address.
    fn last(self) -> IpAddr {
        self.address(self.base | self.host_mask())
    }

    /// Whether the subnets share an address.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let bits = self.bits.min(other.bits);
        let wide = |subnet: Self| Self::new(self.address(subnet.base), bits);
        self.v6 == other.v6 && wide(self) == wide(other)
    }

    /// Whether the other one lies within this one.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.overlaps(other) && self.bits <= other.bits
    }

    /// Whether the address can be a host's in this subnet.
    pub(crate) fn has_host(self, address: IpAddr) -> bool {
        address.is_ipv6() == self.v6
            && Self::new(address, self.bits) == self
            && number(address) != self.base
            && (self.v6 || address != self.last())
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(self.base), self.bits)
    }
}

impl FromStr for Subnet {
    type Err = IpamError;
    fn from_str(text: &str) -> Result<Self, IpamError> {
        host_and_subnet(text).map(|(_, subnet)| subnet)
    }
}

/// Parses `ADDRESS/BITS` into the address and the subnet around it.
pub(crate) fn host_and_subnet(text: &str) -> Result<(IpAddr, Subnet), IpamError> {
    let wrong = || IpamError::Subnet(text.to_owned());
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let bits: u8 = bits.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv6() { 126 } else { 30 };
    if !(1..=most).contains(&bits) {
        return Err(wrong());
    }
    Ok((address, Subnet::new(address, bits)))
}

/// Parses `ADDRESS/BITS` of any length, as a range within a subnet may be.
pub(crate) fn range(text: &str) -> Result<Subnet, IpamError> {
    let wrong = || IpamError::Subnet(text.to_owned());
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let bits: u8 = bits.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv6() { 128 } else { 32 };
    match (1..=most).contains(&bits) {
        true => Ok(Subnet::new(address, bits)),
        false => Err(wrong()),
    }
}

/// The subnets that a bridge without a wish may take, in Docker's order.
pub(crate) fn default_pools() -> Vec<Subnet> {
    let wide = (17..=31).map(|second| Subnet::new([172, second, 0, 0].into(), 16));
    let narrow = (0..16).map(|n| Subnet::new([192, 168, n * 16, 0].into(), 20));
    wide.chain(narrow).collect()
}

/// The subnets of the given size that a wider one consists of; at most so many as are worth trying.
pub(crate) fn parts(whole: Subnet, bits: u8) -> impl Iterator<Item = Subnet> {
    const MOST: u128 = 1 << 16;
    let step = whole.width().saturating_sub(bits);
    let count = 1u128 << (bits.saturating_sub(whole.bits)).min(16);
    (0..count.min(MOST)).map(move |n| {
        let base = whole.base + (n << step.min(127));
        Subnet::new(whole.address(base), bits)
    })
}

/// The subnet for an IPv6 network without a wish: unique local, of this installation's own 48 bits.
pub(crate) fn unique_local(seed: [u8; 5], number: u16) -> Subnet {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&seed);
    octets[6..8].copy_from_slice(&number.to_be_bytes());
    Subnet::new(IpAddr::from(octets), 64)
}

/// The taken addresses of one subnet.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    subnet: Subnet,
    /// Where addresses are given out from.
    range: Subnet,
    taken: BTreeSet<IpAddr>,
    cursor: u128,
}

impl Pool {
    /// A pool whose gateway is taken; `range` bounds what is given out without a wish.
    pub(crate) fn new(subnet: Subnet, range: Option<Subnet>, gateway: Option<IpAddr>) -> Self {
        Self {
            subnet,
            range: range.unwrap_or(subnet),
            taken: gateway.into_iter().collect(),
            cursor: 0,
        }
    }

    /// The subnet.
    pub(crate) fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Takes the next free address.
    pub(crate) fn take(&mut self) -> Result<IpAddr, IpamError> {
        let count = self.range.host_mask().saturating_add(1);
        // Among so many steps there is a free one, if there is any.
        let steps = count.min(self.taken.len() as u128 + 3);
        for step in 0..steps {
            let offset = (self.cursor + step) % count;
            let address = self.subnet.address(self.range.base + offset);
            if self.subnet.has_host(address) && self.taken.insert(address) {
                self.cursor = (offset + 1) % count;
                return Ok(address);
            }
        }
        Err(IpamError::Exhausted(self.subnet))
    }

    /// Takes this address.
    pub(crate) fn take_this(&mut self, address: IpAddr) -> Result<(), IpamError> {
        if !self.subnet.has_host(address) {
            return Err(IpamError::Outside(address, self.subnet));
        }
        if !self.taken.insert(address) {
            return Err(IpamError::Taken(address));
        }
        Ok(())
    }

    /// Gives an address back; one that is not taken is no error.
    pub(crate) fn give_back(&mut self, address: IpAddr) {
        self.taken.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn subnets_are_read_and_compared() {
        let (host, subnet) = host_and_subnet("172.17.0.1/16").unwrap();
        assert_eq!(host, IpAddr::from([172, 17, 0, 1]));
        assert_eq!(subnet.to_string(), "172.17.0.0/16");
        assert!(subnet.overlaps("172.17.9.0/24".parse().unwrap()));
        assert!(subnet.overlaps("172.0.0.0/8".parse().unwrap()));
        assert!(!subnet.overlaps("172.18.0.0/16".parse().unwrap()));
        assert!(!subnet.overlaps("fd00::/8".parse().unwrap()));
        for bad in [
            "",
            "1.2.3.4",
            "1.2.3.4/0",
            "1.2.3.4/31",
            "1.2.3/8",
            "a/8",
            "::/0",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
        assert_eq!(default_pools().len(), 31);
        let six: Subnet = "fd00:1::7/64".parse().unwrap();
        assert_eq!(six.to_string(), "fd00:1::/64");
        assert_eq!(six.bytes().1.len(), 16);
        assert_eq!(
            subnet.bytes(),
            (false, vec![172, 17, 0, 0], vec![255, 255, 0, 0])
        );
        assert_eq!(
            unique_local([1, 2, 3, 4, 5], 6).to_string(),
            "fd01:203:405:6::/64"
        );
        assert!(six.has_host("fd00:1::ffff:ffff:ffff:ffff".parse().unwrap()));
        let many: Vec<_> = parts("10.0.0.0/8".parse().unwrap(), 24).take(2).collect();
        assert_eq!(many[1].to_string(), "10.0.1.0/24");
    }

    #[test]
    fn a_given_back_address_waits_for_its_turn() {
        let subnet: Subnet = "10.0.0.0/29".parse().unwrap();
        let mut pool = Pool::new(subnet, None, Some(subnet.first()));
        let first = pool.take().unwrap();
        assert_eq!(first, "10.0.0.2".parse::<IpAddr>().unwrap());
        pool.give_back(first);
        assert_ne!(pool.take().unwrap(), first);
        let rest: Vec<_> = std::iter::from_fn(|| pool.take().ok()).collect();
        assert_eq!(rest.len(), 4);
        assert!(rest.contains(&first));
        assert!(matches!(pool.take_this(first), Err(IpamError::Taken(_))));
        assert!(matches!(
            pool.take_this("10.0.0.7".parse().unwrap()),
            Err(IpamError::Outside(..))
        ));
    }

    #[test]
    fn a_range_bounds_what_is_given_out() {
        let subnet: Subnet = "10.5.0.0/16".parse().unwrap();
        let mut pool = Pool::new(subnet, Some(range("10.5.3.4/31").unwrap()), None);
        assert_eq!(pool.take().unwrap().to_string(), "10.5.3.4");
        assert_eq!(pool.take().unwrap().to_string(), "10.5.3.5");
        assert!(pool.take().is_err());
        pool.take_this("10.5.9.9".parse().unwrap()).unwrap();
    }

    #[derive(Debug, Clone)]
    enum Op {
        Take,
        This(u8),
        Back(usize),
    }

    proptest! {
        // The model is the plain set of addresses that are out.
        #[test]
        fn no_address_is_out_twice(ops in prop::collection::vec(
            prop_oneof![Just(Op::Take), (0u8..40).prop_map(Op::This), (0usize..32).prop_map(Op::Back)], 0..80)) {
            let subnet: Subnet = "10.1.0.0/27".parse().unwrap();
            let mut pool = Pool::new(subnet, None, Some(subnet.first()));
            let mut out: Vec<IpAddr> = Vec::new();
            for op in ops {
                match op {
                    Op::Take => match pool.take() {
                        Ok(address) => {
                            prop_assert!(subnet.has_host(address) && address != subnet.first());
                            prop_assert!(!out.contains(&address));
                            out.push(address);
                        }
                        Err(_) => prop_assert_eq!(out.len(), 29),
                    },
                    Op::This(n) => {
                        let address = IpAddr::from([10, 1, 0, n]);
                        let fine = subnet.has_host(address) && address != subnet.first() && !out.contains(&address);
                        prop_assert_eq!(pool.take_this(address).is_ok(), fine);
                        if fine { out.push(address); }
                    }
                    Op::Back(n) if n < out.len() => pool.give_back(out.swap_remove(n)),
                    Op::Back(_) => {}
                }
            }
        }
    }
}
