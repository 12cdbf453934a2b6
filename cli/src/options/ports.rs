//! `--publish` and `--expose`. Pure.

use proto::engine::{Empty, PortBinding, PortMap, Set};

/// The exposed ports, and the host's ports that they are published on.
pub(crate) fn published(given: &[String]) -> Result<(Set, PortMap), String> {
    let (mut exposed, mut bindings) = (Set::new(), PortMap::new());
    for spec in given {
        for (port, binding) in parse(&short_form(spec)?)? {
            exposed.insert(port.clone(), Empty {});
            bindings
                .entry(port)
                .or_default()
                .get_or_insert_with(Vec::new)
                .push(binding);
        }
    }
    Ok((exposed, bindings))
}

/// Adds the ports of `--expose`.
pub(crate) fn expose(given: &[String], exposed: &mut Set) -> Result<(), String> {
    for spec in given {
        if spec.contains(':') {
            return Err(format!("invalid port format for --expose: {spec}"));
        }
        let (ports, protocol) = protocol(spec)?;
        let (first, last) = range(ports)
            .map_err(|why| format!("invalid range format for --expose: {spec}, error: {why}"))?;
        for port in first..=last {
            exposed.insert(format!("{port}/{protocol}"), Empty {});
        }
    }
    Ok(())
}

/// Turns the long form `published=80,target=8080,protocol=udp` into the short one.
fn short_form(spec: &str) -> Result<String, String> {
    if !spec.contains('=') {
        return Ok(spec.to_string());
    }
    let (mut host, mut target, mut protocol) = ("", "", "tcp");
    for field in spec.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => host = value,
            Some(("target", value)) => target = value,
            Some(("protocol", value)) => protocol = value,
            Some((key, _)) if !key.is_empty() => {}
            _ => {
                return Err(format!(
                    "invalid publish opts format (should be name=value but got '{field}')"
                ));
            }
        }
    }
    Ok(format!("{host}:{target}/{protocol}"))
}

/// One `[ip:][host port:]port[/protocol]`, ranges allowed: each container port and its binding.
fn parse(spec: &str) -> Result<Vec<(String, PortBinding)>, String> {
    let (rest, protocol) = protocol(spec)?;
    let (ip, host, container) = split(rest);
    if container.is_empty() {
        return Err(format!("no port specified: {spec}<empty>"));
    }
    let ip = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip);
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    let (first, last) =
        range(container).map_err(|_| format!("Invalid containerPort: {container}"))?;
    if host.is_empty() {
        return Ok((first..=last)
            .map(|port| (format!("{port}/{protocol}"), binding(ip, String::new())))
            .collect());
    }
    let (host_first, host_last) = range(host).map_err(|_| format!("Invalid hostPort: {host}"))?;
    if first == last && host_first != host_last {
        // One port of the container on any free one of the range.
        return Ok(vec![(
            format!("{first}/{protocol}"),
            binding(ip, format!("{host_first}-{host_last}")),
        )]);
    }
    if last - first != host_last - host_first {
        return Err(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ));
    }
    Ok((first..=last)
        .zip(host_first..=host_last)
        .map(|(port, host)| (format!("{port}/{protocol}"), binding(ip, host.to_string())))
        .collect())
}

fn binding(ip: &str, host_port: String) -> PortBinding {
    PortBinding {
        host_ip: ip.to_string(),
        host_port,
    }
}

fn split(spec: &str) -> (&str, &str, &str) {
    let Some((rest, container)) = spec.rsplit_once(':') else {
        return ("", "", spec);
    };
    match rest.rsplit_once(':') {
        Some((ip, host)) => (ip, host, container),
        None => ("", rest, container),
    }
}

fn protocol(spec: &str) -> Result<(&str, String), String> {
    let (ports, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let protocol = protocol.to_lowercase();
    match protocol.as_str() {
        "tcp" | "udp" | "sctp" => Ok((ports, protocol)),
        _ => Err(format!("invalid proto: {protocol}")),
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: invalid syntax"))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        Err(format!("invalid range specified for port: {text}"))
    } else {
        Ok((first, last))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn show(spec: &str) -> Result<String, String> {
        let (_, bindings) = published(&[spec.to_string()])?;
        Ok(bindings
            .iter()
            .flat_map(|(port, list)| {
                list.iter()
                    .flatten()
                    .map(move |b| format!("{}:{}->{port}", b.host_ip, b.host_port))
            })
            .collect::<Vec<_>>()
            .join(" "))
    }

    #[test]
    fn every_form_of_a_port() {
        assert_eq!(show("80").unwrap(), ":->80/tcp");
        assert_eq!(show("8080:80/udp").unwrap(), ":8080->80/udp");
        assert_eq!(show("127.0.0.1::80").unwrap(), "127.0.0.1:->80/tcp");
        assert_eq!(show("[::1]:8080:80").unwrap(), "::1:8080->80/tcp");
        assert_eq!(
            show("8080-8081:80-81").unwrap(),
            ":8080->80/tcp :8081->81/tcp"
        );
        assert_eq!(show("8080-8090:80").unwrap(), ":8080-8090->80/tcp");
        assert_eq!(show("published=8080,target=80").unwrap(), ":8080->80/tcp");
        for bad in [
            "80/foo",
            "x:80",
            "80:x",
            "1-3:80-81",
            "300.1.1.1:80:80",
            "99999",
        ] {
            assert!(show(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exposed_ports_are_a_set() {
        let mut set = Set::new();
        expose(&["80-81/udp".into(), "90".into()], &mut set).unwrap();
        assert_eq!(
            set.keys().collect::<Vec<_>>(),
            ["80/udp", "81/udp", "90/tcp"]
        );
        assert!(expose(&["80:80".into()], &mut set).is_err());
    }

    proptest! {
        #[test]
        fn no_port_is_too_odd(text in "[0-9a-z:./=,\\[\\]-]{0,24}") {
            let _ = published(&[text]);
        }
    }
}
