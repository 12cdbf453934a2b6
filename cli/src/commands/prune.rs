//! `container prune`, `image prune`, `network prune`, `volume prune` and `system prune`.

use clap::ArgAction::Append;
use proto::engine::{CachesPruned, ContainersPruned, ImagesPruned, NetworksPruned, VolumesPruned};
use serde::de::DeserializeOwned;

use super::{Session, confirm, filter, filters};
use crate::client::ClientError;
use crate::error::Outcome;
use crate::format::{bytes_1000, print};

#[derive(Debug, clap::Args)]
#[command(
    about = "Remove all stopped containers",
    override_usage = "[OPTIONS]",
    before_help = "container prune"
)]
pub(crate) struct ContainerArgs {
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Remove images that no container uses",
    override_usage = "[OPTIONS]",
    before_help = "image prune"
)]
pub(crate) struct ImageArgs {
    /// All images that no container uses, not only those without a name
    #[arg(long, short = 'a')]
    all: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Remove networks that no container is on",
    override_usage = "[OPTIONS]",
    before_help = "network prune"
)]
pub(crate) struct NetworkArgs {
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Remove volumes that no container uses",
    override_usage = "[OPTIONS]",
    before_help = "volume prune"
)]
pub(crate) struct VolumeArgs {
    /// Volumes with a name too, not only anonymous ones
    #[arg(long, short = 'a')]
    all: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Remove what the builder keeps for later builds",
    override_usage = "[OPTIONS]",
    before_help = "builder prune"
)]
pub(crate) struct BuilderArgs {
    /// All of it, not only what is not used
    #[arg(long, short = 'a')]
    all: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Remove all that is not used",
    override_usage = "[OPTIONS]",
    before_help = "system prune"
)]
pub(crate) struct SystemArgs {
    /// All images that no container uses, not only those without a name
    #[arg(long, short = 'a')]
    all: bool,
    /// Anonymous volumes too
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Only what fits the condition (such as "until=24h")
    #[arg(long, value_name = "filter", action = Append, value_parser = filter)]
    filter: Vec<String>,
    /// Do not ask
    #[arg(long, short = 'f')]
    force: bool,
}

impl How {
    fn agreed(&self, warning: &str) -> Result<bool, crate::error::Failure> {
        Ok(self.force || confirm(&format!("{warning}\nAre you sure you want to continue?"))?)
    }
}

/// What was removed, as text, and how many bytes that gave.
type Removed = Result<(String, u64), ClientError>;

async fn send<T: DeserializeOwned>(
    session: &Session,
    path: &str,
    filter: &[String],
) -> Result<T, ClientError> {
    session
        .client
        .post(path)
        .query_some("filters", &filters(filter))
        .json()
        .await
}

fn section(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        String::new()
    } else {
        format!("Deleted {title}:\n{}\n", lines.join("\n"))
    }
}

async fn prune_containers(session: &Session, filter: &[String]) -> Removed {
    let told: ContainersPruned = send(session, "/containers/prune", filter).await?;
    Ok((
        section("Containers", &told.containers_deleted.unwrap_or_default()),
        told.space_reclaimed,
    ))
}

async fn prune_images(session: &Session, filter: &[String], all: bool) -> Removed {
    let mut filter = filter.to_vec();
    filter.push(format!("dangling={}", !all));
    let told: ImagesPruned = send(session, "/images/prune", &filter).await?;
    let lines: Vec<String> = told
        .images_deleted
        .unwrap_or_default()
        .iter()
        .map(|item| match item.untagged.is_empty() {
            false => format!("untagged: {}", item.untagged),
            true => format!("deleted: {}", item.deleted),
        })
        .collect();
    Ok((section("Images", &lines), told.space_reclaimed))
}

async fn prune_networks(session: &Session, filter: &[String]) -> Removed {
    let told: NetworksPruned = send(session, "/networks/prune", filter).await?;
    Ok((
        section("Networks", &told.networks_deleted.unwrap_or_default()),
        0,
    ))
}

async fn prune_volumes(session: &Session, filter: &[String], all: bool) -> Removed {
    let mut filter = filter.to_vec();
    // Before this version all unused volumes went, and the daemon knows no such filter.
    if all && session.client.speaks("1.42").await? {
        filter.push("all=true".to_string());
    }
    let told: VolumesPruned = send(session, "/volumes/prune", &filter).await?;
    Ok((
        section("Volumes", &told.volumes_deleted.unwrap_or_default()),
        told.space_reclaimed,
    ))
}

async fn prune_build_cache(session: &Session, filter: &[String], all: bool) -> Removed {
    let request = session
        .client
        .post("/build/prune")
        .query_some("filters", &filters(filter))
        .query_if("all", all);
    match request.json::<CachesPruned>().await {
        Ok(told) => {
            let lines = told.caches_deleted.unwrap_or_default();
            Ok((section("build cache objects", &lines), told.space_reclaimed))
        }
        // A daemon without a builder has no cache to prune.
        Err(ClientError::Refused {
            status: 404 | 501, ..
        }) => Ok((String::new(), 0)),
        Err(error) => Err(error),
    }
}

pub(crate) async fn builder(session: &Session, args: BuilderArgs) -> Outcome {
    let warning = match args.all {
        true => "WARNING! This will remove all build cache.",
        false => "WARNING! This will remove all dangling build cache.",
    };
    if !args.how.agreed(warning)? {
        return Ok(0);
    }
    told(prune_build_cache(session, &args.how.filter, args.all).await?)
}

fn told((text, bytes): (String, u64)) -> Outcome {
    let gap = if text.is_empty() { "" } else { "\n" };
    print(&format!(
        "{text}{gap}Total reclaimed space: {}\n",
        bytes_1000(bytes as f64)
    ))?;
    Ok(0)
}

pub(crate) async fn containers(session: &Session, args: ContainerArgs) -> Outcome {
    if !args
        .how
        .agreed("WARNING! This will remove all stopped containers.")?
    {
        return Ok(0);
    }
    told(prune_containers(session, &args.how.filter).await?)
}

pub(crate) async fn images(session: &Session, args: ImageArgs) -> Outcome {
    let warning = match args.all {
        true => {
            "WARNING! This will remove all images without at least one container associated to them."
        }
        false => "WARNING! This will remove all dangling images.",
    };
    if !args.how.agreed(warning)? {
        return Ok(0);
    }
    told(prune_images(session, &args.how.filter, args.all).await?)
}

pub(crate) async fn networks(session: &Session, args: NetworkArgs) -> Outcome {
    if !args.how.agreed(
        "WARNING! This will remove all custom networks not used by at least one container.",
    )? {
        return Ok(0);
    }
    let (text, _) = prune_networks(session, &args.how.filter).await?;
    if !text.is_empty() {
        print(&format!("{text}\n"))?;
    }
    Ok(0)
}

pub(crate) async fn volumes(session: &Session, args: VolumeArgs) -> Outcome {
    // Older daemons do not tell anonymous volumes from others.
    let all = args.all || (!args.how.force && !session.client.speaks("1.42").await?);
    let warning = match all {
        true => "WARNING! This will remove all local volumes not used by at least one container.",
        false => {
            "WARNING! This will remove anonymous local volumes not used by at least one container."
        }
    };
    if !args.how.agreed(warning)? {
        return Ok(0);
    }
    told(prune_volumes(session, &args.how.filter, args.all).await?)
}

pub(crate) async fn system(session: &Session, args: SystemArgs) -> Outcome {
    let mut parts = vec![
        "all stopped containers",
        "all networks not used by at least one container",
    ];
    if args.volumes {
        parts.push("all anonymous volumes not used by at least one container");
    }
    parts.push(match args.all {
        true => "all images without at least one container associated to them",
        false => "all dangling images",
    });
    parts.push(if args.all {
        "all build cache"
    } else {
        "unused build cache"
    });
    let warning = format!("WARNING! This will remove:\n  - {}\n", parts.join("\n  - "));
    if !args.how.agreed(&warning)? {
        return Ok(0);
    }
    let filter = &args.how.filter;
    let mut total = 0;
    let mut all = vec![
        prune_containers(session, filter).await?,
        prune_networks(session, filter).await?,
    ];
    if args.volumes {
        all.push(prune_volumes(session, filter, false).await?);
    }
    all.push(prune_images(session, filter, args.all).await?);
    all.push(prune_build_cache(session, filter, args.all).await?);
    for (text, bytes) in all {
        total += bytes;
        if !text.is_empty() {
            print(&format!("{text}\n"))?;
        }
    }
    print(&format!(
        "Total reclaimed space: {}\n",
        bytes_1000(total as f64)
    ))?;
    Ok(0)
}
