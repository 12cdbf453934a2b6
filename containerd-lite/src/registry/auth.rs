//! Who we are to a registry: challenges, the question to our client, tokens.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use proto::containerd::types::transfer::{AuthRequest, AuthResponse, AuthType};

use super::{RegistryError, Result};
use crate::streams::Stream;

/// How long a client may take to answer: a human may be typing.
const ANSWER: Duration = Duration::from_secs(300);
/// What a token is good for if the server does not say.
const LIFE: u64 = 60;

/// What a client gives for a host.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// Nobody in particular.
    Anonymous,
    /// Name and password.
    Password(String, String),
    /// A token that others are got for.
    Refresh(String),
    /// The header itself.
    Header(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Password(..) => "Password",
            Self::Refresh(_) => "Refresh",
            Self::Header(_) => "Header",
        })
    }
}

/// The client's side of the authentication: a stream on which it answers questions, one at a time.
#[derive(Debug)]
pub(crate) struct Helper(tokio::sync::Mutex<Stream>);

impl Helper {
    /// Asks on `stream`.
    pub(crate) fn new(stream: Stream) -> Arc<Self> {
        Arc::new(Self(tokio::sync::Mutex::new(stream)))
    }

    async fn ask(&self, request: &AuthRequest) -> Result<Credentials> {
        let failed = |why: &str| {
            RegistryError::Answer(format!("ask for credentials of {}: {why}", request.host))
        };
        let mut stream = self.0.lock().await;
        stream
            .outgoing
            .send(Ok(proto::any::pack(request)))
            .await
            .map_err(|_| failed("the client left"))?;
        let answer = tokio::time::timeout(ANSWER, stream.incoming.recv())
            .await
            .map_err(|_| failed("no answer in time"))?
            .ok_or_else(|| failed("the client left"))?;
        let answer = proto::any::unpack::<AuthResponse>(&answer)
            .and_then(std::result::Result::ok)
            .ok_or_else(|| failed("the answer is malformed"))?;
        Ok(match answer.auth_type() {
            AuthType::Credentials => Credentials::Password(answer.username, answer.secret),
            AuthType::Refresh if !answer.secret.is_empty() => Credentials::Refresh(answer.secret),
            AuthType::Header => Credentials::Header(answer.secret),
            AuthType::None | AuthType::Refresh => Credentials::Anonymous,
        })
    }
}

/// What a server wants to see, from one `WWW-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: String,
        scope: Option<String>,
    },
}

/// What we know of the authentication at one place.
#[derive(Debug, Default)]
pub(super) struct Auth {
    credentials: Option<Credentials>,
    /// The header for any scope.
    fixed: Option<String>,
    tokens: HashMap<String, (String, Instant)>,
}

impl Auth {
    /// The header to send for a scope, if we know one.
    pub(super) fn header(&self, scope: &str) -> Option<String> {
        let token = || {
            let (token, until) = self.tokens.get(scope)?;
            (Instant::now() < *until).then(|| format!("Bearer {token}"))
        };
        self.fixed.clone().or_else(token)
    }

    /// Answers a 401: gets credentials and what the server wants for them.
    pub(super) async fn answer(
        &mut self,
        http: &reqwest::Client,
        host: &str,
        reference: &str,
        challenges: &[String],
        scope: &str,
        helper: Option<&Helper>,
    ) -> Result<()> {
        let what = || format!("authenticate at {host}");
        if self.fixed.take().is_some() {
            return Err(RegistryError::Status {
                what: what(),
                status: 401,
                message: ": the credentials are refused".into(),
            });
        }
        self.tokens.remove(scope);
        if self.credentials.is_none() {
            let request = AuthRequest {
                host: host.to_owned(),
                reference: reference.to_owned(),
                wwwauthenticate: challenges.to_vec(),
            };
            self.credentials = Some(match helper {
                Some(helper) => helper.ask(&request).await?,
                None => Credentials::Anonymous,
            });
        }
        let credentials = self.credentials.clone().unwrap_or(Credentials::Anonymous);
        if let Credentials::Header(header) = credentials {
            self.fixed = Some(header);
            return Ok(());
        }
        let parsed: Vec<Challenge> = challenges.iter().filter_map(|c| challenge(c)).collect();
        for wanted in &parsed {
            match (wanted, &credentials) {
                (
                    Challenge::Bearer {
                        realm,
                        service,
                        scope: asked,
                    },
                    _,
                ) => {
                    let scopes = [scope, asked.as_deref().unwrap_or_default()];
                    let token = fetch(http, realm, service, &scopes, &credentials).await?;
                    self.tokens.insert(scope.to_owned(), token);
                    return Ok(());
                }
                (Challenge::Basic, Credentials::Password(name, password)) => {
                    self.fixed = Some(basic(name, password));
                    return Ok(());
                }
                (Challenge::Basic, _) => {}
            }
        }
        Err(RegistryError::Status {
            what: what(),
            status: 401,
            message: ": authorization failed: no basic auth credentials".into(),
        })
    }
}

fn basic(name: &str, password: &str) -> String {
    let pair = format!("{name}:{password}");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}

/// Gets a token for scopes.
async fn fetch(
    http: &reqwest::Client,
    realm: &str,
    service: &str,
    scopes: &[&str],
    credentials: &Credentials,
) -> Result<(String, Instant)> {
    let what = format!("get a token from {realm}");
    let mut url = reqwest::Url::parse(realm)
        .map_err(|e| RegistryError::Answer(format!("{what}: malformed address: {e}")))?;
    let mut wanted: Vec<&str> = scopes.iter().flat_map(|s| s.split(' ')).collect();
    wanted.retain(|s| !s.is_empty());
    wanted.sort_unstable();
    wanted.dedup();
    let request = if let Credentials::Refresh(token) = credentials {
        let joined = wanted.join(" ");
        let form = form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", token),
            ("service", service),
            ("scope", &joined),
            ("client_id", "containerd-lite"),
        ]);
        http.post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
    } else {
        {
            let mut query = url.query_pairs_mut();
            if !service.is_empty() {
                query.append_pair("service", service);
            }
            for scope in wanted {
                query.append_pair("scope", scope);
            }
        }
        let request = http.get(url);
        match credentials {
            Credentials::Password(name, password) => {
                request.header("authorization", basic(name, password))
            }
            _ => request,
        }
    };
    let answer = request.send().await.map_err(|e| RegistryError::Request {
        what: what.clone(),
        source: e.into(),
    })?;
    let status = answer.status();
    if !status.is_success() {
        return Err(RegistryError::Status {
            message: super::answers::message(answer).await,
            what,
            status: status.as_u16(),
        });
    }
    let body = super::answers::body(answer, &what).await?;
    token(&body).ok_or_else(|| RegistryError::Answer(format!("{what}: no token in the answer")))
}

fn token(body: &[u8]) -> Option<(String, Instant)> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = |key: &str| answer[key].as_str().filter(|t| !t.is_empty());
    let token = text("token").or_else(|| text("access_token"))?;
    let life = answer["expires_in"].as_u64().unwrap_or(LIFE).max(LIFE);
    // A little less than it lives, so that it does not run out on the way.
    let until = Instant::now() + Duration::from_secs(life.min(86_400) * 9 / 10);
    Some((token.to_owned(), until))
}

fn form(pairs: &[(&str, &str)]) -> String {
    let mut url = reqwest::Url::parse("http://form/").expect("a valid address");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

/// Reads one challenge.
fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let values = parameters(rest);
    let value = |key: &str| values.get(key).cloned();
    Some(Challenge::Bearer {
        realm: value("realm")?,
        service: value("service").unwrap_or_default(),
        scope: value("scope"),
    })
}

/// `key="value", key=value`.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted_end(quoted),
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        let key = key.trim_matches([',', ' ', '\t']).to_ascii_lowercase();
        found.insert(key, value);
        rest = next;
    }
    found
}

/// A quoted value and what follows it.
fn quoted_end(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        assert_eq!(challenge("Basic realm=\"x\""), Some(Challenge::Basic));
        assert_eq!(
            challenge(
                r#"Bearer realm="https://a/t?x=1",service="r.io", scope="repository:a/b:pull,push""#
            ),
            Some(Challenge::Bearer {
                realm: "https://a/t?x=1".into(),
                service: "r.io".into(),
                scope: Some("repository:a/b:pull,push".into())
            })
        );
        assert_eq!(challenge("Bearer service=x"), None);
        assert_eq!(challenge("Negotiate"), None);
        assert_eq!(parameters(r#"a="x\"y",b=z"#)["a"], "x\"y");
    }

    #[test]
    fn tokens_of_both_names_are_taken() {
        assert_eq!(token(br#"{"token":"a","expires_in":300}"#).unwrap().0, "a");
        assert_eq!(token(br#"{"access_token":"b"}"#).unwrap().0, "b");
        assert!(token(b"{}").is_none());
        assert!(token(b"x").is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_survived(text in ".{0,200}") {
            let _ = challenge(&format!("Bearer {text}"));
        }
    }
}
