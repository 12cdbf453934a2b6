use super::*;

#[test]
fn failures_cross_with_stage_and_errno() {
    let (parent, child) = pair().unwrap();
    let failure = InitFailure {
        stage: Stage::Rootfs,
        detail: "mount proc on /proc".into(),
        errno: libc::EPERM,
    };
    child.failed(&failure);
    let Err(ChannelError::Init(got)) = parent.next() else {
        panic!("no failure")
    };
    assert_eq!(got, failure);
    assert_eq!(
        got.to_string(),
        "mount proc on /proc: operation not permitted"
    );
}

#[test]
fn last_words_are_heard_after_the_connection_broke() {
    let (parent, child) = pair().unwrap();
    parent.mapped().unwrap();
    let failure = InitFailure {
        stage: Stage::Exec,
        detail: "x".into(),
        errno: 0,
    };
    child.failed(&failure);
    drop(child);
    assert!(matches!(parent.attached(1), Err(ChannelError::Gone)));
    assert_eq!(parent.last_words(), Some(failure));
    assert_eq!(parent.last_words(), None);
}

#[test]
fn a_dead_child_is_an_end_of_file() {
    let (parent, child) = pair().unwrap();
    child.sibling(77).unwrap();
    drop(child);
    assert!(parent.mapped().is_err());
    assert_eq!(parent.sibling().unwrap(), 77);
    assert!(matches!(parent.next(), Err(ChannelError::Gone)));
    parent.executed().unwrap();
}
