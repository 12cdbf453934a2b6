//! What a build is asked for: the query of `POST /build`.

use std::collections::BTreeMap;

use proto::engine::{AuthConfig, HostConfig, Resources, Ulimit};

use crate::api::Params;
use crate::error::{Error, Result};
use crate::images::manifest::Platform;
use crate::images::new_name;
use crate::images::reference::Reference;

/// The wishes.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// The name by which the build can be cancelled; none where empty.
    pub(crate) build_id: String,
    /// Path of the Dockerfile in the context.
    pub(crate) dockerfile: String,
    /// Names of the image.
    pub(crate) tags: Vec<Reference>,
    /// The stage that is wanted; the last where empty.
    pub(crate) target: String,
    /// Values of ARG; none where only the name is given.
    pub(crate) args: BTreeMap<String, Option<String>>,
    /// Labels of the image.
    pub(crate) labels: BTreeMap<String, String>,
    /// Whether no step of former builds is taken.
    pub(crate) no_cache: bool,
    /// Whether base images are asked for at their registry though they are here.
    pub(crate) pull: bool,
    /// Whether only the id is told.
    pub(crate) quiet: bool,
    /// Whether containers of steps that failed are removed too.
    pub(crate) force_remove: bool,
    /// Whether containers of steps are removed.
    pub(crate) remove: bool,
    /// The platform of base images, where one is named.
    pub(crate) platform: Option<Platform>,
    /// How the steps' containers run.
    pub(crate) host: HostConfig,
    /// Credentials by registry.
    pub(crate) credentials: BTreeMap<String, AuthConfig>,
    /// What is told and not done.
    pub(crate) warnings: Vec<String>,
}

impl Options {
    /// Reads the query and the header `X-Registry-Config`.
    pub(crate) fn read(params: &Params, registries: &str) -> Result<Self> {
        refuse(params)?;
        let text = |key: &str| params.text(key).to_owned();
        let mut tags = Vec::new();
        for name in params
            .every("t")
            .into_iter()
            .filter(|name| !name.is_empty())
        {
            tags.push(new_name(name, "")?);
        }
        let platform = match params.text("platform") {
            "" => None,
            text => Some(Platform::parse(text)?),
        };
        let mut warnings = Vec::new();
        if !matches!(params.text("cachefrom"), "" | "null" | "[]") {
            warnings.push(
                "cache-from has no effect: steps of former builds on this host are taken"
                    .to_owned(),
            );
        }
        Ok(Self {
            build_id: text("buildid"),
            dockerfile: match params.text("dockerfile") {
                "" => "Dockerfile".to_owned(),
                path => path.to_owned(),
            },
            tags,
            target: text("target").to_lowercase(),
            args: json(params, "buildargs")?,
            labels: json(params, "labels")?,
            no_cache: params.flag("nocache"),
            pull: params.flag("pull"),
            quiet: params.flag("q"),
            force_remove: params.flag("forcerm"),
            remove: params.flag_or("rm", true),
            platform,
            host: host(params)?,
            credentials: credentials(registries)?,
            warnings,
        })
    }
}

/// What the classic builder does not have.
fn refuse(params: &Params) -> Result<()> {
    if params.text("version") == "2" || !params.text("session").is_empty() {
        return Err(Error::unimplemented(
            "BuildKit is not built in; run buildkitd and reach it with a remote builder, or build with DOCKER_BUILDKIT=0",
        ));
    }
    if !params.text("remote").is_empty() {
        return Err(Error::unimplemented(
            "building from a remote context is not supported: send the context",
        ));
    }
    if params.flag("squash") {
        return Err(Error::unimplemented("squash is not supported"));
    }
    if !matches!(params.text("outputs"), "" | "null" | "[]") {
        return Err(Error::unimplemented("build outputs need BuildKit"));
    }
    if !matches!(params.text("isolation"), "" | "default") {
        return Err(Error::invalid(format!(
            "invalid isolation mode: {}",
            params.text("isolation")
        )));
    }
    Ok(())
}

fn host(params: &Params) -> Result<HostConfig> {
    let number = |key: &str| Ok::<_, Error>(params.int(key)?.unwrap_or(0));
    let ulimits: Option<Vec<Ulimit>> = match params.text("ulimits") {
        "" | "null" => None,
        _ => Some(json(params, "ulimits")?),
    };
    let list = |key: &str| -> Option<Vec<String>> {
        let values: Vec<String> = params
            .every(key)
            .into_iter()
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect();
        match values.as_slice() {
            [] => None,
            // some clients send one JSON list, others each value
            [one] if one.starts_with('[') => serde_json::from_str(one).ok(),
            _ => Some(values),
        }
    };
    Ok(HostConfig {
        network_mode: params.text("networkmode").to_owned(),
        shm_size: number("shmsize")?,
        extra_hosts: list("extrahosts"),
        security_opt: list("securityopt"),
        resources: Resources {
            memory: number("memory")?,
            memory_swap: number("memswap")?,
            cpu_shares: number("cpushares")?,
            cpu_period: number("cpuperiod")?,
            cpu_quota: number("cpuquota")?,
            cpuset_cpus: params.text("cpusetcpus").to_owned(),
            cpuset_mems: params.text("cpusetmems").to_owned(),
            cgroup_parent: params.text("cgroupparent").to_owned(),
            ulimits,
            ..Resources::default()
        },
        ..HostConfig::default()
    })
}

fn json<T: serde::de::DeserializeOwned + Default>(params: &Params, key: &str) -> Result<T> {
    match params.text(key) {
        "" | "null" => Ok(T::default()),
        text => serde_json::from_str(text)
            .map_err(|e| Error::invalid(format!("invalid value for {key}: {e}"))),
    }
}

/// The header's JSON in base64: registry to credentials.
fn credentials(header: &str) -> Result<BTreeMap<String, AuthConfig>> {
    use base64::Engine as _;
    let text = header.trim().trim_end_matches('=');
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .or_else(|_| base64::engine::general_purpose::STANDARD_NO_PAD.decode(text))
        .map_err(|e| Error::invalid(format!("invalid X-Registry-Config header: {e}")))?;
    let all: Option<BTreeMap<String, AuthConfig>> = serde_json::from_slice(&bytes)
        .map_err(|e| Error::invalid(format!("invalid X-Registry-Config header: {e}")))?;
    Ok(all.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
    use super::*;

    #[test]
    fn a_query_is_read() {
        let query = "t=a&t=b:1&q=1&buildargs=%7B%22x%22%3A%22y%22%2C%22z%22%3Anull%7D&memory=67108864&rm=1&extrahosts=a:1.2.3.4";
        let options = Options::read(&Params::parse(query), "e30=").unwrap();
        assert_eq!(options.tags.len(), 2);
        assert_eq!(options.args["x"].as_deref(), Some("y"));
        assert_eq!(options.args["z"], None);
        assert_eq!(options.host.resources.memory, 64 << 20);
        assert_eq!(options.host.extra_hosts.unwrap(), ["a:1.2.3.4"]);
        assert!(options.quiet && options.remove && options.dockerfile == "Dockerfile");
    }

    #[test]
    fn what_is_not_there_is_refused() {
        for query in [
            "version=2",
            "remote=http://x",
            "squash=1",
            "t=A",
            "buildargs=x",
            "isolation=hyperv",
        ] {
            assert!(Options::read(&Params::parse(query), "").is_err(), "{query}");
        }
        assert!(Options::read(&Params::default(), "!").is_err());
    }
}
