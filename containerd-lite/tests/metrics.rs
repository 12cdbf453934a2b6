//! Metrics over HTTP: what a container was allowed and uses, and what was called, under the real daemon's names.

mod support;

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use support::Daemon;

const CONFIG: &str = "[metrics]\naddress = \"127.0.0.1:0\"\ngrpc_histogram = true\n";

/// Where the daemon says that metrics are.
fn address(daemon: &Daemon) -> String {
    let started = Instant::now();
    loop {
        let log = daemon.log();
        let found = log
            .lines()
            .find_map(|line| line.split("serving metrics on ").nth(1));
        if let Some(address) = found {
            return address.trim().to_owned();
        }
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "no address in {log}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn get(address: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).expect("connect");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    answer
}

/// The value of a sample whose line begins so.
fn value(page: &str, sample: &str) -> Option<f64> {
    let line = page.lines().find_map(|line| line.strip_prefix(sample))?;
    line.trim().parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_shown_with_its_limits_while_it_runs() {
    let Some(daemon) = Daemon::start_with(CONFIG).await else {
        return;
    };
    let address = address(&daemon);
    let client = daemon.client().await;
    let mut recipe = daemon.recipe();
    recipe.resources = serde_json::json!({
        "memory": {"limit": 64 << 20}, "pids": {"limit": 33}, "cpu": {"quota": 1000, "period": 100_000}
    });
    client
        .make(&recipe, "a", "while :; do :; done")
        .await
        .expect("container");
    client.create("a").await.expect("create");
    client.start("a", "").await.expect("start");
    client.get("nobody", "").await.expect_err("no such task");

    let labels = "{container_id=\"a\",namespace=\"test\"}";
    let started = Instant::now();
    let page = loop {
        let page = get(&address, "/v1/metrics");
        // It burns more than its hundredth of a CPU: sooner or later it has been held back.
        let held = [
            "container_cpu_throttled_periods_total",
            "container_cpu_nr_throttled_total",
        ];
        if held
            .iter()
            .any(|name| value(&page, &format!("{name}{labels}")) > Some(0.0))
        {
            break page;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let of = |name: &str| value(&page, &format!("container_{name}{labels}"));
    assert_eq!(
        of("memory_usage_limit_bytes"),
        Some(f64::from(64 << 20)),
        "{page}"
    );
    assert_eq!(of("pids_limit"), Some(33.0), "{page}");
    assert!(of("pids_current") >= Some(1.0), "{page}");
    let used = of("cpu_total_nanoseconds").or(of("cpu_usage_usec_microseconds"));
    assert!(used > Some(10_000.0), "{page}");
    let tasks = "grpc_service=\"containerd.services.tasks.v1.Tasks\",grpc_type=\"unary\"";
    for sample in [
        format!("grpc_server_handled_total{{grpc_code=\"OK\",grpc_method=\"Start\",{tasks}}}"),
        format!("grpc_server_handled_total{{grpc_code=\"NotFound\",grpc_method=\"Get\",{tasks}}}"),
        format!("grpc_server_handling_seconds_count{{grpc_method=\"Create\",{tasks}}}"),
    ] {
        assert_eq!(value(&page, &sample), Some(1.0), "{sample} in {page}");
    }
    assert!(
        page.contains("containerd_build_info_total{revision="),
        "{page}"
    );

    client.remove("a").await;
    let page = get(&address, "/v1/metrics");
    assert!(!page.contains("container_id=\"a\""), "{page}");
    assert!(get(&address, "/").starts_with("HTTP/1.1 404"));
    assert_eq!(daemon.remains().await, Vec::<String>::new());
}
