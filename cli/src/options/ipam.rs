//! The address pools of a new network: `--subnet`, `--ip-range`, `--gateway`, `--aux-address`. Pure.

use proto::engine::IpamConfig;

use super::env;

/// What was typed; each range, gateway and address belongs to the subnet that it lies in.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    pub(crate) subnet: &'a [String],
    pub(crate) ip_range: &'a [String],
    pub(crate) gateway: &'a [String],
    pub(crate) aux_address: &'a [String],
}

/// Each subnet with the range, the gateway and the further addresses that lie in it.
pub(crate) fn pools(given: &Given<'_>) -> Result<Vec<IpamConfig>, String> {
    if given.subnet.len() < given.ip_range.len() || given.subnet.len() < given.gateway.len() {
        return Err("every ip-range or gateway must have a corresponding subnet".to_string());
    }
    let mut pools: Vec<IpamConfig> = given
        .subnet
        .iter()
        .map(|subnet| IpamConfig {
            subnet: subnet.clone(),
            ..IpamConfig::default()
        })
        .collect();
    let nets: Vec<Option<Cidr>> = given
        .subnet
        .iter()
        .map(|subnet| Cidr::parse(subnet))
        .collect();
    for (at, net) in nets.iter().enumerate() {
        if net.is_none() {
            return Err(format!("invalid subnet: {}", given.subnet[at]));
        }
    }
    let place = |address: &str| {
        let ip = address.split('/').next().and_then(|ip| ip.parse().ok());
        nets.iter()
            .position(|net| matches!((net, ip), (Some(net), Some(ip)) if net.contains(ip)))
    };
    for range in given.ip_range {
        let at = place(range).ok_or_else(|| format!("no matching subnet for range {range}"))?;
        pools[at].ip_range = range.clone();
    }
    for gateway in given.gateway {
        let at =
            place(gateway).ok_or_else(|| format!("no matching subnet for gateway {gateway}"))?;
        pools[at].gateway = gateway.clone();
    }
    for (name, address) in env::pairs(given.aux_address) {
        let at = place(&address)
            .ok_or_else(|| format!("no matching subnet for aux-address {address}"))?;
        pools[at].auxiliary_addresses.insert(name, address);
    }
    Ok(pools)
}

/// A subnet: an address and the length of its prefix.
#[derive(Debug, Clone, Copy)]
struct Cidr {
    ip: std::net::IpAddr,
    bits: u32,
}

impl Cidr {
    fn parse(text: &str) -> Option<Cidr> {
        let (ip, bits) = text.split_once('/')?;
        let (ip, bits): (std::net::IpAddr, u32) = (ip.parse().ok()?, bits.parse().ok()?);
        (bits <= if ip.is_ipv4() { 32 } else { 128 }).then_some(Cidr { ip, bits })
    }

    fn contains(self, other: std::net::IpAddr) -> bool {
        use std::net::IpAddr::{V4, V6};
        match (self.ip, other) {
            (V4(a), V4(b)) => {
                (a.to_bits() ^ b.to_bits())
                    .checked_shr(32 - self.bits)
                    .unwrap_or(0)
                    == 0
            }
            (V6(a), V6(b)) => {
                (a.to_bits() ^ b.to_bits())
                    .checked_shr(128 - self.bits)
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lie_in_subnets() {
        let net = Cidr::parse("10.1.0.0/16").unwrap();
        assert!(net.contains("10.1.2.3".parse().unwrap()));
        assert!(!net.contains("10.2.0.1".parse().unwrap()));
        assert!(
            Cidr::parse("::/0")
                .unwrap()
                .contains("fe80::1".parse().unwrap())
        );
        assert!(Cidr::parse("10.0.0.0/33").is_none());
    }

    #[test]
    fn everything_goes_to_its_own_subnet() {
        let words = |list: &[&str]| list.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let (subnet, gateway) = (words(&["10.1.0.0/16", "10.2.0.0/16"]), words(&["10.2.0.1"]));
        let given = Given {
            subnet: &subnet,
            ip_range: &[],
            gateway: &gateway,
            aux_address: &[],
        };
        let got = pools(&given).unwrap();
        assert_eq!(
            (got[0].gateway.as_str(), got[1].gateway.as_str()),
            ("", "10.2.0.1")
        );
        let lost = words(&["10.9.0.1"]);
        assert!(
            pools(&Given {
                gateway: &lost,
                ..given
            })
            .unwrap_err()
            .contains("no matching subnet")
        );
    }
}
