//! `update`: other limits or another restart policy for containers.

use proto::engine::{Resources, RestartPolicy, UpdateBody, UpdateResponse};

use super::{Session, all_told, container_path};
use crate::args::int;
use crate::error::{Failure, Outcome};
use crate::format::print;
use crate::options::ports::published;
use crate::options::resources::restart_policy;
use crate::options::values::{byte_size, cpus, swap_size};

#[derive(Debug, clap::Args)]
#[command(
    about = "Change the limits of containers",
    override_usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    before_help = "container update, update"
)]
pub(crate) struct Args {
    /// Relative weight for block I/O, 10 to 1000, or 0 for none
    #[arg(long, value_name = "uint16")]
    blkio_weight: Option<u16>,
    /// Period of the CPU limit in microseconds
    #[arg(long, value_name = "int", value_parser = int)]
    cpu_period: Option<i64>,
    /// CPU time in each period in microseconds
    #[arg(long, value_name = "int", value_parser = int)]
    cpu_quota: Option<i64>,
    /// Period of the real-time limit in microseconds
    #[arg(long, value_name = "int", value_parser = int)]
    cpu_rt_period: Option<i64>,
    /// Real-time CPU time in each period in microseconds
    #[arg(long, value_name = "int", value_parser = int)]
    cpu_rt_runtime: Option<i64>,
    /// Relative weight for CPU time
    #[arg(long, short = 'c', value_name = "int", value_parser = int)]
    cpu_shares: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "decimal", value_parser = cpus)]
    cpus: Option<i64>,
    /// CPUs on which it may run (0-3, 0,1)
    #[arg(long, value_name = "string")]
    cpuset_cpus: Option<String>,
    /// Memory nodes that it may use (0-3, 0,1)
    #[arg(long, value_name = "string")]
    cpuset_mems: Option<String>,
    /// Memory limit
    #[arg(long, short = 'm', value_name = "bytes", value_parser = byte_size)]
    memory: Option<i64>,
    /// Memory to leave it when memory is scarce
    #[arg(long, value_name = "bytes", value_parser = byte_size)]
    memory_reservation: Option<i64>,
    /// Limit of memory and swap together: '-1' for unlimited swap
    #[arg(long, value_name = "bytes", value_parser = swap_size)]
    memory_swap: Option<i64>,
    /// Limit of processes (-1 for none)
    #[arg(long, value_name = "int", value_parser = int)]
    pids_limit: Option<i64>,
    /// Publish a port of the container from now on
    #[arg(long, value_name = "list", action = clap::ArgAction::Append)]
    publish_add: Vec<String>,
    /// Publish a port of the container no more: as it was published, or PORT[/PROTO] for all of it
    #[arg(long, value_name = "list", action = clap::ArgAction::Append)]
    publish_rm: Vec<String>,
    /// When to restart the container after it has ended
    #[arg(long, value_name = "string")]
    restart: Option<String>,
    #[arg(required = true, num_args = 1..)]
    containers: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let body = body(&args)?;
    let (mut failures, mut warnings) = (Vec::new(), String::new());
    for name in &args.containers {
        let request = session
            .client
            .post(&container_path(name, "/update"))
            .json_body(&body);
        match request.json::<UpdateResponse>().await {
            Ok(told) => {
                print(&format!("{name}\n"))?;
                for warning in told.warnings.unwrap_or_default() {
                    warnings += &format!("{warning}\n");
                }
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    print(&warnings)?;
    all_told(&failures)
}

fn body(args: &Args) -> Result<UpdateBody, Failure> {
    let resources = Resources {
        blkio_weight: args.blkio_weight.unwrap_or(0),
        cpu_period: args.cpu_period.unwrap_or(0),
        cpu_quota: args.cpu_quota.unwrap_or(0),
        cpu_realtime_period: args.cpu_rt_period.unwrap_or(0),
        cpu_realtime_runtime: args.cpu_rt_runtime.unwrap_or(0),
        cpu_shares: args.cpu_shares.unwrap_or(0),
        nano_cpus: args.cpus.unwrap_or(0),
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: args.cpuset_mems.clone().unwrap_or_default(),
        memory: args.memory.unwrap_or(0),
        memory_reservation: args.memory_reservation.unwrap_or(0),
        memory_swap: args.memory_swap.unwrap_or(0),
        pids_limit: args.pids_limit,
        ..Resources::default()
    };
    let restart_policy = match &args.restart {
        Some(text) => restart_policy(text)?,
        None => RestartPolicy::default(),
    };
    let (_, publish_add) = published(&args.publish_add)?;
    let (_, publish_remove) = published(&args.publish_rm)?;
    let body = UpdateBody {
        resources,
        restart_policy,
        publish_add,
        publish_remove,
    };
    let unset = [
        args.blkio_weight.is_none(),
        args.cpuset_cpus.is_none(),
        args.cpuset_mems.is_none(),
        args.restart.is_none(),
        args.publish_add.is_empty(),
        args.publish_rm.is_empty(),
        [
            args.cpu_period,
            args.cpu_quota,
            args.cpu_rt_period,
            args.cpu_rt_runtime,
            args.cpu_shares,
            args.cpus,
        ]
        .iter()
        .all(Option::is_none),
        [
            args.memory,
            args.memory_reservation,
            args.memory_swap,
            args.pids_limit,
        ]
        .iter()
        .all(Option::is_none),
    ];
    if unset.iter().all(|unset| *unset) {
        return Err(Failure::new(
            "you must provide one or more flags when using this command",
        ));
    }
    Ok(body)
}
