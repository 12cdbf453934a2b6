//! `rename`.

use super::{Session, container_path};
use crate::error::{Failure, Outcome};

#[derive(Debug, clap::Args)]
#[command(
    about = "Give a container another name",
    override_usage = "CONTAINER NEW_NAME",
    before_help = "container rename, rename"
)]
pub(crate) struct Args {
    #[arg(required = true, num_args = 2)]
    names: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let (old, new) = (args.names[0].trim(), args.names[1].trim());
    if old.is_empty() || new.is_empty() {
        return Err(Failure::new(
            "Error: Neither old nor new names may be empty",
        ));
    }
    session
        .client
        .post(&container_path(old, "/rename"))
        .query("name", new)
        .done()
        .await
        .map_err(|error| {
            Failure::new(format!(
                "{error}\nError: failed to rename container named {old}"
            ))
        })?;
    Ok(0)
}
