//! `build`: an image from a Dockerfile, by the builder of the daemon (`POST /build`).

mod context;
mod ignore;

use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use clap::ArgAction::Append;
use proto::engine::{AuthConfig, Ulimit};

use self::context::Context;
use super::Session;
use crate::client::{ClientError, Request};
use crate::credentials;
use crate::error::{Failure, Outcome};
use crate::format::{bytes_1000, print};
use crate::options::resources::ulimit;
use crate::options::values::{byte_size, swap_size};
use crate::progress;
use crate::reference::Reference;

#[derive(Debug, clap::Args)]
#[command(
    about = "Make an image from a Dockerfile",
    override_usage = "[OPTIONS] PATH | URL | -",
    before_help = "image build, build, builder build"
)]
pub(crate) struct Args {
    /// Add a line to the hosts file of the steps (host:ip)
    #[arg(long, action = Append)]
    add_host: Vec<String>,
    /// Set a variable of the build
    #[arg(long, action = Append)]
    build_arg: Vec<String>,
    /// Images whose layers may be used again
    #[arg(long, value_name = "strings", action = Append)]
    cache_from: Vec<String>,
    /// Parent cgroup of the steps
    #[arg(long, value_name = "string", default_value = "")]
    cgroup_parent: String,
    /// Length of the CPU CFS period
    #[arg(long, value_name = "int", default_value = "0")]
    cpu_period: i64,
    /// CPU time in each CFS period
    #[arg(long, value_name = "int", default_value = "0")]
    cpu_quota: i64,
    /// CPU shares (relative weight)
    #[arg(long, short = 'c', value_name = "int", default_value = "0")]
    cpu_shares: i64,
    /// CPUs that may be used (0-3, 0,1)
    #[arg(long, value_name = "string", default_value = "")]
    cpuset_cpus: String,
    /// Memory nodes that may be used (0-3, 0,1)
    #[arg(long, value_name = "string", default_value = "")]
    cpuset_mems: String,
    /// Name of the Dockerfile (default "PATH/Dockerfile")
    #[arg(long, short = 'f', value_name = "string", default_value = "")]
    file: String,
    /// Always remove the containers of the steps
    #[arg(long)]
    force_rm: bool,
    /// Write the ID of the image to this file
    #[arg(long, value_name = "string", default_value = "")]
    iidfile: String,
    /// Isolation of the steps
    #[arg(long, value_name = "string", default_value = "")]
    isolation: String,
    /// Set a label of the image
    #[arg(long, action = Append)]
    label: Vec<String>,
    /// Memory limit
    #[arg(long, short = 'm', value_name = "bytes", default_value = "0", value_parser = byte_size)]
    memory: i64,
    /// Limit of memory and swap together; -1 for none
    #[arg(long, value_name = "bytes", default_value = "0", value_parser = swap_size, allow_hyphen_values = true)]
    memory_swap: i64,
    /// Network of the RUN steps (default "default")
    #[arg(long, value_name = "string", default_value = "")]
    network: String,
    /// Use no layers of earlier builds
    #[arg(long)]
    no_cache: bool,
    /// Platform of the image
    #[arg(long, value_name = "string", default_value = "")]
    platform: String,
    /// Always look for a newer base image
    #[arg(long)]
    pull: bool,
    /// Print only the ID of the image
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Remove the containers of the steps after success (default true)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = clap::ArgAction::Set)]
    rm: bool,
    /// Security options of the steps
    #[arg(long, value_name = "strings", action = Append)]
    security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "bytes", default_value = "0", value_parser = byte_size)]
    shm_size: i64,
    /// Make the new layers one
    #[arg(long)]
    squash: bool,
    /// Name of the image, and a tag (name:tag)
    #[arg(long, short = 't', action = Append)]
    tag: Vec<String>,
    /// The stage to build
    #[arg(long, value_name = "string", default_value = "")]
    target: String,
    /// Limits of the steps
    #[arg(long, value_name = "ulimit", action = Append, value_parser = ulimit)]
    ulimit: Vec<Ulimit>,
    #[arg(required = true)]
    context: String,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    for tag in &args.tag {
        Reference::parse(tag).map_err(|why| {
            Failure::with_code(
                125,
                format!("invalid argument {tag:?} for \"-t, --tag\" flag: {why}"),
            )
        })?;
    }
    if args.context == "-" && args.file == "-" {
        return Err(Failure::new(
            "invalid argument: can't use stdin for both build context and dockerfile",
        ));
    }
    let is_remote = ["http://", "https://", "git://", "git@", "github.com/"]
        .iter()
        .any(|scheme| args.context.starts_with(scheme));
    let context = match (args.context.as_str(), is_remote) {
        ("-", _) => Some(context::standard_input(&args.file)?),
        (_, true) => None,
        (folder, false) => Some(context::folder(folder, &args.file)?),
    };
    let file = match &context {
        Some(context) => context.dockerfile.clone(),
        None if args.file.is_empty() => context::DOCKERFILE.to_string(),
        None => args.file.clone(),
    };
    let mut request = request(session, &args, &file);
    let mut sent = None;
    request = match context {
        Some(Context {
            upload,
            sent: count,
            ..
        }) => {
            sent = Some(count);
            request.upload("application/x-tar", upload)
        }
        None => request.query("remote", &args.context),
    };
    let answer = request.send().await.map_err(unbuilt)?;
    if let Some(sent) = sent.filter(|_| !args.quiet) {
        let size = bytes_1000(sent.load(Ordering::Relaxed) as f64);
        print(&format!(
            "Sending build context to Docker daemon  {size}\r\r\n"
        ))?;
    }
    let told = progress::show(answer, args.quiet).await?;
    let id = told
        .iter()
        .rev()
        .find_map(|value| value.get("ID")?.as_str())
        .unwrap_or_default();
    if args.quiet && !id.is_empty() {
        print(&format!("{id}\n"))?;
    }
    if !args.iidfile.is_empty() {
        if id.is_empty() {
            return Err(Failure::new("the daemon did not tell the ID of the image"));
        }
        std::fs::write(&args.iidfile, id)
            .map_err(|cause| Failure::new(format!("write {}: {cause}", args.iidfile)))?;
    }
    Ok(0)
}

/// A daemon without a builder says so; what to do is added.
fn unbuilt(error: ClientError) -> Failure {
    match error {
        ClientError::Refused {
            status: 404 | 501,
            message,
        } => Failure::new(format!(
            "Error response from daemon: {message}\nthis daemon cannot build images by POST /build; an installed buildx can, as 'docker-lite buildx build'"
        )),
        error => error.into(),
    }
}

fn request<'a>(session: &'a Session, args: &Args, file: &str) -> Request<'a> {
    let limit = |number: i64| match number {
        0 => String::new(),
        number => number.to_string(),
    };
    let mut request = session
        .client
        .post("/build")
        .query_some("buildargs", &pairs(&args.build_arg, true))
        .query_some("cachefrom", &list(&args.cache_from))
        .query_some("cgroupparent", &args.cgroup_parent)
        .query_some("cpuperiod", &limit(args.cpu_period))
        .query_some("cpuquota", &limit(args.cpu_quota))
        .query_some("cpusetcpus", &args.cpuset_cpus)
        .query_some("cpusetmems", &args.cpuset_mems)
        .query_some("cpushares", &limit(args.cpu_shares))
        .query("dockerfile", file)
        .query_some("extrahosts", &args.add_host.join(","))
        .query_if("forcerm", args.force_rm)
        .query_some("isolation", &args.isolation)
        .query_some("labels", &pairs(&args.label, false))
        .query_some("memory", &limit(args.memory))
        .query_some("memswap", &limit(args.memory_swap))
        .query_some("networkmode", &args.network)
        .query_if("nocache", args.no_cache)
        .query_some("platform", session.platform(&args.platform))
        .query_if("pull", args.pull)
        .query_if("q", args.quiet)
        .query("rm", u8::from(args.rm))
        .query_some("shmsize", &limit(args.shm_size))
        .query_if("squash", args.squash)
        .query_some("target", &args.target)
        .query("version", 1);
    for option in &args.security_opt {
        request = request.query("securityopt", option);
    }
    for tag in &args.tag {
        request = request.query("t", tag);
    }
    if !args.ulimit.is_empty() {
        request = request.query("ulimits", serde_json::json!(args.ulimit));
    }
    request.header("X-Registry-Config", registry_config(session))
}

/// `key=value` pairs as one JSON object; a variable without a value is the environment's, or none.
fn pairs(given: &[String], from_environment: bool) -> String {
    if given.is_empty() {
        return String::new();
    }
    let pairs = given.iter().map(|pair| match pair.split_once('=') {
        Some((key, value)) => (key.to_string(), Some(value.to_string())),
        None if from_environment => (pair.clone(), std::env::var(pair).ok()),
        None => (pair.clone(), Some(String::new())),
    });
    let pairs: std::collections::BTreeMap<_, _> = pairs.collect();
    serde_json::json!(pairs).to_string()
}

fn list(given: &[String]) -> String {
    match given.is_empty() {
        true => String::new(),
        false => serde_json::json!(given).to_string(),
    }
}

/// The credentials of all registries that there are some for: the builder may need any.
fn registry_config(session: &Session) -> String {
    let file = &session.config.file;
    let names = file.auths.keys().chain(file.cred_helpers.keys());
    let all: std::collections::BTreeMap<&String, AuthConfig> = names
        .filter_map(|name| Some((name, credentials::lookup(file, name)?)))
        .collect();
    URL_SAFE.encode(serde_json::json!(all).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_an_object() {
        let given = ["A=1".to_string(), "B=x=y".to_string()];
        assert_eq!(pairs(&given, true), r#"{"A":"1","B":"x=y"}"#);
        assert_eq!(
            pairs(&["no-such-variable".to_string()], true),
            r#"{"no-such-variable":null}"#
        );
        assert_eq!(pairs(&["l".to_string()], false), r#"{"l":""}"#);
        assert_eq!(pairs(&[], true), "");
    }
}
