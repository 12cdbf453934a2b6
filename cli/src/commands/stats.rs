//! `stats`: what containers use, once or as a live screen.

use std::collections::BTreeMap;

use proto::engine::{ContainerSummary, StatsResponse};

use super::{Session, container_path};
use crate::client::ClientError;
use crate::error::{Failure, Outcome};
use crate::format::{Row, Style, bytes_1000_precise, bytes_1024, print, print_rows, short_id};

#[derive(Debug, clap::Args)]
#[command(
    about = "Show what containers use, live or once",
    override_usage = "[OPTIONS] [CONTAINER...]",
    before_help = "container stats, stats"
)]
pub(crate) struct Args {
    /// Show all containers (default shows just running)
    #[arg(long, short = 'a')]
    all: bool,
    /// Format of the output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string", default_value = "")]
    format: String,
    /// Show the first result only
    #[arg(long)]
    no_stream: bool,
    /// Don't shorten the output
    #[arg(long)]
    no_trunc: bool,
    #[arg(num_args = 0..)]
    containers: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    loop {
        let names = match args.containers.as_slice() {
            [] => listed(session, args.all).await?,
            given => given.to_vec(),
        };
        let (rows, failures) = read(session, &names, &args).await;
        let fatal = !args.containers.is_empty() && !failures.is_empty();
        if args.no_stream || fatal {
            if !rows.is_empty() || !fatal {
                show(session, &args, &rows)?;
            }
            return super::all_told(&failures);
        }
        if args.format.is_empty() || args.format.starts_with("table") {
            print("\x1b[2J\x1b[H")?;
        }
        show(session, &args, &rows)?;
        if rows.is_empty() {
            // Without a container nothing paces the loop; with one, each reading takes a second or two.
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        }
    }
}

async fn listed(session: &Session, all: bool) -> Result<Vec<String>, ClientError> {
    let containers: Vec<ContainerSummary> = session
        .client
        .get("/containers/json")
        .query_if("all", all)
        .json()
        .await?;
    Ok(containers
        .into_iter()
        .map(|container| container.id)
        .collect())
}

/// One reading of each, all at the same time, because each takes as long as its interval.
async fn read(session: &Session, names: &[String], args: &Args) -> (Vec<Row>, Vec<String>) {
    let readings = names.iter().map(async |name| {
        let path = container_path(name, "/stats");
        session
            .client
            .get(&path)
            .query("stream", 0)
            .json::<StatsResponse>()
            .await
    });
    let readings = futures_util::future::join_all(readings).await;
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for (name, reading) in names.iter().zip(readings) {
        match reading {
            Ok(stats) => rows.push(row(name, &stats, !args.no_trunc)),
            // One that ended since it was listed is no failure.
            Err(error) if args.containers.is_empty() && error.is_not_found() => {}
            Err(error) => failures.push(error.to_string()),
        }
    }
    (rows, failures)
}

fn show(session: &Session, args: &Args, rows: &[Row]) -> Result<(), Failure> {
    let headings = [
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ];
    let table = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";
    let format = match args.format.as_str() {
        "" => session.config.file.stats_format.as_str(),
        format => format,
    };
    Ok(print_rows(
        format,
        Style {
            table,
            headings: &headings,
        },
        rows,
    )?)
}

fn row(asked: &str, stats: &StatsResponse, trunc: bool) -> Row {
    let id = if trunc {
        short_id(&stats.id)
    } else {
        &stats.id
    };
    let used = memory_used(&stats.memory_stats.stats, stats.memory_stats.usage);
    let limit = stats.memory_stats.limit;
    let share = if limit > 0 {
        used as f64 / limit as f64 * 100.0
    } else {
        0.0
    };
    let nets = stats.networks.iter().flat_map(BTreeMap::values);
    let (received, sent) = nets.fold((0, 0), |(rx, tx), net| {
        (rx + net.rx_bytes, tx + net.tx_bytes)
    });
    let (mut read, mut written) = (0, 0);
    for entry in stats
        .blkio_stats
        .io_service_bytes_recursive
        .iter()
        .flatten()
    {
        match entry.op.as_bytes().first() {
            Some(b'r' | b'R') => read += entry.value,
            Some(b'w' | b'W') => written += entry.value,
            _ => {}
        }
    }
    let pair = |a: u64, b: u64| {
        format!(
            "{} / {}",
            bytes_1000_precise(a as f64, 3),
            bytes_1000_precise(b as f64, 3)
        )
    };
    let row = Row::default()
        .with(
            "Container",
            if asked.starts_with(&stats.id) {
                short_id(asked)
            } else {
                asked
            },
        )
        .with("ID", id)
        .with("Name", stats.name.trim_start_matches('/'))
        .with("NetIO", pair(received, sent))
        .with("BlockIO", pair(read, written))
        .with("PIDs", stats.pids_stats.current.to_string());
    row.with("CPUPerc", format!("{:.2}%", cpu_share(stats)))
        .with(
            "MemUsage",
            format!("{} / {}", bytes_1024(used as f64), bytes_1024(limit as f64)),
        )
        .with("MemPerc", format!("{share:.2}%"))
}

/// Memory without the files that could be dropped at once.
fn memory_used(stat: &BTreeMap<String, u64>, usage: u64) -> u64 {
    let inactive = stat
        .get("total_inactive_file")
        .or_else(|| stat.get("inactive_file"))
        .copied()
        .unwrap_or(0);
    if inactive < usage {
        usage - inactive
    } else {
        usage
    }
}

/// Percent of one processor between the two readings.
fn cpu_share(stats: &StatsResponse) -> f64 {
    let (now, before) = (&stats.cpu_stats, &stats.precpu_stats);
    let used = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let system = now.system_cpu_usage as f64 - before.system_cpu_usage as f64;
    let processors = match now.online_cpus {
        0 => now.cpu_usage.percpu_usage.len() as f64,
        count => f64::from(count),
    };
    if system > 0.0 && used > 0.0 {
        used / system * processors * 100.0
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_from_two_readings() {
        let mut stats = StatsResponse::default();
        stats.cpu_stats.cpu_usage.total_usage = 300;
        stats.precpu_stats.cpu_usage.total_usage = 100;
        stats.cpu_stats.system_cpu_usage = 2000;
        stats.precpu_stats.system_cpu_usage = 1000;
        stats.cpu_stats.online_cpus = 2;
        assert!((cpu_share(&stats) - 40.0).abs() < 1e-9);
        assert_eq!(
            memory_used(&BTreeMap::from([("inactive_file".into(), 30)]), 100),
            70
        );
    }
}
