//! Where a registry is reached: `hosts.toml` and its neighbours below a configuration folder, or what the name says.
//!
//! ```text
//!  CERTS.D/HOST[:PORT]/hosts.toml     server and mirrors, in the order of the file
//!  CERTS.D/_default/hosts.toml        for hosts without a folder
//!  CERTS.D/HOST/*.crt, *.cert, *.key  the older form: authorities and client certificates, no mirrors
//! ```
//!
//! Read anew for each transfer, so a changed file counts at once. Unknown keys are ignored, malformed files are errors.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::{RegistryError, Result};

/// The Hub's name in references and the host that serves it.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// One place that serves a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// Scheme, host, port and path below which the API is.
    pub(super) base: String,
    /// Host and port alone: whom credentials are asked for.
    pub(super) name: String,
    /// Serves other registries than its own: it is told which one is meant.
    pub(super) mirror: bool,
    pub(super) pull: bool,
    pub(super) resolve: bool,
    pub(super) push: bool,
    /// Without encryption if it cannot be had.
    pub(super) fallback: bool,
    pub(super) skip_verify: bool,
    pub(super) headers: Vec<(String, String)>,
    /// Files with authorities.
    pub(super) authorities: Vec<PathBuf>,
    /// Files with a client certificate and its key (the same file, if it holds both).
    pub(super) identity: Option<(PathBuf, PathBuf)>,
    /// Time to connect.
    pub(super) dial_timeout: Option<std::time::Duration>,
}

/// The places of registry `host`, in the order in which they are asked.
pub(super) fn hosts(host: &str, folders: &[PathBuf], scheme: &str) -> Result<Vec<Host>> {
    let folder = folders.iter().find_map(|folder| folder_of(folder, host));
    let Some(folder) = folder else {
        return Ok(vec![own(host, scheme)]);
    };
    let file = folder.join("hosts.toml");
    match std::fs::read_to_string(&file) {
        Ok(text) => parse(&text, &file, host, scheme),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(vec![with_certificates(own(host, scheme), &folder)?])
        }
        Err(error) => Err(wrong(&file, &error.to_string())),
    }
}

fn wrong(path: &Path, what: &str) -> RegistryError {
    RegistryError::Config {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}

/// The folder of a host: with the port after a colon, between underscores, or the default.
fn folder_of(root: &Path, host: &str) -> Option<PathBuf> {
    let underscored = host
        .rsplit_once(':')
        .map(|(name, port)| format!("{name}_{port}_"));
    let names = underscored
        .into_iter()
        .chain([host.to_owned(), "_default".to_owned()]);
    names
        .map(|name| root.join(name))
        .find(|folder| folder.is_dir())
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost"
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|a| a.is_loopback())
}

/// The registry itself, as its name says.
fn own(host: &str, scheme: &str) -> Host {
    let served = if host == HUB.0 { HUB.1 } else { host };
    let plain = scheme == "http" || scheme.is_empty() && is_local(host) && host.ends_with(":80");
    let scheme = if plain { "http" } else { "https" };
    Host {
        base: format!("{scheme}://{served}/v2"),
        name: served.to_owned(),
        pull: true,
        resolve: true,
        push: true,
        fallback: !plain && is_local(host),
        ..Host::default()
    }
}

fn parse(text: &str, file: &Path, host: &str, scheme: &str) -> Result<Vec<Host>> {
    let table: Table = text
        .parse()
        .map_err(|e: toml::de::Error| wrong(file, e.message()))?;
    let mut all = Vec::new();
    if let Some(hosts) = table.get("host") {
        let hosts = hosts
            .as_table()
            .ok_or_else(|| wrong(file, "host must be a table"))?;
        for address in in_file_order(text, hosts) {
            let section = hosts[&address]
                .as_table()
                .ok_or_else(|| wrong(file, "host must hold tables"))?;
            let mut place = at(&address, file, section)?;
            place.mirror = place.name != host;
            all.push(place);
        }
    }
    let server = match table.get("server") {
        None => own(host, scheme),
        Some(Value::String(address)) => {
            let mut place = at(address, file, &Table::new())?;
            place.mirror = place.name != host && !(host == HUB.0 && place.name == HUB.1);
            place
        }
        Some(_) => return Err(wrong(file, "server must be a string")),
    };
    all.push(settings(server, file, &table)?);
    Ok(all)
}

/// The keys of `[host]` as the file has them: the parser sorts them, and the order matters.
fn in_file_order(text: &str, hosts: &Table) -> Vec<String> {
    let mut keys: Vec<String> = hosts.keys().cloned().collect();
    let place = |key: &String| {
        ["\"", "'"]
            .iter()
            .filter_map(|quote| text.find(&format!("[host.{quote}{key}{quote}")))
            .min()
            .unwrap_or(usize::MAX)
    };
    keys.sort_by_key(place);
    keys
}

/// A place by its address.
fn at(address: &str, file: &Path, section: &Table) -> Result<Host> {
    let (scheme, rest) = address.split_once("://").unwrap_or(("https", address));
    if !matches!(scheme, "http" | "https") {
        return Err(wrong(
            file,
            &format!("{address:?} has an unsupported scheme"),
        ));
    }
    let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
    if name.is_empty() || name.contains(['@', '?', '#']) {
        return Err(wrong(file, &format!("{address:?} is no address of a host")));
    }
    let name = if name == HUB.0 { HUB.1 } else { name };
    let path = path.trim_matches('/');
    let overridden = matches!(section.get("override_path"), Some(Value::Boolean(true)));
    let base = match (overridden, path) {
        (true, "") => format!("{scheme}://{name}"),
        (true, path) => format!("{scheme}://{name}/{path}"),
        (false, "" | "v2") => format!("{scheme}://{name}/v2"),
        (false, path) => format!("{scheme}://{name}/v2/{path}"),
    };
    let host = Host {
        base,
        name: name.to_owned(),
        pull: true,
        resolve: true,
        push: true,
        ..Host::default()
    };
    settings(host, file, section)
}

/// Lays the settings of a section over a place.
fn settings(mut host: Host, file: &Path, section: &Table) -> Result<Host> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    if let Some(value) = section.get("capabilities") {
        let names =
            texts(value).ok_or_else(|| wrong(file, "capabilities must be a list of strings"))?;
        let has = |name: &str| names.iter().any(|n| n == name);
        (host.pull, host.resolve, host.push) = (has("pull"), has("resolve"), has("push"));
    }
    match section.get("skip_verify") {
        None => {}
        Some(Value::Boolean(skip)) => host.skip_verify = *skip,
        Some(_) => return Err(wrong(file, "skip_verify must be true or false")),
    }
    if let Some(value) = section.get("ca") {
        let names = texts(value).ok_or_else(|| wrong(file, "ca must be a path or a list"))?;
        host.authorities
            .extend(names.iter().map(|name| folder.join(name)));
    }
    if let Some(value) = section.get("client") {
        host.identity = Some(identity(value, folder).ok_or_else(|| {
            wrong(
                file,
                "client must be a path, or a list of a certificate and its key",
            )
        })?);
    }
    if let Some(value) = section.get("header") {
        let table = value
            .as_table()
            .ok_or_else(|| wrong(file, "header must be a table"))?;
        for (name, value) in table {
            let values = texts(value)
                .ok_or_else(|| wrong(file, "header must hold strings or lists of strings"))?;
            host.headers
                .extend(values.into_iter().map(|v| (name.clone(), v)));
        }
    }
    if let Some(value) = section.get("dial_timeout") {
        let seconds = value
            .as_str()
            .and_then(seconds)
            .ok_or_else(|| wrong(file, "dial_timeout must be a duration, such as \"3s\""))?;
        host.dial_timeout = Some(std::time::Duration::from_secs_f64(seconds));
    }
    Ok(host)
}

/// `500ms`, `3s`, `1m`.
fn seconds(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..split].parse().ok()?;
    let unit = match &text[split..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    (number.is_finite() && (0.0..1e6).contains(&number)).then_some(number * unit)
}

/// A string or a list of strings.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(all) => all.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// `"both.pem"`, `["cert", "key"]` or `[["cert", "key"]]`; of several pairs the first.
fn identity(value: &Value, folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let pair = |names: &[String]| match names {
        [both] => Some((folder.join(both), folder.join(both))),
        [certificate, key, ..] => Some((folder.join(certificate), folder.join(key))),
        [] => None,
    };
    match value {
        Value::Array(all) if all.first().is_some_and(Value::is_array) => pair(&texts(&all[0])?),
        other => pair(&texts(other)?),
    }
}

/// The older form: what lies in the folder says what it is by its ending.
fn with_certificates(mut host: Host, folder: &Path) -> Result<Host> {
    let entries = std::fs::read_dir(folder).map_err(|e| wrong(folder, &e.to_string()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => host.authorities.push(path),
            Some("cert") => host.identity = Some((path.clone(), path.with_extension("key"))),
            _ => {}
        }
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(hosts: &[Host]) -> Vec<&str> {
        hosts.iter().map(|h| h.base.as_str()).collect()
    }

    #[test]
    fn without_configuration_the_name_says_it() {
        let one = |host, scheme| hosts(host, &[], scheme).unwrap().remove(0);
        assert_eq!(one("docker.io", "").base, "https://registry-1.docker.io/v2");
        assert_eq!(one("quay.io", "").base, "https://quay.io/v2");
        assert!(!one("quay.io", "").fallback);
        assert!(one("127.0.0.1:5000", "").fallback);
        assert_eq!(one("[::1]:80", "").base, "http://[::1]:80/v2");
        assert_eq!(one("10.0.0.1:5000", "http").base, "http://10.0.0.1:5000/v2");
    }

    #[test]
    fn mirrors_come_in_the_order_of_the_file_and_the_server_last() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("docker.io");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(
            folder.join("hosts.toml"),
            r#"
server = "https://docker.io"
[host."http://z.lan:5000"]
  capabilities = ["pull"]
  skip_verify = true
[host."https://a.lan/v2/prefix"]
  override_path = true
  ca = "ca.crt"
  client = [["c.cert", "c.key"]]
  dial_timeout = "500ms"
  [host."https://a.lan/v2/prefix".header]
    x-one = ["1", "2"]
"#,
        )
        .unwrap();
        let all = hosts("docker.io", &[dir.path().to_owned()], "").unwrap();
        assert_eq!(
            bases(&all),
            [
                "http://z.lan:5000/v2",
                "https://a.lan/v2/prefix",
                "https://registry-1.docker.io/v2"
            ]
        );
        assert_eq!(
            (all[0].pull, all[0].resolve, all[0].push),
            (true, false, false)
        );
        assert!(all[0].skip_verify && all[0].mirror && all[1].mirror && !all[2].mirror);
        assert_eq!(all[1].authorities, [folder.join("ca.crt")]);
        assert_eq!(
            all[1].identity,
            Some((folder.join("c.cert"), folder.join("c.key")))
        );
        assert_eq!(all[1].headers.len(), 2);
        assert_eq!(
            all[1].dial_timeout,
            Some(std::time::Duration::from_millis(500))
        );
    }

    #[test]
    fn folders_of_both_forms_are_found_and_bad_files_named() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("r.lan_5000_");
        std::fs::create_dir(&old).unwrap();
        for name in ["a.crt", "b.cert", "b.key"] {
            std::fs::write(old.join(name), "").unwrap();
        }
        let host = hosts("r.lan:5000", &[dir.path().to_owned()], "")
            .unwrap()
            .remove(0);
        assert_eq!(host.authorities, [old.join("a.crt")]);
        assert_eq!(host.identity, Some((old.join("b.cert"), old.join("b.key"))));
        let default = dir.path().join("_default");
        std::fs::create_dir(&default).unwrap();
        for bad in [
            "server = 1",
            "host = 1",
            "[host.\"ftp://x\"]",
            "[host.\"http://x\"]\nca = 1",
            "x =",
        ] {
            std::fs::write(default.join("hosts.toml"), bad).unwrap();
            let error = hosts("any.io", &[dir.path().to_owned()], "").unwrap_err();
            assert!(error.to_string().contains("hosts.toml"), "{error}");
        }
    }
}
