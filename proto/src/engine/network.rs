//! Networks and the endpoints by which containers are on them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::wire::wire;

wire! {
    /// The networks named in a create request; a value may be `null`.
    pub struct NetworkingConfig {
        "EndpointsConfig" endpoints_config: BTreeMap<String, Option<EndpointSettings>>,
    }

    /// A container's place on one network: what was asked for, and what it got.
    pub struct EndpointSettings {
        "IPAMConfig" ipam_config: Option<EndpointIpam>,
        "Links" links: Option<Vec<String>>,
        "Aliases" aliases: Option<Vec<String>>,
        "DriverOpts" driver_opts: Option<BTreeMap<String, String>>,
        "GwPriority" gw_priority: i64,
        "NetworkID" network_id: String,
        "EndpointID" endpoint_id: String,
        "Gateway" gateway: String,
        "IPAddress" ip_address: String,
        "MacAddress" mac_address: String,
        "IPPrefixLen" ip_prefix_len: i64,
        "IPv6Gateway" ipv6_gateway: String,
        "GlobalIPv6Address" global_ipv6_address: String,
        "GlobalIPv6PrefixLen" global_ipv6_prefix_len: i64,
        "DNSNames" dns_names: Option<Vec<String>>,
    }

    /// The addresses asked for.
    pub struct EndpointIpam {
        "IPv4Address" [omitempty] ipv4_address: String,
        "IPv6Address" [omitempty] ipv6_address: String,
        "LinkLocalIPs" [omitempty] link_local_ips: Vec<String>,
    }

    /// A network, listed or inspected; `Containers` only in the latter, and in lists before 1.28.
    pub struct Network {
        "Name" name: String,
        "Id" id: String,
        "Created" created: String,
        "Scope" scope: String,
        "Driver" driver: String,
        "EnableIPv4" enable_ipv4: bool,
        "EnableIPv6" enable_ipv6: bool,
        "IPAM" ipam: Ipam,
        "Internal" internal: bool,
        "Attachable" attachable: bool,
        "Ingress" ingress: bool,
        "ConfigFrom" config_from: ConfigReference,
        "ConfigOnly" config_only: bool,
        "Options" options: Option<BTreeMap<String, String>>,
        "Labels" labels: Option<BTreeMap<String, String>>,
        "Peers" [omitempty] peers: Option<Value>,
        "Containers" [omitempty] containers: Option<BTreeMap<String, EndpointResource>>,
        "Services" [omitempty] services: Option<Value>,
        "Status" [omitempty] status: Option<Value>,
    }

    /// The network whose configuration is used.
    pub struct ConfigReference {
        "Network" network: String,
    }

    /// A container on an inspected network.
    pub struct EndpointResource {
        "Name" name: String,
        "EndpointID" endpoint_id: String,
        "MacAddress" mac_address: String,
        "IPv4Address" ipv4_address: String,
        "IPv6Address" ipv6_address: String,
    }

    /// Where the addresses of a network come from.
    pub struct Ipam {
        "Driver" driver: String,
        "Options" options: Option<BTreeMap<String, String>>,
        "Config" config: Option<Vec<IpamConfig>>,
    }

    /// One pool of addresses.
    pub struct IpamConfig {
        "Subnet" [omitempty] subnet: String,
        "IPRange" [omitempty] ip_range: String,
        "Gateway" [omitempty] gateway: String,
        "AuxiliaryAddresses" [omitempty] auxiliary_addresses: BTreeMap<String, String>,
    }

    /// The body of `POST /networks/create`.
    pub struct NetworkCreate {
        "Name" name: String,
        "CheckDuplicate" [omitempty] check_duplicate: Option<bool>,
        "Driver" driver: String,
        "Scope" scope: String,
        "EnableIPv4" [omitempty] enable_ipv4: Option<bool>,
        "EnableIPv6" [omitempty] enable_ipv6: Option<bool>,
        "IPAM" ipam: Option<Ipam>,
        "Internal" internal: bool,
        "Attachable" attachable: bool,
        "Ingress" ingress: bool,
        "ConfigOnly" config_only: bool,
        "ConfigFrom" config_from: Option<ConfigReference>,
        "Options" options: Option<BTreeMap<String, String>>,
        "Labels" labels: Option<BTreeMap<String, String>>,
    }

    /// The answer to `POST /networks/create`.
    pub struct NetworkCreated {
        "Id" id: String,
        "Warning" warning: String,
    }

    /// The body of `POST /networks/ID/connect`.
    pub struct NetworkConnect {
        "Container" container: String,
        "EndpointConfig" [omitempty] endpoint_config: Option<EndpointSettings>,
    }

    /// The body of `POST /networks/ID/disconnect`.
    pub struct NetworkDisconnect {
        "Container" container: String,
        "Force" force: bool,
    }

    /// The answer to `POST /networks/prune`.
    pub struct NetworksPruned {
        "NetworksDeleted" networks_deleted: Option<Vec<String>>,
    }
}
