//! Addresses: a subnet, and which of its addresses are taken. Pure.
//!
//! An address that was given back is not given out again until the others were, so that a neighbour's stale ARP entry or
//! a late packet does not reach the wrong container.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IpamError {
    /// Not `ADDRESS/BITS`.
    #[error("invalid subnet {0:?}: ADDRESS/BITS expected, with 1 to 30 bits")]
    Subnet(String),
    /// No address is left.
    #[error("no available IPv4 addresses on this network's address pools: {0}")]
    Exhausted(Subnet),
    /// The address is outside of the subnet, or its first or last one.
    #[error("invalid address {0}: it does not belong to {1}")]
    Outside(Ipv4Addr, Subnet),
    /// The address is taken.
    #[error("address {0} is already in use")]
    Taken(Ipv4Addr),
}

/// An IPv4 subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Subnet {
    base: u32,
    bits: u8,
}

impl Subnet {
    /// The subnet of that size which holds the address.
    pub(crate) fn around(address: Ipv4Addr, bits: u8) -> Self {
        let mask = if bits == 0 {
            0
        } else {
            u32::MAX << (32 - bits)
        };
        Self {
            base: u32::from(address) & mask,
            bits,
        }
    }

    /// Number of bits of the prefix.
    pub(crate) fn bits(self) -> u8 {
        self.bits
    }

    /// The first usable address, by custom the gateway's.
    pub(crate) fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// The broadcast address.
    pub(crate) fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base | self.host_mask())
    }

    /// Whether the subnets share an address.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let bits = self.bits.min(other.bits);
        Self::around(Ipv4Addr::from(self.base), bits)
            == Self::around(Ipv4Addr::from(other.base), bits)
    }

    /// Whether the address can be a host's in this subnet.
    pub(crate) fn has_host(self, address: Ipv4Addr) -> bool {
        Self::around(address, self.bits) == self
            && u32::from(address) != self.base
            && address != self.last()
    }

    fn host_mask(self) -> u32 {
        if self.bits == 0 {
            u32::MAX
        } else {
            !(u32::MAX << (32 - self.bits))
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.bits)
    }
}

impl FromStr for Subnet {
    type Err = IpamError;
    fn from_str(text: &str) -> Result<Self, IpamError> {
        host_and_subnet(text).map(|(_, subnet)| subnet)
    }
}

/// Parses `ADDRESS/BITS` into the address and the subnet around it.
pub(crate) fn host_and_subnet(text: &str) -> Result<(Ipv4Addr, Subnet), IpamError> {
    let wrong = || IpamError::Subnet(text.to_owned());
    let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
    let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
    let bits: u8 = bits.parse().map_err(|_| wrong())?;
    if !(1..=30).contains(&bits) {
        return Err(wrong());
    }
    Ok((address, Subnet::around(address, bits)))
}

/// The subnets that a bridge without a wish may take, in Docker's order.
pub(crate) fn default_pools() -> impl Iterator<Item = Subnet> {
    let wide = (17..=31).map(|second| Subnet::around(Ipv4Addr::new(172, second, 0, 0), 16));
    let narrow = (0..16).map(|n| Subnet::around(Ipv4Addr::new(192, 168, n * 16, 0), 20));
    wide.chain(narrow)
}

/// The taken addresses of one subnet.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    subnet: Subnet,
    taken: BTreeSet<Ipv4Addr>,
    cursor: u32,
}

impl Pool {
    /// A pool whose gateway is taken.
    pub(crate) fn new(subnet: Subnet, gateway: Ipv4Addr) -> Self {
        Self {
            subnet,
            taken: BTreeSet::from([gateway]),
            cursor: 0,
        }
    }

    /// Takes the next free address.
    pub(crate) fn take(&mut self) -> Result<Ipv4Addr, IpamError> {
        let hosts = self.subnet.host_mask() - 1;
        for step in 0..hosts {
            let offset = (self.cursor + step) % hosts;
            let address = Ipv4Addr::from(self.subnet.base + 1 + offset);
            if self.taken.insert(address) {
                self.cursor = (offset + 1) % hosts;
                return Ok(address);
            }
        }
        Err(IpamError::Exhausted(self.subnet))
    }

    /// Takes this address.
    pub(crate) fn take_this(&mut self, address: Ipv4Addr) -> Result<(), IpamError> {
        if !self.subnet.has_host(address) {
            return Err(IpamError::Outside(address, self.subnet));
        }
        if !self.taken.insert(address) {
            return Err(IpamError::Taken(address));
        }
        Ok(())
    }

    /// Gives an address back; one that is not taken is no error.
    pub(crate) fn give_back(&mut self, address: Ipv4Addr) {
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
        assert_eq!(host, Ipv4Addr::new(172, 17, 0, 1));
        assert_eq!(subnet.to_string(), "172.17.0.0/16");
        assert!(subnet.overlaps("172.17.9.0/24".parse().unwrap()));
        assert!(subnet.overlaps("172.0.0.0/8".parse().unwrap()));
        assert!(!subnet.overlaps("172.18.0.0/16".parse().unwrap()));
        for bad in ["", "1.2.3.4", "1.2.3.4/0", "1.2.3.4/31", "1.2.3/8", "a/8"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
        assert_eq!(default_pools().count(), 31);
    }

    #[test]
    fn a_given_back_address_waits_for_its_turn() {
        let mut pool = Pool::new("10.0.0.0/29".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let first = pool.take().unwrap();
        assert_eq!(first, "10.0.0.2".parse::<Ipv4Addr>().unwrap());
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
            let mut pool = Pool::new(subnet, subnet.first());
            let mut out: Vec<Ipv4Addr> = Vec::new();
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
                        let address = Ipv4Addr::new(10, 1, 0, n);
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
