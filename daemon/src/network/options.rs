//! What the daemon's configuration and a network's options mean. Pure.

use std::net::IpAddr;

use proto::engine::{Ipam, IpamConfig};

use super::files;
use super::filter::rules::{Bridge, Gateway};
use super::ipam::{self, Pool, Subnet};
use super::store::{Record, Settings};
use crate::config::Config;
use crate::config::parse_flag;
use crate::error::{Error, Result};

/// Reads the daemon's configuration.
pub(super) fn settings(config: &Config) -> Result<Settings> {
    let settings = Settings {
        sandboxes: config.exec_root.join("endpoints"),
        netns: config.exec_root.join("netns"),
        bridge: config.bridge.clone().filter(|name| !name.is_empty()),
        bip: config.bip.clone().filter(|text| !text.is_empty()),
        fixed_cidr: config
            .network
            .fixed_cidr
            .as_deref()
            .map(|text| ipam::range(text).map_err(|e| Error::invalid(format!("fixed-cidr: {e}"))))
            .transpose()?,
        iptables: config.iptables,
        forward: config.ip_forward,
        masquerade: config.ip_masq,
        icc: config.icc,
        mtu: config.mtu,
        dns: files::Dns {
            servers: config.dns.clone(),
            search: config.dns_search.clone(),
            options: config.dns_opts.clone(),
        },
        parent: config
            .rootless
            .as_ref()
            .and_then(|r| crate::rootless::kit::Kit::of(r, &config.exec_root)),
        resolv: config.rootless.as_ref().and_then(|r| r.resolv()),
        pools: pools_of_config(config)?,
        host_address: config.network.host_address,
        host_gateway: config.network.host_gateway.clone(),
        // In another network than the host's, sockets are all that leads there.
        proxy: config.network.proxy || config.rootless.is_some(),
        host_firewall: config.network.host_firewall,
    };
    if let Some(bip) = &settings.bip {
        let (address, _) =
            ipam::host_and_subnet(bip).map_err(|e| Error::invalid(format!("bip: {e}")))?;
        if address.is_ipv6() {
            return Err(Error::invalid(format!("bip: {bip} is not an IPv4 address")));
        }
    }
    if settings.bip.is_some() && settings.bridge.is_some() {
        return Err(Error::invalid(
            "--bridge and --bip exclude each other: a bridge that is used as it is has its address",
        ));
    }
    files::resolv("", &[&settings.dns], false)?;
    Ok(settings)
}

fn pools_of_config(config: &Config) -> Result<Vec<(Subnet, u8)>> {
    let given = &config.network.address_pools;
    let default = || {
        let pools = ipam::default_pools().into_iter();
        pools.map(|subnet| (subnet, subnet.bits())).collect()
    };
    if given.is_empty() {
        return Ok(default());
    }
    given
        .iter()
        .map(|(base, size)| {
            let subnet = ipam::range(base)
                .map_err(|e| Error::invalid(format!("default address pool {base}: {e}")))?;
            match (subnet.bits()..=30).contains(size) || subnet.is_v6() {
                true => Ok((subnet, *size)),
                false => Err(Error::invalid(format!(
                    "default address pool {base}: networks of {size} bits do not fit"
                ))),
            }
        })
        .collect()
}

/// Puts into the record of the default network what the configuration says of it.
pub(super) fn with_settings(mut record: Record, settings: &Settings) -> Record {
    if !record.is_default() {
        return record;
    }
    let address = match &settings.bridge {
        // A bridge of somebody else's has its own, known once it is looked at.
        Some(_) => None,
        None => settings.bip.clone().or_else(|| record.address.clone()),
    };
    if let Some(name) = &settings.bridge {
        record.interface.clone_from(name);
    }
    record.ipam = default_ipam(address.as_deref(), settings.fixed_cidr);
    let prefix = "com.docker.network.";
    record.options = [
        ("bridge.default_bridge", "true".to_owned()),
        ("bridge.enable_icc", settings.icc.to_string()),
        (
            "bridge.enable_ip_masquerade",
            settings.masquerade.to_string(),
        ),
        (
            "bridge.host_binding_ipv4",
            settings
                .host_address
                .map_or("0.0.0.0".into(), |a| a.to_string()),
        ),
        ("bridge.name", record.interface.clone()),
        ("driver.mtu", settings.mtu.to_string()),
    ]
    .map(|(key, value)| (format!("{prefix}{key}"), value))
    .into();
    record
}

/// The pool of the default network, from its bridge's address.
pub(super) fn default_ipam(address: Option<&str>, range: Option<Subnet>) -> Ipam {
    let known = address.and_then(|text| ipam::host_and_subnet(text).ok());
    Ipam {
        driver: "default".into(),
        options: None,
        config: known.map(|(gateway, subnet)| {
            vec![IpamConfig {
                subnet: subnet.to_string(),
                ip_range: range.map(|r| r.to_string()).unwrap_or_default(),
                gateway: gateway.to_string(),
                ..IpamConfig::default()
            }]
        }),
    }
}

/// The pools of a network whose record holds every subnet.
pub(super) fn pools(record: &Record) -> Vec<Pool> {
    let configs = record.ipam.config.iter().flatten();
    configs
        .filter_map(|config| {
            let subnet: Subnet = config.subnet.parse().ok()?;
            let range = ipam::range(&config.ip_range).ok();
            let mut pool = Pool::new(subnet, range, config.gateway.parse().ok());
            for address in config.auxiliary_addresses.values() {
                if let Ok(address) = address.parse() {
                    // Named twice, or outside: it is not given out in either case.
                    let _ = pool.take_this(address);
                }
            }
            Some(pool)
        })
        .collect()
}

/// Gateway and bits of each subnet: what the bridge's own addresses are.
pub(super) fn gateways(record: &Record) -> Vec<(IpAddr, u8)> {
    let configs = record.ipam.config.iter().flatten();
    configs
        .filter_map(|config| {
            let subnet: Subnet = config.subnet.parse().ok()?;
            let gateway: IpAddr = config.gateway.parse().ok()?;
            let isolated = record.gateway_mode(gateway.is_ipv6()) == Gateway::Isolated;
            let inhibited = gateway.is_ipv4() && inhibits_v4(record);
            (!isolated && !inhibited).then_some((gateway, subnet.bits()))
        })
        .collect()
}

/// Whether the operator gives the bridge its address of IPv4.
pub(super) fn inhibits_v4(record: &Record) -> bool {
    record.flag("com.docker.network.bridge.inhibit_ipv4", false)
}

/// What the names of a network's interfaces in containers begin with.
pub(super) fn interface_prefix(record: &Record) -> &str {
    record
        .option("com.docker.network.container_iface_prefix")
        .filter(|prefix| !prefix.is_empty())
        .unwrap_or("eth")
}

/// What the rules of a bridge depend on.
pub(super) fn bridge(record: &Record) -> Bridge {
    let address = |key: &str| record.option(key).and_then(|text| text.parse().ok());
    Bridge {
        name: record.interface.clone(),
        subnets: pools(record).iter().map(Pool::subnet).collect(),
        icc: record.flag("com.docker.network.bridge.enable_icc", true),
        masquerade: record.flag("com.docker.network.bridge.enable_ip_masquerade", true),
        internal: record.internal,
        by_helper: false,
        gateways: [record.gateway_mode(false), record.gateway_mode(true)],
        sources: [
            "com.docker.network.host_ipv4",
            "com.docker.network.host_ipv6",
        ]
        .into_iter()
        .filter_map(address)
        .collect(),
        trusted: record
            .option("com.docker.network.bridge.trusted_host_interfaces")
            .iter()
            .flat_map(|names| names.split(':'))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    }
}

/// The address of the host for ports without one: the network's wish, then the daemon's.
pub(super) fn host_address(record: &Record, settings: &Settings) -> Option<IpAddr> {
    record
        .option("com.docker.network.bridge.host_binding_ipv4")
        .and_then(|text| text.parse().ok())
        .or(settings.host_address)
        // That of one family would leave the other out.
        .filter(|address: &IpAddr| !address.is_unspecified())
}

/// Whether published ports of a network go through the host's own rules.
pub(super) fn host_firewall(record: &Record, settings: &Settings) -> bool {
    record.flag(
        "com.docker-lite.network.host_firewall",
        settings.host_firewall,
    )
}

/// Checks the options of a network to be made: known names must make sense, others are kept as they are.
pub(super) fn check(record: &Record) -> Result<()> {
    for (key, value) in &record.options {
        let bad = |why: &str| {
            Err(Error::invalid(format!(
                "invalid value for option {key}: {value:?} {why}"
            )))
        };
        let name = key.strip_prefix("com.docker.network.").unwrap_or(key);
        match name {
            "bridge.enable_icc"
            | "bridge.enable_ip_masquerade"
            | "bridge.default_bridge"
            | "com.docker-lite.network.host_firewall"
            | "bridge.inhibit_ipv4"
                if parse_flag(value).is_none() =>
            {
                return bad("is neither true nor false");
            }
            "driver.mtu" | "mtu" if value.parse::<u32>().is_err() => {
                return bad("is no size");
            }
            "bridge.gateway_mode_ipv4" | "bridge.gateway_mode_ipv6" => {
                let known = ["nat", "nat-unprotected", "routed", "isolated"];
                if !known.contains(&value.as_str()) {
                    return bad("is unknown");
                }
                if value == "isolated" && !record.internal {
                    return bad("can only be used for an internal network");
                }
            }
            "bridge.host_binding_ipv4" | "host_ipv4"
                if value.parse::<std::net::Ipv4Addr>().is_err() =>
            {
                return bad("is not an IPv4 address");
            }
            "host_ipv6" if value.parse::<std::net::Ipv6Addr>().is_err() => {
                return bad("is not an IPv6 address");
            }
            "bridge.name" if !can_name(value, 15) => {
                return bad("cannot be an interface's name");
            }
            // A number follows it.
            "container_iface_prefix" if !can_name(value, 12) => {
                return bad("cannot begin an interface's name");
            }
            "bridge.trusted_host_interfaces"
                if !value.split(':').all(|name| can_name(name, 15)) =>
            {
                return bad("are not names of interfaces with colons between them");
            }
            "macvlan_mode"
                if !["bridge", "private", "vepa", "passthru"].contains(&value.as_str()) =>
            {
                return bad("is none of bridge, private, vepa and passthru");
            }
            "ipvlan_mode" if !["l2", "l3", "l3s"].contains(&value.as_str()) => {
                return bad("is none of l2, l3 and l3s");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether an interface can have this name, or one that begins so.
fn can_name(text: &str, longest: usize) -> bool {
    let fine = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    !text.is_empty() && text.len() <= longest && text.chars().all(fine)
}
