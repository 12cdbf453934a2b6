use super::rules::Gateway;
use super::*;

fn bridge(name: &str, subnet: &str) -> Bridge {
    Bridge {
        name: name.into(),
        subnets: vec![subnet.parse().unwrap()],
        icc: true,
        masquerade: true,
        internal: false,
        by_helper: false,
        gateways: [Gateway::Nat; 2],
        sources: Vec::new(),
        trusted: Vec::new(),
    }
}

fn mapping(host: &str, target: &str) -> Mapping {
    Mapping {
        protocol: 6,
        host: host.parse().unwrap(),
        target: target.parse().unwrap(),
        translated: true,
    }
}

#[test]
fn nothing_is_changed_where_nothing_differs() {
    let bridges = [bridge("br-a", "172.18.0.0/16")];
    let ports = [mapping("0.0.0.0:80", "172.18.0.2:80")];
    let wanted = rules::table(&bridges, &ports);
    assert!(wanted.change("t", &wanted.standing()).is_empty());
    assert!(!wanted.change("t", &Standing::default()).is_empty());
    let fewer = rules::table(&bridges, &[]);
    assert!(!fewer.change("t", &wanted.standing()).is_empty());
}

#[test]
fn the_operators_chain_is_left_alone() {
    let wanted = rules::table(&[], &[]);
    let mut standing = wanted.standing();
    standing
        .chains
        .insert(model::USER.into(), vec![String::new()]);
    assert!(wanted.change("t", &standing).is_empty());
}

/// Run by hand or by CI: `unshare -n` around the test program, as root.
#[test]
#[ignore = "needs root and a network namespace of its own"]
fn the_kernel_takes_it_and_tells_it_back() {
    let nft = |args: &[&str]| {
        let out = std::process::Command::new("nft")
            .args(args)
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    let filter = Filter::new("dockerd-lite-test".into());
    let mut bridges = vec![bridge("br-a", "172.18.0.0/16"), bridge("br-b", "fd00::/64")];
    bridges[1].internal = true;
    let mut ports: Vec<Mapping> = (0..500)
        .map(|n| mapping(&format!("0.0.0.0:{}", 1000 + n), "172.18.0.2:80"))
        .collect();
    ports.push(mapping("10.0.0.1:80", "172.18.0.3:81"));
    ports.push(mapping("[::]:80", "[fd00::2]:81"));
    let start = std::time::Instant::now();
    filter.apply(|| (bridges.clone(), ports.clone())).unwrap();
    println!("502 ports: {:?}", start.elapsed());
    let shown = nft(&["list", "ruleset"]);
    println!(
        "{}",
        shown
            .lines()
            .filter(|l| !l.contains(" : 172.18.0.2 . 80"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    for part in [
        "tcp . 1499 : 172.18.0.2 . 80",
        "10.0.0.1 . tcp . 80 : 172.18.0.3 . 81",
        "tcp . 80 : fd00::2 . 81",
        "iifname \"br-a\" accept",
        "masquerade",
    ] {
        assert!(shown.contains(part), "{part}");
    }
    nft(&[
        "add",
        "rule",
        "inet",
        "dockerd-lite-test",
        "DOCKER-USER",
        "ip",
        "saddr",
        "10.9.9.9",
        "drop",
    ]);
    let shown = nft(&["list", "ruleset"]);
    // A fresh daemon finds all of it right.
    let again = Filter::new("dockerd-lite-test".into());
    again.apply(|| (bridges.clone(), ports.clone())).unwrap();
    assert_eq!(nft(&["list", "ruleset"]), shown);
    // Whatever was changed behind its back comes back.
    nft(&["flush", "chain", "inet", "dockerd-lite-test", "forward"]);
    nft(&[
        "delete",
        "element",
        "inet",
        "dockerd-lite-test",
        "ports4",
        "{ tcp . 1200 }",
    ]);
    Filter::new("dockerd-lite-test".into())
        .apply(|| (bridges.clone(), ports.clone()))
        .unwrap();
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text
            .split([',', '\n'])
            .map(|l| l.trim().to_owned())
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(
        sorted(&nft(&["list", "ruleset"])).len(),
        sorted(&shown).len()
    );
    let start = std::time::Instant::now();
    again
        .apply(|| (bridges.clone(), ports[..499].to_vec()))
        .unwrap();
    println!("one less: {:?}", start.elapsed());
    again.apply(|| (bridges[..1].to_vec(), Vec::new())).unwrap();
    assert!(!nft(&["list", "ruleset"]).contains("br-b"));
    // Flushed under a daemon that remembers.
    nft(&["delete", "table", "inet", "dockerd-lite-test"]);
    again.apply(|| (bridges.clone(), ports.clone())).unwrap();
    assert!(nft(&["list", "ruleset"]).contains("tcp . 1499"));
    again.remove().unwrap();
    assert_eq!(nft(&["list", "ruleset"]), "");
}
