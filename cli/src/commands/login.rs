//! `login` and `logout`: the credentials of a registry, tried by the daemon and stored as docker stores them.

use std::io::Read as _;

use proto::engine::{AuthConfig, AuthResponse};

use super::Session;
use crate::credentials::{self, HUB};
use crate::error::{Failure, Outcome};
use crate::format::{print, tell};
use crate::terminal;

#[derive(Debug, clap::Args)]
#[command(
    about = "Log in to a registry",
    override_usage = "[OPTIONS] [SERVER]",
    before_help = "login"
)]
pub(crate) struct LoginArgs {
    /// Password or token
    #[arg(long, short = 'p', value_name = "string")]
    password: Option<String>,
    /// Read the password from STDIN
    #[arg(long)]
    password_stdin: bool,
    /// User name
    #[arg(long, short = 'u', value_name = "string", default_value = "")]
    username: String,
    server: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Log out of a registry",
    override_usage = "[SERVER]",
    before_help = "logout"
)]
pub(crate) struct LogoutArgs {
    server: Option<String>,
}

/// The name under which a registry's credentials are stored.
fn registry(server: Option<&str>) -> String {
    let server = server.unwrap_or_default();
    let host = server
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap_or_default();
    match host {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" => HUB.to_string(),
        host => host.to_string(),
    }
}

pub(crate) async fn login(session: &Session, args: LoginArgs) -> Outcome {
    let server = registry(args.server.as_deref());
    let password = given_password(&args)?;
    let stored = credentials::lookup(&session.config.file, &server);
    if args.username.is_empty()
        && password.is_none()
        && let Some(known) = stored.clone()
    {
        tell(&format!(
            "Authenticating with existing credentials... [Username: {}]\n\n Info -> To login with a different account, run 'docker-lite logout' followed by 'docker-lite login'\n\n\n",
            known.username
        ));
        match attempt(session, known).await {
            Ok(code) => return Ok(code),
            Err(failure) if !terminal::stdin_is_terminal() => return Err(failure),
            Err(failure) => tell(&format!("Login did not succeed, error: {}\n", failure.text)),
        }
    }
    let auth = match (args.username.as_str(), password) {
        (user, Some(password)) if !user.is_empty() => AuthConfig {
            username: user.to_string(),
            password,
            server_address: server,
            ..AuthConfig::default()
        },
        (user, password) => ask(user, password, server, stored)?,
    };
    attempt(session, auth).await
}

/// The password that the command line or standard input brings.
fn given_password(args: &LoginArgs) -> Result<Option<String>, Failure> {
    if args.password.is_some() {
        tell("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n");
        if args.password_stdin {
            return Err(Failure::new(
                "conflicting options: cannot specify both --password and --password-stdin",
            ));
        }
    }
    if !args.password_stdin {
        return Ok(args.password.clone());
    }
    if args.username.is_empty() {
        return Err(Failure::new(
            "the --password-stdin option requires --username to be set",
        ));
    }
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text)?;
    Ok(Some(text.trim_end_matches(['\r', '\n']).to_string()))
}

/// Asks a person for what is missing.
fn ask(
    user: &str,
    password: Option<String>,
    server: String,
    stored: Option<AuthConfig>,
) -> Result<AuthConfig, Failure> {
    if !terminal::stdin_is_terminal() {
        return Err(Failure::new(
            "Error: Cannot perform an interactive login from a non TTY device",
        ));
    }
    let mut username = user.to_string();
    if username.is_empty() {
        let known = stored.map(|auth| auth.username).unwrap_or_default();
        tell(&match known.as_str() {
            "" => "Username: ".to_string(),
            known => format!("Username ({known}): "),
        });
        std::io::stdin().read_line(&mut username)?;
        username = username.trim().to_string();
        if username.is_empty() {
            username = known;
        }
    }
    if username.is_empty() {
        return Err(Failure::new("Error: Non-null Username Required"));
    }
    let password = match password {
        Some(password) => password,
        None => terminal::read_hidden("Password: ")?,
    };
    if password.is_empty() {
        return Err(Failure::new("Error: Password Required"));
    }
    Ok(AuthConfig {
        username,
        password,
        server_address: server,
        ..AuthConfig::default()
    })
}

/// Lets the daemon try the credentials, and stores them when they are good.
async fn attempt(session: &Session, mut auth: AuthConfig) -> Outcome {
    let answer: AuthResponse = session.client.post("/auth").json_body(&auth).json().await?;
    if !answer.identity_token.is_empty() {
        auth.password = String::new();
        auth.identity_token = answer.identity_token;
    }
    let known = credentials::lookup(&session.config.file, &auth.server_address);
    let new = known.as_ref() != Some(&auth);
    if credentials::store(&session.config, &auth)? && new {
        tell(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n",
            session.config.dir.join("config.json").display()
        ));
    }
    if !answer.status.is_empty() {
        print(&format!("{}\n", answer.status))?;
    }
    Ok(0)
}

pub(crate) fn logout(session: &Session, args: &LogoutArgs) -> Outcome {
    let server = registry(args.server.as_deref());
    print(&format!("Removing login credentials for {server}\n"))?;
    let failures = credentials::erase(&session.config, &server);
    for failure in &failures {
        tell(&format!(
            "WARNING: could not erase credentials:\n{failure}\n"
        ));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_have_one_name_each() {
        assert_eq!(registry(None), HUB);
        assert_eq!(registry(Some("docker.io")), HUB);
        assert_eq!(registry(Some("https://reg.example:5/v2/")), "reg.example:5");
    }
}
