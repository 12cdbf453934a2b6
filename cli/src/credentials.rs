//! The credentials that go with pulls and pushes.
//!
//! They come from docker's config.json: the `auths` of the registry, or the helper program that
//! `credHelpers` or `credsStore` names. A secret goes to the daemon in a header and nowhere else.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proto::engine::AuthConfig;
use serde::Deserialize;

use crate::config::ConfigFile;

/// The name under which the credentials of Docker Hub are stored.
const HUB: &str = "https://index.docker.io/v1/";

/// The value of the header `X-Registry-Auth` for an image name.
pub(crate) fn registry_auth(file: &ConfigFile, image: &str) -> String {
    let registry = match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => HUB,
    };
    let auth = lookup(file, registry).unwrap_or_default();
    URL_SAFE.encode(serde_json::to_vec(&auth).expect("credentials are plain strings"))
}

fn lookup(file: &ConfigFile, registry: &str) -> Option<AuthConfig> {
    let helper = file
        .cred_helpers
        .get(registry)
        .or(Some(&file.creds_store))
        .filter(|name| !name.is_empty());
    if let Some(auth) = helper.and_then(|helper| ask_helper(helper, registry)) {
        return Some(auth);
    }
    let stored = [
        registry.to_string(),
        format!("https://{registry}"),
        format!("http://{registry}"),
    ]
    .iter()
    .find_map(|key| file.auths.get(key))?;
    let mut auth = AuthConfig {
        identity_token: stored.identitytoken.clone(),
        server_address: registry.to_string(),
        ..AuthConfig::default()
    };
    let decoded = STANDARD
        .decode(stored.auth.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())?;
    if let Some((user, password)) = decoded.split_once(':') {
        auth.username = user.to_string();
        auth.password = password.trim_end_matches('\0').to_string();
    }
    Some(auth)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Asks `docker-credential-NAME get`. A helper that has nothing, or is not there, gives none.
fn ask_helper(name: &str, registry: &str) -> Option<AuthConfig> {
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(registry.as_bytes()).ok()?;
    let output = child.wait_with_output().ok()?;
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout).ok()?;
    let mut auth = AuthConfig {
        server_address: registry.to_string(),
        ..AuthConfig::default()
    };
    if answer.username == "<token>" {
        auth.identity_token = answer.secret;
    } else {
        auth.username = answer.username;
        auth.password = answer.secret;
    }
    Some(auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(image: &str) -> AuthConfig {
        let file: ConfigFile = serde_json::from_str(
            r#"{"auths": {"reg.example:5000": {"auth": "dXNlcjpwdw=="}, "https://index.docker.io/v1/": {"auth": "aHViOng="}}}"#,
        )
        .unwrap();
        serde_json::from_slice(&URL_SAFE.decode(registry_auth(&file, image)).unwrap()).unwrap()
    }

    #[test]
    fn credentials_follow_the_registry_of_the_name() {
        assert_eq!(sent("reg.example:5000/a/b:1").password, "pw");
        assert_eq!(sent("library/busybox").username, "hub");
        assert_eq!(sent("other.example/x"), AuthConfig::default());
    }
}
