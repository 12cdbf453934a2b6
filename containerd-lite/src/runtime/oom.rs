//! OOM scores that this machine would refuse.
//!
//! Lowering the score below one's own needs a capability; without it the engine dies on writing it. A spec that asks for
//! less than we may give gets what we have. Pure but for the two looks into /proc.

use std::borrow::Cow;

use serde_json::Value;

/// The capability to lower one's OOM score (CAP_SYS_RESOURCE), by number.
const SYS_RESOURCE: u32 = 24;

/// The least score that a child of ours can be given; none if there is no limit.
pub(super) fn floor() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    if may_lower(&status) {
        return None;
    }
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").ok()?;
    score.trim().parse().ok()
}

fn may_lower(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set >> SYS_RESOURCE & 1 == 1)
}

/// A runtime spec with a score that can be given.
pub(super) fn clamp_spec(spec: &[u8], floor: Option<i64>) -> Cow<'_, [u8]> {
    clamp(spec, floor, "/process/oomScoreAdj")
}

/// A process with a score that can be given.
pub(super) fn clamp_process(process: &[u8], floor: Option<i64>) -> Cow<'_, [u8]> {
    clamp(process, floor, "/oomScoreAdj")
}

fn clamp<'a>(json: &'a [u8], floor: Option<i64>, pointer: &str) -> Cow<'a, [u8]> {
    let Some(floor) = floor else {
        return Cow::Borrowed(json);
    };
    // What is no JSON is the engine's to refuse.
    let Ok(mut value) = serde_json::from_slice::<Value>(json) else {
        return Cow::Borrowed(json);
    };
    match value.pointer_mut(pointer) {
        Some(score) if score.as_i64().is_some_and(|s| s < floor) => *score = floor.into(),
        _ => return Cow::Borrowed(json),
    }
    Cow::Owned(serde_json::to_vec(&value).expect("a JSON value has a text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_score_below_the_floor_is_raised() {
        let low = br#"{"process":{"oomScoreAdj":-998,"args":["a"]},"x":1}"#;
        let clamped = clamp_spec(low, Some(0));
        let value: Value = serde_json::from_slice(&clamped).expect("json");
        assert_eq!(value["process"]["oomScoreAdj"], 0);
        assert_eq!(value["x"], 1);
        assert!(matches!(clamp_spec(low, None), Cow::Borrowed(_)));
        for same in [
            &br#"{"process":{"oomScoreAdj":5}}"#[..],
            b"{}",
            b"no json",
            br#"{"process":{"oomScoreAdj":"x"}}"#,
        ] {
            assert!(matches!(clamp_spec(same, Some(0)), Cow::Borrowed(_)));
        }
        let process = clamp_process(br#"{"oomScoreAdj":-1}"#, Some(3));
        assert_eq!(&*process, br#"{"oomScoreAdj":3}"#);
    }

    #[test]
    fn the_capability_is_one_bit() {
        assert!(may_lower("Name:\tx\nCapEff:\t0000000001000000\n"));
        assert!(!may_lower("CapEff:\t0000000000ffffff\n"));
        assert!(!may_lower(""));
    }
}
