//! `context export` and `import`.

use std::io::Write as _;

use super::{done, new_name};
use crate::archive::plain;
use crate::contexts::Contexts;
use crate::error::{Failure, Outcome};
use crate::format::print_bytes;
use crate::terminal;

#[derive(Debug, clap::Args)]
#[command(
    about = "Write a context as a tar, to a file or to STDOUT",
    override_usage = "[OPTIONS] CONTEXT [FILE|-]"
)]
pub(crate) struct ExportArgs {
    #[arg(required = true)]
    context: String,
    file: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Take an exported context in",
    override_usage = "CONTEXT FILE|-"
)]
pub(crate) struct ImportArgs {
    #[arg(required = true)]
    context: String,
    #[arg(required = true)]
    file: String,
}

pub(super) fn export(contexts: &Contexts, args: &ExportArgs) -> Outcome {
    let tar = contexts.export(&args.context)?;
    let named = format!("{}.dockercontext", args.context);
    let file = args.file.as_deref().unwrap_or(&named);
    if file == "-" {
        if terminal::stdout_is_terminal() {
            return Err(Failure::new(
                "cowardly refusing to export to a terminal, specify a file path",
            ));
        }
        print_bytes(&tar)?;
        return Ok(0);
    }
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(|cause| match cause.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::new(format!("open {file}: file exists")),
            _ => Failure::new(format!("open {file}: {}", plain(&cause))),
        })?
        .write_all(&tar)
        .map_err(|cause| Failure::new(format!("write {file}: {}", plain(&cause))))?;
    crate::format::tell(&format!("Written file {file:?}\n"));
    Ok(0)
}

pub(super) fn import(contexts: &Contexts, args: &ImportArgs) -> Outcome {
    new_name(contexts, &args.context)?;
    let imported = match args.file.as_str() {
        "-" => contexts.import(&args.context, std::io::stdin().lock()),
        path => {
            let file = std::fs::File::open(path)
                .map_err(|cause| Failure::new(format!("open {path}: {}", plain(&cause))))?;
            contexts.import(&args.context, file)
        }
    };
    imported?;
    done(&args.context, "imported")
}
