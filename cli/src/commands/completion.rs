//! `completion`: scripts that make a shell complete command lines, and `__complete`, which they ask.
//!
//! The scripts hold no words themselves, so that they never grow old: at each tab they ask the program, as those of docker's
//! CLI do, in the same form: a candidate a line with a tab and a few words about it, then `:4` for "no files" or `:0`.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use proto::engine::{ContainerSummary, ImageSummary, Network};

use super::Session;
use crate::args::{Cli, Global, Object, Wanted, wanted};
use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::contexts::Contexts;
use crate::error::{Failure, Outcome};
use crate::format::print;
use crate::plugins;

/// How long a daemon may take to name its objects.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

const BASH: &str = include_str!("completion/bash");
const ZSH: &str = include_str!("completion/zsh");
const FISH: &str = include_str!("completion/fish");

#[derive(Debug, clap::Args)]
#[command(
    about = "Print a script that completes command lines in a shell",
    override_usage = "bash|fish|zsh"
)]
pub(crate) struct Args {
    #[arg(required = true)]
    shell: String,
}

/// The hidden command of the scripts.
#[derive(Debug, clap::Args)]
#[command(
    about = "Tell what the last word may be",
    hide = true,
    override_usage = "WORD..."
)]
pub(crate) struct CompleteArgs {
    #[arg(required = true, num_args = 1.., trailing_var_arg = true)]
    words: Vec<String>,
}

pub(crate) fn script(args: &Args) -> Outcome {
    let text = match args.shell.as_str() {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        other => {
            return Err(Failure::new(format!(
                "no completion for the shell {other:?}: bash, fish and zsh are known"
            )));
        }
    };
    print(text)?;
    Ok(0)
}

pub(crate) async fn complete(global: &Global, args: CompleteArgs) -> Outcome {
    let last = args.words.last().cloned().unwrap_or_default();
    let mut files = false;
    let candidates = match wanted(&Cli::command(), &args.words) {
        Wanted::Words(words) if args.words.len() == 1 => {
            words.into_iter().chain(of_plugins(global)).collect()
        }
        Wanted::Words(words) => words,
        // A daemon that does not answer has no names, and a message would tear the user's line.
        Wanted::Name(object) => names(global, object).await.unwrap_or_default(),
        Wanted::Anything => {
            files = true;
            Vec::new()
        }
    };
    let mut out = String::new();
    for (word, about) in candidates
        .iter()
        .filter(|(word, _)| word.starts_with(&last))
    {
        match about.is_empty() {
            true => out += &format!("{word}\n"),
            false => out += &format!("{word}\t{about}\n"),
        }
    }
    out += if files { ":0\n" } else { ":4\n" };
    print(&out)?;
    Ok(0)
}

fn of_plugins(global: &Global) -> Vec<(String, String)> {
    let (dir, file) = crate::config::folder_and_file(global.config.clone());
    plugins::all(&plugins::folders(&dir, &file.cli_plugins_extra_dirs))
        .into_iter()
        .map(|plugin| (plugin.name, plugin.metadata.short_description))
        .collect()
}

async fn names(global: &Global, object: Object) -> Option<Vec<(String, String)>> {
    let config = Config::load(global).ok()?;
    if object == Object::Context {
        let stored = Contexts::new(&config.dir).all().into_iter().flatten();
        let named = stored.map(|context| (context.name.clone(), context.description().to_string()));
        return Some(
            std::iter::once(("default".to_string(), String::new()))
                .chain(named)
                .collect(),
        );
    }
    let session = Session {
        client: Client::new(&config).ok()?,
        config,
    };
    let found = tokio::time::timeout(PATIENCE, ask(&session, object)).await;
    let names: BTreeSet<String> = found.ok()?.ok()?.into_iter().collect();
    Some(
        names
            .into_iter()
            .map(|name| (name, String::new()))
            .collect(),
    )
}

async fn ask(session: &Session, object: Object) -> Result<Vec<String>, ClientError> {
    let client = &session.client;
    Ok(match object {
        Object::Container | Object::Running => client
            .get("/containers/json")
            .query_if("all", object == Object::Container)
            .json::<Vec<ContainerSummary>>()
            .await?
            .into_iter()
            .flat_map(|container| container.names)
            .map(|name| name.trim_start_matches('/').to_string())
            .collect(),
        Object::Image => client
            .get("/images/json")
            .json::<Vec<ImageSummary>>()
            .await?
            .into_iter()
            .flat_map(|image| image.repo_tags)
            .filter(|tag| !tag.starts_with('<'))
            .flat_map(|tag| [tag.strip_suffix(":latest").map(str::to_string), Some(tag)])
            .flatten()
            .collect(),
        Object::Volume => client
            .get("/volumes")
            .json::<proto::engine::VolumeList>()
            .await?
            .volumes
            .into_iter()
            .map(|volume| volume.name)
            .collect(),
        Object::Network => client
            .get("/networks")
            .json::<Vec<Network>>()
            .await?
            .into_iter()
            .map(|network| network.name)
            .collect(),
        Object::Context => Vec::new(),
    })
}
