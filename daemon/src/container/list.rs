//! The list of containers: filters, order, and each as `ps` shows it. Reads views; waits for nobody.

use std::collections::BTreeSet;

use proto::engine::{ContainerSummary, HealthSummary, SummaryHostConfig, SummaryNetworks};
use regex::Regex;

use super::health::Status;
use super::state::State;
use super::{Handle, Record};
use crate::App;
use crate::api::request::Filters;
use crate::clock;
use crate::error::{Error, Result};

/// The filters that a list knows.
pub(crate) const FILTERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

const STATUSES: &[&str] = &[
    "created",
    "dead",
    "exited",
    "paused",
    "removing",
    "restarting",
    "running",
];

/// Which containers are wanted.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) all: bool,
    /// The newest so many, running or not; 0 means no bound.
    pub(crate) limit: usize,
    pub(crate) filters: Filters,
}

/// The containers that are wanted, newest first.
pub(crate) async fn list(app: &App, wanted: &Wanted) -> Result<Vec<ContainerSummary>> {
    let filters = &wanted.filters;
    check(filters)?;
    let patterns = names(filters)?;
    let ancestors = ancestors(app, filters).await?;
    let bound = |key: &str| -> Result<Option<i128>> {
        let Some(reference) = filters.get(key).next() else {
            return Ok(None);
        };
        Ok(Some(created(&app.containers.find(reference)?.record())))
    };
    let (before, since) = (bound("before")?, bound("since")?);
    let all = wanted.all || wanted.limit > 0 || filters.has("status") || filters.has("exited");
    let mut found: Vec<(i128, Handle)> = Vec::new();
    for handle in app.containers.all() {
        let record = handle.record();
        let moment = created(&record);
        let alive = matches!(record.state, State::Running(_) | State::Restarting(_));
        let good = (all || alive)
            && before.is_none_or(|bound| moment < bound)
            && since.is_none_or(|bound| moment > bound)
            && ancestors
                .as_ref()
                .is_none_or(|ids| ids.contains(&record.image))
            && is_named(&patterns, &record.name)
            && matches(app, filters, &record)
            && filters.any("health", |wanted| wanted == health_word(&handle));
        if good {
            found.push((moment, handle));
        }
    }
    found.sort_by_key(|(moment, _)| std::cmp::Reverse(*moment));
    if wanted.limit > 0 {
        found.truncate(wanted.limit);
    }
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    Ok(found
        .into_iter()
        .map(|(_, handle)| summary(app, &handle, now))
        .collect())
}

fn created(record: &Record) -> i128 {
    clock::parse(&record.created).map_or(0, time::OffsetDateTime::unix_timestamp_nanos)
}

fn check(filters: &Filters) -> Result<()> {
    for status in filters.get("status") {
        if !STATUSES.contains(&status) {
            return Err(Error::invalid(format!("invalid filter 'status={status}'")));
        }
    }
    for code in filters.get("exited") {
        if code.parse::<i64>().is_err() {
            return Err(Error::invalid(format!("invalid filter 'exited={code}'")));
        }
    }
    for health in filters.get("health") {
        if !["starting", "healthy", "unhealthy", "none"].contains(&health) {
            return Err(Error::invalid(format!("invalid filter 'health={health}'")));
        }
    }
    Ok(())
}

/// The ids of the images that `ancestor` names; a name that is none matches nothing.
async fn ancestors(app: &App, filters: &Filters) -> Result<Option<BTreeSet<String>>> {
    if !filters.has("ancestor") {
        return Ok(None);
    }
    let mut ids = BTreeSet::new();
    for reference in filters.get("ancestor") {
        match app.images.resolve(reference).await {
            Ok(named) => drop(ids.insert(named.image.id.clone())),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(Some(ids))
}

fn matches(app: &App, filters: &Filters, record: &Record) -> bool {
    let exited = match &record.state {
        State::Exited(exited) => Some(exited.code.to_string()),
        _ => None,
    };
    let networks = || {
        let names = record.networks.keys().cloned();
        names.chain(std::iter::once(record.host.network_mode.clone()))
    };
    filters.any("status", |status| status == record.state.word())
        && filters.any("exited", |code| exited.as_deref() == Some(code))
        && filters.any("id", |id| record.id.starts_with(id))
        && filters.labels("label", &record.config.labels)
        && filters.any("network", |wanted| {
            networks().any(|network| network == wanted)
                || super::plumbing::is_on(app, record, wanted)
        })
        && filters.any("volume", |wanted| {
            let points = app.volumes.points(&record.mounts);
            let mut each = points.iter();
            each.any(|p| p.name == wanted || p.destination == wanted || p.source == wanted)
        })
        && filters.any("expose", |port| exposes(record, port))
        && filters.any("publish", |wanted| {
            let ports = super::plumbing::ports(app, record);
            let mut published = ports.iter().filter(|port| port.public_port > 0);
            published.any(|port| is_port(port, wanted))
        })
        && filters.any("is-task", |wanted| matches!(wanted, "false" | "0"))
        && filters.any("isolation", |_| true)
}

/// The patterns of the name filter. Docker matches each against the name with its slash and without.
fn names(filters: &Filters) -> Result<Vec<Regex>> {
    let bad = |pattern: &str| Error::invalid(format!("invalid filter 'name={pattern}'"));
    let patterns = filters.get("name");
    patterns
        .map(|pattern| Regex::new(pattern).map_err(|_| bad(pattern)))
        .collect()
}

fn is_named(patterns: &[Regex], name: &str) -> bool {
    let with_slash = format!("/{name}");
    patterns.is_empty()
        || patterns
            .iter()
            .any(|pattern| pattern.is_match(name) || pattern.is_match(&with_slash))
}

fn exposes(record: &Record, wanted: &str) -> bool {
    let wanted = match wanted.contains('/') {
        true => wanted.to_owned(),
        false => format!("{wanted}/tcp"),
    };
    record.config.exposed_ports.contains_key(&wanted)
}

/// The state of its health as the filter names it.
fn health_word(handle: &Handle) -> &'static str {
    let known = handle.health().get();
    known.map_or("none", |health| health.status.word())
}

/// Whether a published port is the one, or in the range, that a filter names: `80`, `80/udp`, `8000-8010/tcp`.
fn is_port(port: &proto::engine::Port, wanted: &str) -> bool {
    let (range, kind) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (Ok(from), Ok(to)) = (from.parse::<u16>(), to.parse::<u16>()) else {
        return false;
    };
    port.kind == kind && (from..=to).contains(&port.public_port)
}

fn summary(app: &App, handle: &Handle, now: i64) -> ContainerSummary {
    let view = handle.view();
    let record = &view.record;
    let mut command = record.path.clone();
    for argument in &record.args {
        command.push(' ');
        match argument.contains(' ') {
            true => command.push_str(&format!("'{argument}'")),
            false => command.push_str(argument),
        }
    }
    let health = handle.health().get();
    let mut status = record.state.sentence(now);
    if let (State::Running(running), Some(health)) = (&record.state, &health)
        && !running.paused
    {
        status.push_str(match health.status {
            Status::Starting => " (health: starting)",
            Status::Healthy => " (healthy)",
            Status::Unhealthy => " (unhealthy)",
        });
    }
    if !view.confirmed {
        status.push_str(" (unconfirmed)");
    }
    ContainerSummary {
        id: record.id.clone(),
        names: vec![format!("/{}", record.name)],
        image: record.config.image.clone(),
        image_id: record.image.clone(),
        command,
        created: clock::unix(&record.created),
        ports: super::plumbing::ports(app, record),
        labels: record.config.labels.clone(),
        state: record.state.word().into(),
        status,
        host_config: SummaryHostConfig {
            network_mode: record.host.network_mode.clone(),
            annotations: record.host.annotations.clone(),
        },
        health: Some(HealthSummary {
            status: health.as_ref().map_or("none", |h| h.status.word()).into(),
            failing_streak: health.map_or(0, |h| h.streak),
        }),
        network_settings: SummaryNetworks {
            networks: super::plumbing::settings(app, record).networks,
        },
        mounts: app.volumes.points(&record.mounts),
        ..ContainerSummary::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_patterns() {
        for (wanted, name, good) in [
            ("web", "my-web-1", true),
            ("^web", "my-web", false),
            ("^/web$", "web", true),
            ("^web$", "web1", false),
            ("^/?web", "web1", true),
            ("1$", "web1", true),
        ] {
            let filters = Filters::parse(&format!("{{\"name\":[\"{wanted}\"]}}")).unwrap();
            let patterns = names(&filters).unwrap();
            assert_eq!(is_named(&patterns, name), good, "{wanted} {name}");
        }
        assert!(names(&Filters::parse(r#"{"name":["("]}"#).unwrap()).is_err());
    }
}
