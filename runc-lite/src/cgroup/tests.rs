//! What holds for both kinds, and what the machine of the test run has, as root.

use super::*;

#[test]
fn systemd_is_asked_for_by_unit_and_the_root_is_no_cgroup() {
    let systemd = Placement {
        id: "x",
        cgroups_path: Some("/a/path"),
        systemd: true,
        ..Placement::default()
    };
    // Without systemd the first, with it the second.
    assert!(matches!(
        Cgroup::locate(&systemd),
        Err(CgroupError::NoSystemd | CgroupError::Invalid { .. })
    ));
    let root = Placement {
        id: "x",
        cgroups_path: Some("/.."),
        ..Placement::default()
    };
    assert!(matches!(
        Cgroup::locate(&root),
        Err(CgroupError::Invalid { .. })
    ));
}

#[test]
fn state_goes_there_and_back_with_what_it_does_not_know() {
    let text = r#"{"hierarchy":1,"owned":true,"paths":{"cpu":"/c/x","cpuacct":"/c/x","memory":"/m/x"},"unit":{"name":"a.scope","user":false},"future":[1]}"#;
    let state: CgroupState = serde_json::from_str(text).unwrap();
    let cgroup = Cgroup::load(&state).unwrap();
    assert_eq!(cgroup.state(), state);
    assert_eq!(
        serde_json::to_value(cgroup.state()).unwrap(),
        serde_json::from_str::<serde_json::Value>(text).unwrap()
    );
    let mounts = cgroup.mounts_for_container();
    assert_eq!(mounts.len(), 2);
    assert_eq!(
        (mounts[0].name.as_str(), mounts[0].links.len()),
        ("cpu,cpuacct", 2)
    );
}

#[test]
fn one_that_is_not_owned_is_never_killed_or_emptied() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("c");
    std::fs::create_dir_all(dir.join("below")).unwrap();
    let state = CgroupState {
        hierarchy: 1,
        paths: [("pids".to_owned(), dir.clone())].into(),
        ..CgroupState::default()
    };
    // As it lies in no cgroup file system, it is not taken from a record either.
    assert!(matches!(
        Cgroup::load(&state),
        Err(CgroupError::Invalid { .. })
    ));
    let v1 = V1::load(&state.paths);
    v1.remove(false).unwrap();
    assert!(dir.join("below").exists());
    std::fs::remove_dir(dir.join("below")).unwrap();
    v1.remove(false).unwrap();
    assert!(!dir.exists());
}
