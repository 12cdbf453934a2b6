//! What clients really send must parse, and what we send must be Docker's to the byte.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn a_partial_body_with_nulls_parses() {
    let body: ContainerCreateBody = serde_json::from_value(json!({
        "Image": "busybox", "Cmd": ["true"], "Env": null, "Labels": null, "Volumes": {"/data": {}},
        "Zzz": {"a": [1, 2]},
        "HostConfig": {"Memory": 1048576, "LogConfig": null, "PortBindings": {"80/tcp": [{"HostPort": "8080"}], "81/tcp": null},
                       "KernelMemory": 0, "PidsLimit": null, "RestartPolicy": {"Name": "always"}},
        "NetworkingConfig": {"EndpointsConfig": {"default": null, "web": {"Aliases": ["db"]}}}
    }))
    .unwrap();
    assert_eq!(body.config.image, "busybox");
    assert_eq!(body.config.other.keys().collect::<Vec<_>>(), ["Zzz"]);
    let host = body.host_config.unwrap();
    assert_eq!(host.resources.memory, 1_048_576);
    assert_eq!(host.resources.pids_limit, None);
    assert_eq!(host.other.keys().collect::<Vec<_>>(), ["KernelMemory"]);
    assert_eq!(host.port_bindings["81/tcp"], None);
    let nets = body.networking_config.unwrap().endpoints_config;
    assert_eq!(nets["default"], None);
    assert_eq!(
        nets["web"].as_ref().unwrap().aliases.as_deref(),
        Some(&["db".to_string()][..])
    );
}

#[test]
fn an_empty_config_keeps_dockers_nulls_and_order() {
    assert_eq!(
        serde_json::to_string(&Config::default()).unwrap(),
        r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{}}"#
    );
}

#[test]
fn an_update_leaves_out_nothing_that_docker_sends() {
    let update = UpdateBody {
        resources: Resources {
            memory: 5,
            pids_limit: Some(7),
            ..Default::default()
        },
        restart_policy: RestartPolicy {
            name: "no".into(),
            maximum_retry_count: 0,
        },
        ..Default::default()
    };
    let text = serde_json::to_string(&update).unwrap();
    assert!(
        text.starts_with(r#"{"CpuShares":0,"Memory":5,"NanoCpus":0,"CgroupParent":"","#),
        "{text}"
    );
    assert!(
        text.ends_with(r#""RestartPolicy":{"Name":"no","MaximumRetryCount":0}}"#),
        "{text}"
    );
}

#[test]
fn progress_lines_carry_only_what_is_set() {
    let line: JsonProgress = serde_json::from_str(
        r#"{"status":"Downloading","progressDetail":{"current":5,"total":10},"id":"abc"}"#,
    )
    .unwrap();
    assert_eq!(line.progress_detail.as_ref().unwrap().total, 10);
    let text = serde_json::to_string(&JsonProgress {
        stream: "x\n".into(),
        ..Default::default()
    })
    .unwrap();
    assert_eq!(text, r#"{"stream":"x\n"}"#);
}

proptest! {
    #[test]
    fn a_create_body_survives_the_wire(
        image in "[a-z]{1,8}", env in proptest::option::of(proptest::collection::vec("[A-Z]=.{0,6}", 0..4)),
        memory in any::<i64>(), binds in proptest::option::of(proptest::collection::vec(".{0,9}", 0..3)),
        label in "[a-z.]{1,9}", key in "X[a-zA-Z]{3,9}",
    ) {
        let mut body = ContainerCreateBody::default();
        body.config.image = image;
        body.config.env = env;
        body.config.labels.insert(label, "v".into());
        body.config.other.insert(key.clone(), json!({"kept": true}));
        let mut host = HostConfig { binds, ..Default::default() };
        host.resources.memory = memory;
        host.other.insert(key, json!([1]));
        body.host_config = Some(host);
        let text = serde_json::to_string(&body).unwrap();
        let back: ContainerCreateBody = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(back, body);
    }
}
