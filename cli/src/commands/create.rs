//! `create`, and the part of `run` that makes the container: create, pull if missing, create again.

use std::io::Write as _;

use proto::engine::{ContainerCreateBody, ContainerCreated};

use super::Session;
use crate::client::ClientError;
use crate::error::{Failure, Outcome};
use crate::format::print;
use crate::options::{create_body, flags::ContainerFlags};
use crate::reference::Reference;

#[derive(Debug, clap::Args)]
#[command(
    about = "Make a container without starting it",
    override_usage = "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    before_help = "container create, create"
)]
pub(crate) struct Args {
    #[command(flatten)]
    flags: ContainerFlags,
    /// Name of the container
    #[arg(long, value_name = "string", default_value = "")]
    name: String,
    /// Bind the API socket and credentials into the container
    #[arg(long, hide = true)]
    use_api_socket: bool,
    #[arg(required = true, num_args = 1.., trailing_var_arg = true)]
    words: Vec<String>,
}

/// The exit code when the container could not be made or started.
pub(crate) const NOT_RUN: u8 = 125;

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let body = checked_body(&args.flags, &args.words)
        .map_err(|why| Failure::of_command(&why, NOT_RUN, "create"))?;
    check_version(session, &args.flags).await?;
    let id = create(session, &args.flags, &args.name, &body).await?;
    print(&format!("{id}\n"))?;
    Ok(0)
}

/// The body of the request, after the checks that need no daemon.
pub(crate) fn checked_body(
    flags: &ContainerFlags,
    words: &[String],
) -> Result<ContainerCreateBody, String> {
    if !matches!(flags.pull.as_str(), "always" | "missing" | "never") {
        return Err(format!(
            "invalid pull option: '{}': must be one of \"always\", \"missing\" or \"never\"",
            flags.pull
        ));
    }
    if let Some(image) = words.first() {
        let by_id = image.len() == 64 && image.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !by_id {
            Reference::parse(image)?;
        }
    }
    create_body(flags, words)
}

/// Refuses flags that the daemon is too old to know; it would pass over them in silence.
pub(crate) async fn check_version(
    session: &Session,
    flags: &ContainerFlags,
) -> Result<(), Failure> {
    for (given, flag, least) in [
        (!flags.annotation.is_empty(), "annotation", "1.43"),
        (
            flags.health_start_interval != 0,
            "health-start-interval",
            "1.44",
        ),
    ] {
        if given && !session.client.speaks(least).await? {
            let version = session.client.version().await?;
            return Err(Failure::new(format!(
                "\"--{flag}\" requires API version {least}, but the Docker daemon API version is {version}"
            )));
        }
    }
    Ok(())
}

/// Makes the container and gives its id; the image is pulled first if it must be.
pub(crate) async fn create(
    session: &Session,
    flags: &ContainerFlags,
    name: &str,
    body: &ContainerCreateBody,
) -> Result<String, Failure> {
    let id_file = IdFile::claim(&flags.cidfile)?;
    let body = &for_version(session, body.clone()).await?;
    let image = body.config.image.as_str();
    let pull =
        async || super::pull::pull_for_run(session, image, &flags.platform, flags.quiet).await;
    if flags.pull == "always" {
        pull().await?;
    }
    let created = match send(session, flags, name, body).await {
        Err(error) if flags.pull == "missing" && image_is_missing(&error) => {
            if !flags.quiet {
                crate::format::tell(&format!(
                    "Unable to find image '{}' locally\n",
                    super::pull::with_tag(image)
                ));
            }
            pull().await?;
            send(session, flags, name, body).await?
        }
        other => other?,
    };
    for warning in &created.warnings {
        crate::format::tell(&format!("WARNING: {warning}\n"));
    }
    id_file.write(&created.id)?;
    Ok(created.id)
}

/// Leaves out what the daemon's version of the API has dropped.
async fn for_version(
    session: &Session,
    mut body: ContainerCreateBody,
) -> Result<ContainerCreateBody, Failure> {
    if session.client.speaks("1.42").await?
        && let Some(host) = &mut body.host_config
    {
        host.other.remove("KernelMemory");
    }
    if session.client.speaks("1.44").await? {
        // It is a matter of the endpoint now.
        body.config.mac_address.clear();
    }
    Ok(body)
}

fn image_is_missing(error: &ClientError) -> bool {
    let ClientError::Refused {
        status: 404,
        message,
    } = error
    else {
        return false;
    };
    let message = message.to_lowercase();
    message.contains("no such image") || message.contains("does not match the specified platform")
}

async fn send(
    session: &Session,
    flags: &ContainerFlags,
    name: &str,
    body: &ContainerCreateBody,
) -> Result<ContainerCreated, ClientError> {
    session
        .client
        .post("/containers/create")
        .query_some("name", name)
        .query_some("platform", session.platform(&flags.platform))
        .json_body(body)
        .json()
        .await
}

/// The file of `--cidfile`: claimed before the container is made, taken away again if it is not.
#[derive(Debug)]
struct IdFile {
    path: String,
    written: bool,
}

impl IdFile {
    fn claim(path: &str) -> Result<IdFile, Failure> {
        if !path.is_empty() {
            std::fs::File::create_new(path).map_err(|cause| match cause.kind() {
                std::io::ErrorKind::AlreadyExists => Failure::new(format!(
                    "container ID file found, make sure the other container isn't running or delete {path}"
                )),
                _ => Failure::new(format!("failed to create the container ID file: {path}: {cause}")),
            })?;
        }
        Ok(IdFile {
            path: path.to_string(),
            written: false,
        })
    }

    fn write(mut self, id: &str) -> Result<(), Failure> {
        if self.path.is_empty() {
            return Ok(());
        }
        let mut file = std::fs::OpenOptions::new().write(true).open(&self.path)?;
        file.write_all(id.as_bytes())?;
        self.written = true;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.path.is_empty() && !self.written {
            // What cannot be removed stays empty, which says the same.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
