//! `top`: the processes of a container.

use proto::engine::TopResponse;

use super::{Session, container_path};
use crate::error::{Failure, Outcome};
use crate::format::{TabWriter, print};

#[derive(Debug, clap::Args)]
#[command(
    about = "List the processes of a container",
    override_usage = "CONTAINER [ps OPTIONS]",
    before_help = "container top, top"
)]
pub(crate) struct Args {
    #[arg(required = true, num_args = 1.., trailing_var_arg = true)]
    words: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let (container, options) = args
        .words
        .split_first()
        .ok_or_else(|| Failure::new("no container given"))?;
    let told: TopResponse = session
        .client
        .get(&container_path(container, "/top"))
        .query_some("ps_args", &options.join(" "))
        .json()
        .await?;
    let mut out = told.titles.join("\t") + "\n";
    for process in &told.processes {
        out += &(process.join("\t") + "\n");
    }
    print(
        &TabWriter {
            min_width: 20,
            padding: 3,
        }
        .layout(&out),
    )?;
    Ok(0)
}
