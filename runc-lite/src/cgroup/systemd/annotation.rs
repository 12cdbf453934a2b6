//! Annotations `org.systemd.property.NAME`: further properties of the unit, in
//! the text form of GVariant.
//!
//! ```text
//!  true   'text'   uint64 5   -3   1.5   ['a', 'b']
//! ```
//!
//! A name that ends in `Sec` is one that only unit files have: systemd takes it
//! over the wire in microseconds and with `USec`.

use std::collections::BTreeMap;

use super::super::CgroupError;
use super::wire::{Property, Value};

const PREFIX: &str = "org.systemd.property.";

/// The properties that the annotations ask for.
pub(super) fn properties(
    annotations: Option<&BTreeMap<String, String>>,
) -> Result<Vec<Property>, CgroupError> {
    let mut out = Vec::new();
    for (key, text) in annotations.into_iter().flatten() {
        let Some(name) = key.strip_prefix(PREFIX) else {
            continue;
        };
        if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Err(invalid(key, "not the name of a property"));
        }
        let value = parse(text.trim()).ok_or_else(|| invalid(key, text))?;
        out.push(
            match name.strip_suffix("Sec").filter(|n| !n.ends_with('U')) {
                Some(stem) => {
                    let microseconds = microseconds(&value).ok_or_else(|| invalid(key, text))?;
                    (format!("{stem}USec"), Value::U64(microseconds))
                }
                None => (name.to_owned(), value),
            },
        );
    }
    Ok(out)
}

fn invalid(key: &str, what: &str) -> CgroupError {
    CgroupError::invalid("annotations", format!("{key}: {what:?} is not understood"))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be within range"
)]
fn microseconds(value: &Value) -> Option<u64> {
    let whole = |n: u64| n.checked_mul(1_000_000);
    match value {
        Value::I32(n) => whole(u64::try_from(*n).ok()?),
        Value::U32(n) => whole(u64::from(*n)),
        Value::I64(n) => whole(u64::try_from(*n).ok()?),
        Value::U64(n) => whole(*n),
        Value::F64(n) if (0.0..1e12).contains(n) => Some((n * 1e6) as u64),
        _ => None,
    }
}

fn parse(text: &str) -> Option<Value> {
    if let Some(list) = text.strip_prefix('[') {
        return texts(list.trim_start()).map(Value::Texts);
    }
    if text.starts_with(['\'', '"']) {
        let (value, rest) = quoted(text)?;
        return rest.trim().is_empty().then_some(Value::Text(value));
    }
    if let Some((kind, number)) = text.split_once(' ') {
        let number = number.trim();
        return match kind {
            "boolean" => parse_bool(number),
            "int32" => number.parse().ok().map(Value::I32),
            "uint32" => number.parse().ok().map(Value::U32),
            "int64" => number.parse().ok().map(Value::I64),
            "uint64" => number.parse().ok().map(Value::U64),
            "double" => number.parse().ok().map(Value::F64),
            _ => None,
        };
    }
    parse_bool(text)
        .or_else(|| text.parse().ok().map(Value::I32))
        .or_else(|| {
            text.parse()
                .ok()
                .filter(|n: &f64| n.is_finite())
                .map(Value::F64)
        })
}

fn parse_bool(text: &str) -> Option<Value> {
    match text {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        _ => None,
    }
}

/// The rest of a list of texts, after its bracket.
fn texts(mut rest: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    loop {
        if let Some(end) = rest.strip_prefix(']') {
            return end.trim().is_empty().then_some(out);
        }
        let (value, after) = quoted(rest)?;
        out.push(value);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None if rest.starts_with(']') => {}
            None => return None,
        }
    }
}

/// A quoted text and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut chars = text.char_indices();
    let (_, quote) = chars.next().filter(|(_, c)| matches!(c, '\'' | '"'))?;
    let mut out = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?.1),
            c if c == quote => return Some((out, &text[at + 1..])),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(name: &str, text: &str) -> Option<Property> {
        let key = format!("{PREFIX}{name}");
        properties(Some(&BTreeMap::from([(key, text.to_owned())])))
            .ok()?
            .pop()
    }

    #[test]
    fn the_usual_forms_are_read() {
        for (name, text, wanted, value) in [
            (
                "CollectMode",
                "'inactive'",
                "CollectMode",
                Value::Text("inactive".into()),
            ),
            (
                "TimeoutStopUSec",
                "uint64 5",
                "TimeoutStopUSec",
                Value::U64(5),
            ),
            (
                "TimeoutStopSec",
                "2",
                "TimeoutStopUSec",
                Value::U64(2_000_000),
            ),
            (
                "TimeoutStopSec",
                "0.5",
                "TimeoutStopUSec",
                Value::U64(500_000),
            ),
            ("SendSIGHUP", "true", "SendSIGHUP", Value::Bool(true)),
            (
                "After",
                "['a.service', \"b\\\"c\"]",
                "After",
                Value::Texts(vec!["a.service".into(), "b\"c".into()]),
            ),
            ("After", "[]", "After", Value::Texts(vec![])),
        ] {
            assert_eq!(
                one(name, text),
                Some((wanted.to_owned(), value)),
                "{name} {text}"
            );
        }
        for (name, text) in [
            ("X", "1"),
            ("A-b", "1"),
            ("Abc", "'open"),
            ("Abc", "[1]"),
            ("Abc", ""),
            ("TimeoutSec", "'x'"),
            ("TimeoutSec", "-1"),
        ] {
            assert_eq!(one(name, text), None, "{name} {text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = parse(&text);
            let _ = one("TimeoutSec", &text);
        }
    }
}
