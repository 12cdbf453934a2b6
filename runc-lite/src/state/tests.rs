use super::*;

#[test]
fn ids_are_names() {
    for good in ["a", "A-1_b.c+d", "0"] {
        check_id(good).unwrap();
    }
    for bad in ["", ".", "..", "a/b", "a b", "é", "../x"] {
        assert!(check_id(bad).is_err(), "{bad}");
    }
}

#[test]
fn unknown_fields_survive_and_newer_formats_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = StateDir::new(root.path(), "box").unwrap();
    let _lock = dir.make().unwrap();
    assert!(matches!(dir.make(), Err(StateError::Exists)));
    let mut json = serde_json::to_value(State::new("box")).unwrap();
    json["tomorrow"] = serde_json::json!({"a": 1});
    dir.write("state.json", json.to_string().as_bytes())
        .unwrap();
    let state = dir.load().unwrap();
    dir.store(&state).unwrap();
    assert_eq!(dir.load().unwrap().unknown["tomorrow"]["a"], 1);
    json["version"] = 99.into();
    dir.write("state.json", json.to_string().as_bytes())
        .unwrap();
    assert!(matches!(
        dir.load(),
        Err(StateError::Format { found: 99, .. })
    ));
}

#[test]
fn a_record_without_process_is_creating_only_while_locked() {
    let root = tempfile::tempdir().unwrap();
    let dir = StateDir::new(root.path(), "box").unwrap();
    let lock = dir.make().unwrap();
    let state = State::new("box");
    assert_eq!(dir.status(&state), Status::Creating);
    drop(lock);
    assert_eq!(dir.status(&state), Status::Stopped);
}
