//! `system df`: what takes space.

use proto::engine::{ContainerSummary, DiskUsage, ImageSummary, Volume};
use serde_json::Value;

use super::{Session, ps, volume};
use crate::error::Outcome;
use crate::format::{Row, Style, ago, bytes_1000, bytes_1000_precise, print, print_rows, short_id};

#[derive(Debug, clap::Args)]
#[command(
    about = "Show what takes space on disk",
    override_usage = "[OPTIONS]",
    before_help = "system df"
)]
pub(crate) struct Args {
    /// Format of the output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string", default_value = "")]
    format: String,
    /// Show each object
    #[arg(long, short = 'v')]
    verbose: bool,
}

/// The lists of an answer, whichever shape it has.
#[derive(Debug, Default)]
struct Usage {
    layers: i64,
    images: Vec<ImageSummary>,
    containers: Vec<ContainerSummary>,
    volumes: Vec<Volume>,
    caches: Vec<Value>,
}

impl From<DiskUsage> for Usage {
    fn from(told: DiskUsage) -> Usage {
        let images = told.image_usage.unwrap_or_default();
        Usage {
            layers: told.layers_size.unwrap_or(images.total_size),
            images: told.images.unwrap_or(images.items),
            containers: told
                .containers
                .unwrap_or(told.container_usage.unwrap_or_default().items),
            volumes: told
                .volumes
                .unwrap_or(told.volume_usage.unwrap_or_default().items),
            caches: told
                .build_cache
                .unwrap_or(told.build_cache_usage.unwrap_or_default().items),
        }
    }
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let sums_only = session.client.speaks("1.52").await?;
    let told: DiskUsage = session
        .client
        .get("/system/df")
        .query_if("verbose", sums_only)
        .json()
        .await?;
    let usage = Usage::from(told);
    if args.verbose {
        return verbose(&usage);
    }
    let headings = [
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ];
    let table = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";
    print_rows(
        &args.format,
        Style {
            table,
            headings: &headings,
        },
        &sums(&usage),
    )?;
    Ok(0)
}

fn sums(usage: &Usage) -> Vec<Row> {
    let used: i64 = usage
        .images
        .iter()
        .filter(|image| image.containers != 0 && image.size >= 0 && image.shared_size >= 0)
        .map(|image| image.size - image.shared_size)
        .sum();
    let active = |container: &&ContainerSummary| {
        matches!(
            container.state.as_str(),
            "running" | "paused" | "restarting"
        )
    };
    let size = |container: &ContainerSummary| container.size_rw;
    let volume = |volume: &Volume| {
        volume
            .usage_data
            .as_ref()
            .map_or((0, 0), |usage| (usage.ref_count, usage.size.max(0)))
    };
    let cache = |cache: &Value, key: &str| cache.get(key).and_then(Value::as_bool).unwrap_or(false);
    let cache_size = |cache: &Value| cache.get("Size").and_then(Value::as_i64).unwrap_or(0);
    let caches: i64 = usage
        .caches
        .iter()
        .filter(|c| !cache(c, "Shared"))
        .map(cache_size)
        .sum();
    let free_caches: i64 = usage
        .caches
        .iter()
        .filter(|c| !cache(c, "Shared") && !cache(c, "InUse"))
        .map(cache_size)
        .sum();
    let all_containers: i64 = usage.containers.iter().map(size).sum();
    let free_containers: i64 = usage
        .containers
        .iter()
        .filter(|c| !active(c))
        .map(size)
        .sum();
    let all_volumes: i64 = usage.volumes.iter().map(|v| volume(v).1).sum();
    let free_volumes: i64 = usage
        .volumes
        .iter()
        .map(volume)
        .filter(|(count, _)| *count == 0)
        .map(|(_, size)| size)
        .sum();
    let row = |kind: &str, count: usize, active: usize, size: i64, free: i64, percent: bool| {
        let free_text = bytes_1000(free as f64);
        let reclaimable = match size {
            size if percent && size > 0 => format!("{free_text} ({}%)", free * 100 / size),
            _ => free_text,
        };
        Row::default()
            .with("Type", kind)
            .with("TotalCount", count.to_string())
            .with("Active", active.to_string())
            .with("Size", bytes_1000(size as f64))
            .with("Reclaimable", reclaimable)
    };
    vec![
        row(
            "Images",
            usage.images.len(),
            usage
                .images
                .iter()
                .filter(|image| image.containers > 0)
                .count(),
            usage.layers,
            usage.layers - used,
            true,
        ),
        row(
            "Containers",
            usage.containers.len(),
            usage.containers.iter().filter(active).count(),
            all_containers,
            free_containers,
            true,
        ),
        row(
            "Local Volumes",
            usage.volumes.len(),
            usage.volumes.iter().filter(|v| volume(v).0 > 0).count(),
            all_volumes,
            free_volumes,
            true,
        ),
        row(
            "Build Cache",
            usage.caches.len(),
            usage.caches.iter().filter(|c| cache(c, "InUse")).count(),
            caches,
            free_caches,
            false,
        ),
    ]
}

fn verbose(usage: &Usage) -> Outcome {
    print("Images space usage:\n\n")?;
    let rows: Vec<Row> = usage.images.iter().map(image_row).collect();
    let headings = [
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("Created", "CREATED"),
        ("Size", "SIZE"),
        ("Shared", "SHARED SIZE"),
        ("Unique", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ];
    let table = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Created}}\t{{.Size}}\t{{.Shared}}\t{{.Unique}}\t{{.Containers}}";
    print_rows(
        "",
        Style {
            table,
            headings: &headings,
        },
        &rows,
    )?;
    print("\nContainers space usage:\n\n")?;
    let rows: Vec<Row> = usage
        .containers
        .iter()
        .map(|container| {
            ps::row(container, true).with("Size", bytes_1000(container.size_rw as f64))
        })
        .collect();
    let headings = [
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Size", "SIZE"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("Names", "NAMES"),
    ];
    let table = "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}";
    print_rows(
        "",
        Style {
            table,
            headings: &headings,
        },
        &rows,
    )?;
    print("\nLocal Volumes space usage:\n\n")?;
    let rows: Vec<Row> = usage.volumes.iter().map(volume::row).collect();
    print_rows(
        "",
        Style {
            table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
            headings: &volume::HEADINGS,
        },
        &rows,
    )?;
    let total: i64 = usage
        .caches
        .iter()
        .filter_map(|cache| cache.get("Size").and_then(Value::as_i64))
        .sum();
    print(&format!(
        "\nBuild cache usage: {}\n\n",
        bytes_1000(total as f64)
    ))?;
    print("CACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n")?;
    Ok(0)
}

fn image_row(image: &ImageSummary) -> Row {
    let name = image
        .repo_tags
        .first()
        .map_or("<none>:<none>", String::as_str);
    let (repo, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
    let shared = image.shared_size.max(0);
    Row::default()
        .with("Repository", repo)
        .with("Tag", tag)
        .with("ID", short_id(&image.id))
        .with("Created", ago(image.created))
        .with("Size", bytes_1000_precise(image.size as f64, 3))
        .with("Shared", bytes_1000(shared as f64))
        .with("Unique", bytes_1000((image.size - shared) as f64))
        .with("Containers", image.containers.to_string())
}
