//! Names of containers: their rule, and names for those whose user gave none.

use crate::error::{Error, Result};

/// Checks a name and takes off the slash that clients may put before it.
pub(crate) fn check(name: &str) -> Result<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if first && rest && bare.len() >= 2 {
        return Ok(bare);
    }
    Err(Error::invalid(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

const MANNERS: [&str; 32] = [
    "brisk", "calm", "candid", "clever", "cosy", "eager", "early", "fair", "fine", "frank",
    "fresh", "gentle", "glad", "keen", "kind", "lively", "loyal", "merry", "mild", "neat",
    "nimble", "plain", "proud", "quick", "quiet", "ready", "sharp", "sober", "steady", "swift",
    "warm", "wise",
];

const BIRDS: [&str; 32] = [
    "avocet", "bunting", "crane", "curlew", "dipper", "dunlin", "egret", "falcon", "finch",
    "gannet", "godwit", "goshawk", "heron", "hoopoe", "jackdaw", "kestrel", "lapwing", "linnet",
    "magpie", "martin", "merlin", "osprey", "ouzel", "petrel", "plover", "raven", "siskin",
    "skylark", "snipe", "swallow", "teal", "wren",
];

/// A name such as `quiet_heron`; with a number from the second try on.
pub(crate) fn invent(tries: u32) -> String {
    let random = crate::random::hex(4);
    let number = u32::from_str_radix(&random, 16).unwrap_or_default() as usize;
    let manner = MANNERS[number % MANNERS.len()];
    let bird = BIRDS[(number >> 8) % BIRDS.len()];
    match tries {
        0 => format!("{manner}_{bird}"),
        _ => format!("{manner}_{bird}{}", (number >> 16) % 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rule() {
        for good in ["ab", "a1", "/web-1", "A_b.c", "0x"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "/", "-a", "_a", ".a", "a/b", "a b", "//ab", "ä1"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn invented_names_obey_it(tries in 0u32..4) {
            prop_assert!(check(&invent(tries)).is_ok());
        }
    }
}
