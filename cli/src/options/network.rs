//! `--network` and the flags about the place on it. Pure.

use std::collections::BTreeMap;

use proto::engine::{EndpointIpam, EndpointSettings};

use super::flags::ContainerFlags;
use super::values::comma_fields;

/// One value of `--network`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Attachment {
    target: String,
    aliases: Vec<String>,
    links: Vec<String>,
    ipv4: String,
    ipv6: String,
    mac: String,
    link_local: Vec<String>,
    driver_opts: BTreeMap<String, String>,
    gw_priority: i64,
}

/// Reads `web` or `name=web,alias=db,ip=10.0.0.2`.
pub(crate) fn parse(text: &str) -> Result<Attachment, String> {
    let mut out = Attachment::default();
    if !text.contains('=') {
        out.target = text.to_string();
        return Ok(out);
    }
    for field in comma_fields(text)? {
        let field = field.to_lowercase();
        let Some((key, value)) = field.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(format!("invalid field {field}"));
        };
        let value = value.trim();
        match key.trim() {
            "name" => out.target = value.to_string(),
            "alias" => out.aliases.push(value.to_string()),
            "ip" => out.ipv4 = value.to_string(),
            "ip6" => out.ipv6 = value.to_string(),
            "mac-address" => out.mac = value.to_string(),
            "link-local-ip" => out.link_local.push(value.to_string()),
            "driver-opt" => {
                let (key, value) = value
                    .split_once('=')
                    .ok_or_else(|| "invalid key value pair format in driver options".to_string())?;
                out.driver_opts
                    .insert(key.trim().to_string(), value.trim().to_string());
            }
            "gw-priority" => {
                out.gw_priority = value
                    .parse()
                    .map_err(|_| format!("invalid gw-priority ({value}): invalid syntax"))?;
            }
            other => return Err(format!("invalid field key {other}")),
        }
    }
    if out.target.is_empty() {
        return Err("network name/id is not specified".to_string());
    }
    Ok(out)
}

/// The network mode, and the endpoints by network.
pub(crate) fn endpoints(
    flags: &ContainerFlags,
) -> Result<(String, BTreeMap<String, Option<EndpointSettings>>), String> {
    let mut given = flags.network.clone();
    let mode = given
        .first()
        .map_or("default", |first| first.target.as_str())
        .to_string();
    if given.is_empty() {
        given.push(Attachment {
            target: "default".to_string(),
            ..Attachment::default()
        });
    }
    apply_flags(&mut given[0], flags)?;
    let own = given
        .iter()
        .filter(|network| is_user_defined(&network.target))
        .count();
    if own > 0 && own < given.len() {
        return Err("conflicting options: cannot attach both user-defined and non-user-defined network-modes".into());
    }
    let mut out = BTreeMap::new();
    for network in &given {
        let endpoint = endpoint(network)?;
        if out.contains_key(&network.target) {
            return Err(format!(
                "network {:?} is specified multiple times",
                network.target
            ));
        }
        // A lone network of which nothing more is said goes by the network mode.
        if given.len() == 1 && !flags.network.is_empty() && endpoint == EndpointSettings::default()
        {
            continue;
        }
        out.insert(network.target.clone(), Some(endpoint));
    }
    Ok((mode, out))
}

/// The flags without a network's name are about the first network.
fn apply_flags(first: &mut Attachment, flags: &ContainerFlags) -> Result<(), String> {
    let both = |flag: &str, what: &str| {
        Err(format!(
            "conflicting options: cannot specify both {flag} and per-network {what}"
        ))
    };
    if !first.aliases.is_empty() && !flags.network_alias.is_empty() {
        return both("--network-alias", "alias");
    }
    if !first.ipv4.is_empty() && !flags.ip.is_empty() {
        return both("--ip", "IPv4 address");
    }
    if !first.ipv6.is_empty() && !flags.ip6.is_empty() {
        return both("--ip6", "IPv6 address");
    }
    if !first.mac.is_empty() && !flags.mac_address.is_empty() {
        return both("--mac-address", "MAC address");
    }
    if !first.link_local.is_empty() && !flags.link_local_ip.is_empty() {
        return both("--link-local-ip", "link-local IP addresses");
    }
    let set = |field: &mut String, flag: &str| {
        if !flag.is_empty() {
            *field = flag.to_string();
        }
    };
    set(&mut first.ipv4, &flags.ip);
    set(&mut first.ipv6, &flags.ip6);
    set(&mut first.mac, &flags.mac_address);
    first.aliases.extend(flags.network_alias.iter().cloned());
    first.link_local.extend(flags.link_local_ip.iter().cloned());
    if is_user_defined(&first.target) {
        first.links.extend(flags.link.iter().cloned());
    }
    Ok(())
}

fn endpoint(network: &Attachment) -> Result<EndpointSettings, String> {
    if network.target.trim().is_empty() {
        return Err("no name set for network".to_string());
    }
    if !is_user_defined(&network.target) && !network.aliases.is_empty() {
        return Err(
            "network-scoped aliases are only supported for user-defined networks".to_string(),
        );
    }
    if !network.mac.is_empty() && !is_mac(&network.mac) {
        return Err(format!("{} is not a valid mac address", network.mac));
    }
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let addresses =
        !network.ipv4.is_empty() || !network.ipv6.is_empty() || !network.link_local.is_empty();
    Ok(EndpointSettings {
        aliases: some(&network.aliases),
        links: some(&network.links),
        driver_opts: (!network.driver_opts.is_empty()).then(|| network.driver_opts.clone()),
        gw_priority: network.gw_priority,
        mac_address: network.mac.clone(),
        ipam_config: addresses.then(|| EndpointIpam {
            ipv4_address: network.ipv4.clone(),
            ipv6_address: network.ipv6.clone(),
            link_local_ips: network.link_local.clone(),
        }),
        ..EndpointSettings::default()
    })
}

/// Whether a network mode names a network that somebody made.
fn is_user_defined(mode: &str) -> bool {
    !matches!(mode, "default" | "bridge" | "host" | "none") && !mode.starts_with("container:")
}

/// Checks `host:ip` or `host=ip`, and gives it in the first form.
pub(crate) fn extra_host(text: &str) -> Result<String, String> {
    let at = text.find(['=', ':']).filter(|at| *at > 0);
    let at = at.ok_or_else(|| format!("bad format for add-host: {text:?}"))?;
    let (name, ip) = (&text[..at], &text[at + 1..]);
    let bare = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip);
    if ip != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {ip:?}"));
    }
    Ok(format!("{name}:{bare}"))
}

/// Six bytes in hexadecimal, by colons or dashes.
pub(crate) fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    parts.len() == 6
        && parts
            .iter()
            .all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(networks: &[&str]) -> ContainerFlags {
        ContainerFlags {
            network: networks.iter().map(|n| parse(n).unwrap()).collect(),
            ..ContainerFlags::default()
        }
    }

    #[test]
    fn without_a_network_the_default_is_named_twice() {
        let (mode, endpoints) = endpoints(&flags(&[])).unwrap();
        assert_eq!(mode, "default");
        assert_eq!(endpoints["default"], Some(EndpointSettings::default()));
        assert_eq!(
            super::endpoints(&flags(&["host"])).unwrap(),
            ("host".into(), BTreeMap::new())
        );
    }

    #[test]
    fn addresses_and_aliases_go_to_the_endpoint() {
        let mut flags = flags(&["name=web,alias=db"]);
        flags.ip = "10.0.0.2".into();
        let (mode, endpoints) = endpoints(&flags).unwrap();
        let endpoint = endpoints["web"].clone().unwrap();
        assert_eq!(mode, "web");
        assert_eq!(endpoint.aliases, Some(vec!["db".into()]));
        assert_eq!(endpoint.ipam_config.unwrap().ipv4_address, "10.0.0.2");
    }

    #[test]
    fn contradictions_are_told() {
        assert!(endpoints(&flags(&["web", "host"])).is_err());
        assert!(
            endpoints(&flags(&["web", "web"]))
                .unwrap_err()
                .contains("multiple times")
        );
        let mut aliased = flags(&["bridge"]);
        aliased.network_alias = vec!["x".into()];
        assert!(endpoints(&aliased).is_err());
        assert!(parse("alias=x").is_err());
        assert!(!is_mac("aa:bb"));
    }

    #[test]
    fn hosts_are_sent_with_a_colon() {
        assert_eq!(extra_host("a=10.0.0.1").unwrap(), "a:10.0.0.1");
        assert_eq!(extra_host("b:[::1]").unwrap(), "b:::1");
        assert_eq!(extra_host("c:host-gateway").unwrap(), "c:host-gateway");
        assert!(extra_host("a:x").is_err());
        assert!(extra_host("a").is_err());
    }
}
