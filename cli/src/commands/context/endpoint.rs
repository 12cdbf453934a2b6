//! `--docker key=value,...`: how a context reaches its daemon.

use std::collections::BTreeMap;

use crate::archive::plain;
use crate::contexts::{Context, Contexts, Endpoint, TlsMaterial};
use crate::error::Failure;

/// Reads `key=value,key=value`; checked further when it is known what it is for.
pub(super) fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    text.split(',')
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) => Ok((key.to_string(), value.to_string())),
            None => Err(format!("{pair} must be formatted as key=value")),
        })
        .collect()
}

/// The endpoint and the secrets that the pairs describe.
pub(super) fn settle(
    contexts: &Contexts,
    given: &[Vec<(String, String)>],
) -> Result<(Endpoint, TlsMaterial), Failure> {
    described(contexts, given)
        .map_err(|why| Failure::new(format!("unable to create docker endpoint config: {why}")))
}

fn described(
    contexts: &Contexts,
    given: &[Vec<(String, String)>],
) -> Result<(Endpoint, TlsMaterial), String> {
    let given: BTreeMap<&str, &str> = given
        .iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let known = ["from", "host", "ca", "cert", "key", "skip-tls-verify"];
    if let Some(key) = given.keys().find(|key| !known.contains(key)) {
        return Err(format!("unrecognized config key: {key}"));
    }
    if let Some(from) = given.get("from") {
        let context = contexts.read(from).map_err(|error| error.to_string())?;
        let endpoint = context.endpoint().map_err(|error| error.to_string())?;
        let tls = contexts.read_tls(from).map_err(|error| error.to_string())?;
        return Ok((endpoint.clone(), tls));
    }
    let skip = match given.get("skip-tls-verify") {
        None => false,
        Some(&("1" | "t" | "T" | "true" | "TRUE" | "True")) => true,
        Some(&("" | "0" | "f" | "F" | "false" | "FALSE" | "False")) => false,
        Some(other) => {
            return Err(format!(
                "skip-tls-verify: parsing {other:?}: invalid syntax"
            ));
        }
    };
    let read = |key: &str| match given.get(key).filter(|path| !path.is_empty()) {
        None => Ok(None),
        Some(path) => std::fs::read(path)
            .map(Some)
            .map_err(|cause| format!("open {path}: {}", plain(&cause))),
    };
    let tls = TlsMaterial {
        ca: read("ca")?,
        cert: read("cert")?,
        key: read("key")?,
    };
    crate::client::check_tls(&tls)
        .map_err(|why| format!("invalid docker endpoint options: {why}"))?;
    let host = given.get("host").copied().unwrap_or_default().to_string();
    Ok((Endpoint::new(host, skip), tls))
}

/// The context to start from: what `--docker` says, a copy of another one, or the daemon in use.
pub(super) fn context(
    contexts: &Contexts,
    name: &str,
    docker: &[Vec<(String, String)>],
    current: &Context,
) -> Result<(Context, TlsMaterial), Failure> {
    if docker.is_empty() {
        let tls = match current.name.as_str() {
            "default" => TlsMaterial::default(),
            name => contexts.read_tls(name)?,
        };
        let mut context = current.clone();
        context.name = name.to_string();
        return Ok((context, tls));
    }
    let (endpoint, tls) = settle(contexts, docker)?;
    Ok((Context::new(name, "", endpoint), tls))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let contexts = Contexts::new(dir.path());
        let settle = |text: &str| described(&contexts, &[pairs(text).unwrap()]);
        assert_eq!(
            settle("host=tcp://x:1,skip-tls-verify=true").unwrap().0,
            Endpoint::new("tcp://x:1".to_string(), true)
        );
        assert_eq!(
            settle("nope=1").unwrap_err(),
            "unrecognized config key: nope"
        );
        assert!(settle("host=a,skip-tls-verify=maybe").is_err());
        assert!(settle("ca=/no/such/file").unwrap_err().starts_with("open "));
        assert!(settle("from=nope").is_err());
        assert!(pairs("nope").is_err());
    }
}
