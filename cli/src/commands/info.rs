//! `info`: the daemon about itself.

use proto::engine::SystemInfo;
use serde_json::{Value, json};

use super::Session;
use crate::error::{Failure, Outcome};
use crate::format::{Template, bytes_1024, print};
use crate::plugins;

#[derive(Debug, clap::Args)]
#[command(
    about = "Show how the daemon is set up",
    override_usage = "[OPTIONS]",
    before_help = "system info, info"
)]
pub(crate) struct Args {
    /// Format of the output: 'json' or a Go template
    #[arg(long, short = 'f', value_name = "string", default_value = "")]
    format: String,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let template = match args.format.as_str() {
        "" => None,
        "json" => Some(Template::parse("{{json .}}")?),
        source => Some(Template::parse(source)?),
    };
    let told = session.client.get("/info").json::<Value>().await;
    let config = &session.config;
    let folders = plugins::folders(&config.dir, &config.file.cli_plugins_extra_dirs);
    let plugins = plugins::all(&folders);
    if let Some(template) = template {
        let mut value = told?;
        if let Value::Object(fields) = &mut value {
            let plugins: Vec<Value> = plugins
                .iter()
                .map(|plugin| {
                    let told = &plugin.metadata;
                    json!({"SchemaVersion": "0.1.0", "Vendor": told.vendor, "Version": told.version,
                        "ShortDescription": told.short_description, "Name": plugin.name, "Path": plugin.path})
                })
                .collect();
            let client = json!({"Debug": false, "Context": session.config.context, "Plugins": plugins, "Warnings": null,
                "Version": env!("CARGO_PKG_VERSION"), "GitCommit": env!("GIT_COMMIT")});
            fields.insert("ClientInfo".to_string(), client);
        }
        print(&(template.render(&value)? + "\n"))?;
        return Ok(0);
    }
    let mut out = format!(
        "Client: Docker-lite\n Version:    {}\n Context:    {}\n Debug Mode: false\n",
        env!("CARGO_PKG_VERSION"),
        session.config.context
    );
    if !plugins.is_empty() {
        out += " Plugins:\n";
    }
    for plugin in &plugins {
        let told = &plugin.metadata;
        out += &format!(
            "  {}: {} ({})\n",
            plugin.name, told.short_description, told.vendor
        );
        if !told.version.is_empty() {
            out += &format!("    Version:  {}\n", told.version);
        }
        out += &format!("    Path:     {}\n", plugin.path.display());
    }
    out += "\nServer:\n";
    match told {
        Ok(told) => {
            let info: SystemInfo = serde_json::from_value(told).map_err(|cause| {
                Failure::new(format!("decode what the daemon says of itself: {cause}"))
            })?;
            out += &server(&info);
            print(&(out + "\n"))?;
            for warning in info.warnings.unwrap_or_default() {
                crate::format::tell(&format!("{warning}\n"));
            }
            Ok(0)
        }
        Err(error) => {
            print(&out)?;
            Err(Failure::new(format!(
                "{error}\nerrors pretty printing info"
            )))
        }
    }
}

/// Lines of `name: value`, indented by one.
#[derive(Debug, Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        self.0 += &format!(" {name}: {value}\n");
    }
    fn some(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.line(name, value);
        }
    }
    fn list(&mut self, name: &str, values: &Option<Vec<String>>) {
        if let Some(values) = values.as_ref().filter(|values| !values.is_empty()) {
            self.line(name, values.join(" "));
        }
    }
    fn heading(&mut self, name: &str) {
        self.0 += &format!(" {name}:\n");
    }
}

fn server(info: &SystemInfo) -> String {
    let mut out = Lines::default();
    out.line("Containers", info.containers);
    out.line(" Running", info.containers_running);
    out.line(" Paused", info.containers_paused);
    out.line(" Stopped", info.containers_stopped);
    out.line("Images", info.images);
    out.some("Server Version", &info.server_version);
    out.line("Storage Driver", &info.driver);
    for [name, value] in info.driver_status.iter().flatten() {
        out.line(&format!(" {name}"), value);
    }
    out.some("Logging Driver", &info.logging_driver);
    out.some("Cgroup Driver", &info.cgroup_driver);
    out.some("Cgroup Version", &info.cgroup_version);
    out.heading("Plugins");
    out.list(" Volume", &info.plugins.volume);
    out.list(" Network", &info.plugins.network);
    out.list(" Authorization", &info.plugins.authorization);
    out.list(" Log", &info.plugins.log);
    out.line("Swarm", &info.swarm.local_node_state);
    let runtimes: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
    if !runtimes.is_empty() {
        out.line("Runtimes", runtimes.join(" "));
        out.line("Default Runtime", &info.default_runtime);
    }
    out.line("Init Binary", &info.init_binary);
    out.line("containerd version", &info.containerd_commit.id);
    out.line("runc version", &info.runc_commit.id);
    out.line("init version", &info.init_commit.id);
    if !info.security_options.is_empty() {
        out.heading("Security Options");
        for option in &info.security_options {
            let pairs: Vec<(&str, &str)> = option
                .split(',')
                .filter_map(|pair| pair.split_once('='))
                .collect();
            for (key, value) in pairs {
                match key {
                    "name" => out.0 += &format!("  {value}\n"),
                    key => {
                        let mut letters = key.chars();
                        let first: String = letters
                            .next()
                            .map(|c| c.to_uppercase().collect())
                            .unwrap_or_default();
                        out.0 += &format!("   {first}{}: {value}\n", letters.as_str());
                    }
                }
            }
        }
    }
    host(&mut out, info);
    out.0
}

fn host(out: &mut Lines, info: &SystemInfo) {
    out.line("Kernel Version", &info.kernel_version);
    out.line("Operating System", &info.operating_system);
    out.line("OSType", &info.os_type);
    out.line("Architecture", &info.architecture);
    out.line("CPUs", info.ncpu);
    out.line("Total Memory", bytes_1024(info.mem_total as f64));
    out.line("Name", &info.name);
    out.line("ID", &info.id);
    out.line("Docker Root Dir", &info.docker_root_dir);
    out.line("Debug Mode", info.debug);
    if info.debug {
        out.line(" File Descriptors", info.n_fd);
        out.line(" Goroutines", info.n_goroutines);
        out.line(" System Time", &info.system_time);
        out.line(" EventsListeners", info.n_events_listener);
    }
    out.some("HTTP Proxy", &info.http_proxy);
    out.some("HTTPS Proxy", &info.https_proxy);
    out.some("No Proxy", &info.no_proxy);
    let labels = info.labels.clone().unwrap_or_default();
    if !labels.is_empty() {
        out.heading("Labels");
        for label in labels {
            out.0 += &format!("  {label}\n");
        }
    }
    out.line("Experimental", info.experimental_build);
    if let Some(registry) = &info.registry_config {
        let insecure: Vec<&String> = registry
            .index_configs
            .values()
            .filter(|index| !index.secure)
            .map(|index| &index.name)
            .chain(registry.insecure_registry_cidrs.iter().flatten())
            .collect();
        if !insecure.is_empty() {
            out.heading("Insecure Registries");
            for name in insecure {
                out.0 += &format!("  {name}\n");
            }
        }
        let mirrors = registry.mirrors.clone().unwrap_or_default();
        if !mirrors.is_empty() {
            out.heading("Registry Mirrors");
            for mirror in mirrors {
                out.0 += &format!("  {mirror}\n");
            }
        }
    }
    out.line("Live Restore Enabled", info.live_restore_enabled);
    out.some("Product License", &info.product_license);
    if !info.default_address_pools.is_empty() {
        out.heading("Default Address Pools");
        for pool in &info.default_address_pools {
            out.0 += &format!("   Base: {}, Size: {}\n", pool.base, pool.size);
        }
    }
    if let Some(firewall) = &info.firewall_backend {
        out.line("Firewall Backend", &firewall.driver);
    }
}
