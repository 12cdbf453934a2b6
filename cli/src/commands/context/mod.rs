//! `context ...`: named daemons, in the files that docker's own CLI uses.

mod change;
mod endpoint;
mod show;
mod transfer;

use clap::Subcommand;

use crate::args::Global;
use crate::config::Config;
use crate::contexts::{Contexts, valid_name};
use crate::error::{Failure, Outcome};
use crate::format::print;

/// `docker-lite context ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Create(change::CreateArgs),
    Export(transfer::ExportArgs),
    Import(transfer::ImportArgs),
    Inspect(show::InspectArgs),
    #[command(alias = "list")]
    Ls(show::LsArgs),
    #[command(alias = "remove")]
    Rm(change::RmArgs),
    Show(show::ShowArgs),
    Update(change::UpdateArgs),
    Use(change::UseArgs),
}

pub(crate) fn run(global: &Global, verb: Verb) -> Outcome {
    // A context that is not there must not keep the others from being seen.
    let lenient = match Config::load(global) {
        Ok(config) => config,
        Err(_) => Config::load(&Global {
            context: Some("default".to_string()),
            ..global.clone()
        })?,
    };
    let contexts = Contexts::new(&lenient.dir);
    match verb {
        Verb::Show(_) => {
            let config = Config::load(global)?;
            print(&format!("{}\n", config.context))?;
            Ok(0)
        }
        Verb::Ls(args) => show::ls(&lenient, &args),
        Verb::Inspect(args) => show::inspect(&lenient, &args),
        Verb::Create(args) => change::create(&lenient, &contexts, &args),
        Verb::Update(args) => change::update(&contexts, &args),
        Verb::Rm(args) => change::rm(&lenient, &contexts, &args),
        Verb::Use(args) => change::switch(&lenient.dir, &args.context),
        Verb::Export(args) => transfer::export(&contexts, &args),
        Verb::Import(args) => transfer::import(&contexts, &args),
    }
}

/// Refuses a name that no new context may have.
fn new_name(contexts: &Contexts, name: &str) -> Result<(), Failure> {
    if name == "default" {
        return Err(Failure::new("\"default\" is a reserved context name"));
    }
    if !valid_name(name) {
        return Err(Failure::new(format!(
            "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
        )));
    }
    if contexts.exists(name) {
        return Err(Failure::new(format!("context {name:?} already exists")));
    }
    Ok(())
}

/// Tells what was done on standard error, and the name alone on standard output.
fn done(name: &str, what: &str) -> Outcome {
    print(&format!("{name}\n"))?;
    crate::format::tell(&format!("Successfully {what} context {name:?}\n"));
    Ok(0)
}
