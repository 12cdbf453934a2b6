//! `export`: a container's file system as a tar.

use super::save::{check_output, download};
use super::{Session, container_path};
use crate::error::Outcome;

#[derive(Debug, clap::Args)]
#[command(
    about = "Write the file system of a container as a tar",
    override_usage = "[OPTIONS] CONTAINER",
    before_help = "container export, export"
)]
pub(crate) struct Args {
    /// Write to a file instead of STDOUT
    #[arg(long, short = 'o', value_name = "string", default_value = "")]
    output: String,
    #[arg(required = true)]
    container: String,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    check_output(&args.output, "export container")?;
    let answer = session
        .client
        .get(&container_path(&args.container, "/export"))
        .send()
        .await?;
    download(answer, &args.output).await
}
