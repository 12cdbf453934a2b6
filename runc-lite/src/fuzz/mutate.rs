//! How one input is made from others.

use serde_json::{Value, json};

/// A small generator, the same everywhere for the same seed.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`; 0 if that is 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit.max(1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Texts that parsers stumble over.
const TEXTS: &[&str] = &[
    "",
    ".",
    "..",
    "../..",
    "/",
    "//",
    "/..",
    "\0",
    "a\0b",
    "a,b",
    "=",
    "a=",
    "=a",
    ":",
    "::",
    "-1",
    "0-",
    "0-4294967295",
    "18446744073709551616",
    "é",
    "\u{202e}",
    "\n",
    "%s",
    "\\",
    "/proc/self/exe",
    "/proc/self/fd/3",
    "/proc/self/ns/net",
    "net.ipv4/../../kernel.core_pattern",
    "kernel/../x",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_NOTIFY",
    "SCMP_CMP_MASKED_EQ",
    "CAP_SYS_ADMIN",
    "RLIMIT_NOFILE",
    "rbind",
    "ro",
    "rro",
    "idmap",
    "mode=99999",
    "size=-1",
    "rwm",
    "a",
    "b",
    "c",
    "user",
    "time",
    "mount",
    "LINUX32",
    "SCHED_DEADLINE",
    "slice:x:y",
    "name=systemd",
    "max",
];

const NUMBERS: &[i128] = &[
    0,
    1,
    -1,
    2,
    7,
    8,
    31,
    32,
    63,
    64,
    127,
    128,
    255,
    256,
    4095,
    4096,
    32767,
    65535,
    65536,
    i32::MAX as i128,
    i32::MIN as i128,
    u32::MAX as i128,
    u32::MAX as i128 + 1,
    i64::MAX as i128,
    i64::MIN as i128,
    u64::MAX as i128,
];

/// A new input from one of the corpus, and parts of another.
pub(super) fn change(base: &[u8], other: &[u8], json: bool, random: &mut Random) -> Vec<u8> {
    if json && !random.one_in(4) {
        let parse = |bytes| serde_json::from_slice::<Value>(bytes).ok();
        if let (Some(mut value), donor) = (parse(base), parse(other)) {
            for _ in 0..=random.below(4) {
                change_value(&mut value, donor.as_ref(), random);
            }
            return value.to_string().into_bytes();
        }
    }
    let mut bytes = base.to_owned();
    for _ in 0..=random.below(6) {
        change_bytes(&mut bytes, other, random);
    }
    bytes.truncate(1 << 17);
    bytes
}

fn change_bytes(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let end = (at + random.below(24)).min(bytes.len());
    match random.below(8) {
        0 => bytes.insert(at, random.next() as u8),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
        3 => {
            let from = random.below(other.len() + 1);
            let to = (from + random.below(200)).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        4 => {
            let text = *random.pick(TEXTS);
            bytes.splice(at..end, text.bytes());
        }
        5 => {
            let number = random.pick(NUMBERS).to_string();
            bytes.splice(at..end, number.into_bytes());
        }
        6 => {
            let open = *random.pick(b"[{\"\\(,");
            let many = random.below(400);
            bytes.splice(at..at, std::iter::repeat_n(open, many));
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

/// Walks down to some node and puts something else there.
fn change_value(value: &mut Value, donor: Option<&Value>, random: &mut Random) {
    let deeper = !random.one_in(5);
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let at = random.below(map.len());
            if let Some(next) = map.values_mut().nth(at) {
                return change_value(next, donor, random);
            }
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let at = random.below(list.len());
            return change_value(&mut list[at], donor, random);
        }
        _ => {}
    }
    match (random.below(10), &mut *value) {
        (0, Value::Object(map)) => {
            let key = map.keys().nth(random.below(map.len())).cloned();
            key.and_then(|k| map.remove(&k));
        }
        (1, Value::Array(list)) if !list.is_empty() => {
            let copy = list[random.below(list.len())].clone();
            let many = 1 + random.below(30);
            list.extend(std::iter::repeat_n(copy, many));
        }
        (2, Value::Array(list)) => list.reverse(),
        (3, Value::Object(map)) => {
            let key = (*random.pick(TEXTS)).to_owned();
            map.insert(key, scalar(random));
        }
        (4 | 5, _) => {
            if let Some(part) = donor.map(|d| part_of(d, random)) {
                *value = part;
            }
        }
        (6, _) => {
            let mut nested = scalar(random);
            for _ in 0..random.below(200) {
                nested = if random.one_in(2) {
                    json!([nested])
                } else {
                    json!({"a": nested})
                };
            }
            *value = nested;
        }
        (7, Value::String(text)) => {
            let more = *random.pick(TEXTS);
            text.push_str(more);
        }
        (8, Value::String(text)) => *text = text.repeat(1 + random.below(50)),
        _ => *value = scalar(random),
    }
}

/// Some part of a value.
fn part_of(value: &Value, random: &mut Random) -> Value {
    match value {
        Value::Object(map) if !map.is_empty() && !random.one_in(4) => {
            let at = random.below(map.len());
            map.values()
                .nth(at)
                .map_or(Value::Null, |v| part_of(v, random))
        }
        Value::Array(list) if !list.is_empty() && !random.one_in(4) => {
            part_of(&list[random.below(list.len())], random)
        }
        other => other.clone(),
    }
}

fn scalar(random: &mut Random) -> Value {
    match random.below(8) {
        0 => Value::Null,
        1 => random.one_in(2).into(),
        2 => json!([]),
        3 => json!({}),
        4 | 5 => (*random.pick(TEXTS)).into(),
        6 => json!(1e300),
        _ => {
            let n = *random.pick(NUMBERS);
            i64::try_from(n).map_or_else(|_| json!(n as u64), |n| json!(n))
        }
    }
}
