//! `context ls`, `inspect` and `show`.

use serde_json::{Value, json};

use crate::config::Config;
use crate::contexts::{Context, Contexts, Endpoint};
use crate::error::Outcome;
use crate::format::{Row, Style, Template, ellipsis, indent, print, print_bytes, print_rows};

/// Where the default context lies.
const MEMORY: &str = "<IN MEMORY>";

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

/// The context that stands for flags and environment.
pub(super) fn default_context(config: &Config) -> Context {
    let host = match config.context.as_str() {
        "default" => config.host.clone(),
        _ => std::env::var("DOCKER_HOST")
            .unwrap_or_else(|_| "unix:///var/run/docker.sock".to_string()),
    };
    let about = "Current DOCKER_HOST based configuration";
    Context::new("default", about, Endpoint::new(host, false))
}

/// All contexts, by name; those that cannot be read are left out and told.
fn all(config: &Config) -> Vec<Context> {
    let mut out = vec![default_context(config)];
    for found in Contexts::new(&config.dir).all() {
        match found {
            Ok(context) => out.push(context),
            Err(error) => crate::format::tell(&format!("WARNING: {error}\n")),
        }
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

pub(super) fn ls(config: &Config, args: &LsArgs) -> Outcome {
    let rows: Vec<Row> = all(config)
        .iter()
        .map(|context| {
            let current = context.name == config.context;
            let about = context.description();
            let host = context
                .endpoint()
                .map(|endpoint| endpoint.host.clone())
                .unwrap_or_default();
            let name = match (current, args.format.as_str()) {
                (true, "" | "table") if !args.quiet => format!("{} *", context.name),
                _ => context.name.clone(),
            };
            Row::default()
                .with("Name", name)
                .with("Description", ellipsis(about, 60))
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
    if std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty()) {
        crate::format::tell(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.\n",
        );
    }
    Ok(0)
}

pub(super) fn inspect(config: &Config, args: &InspectArgs) -> Outcome {
    let template = match args.format.as_str() {
        "" | "json" => None,
        source => Some(Template::parse(source)?),
    };
    let contexts = Contexts::new(&config.dir);
    let in_memory = || {
        let mut context = default_context(config);
        context.metadata.clear();
        context
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
            "default" => Ok(in_memory()),
            name => contexts.read(name),
        };
        match context {
            Ok(context) => found.push(described(&contexts, &context)),
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
    crate::commands::all_told(&failures)
}

fn described(contexts: &Contexts, context: &Context) -> Value {
    let (meta, tls, material) = match context.name.as_str() {
        "default" => (MEMORY.to_string(), MEMORY.to_string(), json!({})),
        name => {
            let files: Vec<&str> = match contexts.read_tls(name) {
                Ok(tls) => tls.files().map(|(file, _)| file).collect(),
                Err(error) => {
                    crate::format::tell(&format!("WARNING: {error}\n"));
                    Vec::new()
                }
            };
            let shown = |path: std::path::PathBuf| path.display().to_string();
            let material = match files.is_empty() {
                true => json!({}),
                false => json!({"docker": files}),
            };
            (
                shown(contexts.meta(name)),
                shown(contexts.tls(name)),
                material,
            )
        }
    };
    json!({
        "Name": context.name,
        "Metadata": context.metadata,
        "Endpoints": context.endpoints,
        "TLSMaterial": material,
        "Storage": {"MetadataPath": meta, "TLSPath": tls},
    })
}
