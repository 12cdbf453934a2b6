//! `load`: images from a tar.

use super::Session;
use crate::archive::upload_file;
use crate::error::{Failure, Outcome};
use crate::progress;
use crate::terminal;

#[derive(Debug, clap::Args)]
#[command(
    about = "Take images in from a tar",
    override_usage = "[OPTIONS]",
    before_help = "image load, load"
)]
pub(crate) struct Args {
    /// Read from a file instead of STDIN
    #[arg(long, short = 'i', value_name = "string", default_value = "")]
    input: String,
    /// Don't show the progress
    #[arg(long, short = 'q')]
    quiet: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    if args.input.is_empty() && terminal::stdin_is_terminal() {
        return Err(Failure::new(
            "requested load from stdin, but stdin is empty",
        ));
    }
    let quiet = args.quiet || !terminal::stdout_is_terminal();
    let pieces = upload_file(&args.input)?;
    let answer = session
        .client
        .post("/images/load")
        .query("quiet", u8::from(quiet))
        .upload("application/x-tar", pieces)
        .send()
        .await?;
    progress::show(answer, false).await?;
    Ok(0)
}
