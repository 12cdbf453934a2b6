use std::time::Duration;

use futures_util::StreamExt as _;
use proto::containerd::events::{TaskExit, TaskStart};

use super::*;

fn envelope(topic: &str, container: &str) -> Envelope {
    Envelope {
        timestamp: Some(Timestamp::default()),
        namespace: "ns".into(),
        topic: topic.into(),
        event: Some(proto::any::pack(&TaskStart {
            container_id: container.into(),
            pid: 1,
        })),
    }
}

fn exit(container: &str, exec: &str, second: i64) -> (ExitKey, Timestamp, Envelope) {
    let at = Timestamp {
        seconds: second,
        nanos: 0,
    };
    let event = TaskExit {
        container_id: container.into(),
        id: exec.into(),
        pid: 1,
        exit_status: 7,
        exited_at: Some(at),
    };
    let key = ExitKey {
        namespace: "ns".into(),
        container: container.into(),
        exec: exec.into(),
    };
    let envelope = Envelope {
        topic: "/tasks/exit".into(),
        event: Some(proto::any::pack(&event)),
        ..envelope("/tasks/exit", container)
    };
    (key, at, envelope)
}

fn publish(exchange: &Exchange, (key, at, envelope): (ExitKey, Timestamp, Envelope)) {
    exchange.publish_exit(key, at, envelope).expect("publish");
}

/// Containers of the events that are there now.
async fn taken(subscription: &mut Subscription) -> Vec<String> {
    let mut seen = Vec::new();
    while let Ok(Some(event)) =
        tokio::time::timeout(Duration::from_millis(5), subscription.next()).await
    {
        let event = event.expect("event");
        seen.push(field(&event, &["event", "container_id"]).expect("container"));
    }
    seen
}

#[tokio::test]
async fn order_is_kept_and_filters_hold() {
    let exchange = Exchange::new();
    let mut all = exchange.subscribe(vec![], |_| true);
    let mut some = exchange.subscribe(vec!["x".into()], |e| e.topic == "/tasks/start");
    for (topic, id) in [
        ("/tasks/start", "a"),
        ("/tasks/paused", "b"),
        ("/tasks/start", "c"),
    ] {
        exchange.forward(envelope(topic, id)).expect("forward");
    }
    assert_eq!(taken(&mut all).await, ["a", "b", "c"]);
    assert_eq!(taken(&mut some).await, ["a", "c"]);
}

#[tokio::test]
async fn an_exit_reaches_every_filter_once() {
    let exchange = Exchange::new();
    publish(&exchange, exit("a", "", 1));
    publish(&exchange, exit("b", "", 2));
    publish(&exchange, exit("a", "", 1));
    let mut first = exchange.subscribe(vec!["f".into()], |_| true);
    assert_eq!(taken(&mut first).await, ["a", "b"]);
    publish(&exchange, exit("c", "", 3));
    drop(first);
    // c was queued for a stream that never gave it out; a and b were given out.
    let mut again = exchange.subscribe(vec!["f".into()], |_| true);
    assert_eq!(taken(&mut again).await, ["c"]);
    let mut other = exchange.subscribe(vec!["g".into()], |_| true);
    assert_eq!(taken(&mut other).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_forgotten_exit_is_neither_replayed_nor_repeated() {
    let exchange = Exchange::new();
    publish(&exchange, exit("a", "", 1));
    publish(&exchange, exit("a", "e", 1));
    exchange.forget_task("ns", "a");
    publish(&exchange, exit("a", "", 1));
    let mut late = exchange.subscribe(vec![], |_| true);
    assert_eq!(taken(&mut late).await, Vec::<String>::new());
    // A new task of that name ends at another time.
    publish(&exchange, exit("a", "", 9));
    assert_eq!(taken(&mut late).await, ["a"]);
}

#[tokio::test]
async fn a_slow_subscriber_is_cut_off_and_told() {
    let exchange = Exchange::new();
    let mut slow = exchange.subscribe(vec![], |_| true);
    for _ in 0..=QUEUE {
        exchange
            .forward(envelope("/tasks/start", "a"))
            .expect("forward");
    }
    for _ in 0..QUEUE {
        assert!(matches!(slow.next().await, Some(Ok(_))));
    }
    assert_eq!(slow.next().await, Some(Err(CutOff)));
    assert_eq!(slow.next().await, None);
}

#[test]
fn malformed_events_are_refused() {
    let exchange = Exchange::new();
    for topic in ["", "tasks", "/", "/a//b", "/a b"] {
        let error = exchange.forward(envelope(topic, "a"));
        assert_eq!(error, Err(PublishError::Topic(topic.into())));
    }
    let nameless = Envelope {
        namespace: String::new(),
        ..envelope("/a", "a")
    };
    assert_eq!(
        exchange.forward(nameless),
        Err(PublishError::Namespace(String::new()))
    );
}

#[test]
fn fields_of_events_are_found_by_name() {
    let (_, _, exit) = exit("c", "e", 1);
    let value = |path: &[&str]| field(&exit, path);
    assert_eq!(value(&["namespace"]).as_deref(), Some("ns"));
    assert_eq!(value(&["topic"]).as_deref(), Some("/tasks/exit"));
    assert_eq!(value(&["event", "container_id"]).as_deref(), Some("c"));
    assert_eq!(value(&["event", "id"]).as_deref(), Some("e"));
    for none in [&["event", "pid"][..], &["event"], &["nothing"], &[]] {
        assert_eq!(value(none), None, "{none:?}");
    }
}
