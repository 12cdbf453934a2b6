//! The credentials of registries: those that go with pulls and pushes, and those that `login` stores.
//!
//! They come from docker's config.json: the `auths` of the registry, or the helper program that
//! `credHelpers` or `credsStore` names. A secret goes to the daemon in a header and nowhere else.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proto::engine::AuthConfig;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::{self, Config, ConfigFile};
use crate::error::Failure;

/// The name under which the credentials of Docker Hub are stored.
pub(crate) const HUB: &str = "https://index.docker.io/v1/";
/// The user name by which helpers mark a secret as an identity token.
const TOKEN: &str = "<token>";

/// The value of the header `X-Registry-Auth` for an image name.
pub(crate) fn registry_auth(file: &ConfigFile, image: &str) -> String {
    let registry = match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => HUB,
    };
    let auth = lookup(file, registry).unwrap_or_default();
    URL_SAFE.encode(serde_json::to_vec(&auth).expect("credentials are plain strings"))
}

/// The stored credentials of a registry.
pub(crate) fn lookup(file: &ConfigFile, registry: &str) -> Option<AuthConfig> {
    if let Some(auth) = helper(file, registry).and_then(|helper| ask_helper(helper, registry)) {
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

/// Where credentials for a registry go: the helper that is named for it, or for all.
fn helper<'a>(file: &'a ConfigFile, registry: &str) -> Option<&'a str> {
    file.cred_helpers
        .get(registry)
        .or(Some(&file.creds_store))
        .map(String::as_str)
        .filter(|name| !name.is_empty())
}

/// Stores credentials, with the helper or in config.json; true if they lie readable in the file.
pub(crate) fn store(config: &Config, auth: &AuthConfig) -> Result<bool, Failure> {
    let registry = &auth.server_address;
    let (user, secret) = match auth.identity_token.as_str() {
        "" => (auth.username.as_str(), auth.password.as_str()),
        token => (TOKEN, token),
    };
    if let Some(helper) = helper(&config.file, registry) {
        let entry = json!({"ServerURL": registry, "Username": user, "Secret": secret});
        ask(helper, "store", entry.to_string().as_bytes())
            .map_err(|why| Failure::new(format!("Error saving credentials: {why}")))?;
        return edit_auths(config, |auths| {
            auths.insert(registry.clone(), json!({}));
        })
        .map(|()| false);
    }
    let mut entry = Map::new();
    if auth.identity_token.is_empty() {
        let pair = STANDARD.encode(format!("{}:{}", auth.username, auth.password));
        entry.insert("auth".to_string(), pair.into());
    } else {
        let pair = STANDARD.encode(format!("{}:", auth.username));
        entry.insert("auth".to_string(), pair.into());
        entry.insert("identitytoken".to_string(), secret.into());
    }
    edit_auths(config, |auths| {
        auths.insert(registry.clone(), Value::Object(entry));
    })
    .map(|()| true)
}

/// Forgets the credentials of a registry under all names that it may have been stored by.
pub(crate) fn erase(config: &Config, registry: &str) -> Vec<String> {
    let names = match registry {
        HUB => vec![HUB.to_string()],
        host => vec![
            host.to_string(),
            format!("http://{host}"),
            format!("https://{host}"),
        ],
    };
    let mut failures = Vec::new();
    if let Some(helper) = helper(&config.file, registry) {
        for name in &names {
            if let Err(why) = ask(helper, "erase", name.as_bytes()) {
                failures.push(format!("{name}: {why}"));
            }
        }
    }
    let forgotten = edit_auths(config, |auths| {
        for name in &names {
            auths.remove(name);
        }
    });
    failures.extend(forgotten.err().map(|failure| failure.text));
    failures
}

fn edit_auths(
    config: &Config,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<(), Failure> {
    config::edit(&config.dir, |file| {
        let auths = file.entry("auths").or_insert_with(|| json!({}));
        if !auths.is_object() {
            *auths = json!({});
        }
        change(auths.as_object_mut().expect("made an object above"));
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// What the helper has for a registry. One that has nothing, or is not there, gives none.
fn ask_helper(name: &str, registry: &str) -> Option<AuthConfig> {
    let answer = ask(name, "get", registry.as_bytes()).ok()?;
    let answer: HelperAnswer = serde_json::from_slice(&answer).ok()?;
    let mut auth = AuthConfig {
        server_address: registry.to_string(),
        ..AuthConfig::default()
    };
    if answer.username == TOKEN {
        auth.identity_token = answer.secret;
    } else {
        auth.username = answer.username;
        auth.password = answer.secret;
    }
    Some(auth)
}

/// Runs `docker-credential-NAME VERB` with what it needs on its standard input, so that no secret is an argument.
fn ask(name: &str, verb: &str, input: &[u8]) -> Result<Vec<u8>, String> {
    let program = format!("docker-credential-{name}");
    let failed = |cause: std::io::Error| format!("run {program} {verb}: {cause}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A helper that does not read its input says so by its exit code.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    // By the helpers' protocol their complaints come on standard output.
    let said = String::from_utf8_lossy(&output.stdout).trim().to_string();
    Err(format!("{program} {verb}: {}: {said}", output.status))
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

    #[test]
    fn what_is_stored_is_found_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let global = crate::args::Global {
            config: Some(dir.path().display().to_string()),
            ..crate::args::Global::default()
        };
        let load = || Config::load(&global).unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"other":1}"#).unwrap();
        let auth = AuthConfig {
            username: "me".into(),
            password: "p:w".into(),
            server_address: "reg.example".into(),
            ..AuthConfig::default()
        };
        assert!(store(&load(), &auth).unwrap());
        assert_eq!(lookup(&load().file, "reg.example"), Some(auth));
        assert!(erase(&load(), "reg.example").is_empty());
        assert_eq!(lookup(&load().file, "reg.example"), None);
        let text = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
        assert!(text.contains("\"other\": 1"), "{text}");
    }
}
