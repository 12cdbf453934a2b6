//! `context ...`: named daemons, in the files that docker's own CLI uses.

use std::path::Path;

use clap::Subcommand;
use serde_json::{Map, Value, json};

use crate::args::Global;
use crate::config::{self, Config, Context};
use crate::error::{Failure, Outcome};
use crate::format::{Row, Style, Template, ellipsis, indent, print, print_bytes, print_rows};

/// `docker-lite context ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Inspect(InspectArgs),
    #[command(alias = "list")]
    Ls(LsArgs),
    Show(ShowArgs),
    Use(UseArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Show all that is stored of contexts",
    override_usage = "[OPTIONS] [CONTEXT] [CONTEXT...]"
)]
pub(crate) struct InspectArgs {
    /// Format of the output: 'json' or a Go template
    #[arg(long, short = 'f', value_name = "string", default_value = "")]
    format: String,
    #[arg(num_args = 0..)]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "List contexts",
    override_usage = "[OPTIONS]",
    before_help = "context ls, context list"
)]
pub(crate) struct LsArgs {
    /// Format of the output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string", default_value = "")]
    format: String,
    /// Show only the names
    #[arg(long, short = 'q')]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
#[command(about = "Show which context is in use")]
pub(crate) struct ShowArgs {}

#[derive(Debug, clap::Args)]
#[command(
    about = "Choose the context to use from now on",
    override_usage = "CONTEXT"
)]
pub(crate) struct UseArgs {
    #[arg(required = true)]
    context: String,
}

pub(crate) fn run(global: &Global, verb: &Verb) -> Outcome {
    // A context that is not there must not keep the others from being seen.
    let lenient = match Config::load(global) {
        Ok(config) => config,
        Err(_) => Config::load(&Global {
            context: Some("default".to_string()),
            ..global.clone()
        })
        .map_err(|error| Failure::new(error.to_string()))?,
    };
    match verb {
        Verb::Show(_) => {
            let config = Config::load(global).map_err(|error| Failure::new(error.to_string()))?;
            print(&format!("{}\n", config.context))?;
            Ok(0)
        }
        Verb::Ls(args) => ls(&lenient, args),
        Verb::Use(args) => switch(&lenient.dir, &args.context),
        Verb::Inspect(args) => inspect(&lenient, args),
    }
}

fn default_context(config: &Config) -> Context {
    let host = match config.context.as_str() {
        "default" => config.host.clone(),
        _ => std::env::var("DOCKER_HOST")
            .unwrap_or_else(|_| "unix:///var/run/docker.sock".to_string()),
    };
    let mut context = Context {
        name: "default".to_string(),
        ..Context::default()
    };
    context.endpoints.insert(
        "docker".to_string(),
        config::Endpoint {
            host,
            skip_tls_verify: false,
        },
    );
    context
}

/// All contexts, by name; those that cannot be read are left out and told.
fn all(config: &Config) -> Vec<Context> {
    let mut out = vec![default_context(config)];
    let entries = std::fs::read_dir(config.dir.join("contexts/meta"))
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries {
        let path = entry.path().join("meta.json");
        match std::fs::read_to_string(&path).map(|text| serde_json::from_str::<Context>(&text)) {
            Ok(Ok(context)) => out.push(context),
            Ok(Err(cause)) => crate::format::tell(&format!(
                "WARNING: parse the context in {}: {cause}\n",
                path.display()
            )),
            Err(cause) => crate::format::tell(&format!(
                "WARNING: read the context in {}: {cause}\n",
                path.display()
            )),
        }
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

fn ls(config: &Config, args: &LsArgs) -> Outcome {
    let rows: Vec<Row> = all(config)
        .iter()
        .map(|context| {
            let current = context.name == config.context;
            let about = match context.metadata.get("Description").and_then(Value::as_str) {
                Some(text) => text.to_string(),
                None if context.name == "default" => {
                    "Current DOCKER_HOST based configuration".to_string()
                }
                None => String::new(),
            };
            let host = context
                .endpoints
                .get("docker")
                .map(|endpoint| endpoint.host.clone())
                .unwrap_or_default();
            let name = match (current, args.format.as_str()) {
                (true, "" | "table") if !args.quiet => format!("{} *", context.name),
                _ => context.name.clone(),
            };
            Row::default()
                .with("Name", name)
                .with("Description", ellipsis(&about, 60))
                .with("DockerEndpoint", host)
                .with("Current", current)
                .with("Error", "")
        })
        .collect();
    let headings = [
        ("Name", "NAME"),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
        ("Current", ""),
    ];
    let table = "{{.Name}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}";
    let format = if args.quiet {
        "{{.Name}}"
    } else {
        args.format.as_str()
    };
    print_rows(
        format,
        Style {
            table,
            headings: &headings,
        },
        &rows,
    )?;
    if !args.quiet && std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty()) {
        crate::format::tell(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.\n",
        );
    }
    Ok(0)
}

/// Writes the name into config.json, leaving everything else there as it is.
fn switch(dir: &Path, name: &str) -> Outcome {
    if name != "default" {
        config::context(dir, name).map_err(|error| Failure::new(error.to_string()))?;
    }
    let path = dir.join("config.json");
    let failed = |what: &str, cause: &dyn std::fmt::Display| {
        Failure::new(format!("{what} {}: {cause}", path.display()))
    };
    let mut file: Map<String, Value> = match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|cause| failed("parse", &cause))?,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Map::new(),
        Err(cause) => return Err(failed("read", &cause)),
    };
    if name == "default" {
        file.remove("currentContext");
    } else {
        file.insert("currentContext".to_string(), json!(name));
    }
    let text = serde_json::to_vec(&file).map_err(|cause| failed("write", &cause))?;
    write_private(&path, &indent_tabs(&text)).map_err(|cause| failed("write", &cause))?;
    print(&format!("{name}\n"))?;
    crate::format::tell(&format!("Current context is now {name:?}\n"));
    if std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty()) && name != "default" {
        crate::format::tell(&format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use {name:?}, either set the global --context flag, or unset DOCKER_HOST environment variable.\n"
        ));
    }
    Ok(0)
}

/// docker writes config.json with tabs.
fn indent_tabs(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(&indent(text, "")).into_owned();
    text.lines()
        .map(|line| {
            let spaces = line.len() - line.trim_start_matches(' ').len();
            format!(
                "{}{}",
                "\t".repeat(spaces / 4),
                line.trim_start_matches(' ')
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
        .into_bytes()
}

/// Replaces a file as a whole, readable by its owner only.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let partial = path.with_extension(format!("json{}", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)
}

fn inspect(config: &Config, args: &InspectArgs) -> Outcome {
    let template = match args.format.as_str() {
        "" | "json" => None,
        source => Some(Template::parse(source)?),
    };
    let current = [config.context.clone()];
    let names = if args.names.is_empty() {
        &current[..]
    } else {
        &args.names[..]
    };
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        let context = match name.as_str() {
            "default" => Ok(default_context(config)),
            name => config::context(&config.dir, name),
        };
        match context {
            Ok(context) => found.push(described(&config.dir, &context)),
            Err(error) => failures.push(error.to_string()),
        }
    }
    match template {
        Some(template) => {
            for context in &found {
                print(&(template.render(context)? + "\n"))?;
            }
        }
        None => {
            let text = Value::Array(found)
                .to_string()
                .replace('<', "\\u003c")
                .replace('>', "\\u003e");
            let mut bytes = indent(text.as_bytes(), "");
            bytes.push(b'\n');
            print_bytes(&bytes)?;
        }
    }
    super::all_told(&failures)
}

fn described(dir: &Path, context: &Context) -> Value {
    let endpoints: Map<String, Value> = context
        .endpoints
        .iter()
        .map(|(kind, endpoint)| {
            (
                kind.clone(),
                json!({"Host": endpoint.host, "SkipTLSVerify": endpoint.skip_tls_verify}),
            )
        })
        .collect();
    let (meta, tls) = match context.name.as_str() {
        "default" => ("<IN MEMORY>".to_string(), "<IN MEMORY>".to_string()),
        name => {
            let meta = config::context_path(dir, name);
            let meta = meta.parent().unwrap_or(dir).to_path_buf();
            let tls = dir
                .join("contexts/tls")
                .join(meta.file_name().unwrap_or_default());
            (meta.display().to_string(), tls.display().to_string())
        }
    };
    json!({
        "Name": context.name,
        "Metadata": context.metadata,
        "Endpoints": endpoints,
        "TLSMaterial": {},
        "Storage": {"MetadataPath": meta, "TLSPath": tls},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switching_keeps_what_else_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = config::context_path(dir.path(), "a");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, r#"{"Name":"a","Metadata":{},"Endpoints":{}}"#).unwrap();
        std::fs::write(
            dir.path().join("config.json"),
            r#"{"zzz":{"b":1},"auths":{}}"#,
        )
        .unwrap();
        switch(dir.path(), "a").unwrap();
        let text = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
        assert_eq!(
            text,
            "{\n\t\"zzz\": {\n\t\t\"b\": 1\n\t},\n\t\"auths\": {},\n\t\"currentContext\": \"a\"\n}"
        );
        switch(dir.path(), "default").unwrap();
        assert!(
            !std::fs::read_to_string(dir.path().join("config.json"))
                .unwrap()
                .contains("currentContext")
        );
        assert!(switch(dir.path(), "nope").is_err());
    }
}
