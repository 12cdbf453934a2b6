//! What stands in a container's `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`. Pure, but for reading the host's file.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use crate::error::{Error, Result};

/// Servers for a container when the host names only itself.
const FALLBACK_DNS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// DNS settings of a container, each list replacing the one before it where not empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dns {
    /// Name servers.
    pub(crate) servers: Vec<String>,
    /// Search domains; a lone `.` means none.
    pub(crate) search: Vec<String>,
    /// Resolver options.
    pub(crate) options: Vec<String>,
}

/// The content of `/etc/hosts`. `extra` are `NAME:ADDRESS` or `NAME=ADDRESS`; `host-gateway` stands for the gateway's address.
pub(crate) fn hosts(
    hostname: &str,
    domainname: &str,
    own: &[IpAddr],
    links: &[(IpAddr, String)],
    extra: &[String],
    host_gateway: &[IpAddr],
) -> Result<String> {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for (address, names) in links {
        line(&mut text, &address.to_string(), names);
    }
    text.push_str(&extra_lines(extra, host_gateway)?);
    for own in own {
        text.push_str(&own_line(*own, hostname, domainname));
    }
    Ok(text)
}

/// The line of a container's own address.
pub(crate) fn own_line(address: IpAddr, hostname: &str, domainname: &str) -> String {
    let names = if domainname.is_empty() {
        hostname.to_owned()
    } else {
        format!("{hostname}.{domainname} {hostname}")
    };
    let mut text = String::new();
    line(&mut text, &address.to_string(), &names);
    text
}

/// The lines of `--add-host`.
pub(crate) fn extra_lines(extra: &[String], host_gateway: &[IpAddr]) -> Result<String> {
    let mut text = String::new();
    for entry in extra {
        let (name, address) = split_extra_host(entry)?;
        if address != "host-gateway" {
            line(&mut text, address, name);
            continue;
        }
        if host_gateway.is_empty() {
            return Err(Error::invalid(format!(
                "extra host {entry:?}: there is no host gateway without a bridge network"
            )));
        }
        for gateway in host_gateway {
            line(&mut text, &gateway.to_string(), name);
        }
    }
    Ok(text)
}

fn line(text: &mut String, address: &str, names: &str) {
    writeln!(text, "{address}\t{names}").expect("a String can always be written to");
}

/// Splits and checks one `--add-host`.
pub(crate) fn split_extra_host(entry: &str) -> Result<(&str, &str)> {
    let wrong = || Error::invalid(format!("bad format for add-host: {entry:?}"));
    let at = entry.find(['=', ':']).ok_or_else(wrong)?;
    let (name, address) = (&entry[..at], &entry[at + 1..]);
    let address = address
        .strip_prefix('[')
        .and_then(|a| a.strip_suffix(']'))
        .unwrap_or(address);
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(wrong());
    }
    if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
        return Err(Error::invalid(format!(
            "invalid IP address in add-host: {address:?}"
        )));
    }
    Ok((name, address))
}

/// The content of `/etc/hostname`.
pub(crate) fn hostname(name: &str) -> String {
    format!("{name}\n")
}

/// The content of `/etc/resolv.conf`: the host's, less what means the host itself (unless the container shares its network),
/// and with the given settings in place of the host's.
pub(crate) fn resolv(host: &str, settings: &[&Dns], shares_host_network: bool) -> Result<String> {
    let mut dns = parse_resolv(host);
    if !shares_host_network {
        dns.servers.retain(|server| !is_loopback(server));
    }
    let from_host = !dns.servers.is_empty();
    for given in settings {
        if !given.servers.is_empty() {
            for server in &given.servers {
                if server.parse::<IpAddr>().is_err() {
                    return Err(Error::invalid(format!(
                        "invalid DNS server {server:?}: it is not an IP address"
                    )));
                }
            }
            dns.servers.clone_from(&given.servers);
        }
        if !given.search.is_empty() {
            dns.search.clone_from(&given.search);
        }
        if !given.options.is_empty() {
            dns.options.clone_from(&given.options);
        }
    }
    if !from_host && dns.servers.is_empty() && !shares_host_network {
        dns.servers = FALLBACK_DNS.map(str::to_owned).to_vec();
    }
    for word in dns.servers.iter().chain(&dns.search).chain(&dns.options) {
        if word.contains(char::is_whitespace) {
            return Err(Error::invalid(format!(
                "invalid DNS setting {word:?}: it holds blanks"
            )));
        }
    }
    Ok(dns.text())
}

/// The content of `/etc/resolv.conf` of a container whose names we look up, and the servers to be asked for others.
pub(crate) fn resolv_own(host: &str, settings: &[&Dns]) -> Result<(String, Vec<IpAddr>)> {
    let servers: Vec<IpAddr> = {
        // The helper is in the host's network: what is on its loopback can be asked.
        let text = resolv(host, settings, true)?;
        let parsed = parse_resolv(&text).servers;
        let read = parsed.iter().filter_map(|server| server.parse().ok());
        read.collect()
    };
    let own = Dns {
        servers: vec![super::filter::RESOLVER.to_string()],
        ..Dns::default()
    };
    let mut all = settings.to_vec();
    all.push(&own);
    let text = resolv(host, &all, false)?;
    let mut dns = parse_resolv(&text);
    if !dns
        .options
        .iter()
        .any(|option| option.starts_with("ndots:"))
    {
        dns.options.push("ndots:0".into());
    }
    Ok((dns.text(), servers))
}

impl Dns {
    fn text(&self) -> String {
        let mut text = String::new();
        for server in &self.servers {
            text.push_str("nameserver ");
            text.push_str(server);
            text.push('\n');
        }
        if !self.search.is_empty() && self.search != ["."] {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

/// The host's resolver file; the one of systemd-resolved where the host's names only its stub. A missing file is an empty one.
/// Where containers are in a network apart from the host's, a file of its own tells of that one.
pub(crate) fn host_resolv(kept_apart: Option<&Path>) -> String {
    const STUB: &str = "127.0.0.53";
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    if let Some(path) = kept_apart {
        return std::fs::read_to_string(path).unwrap_or_default();
    }
    let text = read("/etc/resolv.conf");
    if parse_resolv(&text).servers == [STUB] {
        let behind = read("/run/systemd/resolve/resolv.conf");
        if !behind.is_empty() {
            return behind;
        }
    }
    text
}

fn parse_resolv(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.servers.extend(words.next()),
            // The last one counts, as in the resolver.
            Some("search" | "domain") => dns.search = words.collect(),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

fn is_loopback(server: &str) -> bool {
    let address = server.split('%').next().unwrap_or_default();
    address
        .parse::<IpAddr>()
        .is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_do_not_reach_a_container() {
        let host = "# x\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a b\noptions edns0\n";
        let own = Dns::default();
        assert_eq!(
            resolv(host, &[&own], false).unwrap(),
            "nameserver 10.0.0.2\nsearch a b\noptions edns0\n"
        );
        assert!(resolv(host, &[&own], true).unwrap().contains("127.0.0.53"));
        assert!(
            resolv("nameserver ::1\n", &[&own], false)
                .unwrap()
                .contains("8.8.8.8")
        );
    }

    #[test]
    fn a_container_with_our_resolver_asks_the_hosts_servers_through_it() {
        let own = Dns::default();
        let host = "nameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch a\noptions edns0\n";
        let (text, servers) = resolv_own(host, &[&own]).unwrap();
        assert_eq!(
            text,
            "nameserver 127.0.0.11\nsearch a\noptions edns0 ndots:0\n"
        );
        assert_eq!(servers.len(), 2);
        let given = Dns {
            servers: vec!["9.9.9.9".into()],
            options: vec!["ndots:2".into()],
            ..Dns::default()
        };
        let (text, servers) = resolv_own(host, &[&own, &given]).unwrap();
        assert!(text.ends_with("options ndots:2\n"), "{text}");
        assert_eq!(servers, [IpAddr::from([9, 9, 9, 9])]);
    }

    #[test]
    fn the_container_wins_over_the_daemon() {
        let daemon = Dns {
            servers: vec!["1.1.1.1".into()],
            search: vec!["x".into()],
            ..Dns::default()
        };
        let container = Dns {
            servers: vec!["9.9.9.9".into()],
            search: vec![".".into()],
            ..Dns::default()
        };
        assert_eq!(
            resolv("nameserver 4.4.4.4\n", &[&daemon, &container], false).unwrap(),
            "nameserver 9.9.9.9\n"
        );
        let bad = Dns {
            servers: vec!["nope".into()],
            ..Dns::default()
        };
        assert!(resolv("", &[&bad], false).is_err());
    }

    #[test]
    fn hosts_hold_the_container_and_what_was_added() {
        let text = hosts(
            "web",
            "lan",
            &[[172, 17, 0, 2].into()],
            &[([172, 17, 0, 9].into(), "db x".into())],
            &[
                "a:1.2.3.4".into(),
                "gw=host-gateway".into(),
                "v6:[::2]".into(),
            ],
            &[[172, 17, 0, 1].into()],
        )
        .unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.contains(
            "172.17.0.9\tdb x\n1.2.3.4\ta\n172.17.0.1\tgw\n::2\tv6\n172.17.0.2\tweb.lan web\n"
        ));
        for bad in ["a", "a:", ":1.2.3.4", "a:1.2", "a b:1.2.3.4"] {
            assert!(split_extra_host(bad).is_err(), "{bad}");
        }
    }
}
