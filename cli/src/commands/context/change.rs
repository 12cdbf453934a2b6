//! `context create`, `update`, `rm` and `use`.

use std::path::Path;

use serde_json::json;

use super::endpoint::{context, pairs, settle};
use super::show::default_context;
use super::{done, new_name};
use crate::config::Config;
use crate::contexts::Contexts;
use crate::error::{Failure, Outcome};
use crate::format::print;

type Pairs = Vec<(String, String)>;

#[derive(Debug, clap::Args)]
#[command(about = "Make a context", override_usage = "[OPTIONS] CONTEXT")]
pub(crate) struct CreateArgs {
    /// Description of the context
    #[arg(long, value_name = "string", default_value = "")]
    description: String,
    /// The daemon: from=CONTEXT, or host=, ca=, cert=, key= and skip-tls-verify=, joined by commas
    #[arg(long, value_name = "stringToString", action = clap::ArgAction::Append, value_parser = pairs)]
    docker: Vec<Pairs>,
    /// Copy that context
    #[arg(long, value_name = "string", default_value = "")]
    from: String,
    #[arg(required = true)]
    context: String,
}

#[derive(Debug, clap::Args)]
#[command(about = "Change a context", override_usage = "[OPTIONS] CONTEXT")]
pub(crate) struct UpdateArgs {
    /// Description of the context
    #[arg(long, value_name = "string", default_value = "")]
    description: String,
    /// The daemon: from=CONTEXT, or host=, ca=, cert=, key= and skip-tls-verify=, joined by commas
    #[arg(long, value_name = "stringToString", action = clap::ArgAction::Append, value_parser = pairs)]
    docker: Vec<Pairs>,
    #[arg(required = true)]
    context: String,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Remove contexts",
    override_usage = "CONTEXT [CONTEXT...]",
    before_help = "context rm, context remove"
)]
pub(crate) struct RmArgs {
    /// Remove a context even if it is in use
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(required = true, num_args = 1..)]
    contexts: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Choose the context to use from now on",
    override_usage = "CONTEXT"
)]
pub(crate) struct UseArgs {
    #[arg(required = true)]
    pub(super) context: String,
}

pub(super) fn create(config: &Config, contexts: &Contexts, args: &CreateArgs) -> Outcome {
    new_name(contexts, &args.context)?;
    if !args.from.is_empty() && !args.docker.is_empty() {
        return Err(Failure::new("cannot use --docker flag when --from is set"));
    }
    let base = match args.from.as_str() {
        "" if config.context == "default" => default_context(config),
        "" => contexts.read(&config.context)?,
        "default" => default_context(config),
        from => contexts.read(from)?,
    };
    let (mut context, tls) = context(contexts, &args.context, &args.docker, &base)?;
    context.describe(&args.description);
    contexts.write_tls(&args.context, &tls)?;
    contexts.write(&context)?;
    done(&args.context, "created")
}

pub(super) fn update(contexts: &Contexts, args: &UpdateArgs) -> Outcome {
    if args.context == "default" {
        return Err(Failure::new("\"default\" is a reserved context name"));
    }
    let mut context = contexts.read(&args.context)?;
    context.describe(&args.description);
    if !args.docker.is_empty() {
        let (endpoint, tls) = settle(contexts, &args.docker)?;
        context.set_endpoint(endpoint);
        contexts.write_tls(&args.context, &tls)?;
    }
    contexts.write(&context)?;
    done(&args.context, "updated")
}

pub(super) fn rm(config: &Config, contexts: &Contexts, args: &RmArgs) -> Outcome {
    let in_file = config.file.current_context.as_deref();
    let mut failures = Vec::new();
    for name in &args.contexts {
        let refused = match name.as_str() {
            "default" => Some("context \"default\" cannot be removed".to_string()),
            _ if !contexts.exists(name) && !args.force => {
                Some(format!("context {name:?} does not exist"))
            }
            _ if !args.force && (in_file == Some(name) || config.context == *name) => Some(
                format!("context {name:?} is in use, set -f flag to force remove"),
            ),
            _ => None,
        };
        if let Some(why) = refused {
            failures.push(why);
            continue;
        }
        match contexts.remove(name) {
            Ok(()) => {
                print(&format!("{name}\n"))?;
                if in_file == Some(name) {
                    write_current(&config.dir, "default")?;
                }
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    crate::commands::all_told(&failures)
}

pub(super) fn switch(dir: &Path, name: &str) -> Outcome {
    if name != "default" {
        Contexts::new(dir).read(name)?;
    }
    write_current(dir, name)?;
    print(&format!("{name}\n"))?;
    crate::format::tell(&format!("Current context is now {name:?}\n"));
    if std::env::var("DOCKER_HOST").is_ok_and(|host| !host.is_empty()) && name != "default" {
        crate::format::tell(&format!(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use {name:?}, either set the global --context flag, or unset DOCKER_HOST environment variable.\n"
        ));
    }
    Ok(0)
}

/// Writes the name into config.json.
fn write_current(dir: &Path, name: &str) -> Result<(), Failure> {
    crate::config::edit(dir, |file| {
        if name == "default" {
            file.remove("currentContext");
        } else {
            file.insert("currentContext".to_string(), json!(name));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contexts::{Context, Endpoint};

    #[test]
    fn switching_keeps_what_else_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::new("unix:///x".to_string(), false);
        Contexts::new(dir.path())
            .write(&Context::new("a", "", endpoint))
            .unwrap();
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
