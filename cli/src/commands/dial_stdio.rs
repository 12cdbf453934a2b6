//! `system dial-stdio`: the daemon's socket on standard input and output, for a client behind ssh.

use tokio::io::AsyncWriteExt as _;

use super::Session;
use crate::error::{Failure, Outcome};

#[derive(Debug, clap::Args)]
#[command(
    about = "Pass standard input and output on to the daemon, for clients that come by ssh",
    hide = true,
    override_usage = ""
)]
pub(crate) struct Args {}

pub(crate) async fn run(session: &Session) -> Outcome {
    let (mut reader, mut writer) = tokio::io::split(session.client.raw().await?);
    let input = async {
        tokio::io::copy(&mut tokio::io::stdin(), &mut writer).await?;
        writer.shutdown().await?;
        // The end of the input is not the end of the answers.
        std::future::pending::<std::io::Result<()>>().await
    };
    let output = async {
        let mut stdout = tokio::io::stdout();
        tokio::io::copy(&mut reader, &mut stdout).await?;
        stdout.flush().await
    };
    tokio::select! {
        done = output => done,
        failed = input => failed,
    }
    .map_err(|cause| {
        Failure::new(format!(
            "copy between standard streams and the daemon: {cause}"
        ))
    })?;
    Ok(0)
}
