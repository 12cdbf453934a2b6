//! The options that concern networks.

use std::net::IpAddr;

use super::given::{File, Flags};
use super::{either, key_values, one_list};
use crate::error::{Error, Result};

/// What concerns networks beside the default bridge's own settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkOptions {
    /// Where containers on the default bridge get their addresses.
    pub(crate) fixed_cidr: Option<String>,
    /// Where networks get their subnets: base and bits of each.
    pub(crate) address_pools: Vec<(String, u8)>,
    /// The host's address for published ports without one.
    pub(crate) host_address: Option<IpAddr>,
    /// What `host-gateway` stands for.
    pub(crate) host_gateway: Vec<IpAddr>,
    /// Published ports can be reached over the loopback.
    pub(crate) proxy: bool,
    /// Published ports go through the host's own rules for what comes in.
    pub(crate) host_firewall: bool,
}

/// Reads them.
pub(super) fn options(flags: &Flags, file: &File) -> Result<NetworkOptions> {
    let addresses = |name: &str, list: Vec<String>| {
        list.iter()
            .map(|text| {
                text.parse()
                    .map_err(|_| Error::invalid(format!("{name}: {text:?} is not an IP address")))
            })
            .collect::<Result<Vec<IpAddr>>>()
    };
    let ip = either("ip", flags.ip.clone(), file.ip.clone())?;
    let gateways = one_list(
        "host-gateway-ip",
        flags.host_gateway_ip.clone(),
        file.host_gateway_ip.iter().cloned().collect(),
    )?;
    let pools = file.default_address_pools.iter();
    let pools = pools.map(|pool| (pool.base.clone(), pool.size)).collect();
    let given = flags.default_address_pool.iter();
    Ok(NetworkOptions {
        fixed_cidr: either(
            "fixed-cidr",
            flags.fixed_cidr.clone(),
            file.fixed_cidr.clone(),
        )?
        .filter(|text| !text.is_empty()),
        address_pools: one_list(
            "default-address-pools",
            given.map(|text| pool(text)).collect::<Result<_>>()?,
            pools,
        )?,
        host_address: addresses("ip", ip.into_iter().collect())?
            .into_iter()
            .next(),
        host_gateway: addresses("host-gateway-ip", gateways)?,
        proxy: either("userland-proxy", flags.userland_proxy, file.userland_proxy)?.unwrap_or(true),
        host_firewall: either("host-firewall", flags.host_firewall, file.host_firewall)?
            .unwrap_or(false),
    })
}

/// Reads `base=172.80.0.0/16,size=24`.
fn pool(text: &str) -> Result<(String, u8)> {
    let bad = || Error::invalid(format!("address pool {text:?} is not base=CIDR,size=BITS"));
    let fields = key_values(
        "default-address-pool",
        &text.split(',').map(str::to_owned).collect::<Vec<_>>(),
    )?;
    let field = |name: &str| {
        fields
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    };
    let size = field("size").and_then(|size| size.parse().ok());
    Ok((
        field("base").ok_or_else(bad)?.clone(),
        size.ok_or_else(bad)?,
    ))
}
