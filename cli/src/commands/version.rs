//! `version`: of the client, and of the daemon with what is below it.

use proto::engine::SystemVersion;
use serde_json::{Value, json};

use super::Session;
use crate::error::{Failure, Outcome};
use crate::format::{Template, VERSION_STYLE, print};

#[derive(Debug, clap::Args)]
#[command(
    about = "Show the versions of client and daemon",
    override_usage = "[OPTIONS]",
    before_help = "version"
)]
pub(crate) struct Args {
    /// Format of the output: 'json' or a Go template
    #[arg(long, short = 'f', value_name = "string", default_value = "")]
    format: String,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let template = match args.format.as_str() {
        "" => None,
        "json" => Some(Template::parse("{{json .}}")?),
        source => Some(Template::parse(source)?),
    };
    let server = session.client.get("/version").json::<Value>().await;
    let agreed = session
        .client
        .version()
        .await
        .unwrap_or(proto::engine::API_VERSION)
        .to_string();
    let (server, failure) = match server {
        Ok(server) => (Some(server), None),
        Err(error) => (None, Some(Failure::from(error))),
    };
    let text = match template {
        Some(template) => {
            let client = client(&agreed, &session.config.context);
            template.render(&json!({"Client": client, "Server": server}))? + "\n"
        }
        None => {
            let mut text = plain_client(&agreed, &session.config.context);
            if let Some(server) = &server {
                let server: SystemVersion =
                    serde_json::from_value(server.clone()).map_err(|cause| {
                        Failure::new(format!("decode the version of the daemon: {cause}"))
                    })?;
                text += &plain_server(&server);
            }
            VERSION_STYLE.layout(&text)
        }
    };
    print(&text)?;
    failure.map_or(Ok(0), Err)
}

/// The name that this kind of machine has in the Docker world.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn client(agreed: &str, context: &str) -> Value {
    json!({
        "Platform": {"Name": "Docker-lite"},
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": agreed,
        "DefaultAPIVersion": proto::engine::API_VERSION,
        "GitCommit": env!("GIT_COMMIT"),
        "Os": "linux",
        "Arch": arch(),
        "Context": context,
    })
}

fn plain_client(agreed: &str, context: &str) -> String {
    let api = match agreed == proto::engine::API_VERSION {
        true => agreed.to_string(),
        false => format!("{agreed} (downgraded from {})", proto::engine::API_VERSION),
    };
    format!(
        "Client: Docker-lite\n Version:\t{}\n API version:\t{api}\n Git commit:\t{}\n OS/Arch:\tlinux/{}\n Context:\t{context}\n",
        env!("CARGO_PKG_VERSION"),
        env!("GIT_COMMIT"),
        arch(),
    )
}

fn plain_server(server: &SystemVersion) -> String {
    let platform = server
        .platform
        .as_ref()
        .map(|platform| platform.name.as_str())
        .filter(|name| !name.is_empty());
    let mut out = match platform {
        Some(name) => format!("\nServer: {name}\n"),
        None => "\nServer:\n".to_string(),
    };
    for component in &server.components {
        out += &format!(" {}:\n  Version:\t{}\n", component.name, component.version);
        let details = component.details.clone().unwrap_or_default();
        if component.name == "Engine" {
            let detail = |name: &str| details.get(name).map(String::as_str).unwrap_or_default();
            let built = detail("BuildTime");
            out += &format!(
                "  API version:\t{} (minimum version {})\n",
                detail("ApiVersion"),
                detail("MinAPIVersion")
            );
            if !detail("GoVersion").is_empty() {
                out += &format!("  Go version:\t{}\n", detail("GoVersion"));
            }
            out += &format!("  Git commit:\t{}\n", detail("GitCommit"));
            if !built.is_empty() {
                out += &format!("  Built:\t{built}\n");
            }
            out += &format!("  OS/Arch:\t{}/{}\n", detail("Os"), detail("Arch"));
            out += &format!("  Experimental:\t{}\n", detail("Experimental"));
        } else {
            for (name, value) in &details {
                out += &format!("  {name}:\t{value}\n");
            }
        }
    }
    out
}
