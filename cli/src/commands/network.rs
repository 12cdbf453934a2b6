//! `network ...`

use std::collections::BTreeMap;

use clap::ArgAction::Append;
use clap::Subcommand;
use proto::engine::{
    ConfigReference, EndpointIpam, EndpointSettings, Ipam, Network, NetworkConnect, NetworkCreate,
    NetworkCreated, NetworkDisconnect,
};

use super::inspect::{Kind, of_kind};
use super::{Session, filter, filters, prune};
use crate::client::escape_path;
use crate::error::{Failure, Outcome};
use crate::format::{Row, Style, print, print_rows, short_id};
use crate::options::{env, ipam};

/// `docker-lite network ...`
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Connect(ConnectArgs),
    Create(CreateArgs),
    Disconnect(DisconnectArgs),
    Inspect(InspectArgs),
    #[command(alias = "list")]
    Ls(LsArgs),
    Prune(prune::NetworkArgs),
    #[command(alias = "remove")]
    Rm(RmArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Put a container on a network",
    override_usage = "[OPTIONS] NETWORK CONTAINER"
)]
pub(crate) struct ConnectArgs {
    /// Further name of the container on the network
    #[arg(long, action = Append)]
    alias: Vec<String>,
    /// Options of the network's driver
    #[arg(long, action = Append)]
    driver_opt: Vec<String>,
    /// Priority of the network's gateway as the default one
    #[arg(long, value_name = "int", value_parser = crate::args::int, default_value = "0")]
    gw_priority: i64,
    /// IPv4 address
    #[arg(long, value_name = "string", default_value = "")]
    ip: String,
    /// IPv6 address
    #[arg(long, value_name = "string", default_value = "")]
    ip6: String,
    /// Link to another container
    #[arg(long, action = Append)]
    link: Vec<String>,
    /// Link-local address
    #[arg(long, action = Append)]
    link_local_ip: Vec<String>,
    #[arg(required = true, num_args = 2)]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(about = "Make a network", override_usage = "[OPTIONS] NETWORK")]
pub(crate) struct CreateArgs {
    /// Let containers be connected by hand
    #[arg(long)]
    attachable: bool,
    /// Addresses of the driver's own (name=address)
    #[arg(long, value_name = "map", action = Append)]
    aux_address: Vec<String>,
    /// Network to take the configuration from
    #[arg(long, value_name = "string", default_value = "")]
    config_from: String,
    /// Only a configuration for other networks
    #[arg(long)]
    config_only: bool,
    /// Driver of the network
    #[arg(long, short = 'd', value_name = "string", default_value = "bridge")]
    driver: String,
    /// Gateway of a subnet
    #[arg(long, action = Append)]
    gateway: Vec<String>,
    #[arg(long, hide = true)]
    ingress: bool,
    /// No way to the outside
    #[arg(long)]
    internal: bool,
    /// Part of a subnet to take addresses from
    #[arg(long, action = Append)]
    ip_range: Vec<String>,
    /// Driver that gives out addresses
    #[arg(long, value_name = "string", default_value = "default")]
    ipam_driver: String,
    /// Options of that driver
    #[arg(long, value_name = "map", action = Append)]
    ipam_opt: Vec<String>,
    /// IPv4 addresses (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: Option<bool>,
    /// IPv6 addresses
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: Option<bool>,
    /// Set a label
    #[arg(long, action = Append)]
    label: Vec<String>,
    /// Options of the driver
    #[arg(long, short = 'o', value_name = "map", action = Append)]
    opt: Vec<String>,
    #[arg(long, value_name = "string", default_value = "", hide = true)]
    scope: String,
    /// Subnet in CIDR form
    #[arg(long, action = Append)]
    subnet: Vec<String>,
    #[arg(required = true)]
    name: String,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Take a container off a network",
    override_usage = "[OPTIONS] NETWORK CONTAINER"
)]
pub(crate) struct DisconnectArgs {
    /// Even if the container is not there any more
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(required = true, num_args = 2)]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Show all that the daemon knows of networks",
    override_usage = "[OPTIONS] NETWORK [NETWORK...]"
)]
pub(crate) struct InspectArgs {
    /// Format of the output: 'json' or a Go template
    #[arg(long, short = 'f', value_name = "string", default_value = "")]
    format: String,
    /// Tell more for diagnosis
    #[arg(long, short = 'v')]
    verbose: bool,
    #[arg(required = true, num_args = 1..)]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "List networks",
    override_usage = "[OPTIONS]",
    before_help = "network ls, network list"
)]
pub(crate) struct LsArgs {
    /// Show only what fits the condition
    #[arg(long, short = 'f', value_name = "filter", action = Append, value_parser = filter)]
    filter: Vec<String>,
    /// Format of the output: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, value_name = "string", default_value = "")]
    format: String,
    /// Don't shorten the output
    #[arg(long)]
    no_trunc: bool,
    /// Show only the IDs
    #[arg(long, short = 'q')]
    quiet: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Remove networks",
    override_usage = "NETWORK [NETWORK...]",
    before_help = "network rm, network remove"
)]
pub(crate) struct RmArgs {
    /// Do not mind if it is not there
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(required = true, num_args = 1..)]
    names: Vec<String>,
}

pub(crate) async fn run(session: &Session, verb: Verb) -> Outcome {
    match verb {
        Verb::Connect(args) => connect(session, args).await,
        Verb::Create(args) => create(session, args).await,
        Verb::Disconnect(args) => {
            let body = NetworkDisconnect {
                container: args.names[1].clone(),
                force: args.force,
            };
            let path = format!("/networks/{}/disconnect", escape_path(&args.names[0]));
            session.client.post(&path).json_body(&body).done().await?;
            Ok(0)
        }
        Verb::Inspect(args) => {
            of_kind(
                session,
                Kind::Network {
                    verbose: args.verbose,
                },
                &args.names,
                &args.format,
            )
            .await
        }
        Verb::Ls(args) => ls(session, args).await,
        Verb::Prune(args) => prune::networks(session, args).await,
        Verb::Rm(args) => rm(session, args).await,
    }
}

async fn connect(session: &Session, args: ConnectArgs) -> Outcome {
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpam {
            ipv4_address: args.ip.clone(),
            ipv6_address: args.ip6.clone(),
            link_local_ips: args.link_local_ip.clone(),
        }),
        links: (!args.link.is_empty()).then(|| args.link.clone()),
        aliases: Some(args.alias.clone()),
        driver_opts: Some(env::pairs(&args.driver_opt)),
        gw_priority: args.gw_priority,
        ..EndpointSettings::default()
    };
    let body = NetworkConnect {
        container: args.names[1].clone(),
        endpoint_config: Some(endpoint),
    };
    let path = format!("/networks/{}/connect", escape_path(&args.names[0]));
    session.client.post(&path).json_body(&body).done().await?;
    Ok(0)
}

async fn create(session: &Session, args: CreateArgs) -> Outcome {
    let ipam = Ipam {
        driver: args.ipam_driver.clone(),
        options: Some(env::pairs(&args.ipam_opt)),
        config: Some(ipam::pools(&ipam::Given {
            subnet: &args.subnet,
            ip_range: &args.ip_range,
            gateway: &args.gateway,
            aux_address: &args.aux_address,
        })?),
    };
    let old = !session.client.speaks("1.44").await?;
    let body = NetworkCreate {
        name: args.name.clone(),
        // Daemons that still read it make two networks of one name without it.
        check_duplicate: old.then_some(true),
        driver: args.driver.clone(),
        scope: args.scope.clone(),
        enable_ipv4: args.ipv4,
        enable_ipv6: args.ipv6.or(old.then_some(false)),
        ipam: Some(ipam),
        internal: args.internal,
        attachable: args.attachable,
        ingress: args.ingress,
        config_only: args.config_only,
        config_from: (!args.config_from.is_empty()).then(|| ConfigReference {
            network: args.config_from.clone(),
        }),
        options: Some(env::pairs(&args.opt)),
        labels: Some(env::labels(&[], &args.label).map_err(|error| error.to_string())?),
    };
    let made: NetworkCreated = session
        .client
        .post("/networks/create")
        .json_body(&body)
        .json()
        .await?;
    if !made.warning.is_empty() {
        crate::format::tell(&format!("WARNING: {}\n", made.warning));
    }
    print(&format!("{}\n", made.id))?;
    Ok(0)
}

async fn ls(session: &Session, args: LsArgs) -> Outcome {
    let mut networks: Vec<Network> = session
        .client
        .get("/networks")
        .query_some("filters", &filters(&args.filter))
        .json()
        .await?;
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    let rows: Vec<Row> = networks
        .iter()
        .map(|network| {
            let labels: BTreeMap<String, String> = network.labels.clone().unwrap_or_default();
            Row::default()
                .with(
                    "ID",
                    if args.no_trunc {
                        &network.id
                    } else {
                        short_id(&network.id)
                    },
                )
                .with("Name", network.name.clone())
                .with("Driver", network.driver.clone())
                .with("Scope", network.scope.clone())
                .with("IPv4", network.enable_ipv4.to_string())
                .with("IPv6", network.enable_ipv6.to_string())
                .with("Internal", network.internal.to_string())
                .with("CreatedAt", created_at(&network.created))
                .with_labels(&labels)
        })
        .collect();
    let headings = [
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ];
    let format = match (args.format.as_str(), args.quiet) {
        ("" | "table", true) => "{{.ID}}".to_string(),
        ("", false) => session.config.file.networks_format.clone(),
        (other, _) => other.to_string(),
    };
    let table = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";
    print_rows(
        &format,
        Style {
            table,
            headings: &headings,
        },
        &rows,
    )?;
    Ok(0)
}

/// `2026-11-24T04:36:37.28Z` as `2026-11-24 04:36:37.28 +0000 UTC`.
fn created_at(text: &str) -> String {
    match text.strip_suffix('Z') {
        Some(utc) => format!("{} +0000 UTC", utc.replacen('T', " ", 1)),
        None => text.to_string(),
    }
}

async fn rm(session: &Session, args: RmArgs) -> Outcome {
    let mut code = 0;
    for name in &args.names {
        let path = format!("/networks/{}", escape_path(name));
        match session.client.delete(&path).done().await {
            Ok(()) => print(&format!("{name}\n"))?,
            Err(error) if args.force && error.is_not_found() => {}
            Err(error) => {
                crate::format::tell(&format!("{error}\n"));
                code = 1;
            }
        }
    }
    if code == 0 {
        Ok(0)
    } else {
        Err(Failure::new(format!("exit status {code}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_they_came() {
        assert_eq!(
            created_at("2026-11-24T04:36:37.28Z"),
            "2026-11-24 04:36:37.28 +0000 UTC"
        );
    }
}
