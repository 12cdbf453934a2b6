//! `login` and `logout`: not built yet, and they say so.

use crate::error::{Failure, Outcome};

#[derive(Debug, clap::Args)]
#[command(
    about = "Log in to a registry",
    override_usage = "[OPTIONS] [SERVER]",
    before_help = "login"
)]
pub(crate) struct LoginArgs {
    /// Password or token
    #[arg(long, short = 'p', value_name = "string")]
    password: Option<String>,
    /// Read the password from STDIN
    #[arg(long)]
    password_stdin: bool,
    /// User name
    #[arg(long, short = 'u', value_name = "string")]
    username: Option<String>,
    server: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Log out of a registry",
    override_usage = "[SERVER]",
    before_help = "logout"
)]
pub(crate) struct LogoutArgs {
    server: Option<String>,
}

pub(crate) fn run() -> Outcome {
    Err(Failure::new(
        "login and logout are not supported yet: put credentials into config.json, or name a credential helper there",
    ))
}
