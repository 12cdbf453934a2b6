//! Changing the published ports of a container: what is asked for, and what then stands in its record. Pure.

use proto::engine::{PortBinding, PortMap};

use super::endpoint::Published;
use super::ports::{Wanted, of_map, parse_port};
use crate::error::{Error, Result};

/// The ports that shall be published no more. One without bindings stands for all of that port.
pub(crate) fn to_remove(map: &PortMap) -> Result<Vec<Wanted>> {
    let none = |list: &Option<Vec<PortBinding>>| list.as_ref().is_none_or(Vec::is_empty);
    let mut gone = of_map(map)?;
    for (key, _) in map.iter().filter(|(_, list)| none(list)) {
        let (port, protocol) = parse_port(key)?;
        gone.push(Wanted {
            protocol,
            port,
            address: None,
            range: None,
        });
    }
    Ok(gone)
}

/// Whether a published port is meant by one that shall go.
pub(crate) fn is_meant(gone: &Wanted, port: &Published) -> bool {
    let number = port.host.port();
    gone.port == port.port
        && gone.protocol == port.protocol
        && gone
            .range
            .is_none_or(|(from, to)| (from..=to).contains(&number))
        && gone.address.is_none_or(|address| address == port.host.ip())
}

/// Whether a binding that was asked for can only have led to what shall go.
fn covers(gone: &Wanted, asked: &Wanted) -> bool {
    let range = match (gone.range, asked.range) {
        (None, _) | (Some(_), None) => true,
        (Some((from, to)), Some((first, last))) => from <= last && first <= to,
    };
    let address = match (gone.address, asked.address) {
        (Some(one), Some(other)) => one == other,
        // All addresses are published as two; one of them alone cannot be taken back for good.
        (Some(one), None) => one.is_unspecified(),
        (None, _) => true,
    };
    gone.port == asked.port && gone.protocol == asked.protocol && range && address
}

/// Changes the bindings of a record. What shall go must be there; `published` says what is, while the container runs.
pub(crate) fn change(
    bindings: &mut PortMap,
    published: &[Published],
    add: &PortMap,
    gone: &[Wanted],
) -> Result<()> {
    let mut found = vec![false; gone.len()];
    for (at, wanted) in gone.iter().enumerate() {
        found[at] = published.iter().any(|port| is_meant(wanted, port));
    }
    for (key, list) in bindings.iter_mut() {
        let Some(list) = list else { continue };
        let mut kept = Vec::new();
        for binding in list.drain(..) {
            let single = PortMap::from([(key.clone(), Some(vec![binding.clone()]))]);
            let asked = of_map(&single)?;
            let mut meant = gone.iter().enumerate();
            match meant.find(|(_, gone)| asked.iter().any(|asked| covers(gone, asked))) {
                Some((at, _)) => found[at] = true,
                None => kept.push(binding),
            }
        }
        *list = kept;
    }
    if let Some(at) = found.iter().position(|found| !found) {
        let Wanted { port, protocol, .. } = &gone[at];
        return Err(Error::invalid(format!(
            "port {port}/{protocol} is not published as described"
        )));
    }
    bindings.retain(|_, list| list.as_ref().is_none_or(|list| !list.is_empty()));
    for (key, list) in add {
        let place = bindings.entry(key.clone()).or_default();
        let place = place.get_or_insert_default();
        place.extend(list.iter().flatten().cloned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(json: serde_json::Value) -> PortMap {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_goes_must_be_there_and_what_comes_is_added() {
        let mut bindings = map(serde_json::json!({
            "80/tcp": [{"HostPort": "8080"}, {"HostPort": "8081"}], "53/udp": [{"HostPort": ""}]
        }));
        let gone = to_remove(&map(serde_json::json!({"80/tcp": [{"HostPort": "8081"}]}))).unwrap();
        let add = map(serde_json::json!({"90/tcp": [{"HostPort": "9090"}]}));
        change(&mut bindings, &[], &add, &gone).unwrap();
        assert_eq!(bindings["80/tcp"].as_ref().unwrap().len(), 1);
        assert_eq!(bindings["90/tcp"].as_ref().unwrap()[0].host_port, "9090");
        assert!(change(&mut bindings.clone(), &[], &PortMap::new(), &gone).is_err());
        // One that was given out is known by what is published.
        let published = Published {
            protocol: "udp".into(),
            port: 53,
            host: ([0, 0, 0, 0], 32768).into(),
        };
        let gone = to_remove(&map(serde_json::json!({"53/udp": [{"HostPort": "32768"}]}))).unwrap();
        assert!(is_meant(&gone[0], &published));
        change(&mut bindings, &[published], &PortMap::new(), &gone).unwrap();
        assert!(!bindings.contains_key("53/udp"));
        let all = to_remove(&map(serde_json::json!({"80/tcp": null, "90/tcp": []}))).unwrap();
        change(&mut bindings, &[], &PortMap::new(), &all).unwrap();
        assert!(bindings.is_empty());
    }
}
