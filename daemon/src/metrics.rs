//! Metrics for Prometheus at `metrics-addr`, under the names that dockerd gives them.
//!
//! What is counted is counted where it happens: the bus counts events, health checks and the actions of containers. All else is
//! read when asked.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::App;
use crate::container::state::State as Life;
use crate::container::stats;

/// Upper bounds of the buckets, in seconds.
const BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// What a container is put through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Create,
    Start,
    Delete,
}

const ACTIONS: [(Action, &str); 3] = [
    (Action::Create, "create"),
    (Action::Start, "start"),
    (Action::Delete, "delete"),
];

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) health_checks: AtomicU64,
    pub(crate) health_checks_failed: AtomicU64,
    actions: [Histogram; ACTIONS.len()],
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BUCKETS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// Counts an action that took so long.
    pub(crate) fn took(&self, action: Action, time: Duration) {
        let Some(at) = ACTIONS.iter().position(|(known, _)| *known == action) else {
            return;
        };
        let histogram = &self.actions[at];
        for (bucket, bound) in histogram.buckets.iter().zip(BUCKETS) {
            if time.as_secs_f64() <= bound {
                count(bucket);
            }
        }
        count(&histogram.count);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        histogram.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// The only route.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(app)
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, text(&app)).into_response()
}

fn text(app: &App) -> String {
    let mut out = String::new();
    let (mut running, mut paused, mut stopped) = (0, 0, 0);
    for handle in app.containers.all() {
        match &handle.record().state {
            Life::Running(task) if task.paused => paused += 1,
            Life::Running(_) | Life::Restarting(_) => running += 1,
            _ => stopped += 1,
        }
    }
    let name = "engine_daemon_container_states_containers";
    head(
        &mut out,
        name,
        "gauge",
        "The count of containers in various states",
    );
    for (state, number) in [
        ("paused", paused),
        ("running", running),
        ("stopped", stopped),
    ] {
        line(&mut out, &format!("{name}{{state=\"{state}\"}}"), number);
    }
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let mut single = |name: &str, kind: &str, help: &str, value: u64| {
        head(&mut out, name, kind, help);
        line(&mut out, name, value);
    };
    single(
        "engine_daemon_engine_cpus_cpus",
        "gauge",
        "The number of cpus that the host system of the engine has",
        cpus,
    );
    single(
        "engine_daemon_engine_memory_bytes",
        "gauge",
        "The number of bytes of memory that the host system of the engine has",
        stats::memory_total(),
    );
    single(
        "engine_daemon_events_total",
        "counter",
        "The number of events logged",
        app.events.told(),
    );
    single(
        "engine_daemon_events_subscribers_total",
        "gauge",
        "The number of current subscribers to events",
        app.events.listeners() as u64,
    );
    let counted = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    single(
        "engine_daemon_health_checks_total",
        "counter",
        "The total number of health checks",
        counted(&app.counters.health_checks),
    );
    single(
        "engine_daemon_health_checks_failed_total",
        "counter",
        "The total number of failed health checks",
        counted(&app.counters.health_checks_failed),
    );
    info(&mut out, app);
    actions(&mut out, app);
    out
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "{name} {value}");
}

fn info(out: &mut String, app: &App) {
    let name = "engine_daemon_engine_info";
    let kernel = rustix::system::uname();
    head(
        out,
        name,
        "gauge",
        "The information related to the engine and the OS it is running on",
    );
    let labels = [
        (
            "architecture",
            kernel.machine().to_string_lossy().into_owned(),
        ),
        ("commit", env!("GIT_COMMIT").to_owned()),
        ("daemon_id", app.instance.clone()),
        ("graphdriver", app.backend.snapshotter().to_owned()),
        ("kernel", kernel.release().to_string_lossy().into_owned()),
        ("os_type", "linux".to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let labels = labels.map(|(key, value)| {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        format!("{key}=\"{value}\"")
    });
    line(out, &format!("{name}{{{}}}", labels.join(",")), 1);
}

fn actions(out: &mut String, app: &App) {
    let name = "engine_daemon_container_actions_seconds";
    head(
        out,
        name,
        "histogram",
        "The number of seconds it takes to process each container action",
    );
    for (histogram, (_, action)) in app.counters.actions.iter().zip(ACTIONS) {
        for (bucket, bound) in histogram.buckets.iter().zip(BUCKETS) {
            let label = format!("{name}_bucket{{action=\"{action}\",le=\"{bound}\"}}");
            line(out, &label, bucket.load(Ordering::Relaxed));
        }
        let all = histogram.count.load(Ordering::Relaxed);
        line(
            out,
            &format!("{name}_bucket{{action=\"{action}\",le=\"+Inf\"}}"),
            all,
        );
        let seconds = histogram.micros.load(Ordering::Relaxed) as f64 / 1e6;
        line(out, &format!("{name}_sum{{action=\"{action}\"}}"), seconds);
        line(out, &format!("{name}_count{{action=\"{action}\"}}"), all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_what_is_faster_too() {
        let counters = Counters::default();
        counters.took(Action::Start, Duration::from_millis(30));
        counters.took(Action::Start, Duration::from_secs(60));
        let start = &counters.actions[1];
        let counted: Vec<u64> = start
            .buckets
            .iter()
            .map(|b| b.load(Ordering::Relaxed))
            .collect();
        assert_eq!(counted, [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(start.count.load(Ordering::Relaxed), 2);
    }
}
