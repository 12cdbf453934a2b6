//! `save`: images as a tar.

use super::Session;
use crate::error::{Failure, Outcome};
use crate::format::print_bytes;
use crate::terminal;

#[derive(Debug, clap::Args)]
#[command(
    about = "Write images as a tar",
    override_usage = "[OPTIONS] IMAGE [IMAGE...]",
    before_help = "image save, save"
)]
pub(crate) struct Args {
    /// Write to a file instead of STDOUT
    #[arg(long, short = 'o', value_name = "string", default_value = "")]
    output: String,
    #[arg(required = true, num_args = 1..)]
    images: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    check_output(&args.output, "save image")?;
    let mut request = session.client.get("/images/get");
    for image in &args.images {
        request = request.query("names", image);
    }
    download(request.send().await?, &args.output).await
}

/// A terminal is no place for a tar.
fn refuse_terminal(output: &str) -> Result<(), Failure> {
    if output.is_empty() && terminal::stdout_is_terminal() {
        return Err(Failure::new(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    Ok(())
}

/// Refuses what cannot become the archive of `what` before the daemon is asked.
pub(crate) fn check_output(output: &str, what: &str) -> Result<(), Failure> {
    refuse_terminal(output)?;
    let folder = std::path::Path::new(output).parent();
    if let Some(folder) = folder.filter(|folder| !folder.as_os_str().is_empty())
        && let Err(cause) = std::fs::metadata(folder)
    {
        let why = crate::archive::plain(&cause);
        return Err(Failure::new(format!(
            "failed to {what}: invalid output path: stat {}: {why}",
            folder.display()
        )));
    }
    Ok(())
}

/// Writes an answer to standard output, or to a file that is complete or not there at all.
pub(crate) async fn download(mut answer: crate::client::Answer, output: &str) -> Outcome {
    if output.is_empty() {
        while let Some(piece) = answer.piece().await? {
            print_bytes(&piece)?;
        }
        return Ok(0);
    }
    use std::io::Write as _;
    let failed =
        |what: &str, cause: std::io::Error| Failure::new(format!("{what} {output}: {cause}"));
    if std::fs::metadata(output).is_ok_and(|found| !found.is_file()) {
        // A device or a pipe is written to as it is.
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .open(output)
            .map_err(|cause| failed("open", cause))?;
        while let Some(piece) = answer.piece().await? {
            file.write_all(&piece)
                .map_err(|cause| failed("write", cause))?;
        }
        return Ok(0);
    }
    let partial = format!("{output}.partial-{}", std::process::id());
    let mut file = std::fs::File::create_new(&partial).map_err(|cause| failed("create", cause))?;
    let written = async {
        while let Some(piece) = answer.piece().await? {
            file.write_all(&piece)
                .map_err(|cause| failed("write", cause))?;
        }
        std::fs::rename(&partial, output).map_err(|cause| failed("move the archive to", cause))?;
        Ok(0)
    }
    .await;
    if written.is_err() {
        // The first failure is what matters.
        let _ = std::fs::remove_file(&partial);
    }
    written
}
