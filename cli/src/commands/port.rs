//! `port`: where the ports of a container are published.

use proto::engine::ContainerInspect;

use super::{Session, container_path};
use crate::error::{Failure, Outcome};
use crate::format::print;

#[derive(Debug, clap::Args)]
#[command(
    about = "Show where the ports of a container are published",
    override_usage = "CONTAINER [PRIVATE_PORT[/PROTO]]",
    before_help = "container port, port"
)]
pub(crate) struct Args {
    #[arg(required = true)]
    container: String,
    port: Option<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let container: ContainerInspect = session
        .client
        .get(&container_path(&args.container, "/json"))
        .json()
        .await?;
    let ports = &container.network_settings.ports;
    let shown = |ip: &str, port: &str| {
        if ip.contains(':') {
            format!("[{ip}]:{port}")
        } else {
            format!("{ip}:{port}")
        }
    };
    let mut lines = Vec::new();
    if let Some(asked) = &args.port {
        let (number, protocol) = asked.split_once('/').unwrap_or((asked, "tcp"));
        if let Err(cause) = number.parse::<u16>() {
            let why = match cause.kind() {
                std::num::IntErrorKind::PosOverflow => "value out of range",
                _ => "invalid syntax",
            };
            return Err(Failure::new(format!(
                "Error: invalid port ({number}): strconv.ParseUint: parsing {number:?}: {why}"
            )));
        }
        match ports.get(&format!("{number}/{protocol}")) {
            Some(Some(bindings)) if !bindings.is_empty() => {
                lines.extend(
                    bindings
                        .iter()
                        .map(|binding| shown(&binding.host_ip, &binding.host_port)),
                );
            }
            _ => {
                return Err(Failure::new(format!(
                    "Error: No public port '{asked}' published for {}",
                    args.container
                )));
            }
        }
    } else {
        let mut all: Vec<_> = ports.iter().collect();
        all.sort_by_key(|(port, _)| {
            (
                port.split('/').next().and_then(|n| n.parse::<u16>().ok()),
                port.as_str(),
            )
        });
        for (port, bindings) in all {
            for binding in bindings.iter().flatten() {
                lines.push(format!(
                    "{port} -> {}",
                    shown(&binding.host_ip, &binding.host_port)
                ));
            }
        }
    }
    print(
        &lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    )?;
    Ok(0)
}
