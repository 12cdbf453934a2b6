//! `ps`, `container ls`.

use clap::ArgAction::Append;
use proto::engine::{ContainerSummary, Port};
use serde_json::Value;

use super::{Session, filter, filters, long_time};
use crate::args::int;
use crate::error::Outcome;
use crate::format::{Row, Style, ago, bytes_1000_precise, ellipsis, print_rows, short_id};

#[derive(Debug, clap::Args)]
#[command(
    about = "List containers",
    override_usage = "[OPTIONS]",
    before_help = "container ls, container list, container ps, ps"
)]
pub(crate) struct Args {
    /// Show all containers (default shows just running)
    #[arg(long, short = 'a')]
    pub(crate) all: bool,
    /// Show only what fits the condition
    #[arg(long, short = 'f', value_name = "filter", action = Append, value_parser = filter)]
    pub(crate) filter: Vec<String>,
    /// Format of the output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string", default_value = "")]
    pub(crate) format: String,
    /// Show so many last created containers, whatever their state (default -1)
    #[arg(long, short = 'n', value_name = "int", value_parser = int, default_value = "-1")]
    pub(crate) last: i64,
    /// Show the last created container, whatever its state
    #[arg(long, short = 'l')]
    pub(crate) latest: bool,
    /// Don't shorten the output
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Show only the IDs
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
    /// Show sizes on disk
    #[arg(long, short = 's')]
    pub(crate) size: bool,
}

const HEADINGS: [(&str, &str); 15] = [
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Platform", "PLATFORM"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
];

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let format = if args.format.is_empty() && !args.quiet {
        session.config.file.ps_format.clone()
    } else {
        args.format
    };
    let size = args.size || format.contains(".Size") || format.contains("json .}}");
    let last = if args.latest { 1 } else { args.last };
    let mut request = session
        .client
        .get("/containers/json")
        .query_if("all", args.all)
        .query_if("size", size)
        .query_some("filters", &filters(&args.filter));
    if last > 0 {
        request = request.query("limit", last);
    }
    let containers: Vec<ContainerSummary> = request.json().await?;
    let rows: Vec<Row> = containers
        .iter()
        .map(|container| row(container, !args.no_trunc))
        .collect();
    let table = if size && args.size {
        "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}"
    } else {
        "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
    };
    let format = if args.quiet && matches!(format.as_str(), "" | "table") {
        "{{.ID}}".to_string()
    } else {
        format
    };
    print_rows(
        &format,
        Style {
            table,
            headings: &HEADINGS,
        },
        &rows,
    )?;
    Ok(0)
}

/// What the templates of a container list know.
pub(crate) fn row(container: &ContainerSummary, trunc: bool) -> Row {
    let id = if trunc {
        short_id(&container.id)
    } else {
        &container.id
    };
    let command = if trunc {
        ellipsis(&container.command, 20)
    } else {
        container.command.clone()
    };
    let mounts: Vec<String> = container
        .mounts
        .iter()
        .map(|mount| {
            if mount.name.is_empty() {
                mount.source.clone()
            } else {
                mount.name.clone()
            }
        })
        .map(|name| if trunc { ellipsis(&name, 15) } else { name })
        .collect();
    let volumes = container
        .mounts
        .iter()
        .filter(|mount| mount.driver == "local")
        .count();
    let networks: Vec<&str> = container
        .network_settings
        .networks
        .keys()
        .map(String::as_str)
        .collect();
    let platform = container
        .image_manifest_descriptor
        .as_ref()
        .and_then(|d| d.get("platform"))
        .cloned();
    Row::default()
        .with("ID", id)
        .with("Names", names(&container.names, trunc))
        .with("Image", image(container, trunc))
        .with("Platform", platform.unwrap_or(Value::Null))
        .with("Command", format!("\"{command}\""))
        .with("CreatedAt", long_time(container.created))
        .with("RunningFor", ago(container.created))
        .with("Ports", ports(&container.ports))
        .with("State", container.state.clone())
        .with("Status", container.status.clone())
        .with("Size", size(container))
        .with("Mounts", mounts.join(","))
        .with("LocalVolumes", volumes.to_string())
        .with("Networks", networks.join(","))
        .with_labels(&container.labels)
}

fn names(names: &[String], trunc: bool) -> String {
    names
        .iter()
        .map(|name| name.strip_prefix('/').unwrap_or(name))
        // A name with another slash is a link's, seen from the other container.
        .filter(|name| !trunc || !name.contains('/'))
        .collect::<Vec<_>>()
        .join(",")
}

fn image(container: &ContainerSummary, trunc: bool) -> String {
    if container.image.is_empty() {
        return "<no image>".to_string();
    }
    if trunc && short_id(&container.image) == short_id(&container.image_id) {
        return short_id(&container.image).to_string();
    }
    match container.image.split_once("@sha256:") {
        Some((name, _)) if trunc => name.to_string(),
        _ => container.image.clone(),
    }
}

fn size(container: &ContainerSummary) -> String {
    let own = bytes_1000_precise(container.size_rw as f64, 3);
    match container.size_root_fs {
        size if size > 0 => format!("{own} (virtual {})", bytes_1000_precise(size as f64, 3)),
        _ => own,
    }
}

/// Ports in order; those that follow each other are drawn together: `0.0.0.0:80-81->80-81/tcp`.
pub(crate) fn ports(list: &[Port]) -> String {
    let mut sorted: Vec<&Port> = list.iter().collect();
    sorted.sort_by_key(|port| {
        (
            port.private_port,
            port.ip.clone(),
            port.public_port,
            port.kind.clone(),
        )
    });
    #[derive(Debug)]
    struct Run<'a> {
        port: &'a Port,
        last: u16,
    }
    let mut runs: Vec<Run<'_>> = Vec::new();
    let mut single = Vec::new();
    for port in sorted {
        if port.public_port != 0 && port.public_port != port.private_port {
            single.push(format!(
                "{}->{}/{}",
                address(&port.ip, &port.public_port.to_string()),
                port.private_port,
                port.kind
            ));
            continue;
        }
        let joins = |run: &&mut Run<'_>| {
            run.port.ip == port.ip
                && run.port.kind == port.kind
                && (run.port.public_port == 0) == (port.public_port == 0)
                && run.last + 1 == port.private_port
        };
        match runs.iter_mut().find(joins) {
            Some(run) => run.last = port.private_port,
            None => runs.push(Run {
                port,
                last: port.private_port,
            }),
        }
    }
    let mut out: Vec<String> = runs
        .iter()
        .map(|run| {
            let range = match run.last {
                last if last == run.port.private_port => last.to_string(),
                last => format!("{}-{last}", run.port.private_port),
            };
            match run.port.public_port {
                0 => format!("{range}/{}", run.port.kind),
                _ => format!(
                    "{}->{range}/{}",
                    address(&run.port.ip, &range),
                    run.port.kind
                ),
            }
        })
        .collect();
    out.extend(single);
    out.join(", ")
}

fn address(ip: &str, port: &str) -> String {
    match ip {
        "" => port.to_string(),
        ip if ip.contains(':') => format!("[{ip}]:{port}"),
        ip => format!("{ip}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, private: u16, public: u16) -> Port {
        Port {
            ip: ip.into(),
            private_port: private,
            public_port: public,
            kind: "tcp".into(),
        }
    }

    #[test]
    fn neighbours_are_drawn_together() {
        assert_eq!(
            ports(&[port("", 81, 0), port("", 80, 0), port("", 90, 0)]),
            "80-81/tcp, 90/tcp"
        );
        assert_eq!(
            ports(&[port("0.0.0.0", 80, 8080), port("::", 80, 8080)]),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(
            ports(&[port("0.0.0.0", 80, 80), port("0.0.0.0", 81, 81)]),
            "0.0.0.0:80-81->80-81/tcp"
        );
    }

    #[test]
    fn images_known_by_id_only_are_shortened() {
        let container = ContainerSummary {
            image: "sha256:0123456789abcdef".into(),
            image_id: "sha256:0123456789abcdef".into(),
            ..ContainerSummary::default()
        };
        assert_eq!(image(&container, true), "0123456789ab");
        assert_eq!(names(&["/web".into(), "/other/link".into()], true), "web");
    }
}
