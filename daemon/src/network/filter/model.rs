//! A table as a value: what shall stand, or what stands; and the transaction that leads from the one to the other.
//!
//! Rules are told apart by a mark, a hash of their content that is kept in the kernel as the rule's comment. So what stands
//! can be read back and compared without understanding it, whoever wrote it.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::expression::{Rule, Verdict};
use super::wire::{APPEND, Attributes, Batch, CREATE, INET, Socket, kind};
use super::wire::{attribute, attributes, number, text};
use crate::error::Result;

/// The chain that belongs to the operator: made if missing, never changed.
pub(crate) const USER: &str = "DOCKER-USER";

/// How many elements go into one message, whose lists are at most 64 KiB long.
const AT_ONCE: usize = 400;

/// Where a chain hangs in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hook {
    /// Of kind `nat`, or else `filter`.
    pub(crate) nat: bool,
    /// The hook's number.
    pub(crate) number: u32,
    /// The place among the others there.
    pub(crate) priority: i32,
}

/// A chain: where it hangs, and its rules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain {
    pub(crate) hook: Option<Hook>,
    pub(crate) rules: Vec<Rule>,
}

/// What a set's keys, and a map's values, are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Interface to verdict.
    Verdicts,
    /// Interface.
    Interfaces,
    /// Protocol and port to address and port.
    Ports { v6: bool },
    /// Address, protocol and port to address and port.
    Bound { v6: bool },
    /// Address, protocol and port.
    Open { v6: bool },
}

/// The kernel's numbers for the types of keys and values; they matter to those who print the rules.
mod types {
    pub(super) const ADDRESS4: u32 = 7;
    pub(super) const ADDRESS6: u32 = 8;
    pub(super) const PROTOCOL: u32 = 12;
    pub(super) const SERVICE: u32 = 13;
    pub(super) const INTERFACE: u32 = 41;
    pub(super) const VERDICT: u32 = 0xffff_ff00;
}

impl Shape {
    /// Type and length of the key, and of the value if it is a map.
    fn sizes(self) -> ((u32, u32), Option<(u32, u32)>) {
        let join = |parts: &[u32]| parts.iter().fold(0, |all, part| (all << 6) | part);
        let address = |v6: bool| match v6 {
            true => (types::ADDRESS6, 16),
            false => (types::ADDRESS4, 4),
        };
        let ports = (join(&[types::PROTOCOL, types::SERVICE]), 8);
        let full = |v6: bool| {
            let (kind, length) = address(v6);
            let kind = join(&[kind, types::PROTOCOL, types::SERVICE]);
            (kind, length + 8)
        };
        let target = |v6: bool| {
            let (kind, length) = address(v6);
            (join(&[kind, types::SERVICE]), length + 4)
        };
        match self {
            Self::Verdicts => ((types::INTERFACE, 16), Some((types::VERDICT, 0))),
            Self::Interfaces => ((types::INTERFACE, 16), None),
            Self::Ports { v6 } => (ports, Some(target(v6))),
            Self::Bound { v6 } => (full(v6), Some(target(v6))),
            Self::Open { v6 } => (full(v6), None),
        }
    }
}

/// What a key of a map leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing: the set holds keys only.
    None,
    /// These bytes.
    Bytes(Vec<u8>),
    /// A chain.
    Chain(String),
}

/// A set or map with its elements.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) shape: Shape,
    pub(crate) elements: BTreeMap<Vec<u8>, Value>,
}

/// The whole table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) chains: BTreeMap<String, Chain>,
    pub(crate) sets: BTreeMap<String, Set>,
}

/// What stands: the marks of the rules in place of the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) chains: BTreeMap<String, Vec<String>>,
    pub(crate) sets: BTreeMap<String, BTreeMap<Vec<u8>, Value>>,
}

impl Table {
    /// What stands when all of this does.
    pub(crate) fn standing(&self) -> Standing {
        let marks = |chain: &Chain| chain.rules.iter().map(mark).collect();
        Standing {
            chains: self
                .chains
                .iter()
                .map(|(name, chain)| (name.clone(), marks(chain)))
                .collect(),
            sets: self
                .sets
                .iter()
                .map(|(name, set)| (name.clone(), set.elements.clone()))
                .collect(),
        }
    }

    /// The transaction from what stands to this.
    pub(crate) fn change(&self, name: &str, from: &Standing) -> Batch {
        let mut batch = Batch::new(INET);
        if from.chains.is_empty() && from.sets.is_empty() {
            batch.change(kind::NEW_TABLE, CREATE, format!("make table {name}"), |a| {
                a.text(1, name);
            });
        }
        for (chain, wanted) in &self.chains {
            if !from.chains.contains_key(chain) {
                make_chain(&mut batch, name, chain, wanted.hook);
            }
        }
        for (set, wanted) in &self.sets {
            if !from.sets.contains_key(set) {
                make_set(&mut batch, name, set, wanted.shape);
            }
        }
        let none = BTreeMap::new();
        for (set, wanted) in &self.sets {
            let there = from.sets.get(set).unwrap_or(&none);
            let gone = there
                .iter()
                .filter(|(key, value)| wanted.elements.get(*key) != Some(*value));
            elements(&mut batch, kind::DEL_ELEMENT, name, set, gone);
        }
        for (chain, wanted) in &self.chains {
            let there = from.chains.get(chain);
            let marks: Vec<String> = wanted.rules.iter().map(mark).collect();
            if chain == USER || there == Some(&marks) {
                continue;
            }
            if there.is_some_and(|rules| !rules.is_empty()) {
                empty_chain(&mut batch, name, chain);
            }
            for rule in &wanted.rules {
                add_rule(&mut batch, name, chain, rule);
            }
        }
        for (set, wanted) in &self.sets {
            let there = from.sets.get(set).unwrap_or(&none);
            let new = wanted
                .elements
                .iter()
                .filter(|(key, value)| there.get(*key) != Some(*value));
            elements(&mut batch, kind::NEW_ELEMENT, name, set, new);
        }
        self.take_away(&mut batch, name, from);
        batch
    }

    /// What stands and shall not: the rules of all such chains first, for they may lead to each other.
    fn take_away(&self, batch: &mut Batch, name: &str, from: &Standing) {
        let gone = || {
            from.chains
                .keys()
                .filter(|c| !self.chains.contains_key(*c) && *c != USER)
        };
        for chain in gone() {
            empty_chain(batch, name, chain);
        }
        for set in from.sets.keys().filter(|s| !self.sets.contains_key(*s)) {
            batch.change(kind::DEL_SET, 0, format!("remove set {set}"), |a| {
                a.text(1, name);
                a.text(2, set);
            });
        }
        for chain in gone() {
            batch.change(kind::DEL_CHAIN, 0, format!("remove chain {chain}"), |a| {
                a.text(1, name);
                a.text(3, chain);
            });
        }
    }
}

fn mark(rule: &Rule) -> String {
    hex::encode(&Sha256::digest(rule.bytes())[..6])
}

fn make_chain(batch: &mut Batch, table: &str, chain: &str, hook: Option<Hook>) {
    batch.change(
        kind::NEW_CHAIN,
        CREATE,
        format!("make chain {chain}"),
        |a| {
            a.text(1, table);
            a.text(3, chain);
            if let Some(hook) = hook {
                a.nest(4, |h| {
                    h.number(1, hook.number);
                    h.number(2, hook.priority as u32);
                });
                a.number(5, 1);
                a.text(7, if hook.nat { "nat" } else { "filter" });
            }
        },
    );
}

fn make_set(batch: &mut Batch, table: &str, set: &str, shape: Shape) {
    const MAP: u32 = 8;
    let (key, value) = shape.sizes();
    batch.change(kind::NEW_SET, CREATE, format!("make set {set}"), |a| {
        a.text(1, table);
        a.text(2, set);
        a.number(3, if value.is_some() { MAP } else { 0 });
        a.number(4, key.0);
        a.number(5, key.1);
        if let Some((kind, length)) = value {
            a.number(6, kind);
            a.number(7, length);
        }
        // Named sets need a number that is theirs within the transaction.
        a.number(10, 1);
        if matches!(shape, Shape::Verdicts | Shape::Interfaces) {
            // For those who print the rules: names are in the host's order of bytes.
            const KEY_ORDER: u8 = 0;
            const HOST: u32 = 1;
            let mut note = vec![KEY_ORDER, 4];
            note.extend(HOST.to_ne_bytes());
            a.put(13, &note);
        }
    });
}

fn empty_chain(batch: &mut Batch, table: &str, chain: &str) {
    batch.change(kind::DEL_RULE, 0, format!("empty chain {chain}"), |a| {
        a.text(1, table);
        a.text(2, chain);
    });
}

fn add_rule(batch: &mut Batch, table: &str, chain: &str, rule: &Rule) {
    let what = format!("add a rule to chain {chain}");
    batch.change(kind::NEW_RULE, CREATE | APPEND, what, |a| {
        a.text(1, table);
        a.text(2, chain);
        a.put(4 | 0x8000, rule.bytes());
        let mark = mark(rule);
        let mut comment = vec![0, mark.len() as u8 + 1];
        comment.extend(mark.as_bytes());
        comment.push(0);
        a.put(7, &comment);
    });
}

fn elements<'a>(
    batch: &mut Batch,
    kind: u16,
    table: &str,
    set: &str,
    list: impl Iterator<Item = (&'a Vec<u8>, &'a Value)>,
) {
    let list: Vec<_> = list.collect();
    for part in list.chunks(AT_ONCE) {
        let what = format!("change {} elements of set {set}", part.len());
        let flags = match kind {
            kind::NEW_ELEMENT => CREATE,
            _ => 0,
        };
        batch.change(kind, flags, what, |a| {
            a.text(1, table);
            a.text(2, set);
            a.nest(3, |all| {
                for (key, value) in part {
                    all.nest(1, |element| write_element(element, key, value));
                }
            });
        });
    }
}

fn write_element(element: &mut Attributes<'_>, key: &[u8], value: &Value) {
    element.nest(1, |data| data.put(1, key));
    match value {
        Value::None => {}
        Value::Bytes(bytes) => element.nest(2, |data| data.put(1, bytes)),
        Value::Chain(chain) => {
            element.nest(2, |data| Verdict::Jump(chain.clone()).write(data));
        }
    }
}

/// Reads what stands of a table.
pub(crate) fn read(socket: &Socket, table: &str) -> Result<Standing> {
    let mut standing = Standing::default();
    let of_table = |a: &mut Attributes<'_>| a.text(1, table);
    for object in socket.list(kind::GET_CHAIN, INET, of_table)? {
        if text(&object, 1).as_deref() == Some(table)
            && let Some(name) = text(&object, 3)
        {
            standing.chains.insert(name, Vec::new());
        }
    }
    for object in socket.list(kind::GET_RULE, INET, of_table)? {
        if text(&object, 1).as_deref() == Some(table)
            && let Some(rules) = text(&object, 2).and_then(|name| standing.chains.get_mut(&name))
        {
            rules.push(read_mark(&object));
        }
    }
    for object in socket.list(kind::GET_SET, INET, of_table)? {
        const ANONYMOUS: u32 = 1;
        let anonymous = number(&object, 3).unwrap_or(0) & ANONYMOUS != 0;
        if text(&object, 1).as_deref() == Some(table)
            && !anonymous
            && let Some(name) = text(&object, 2)
        {
            let elements = read_elements(socket, table, &name)?;
            standing.sets.insert(name, elements);
        }
    }
    Ok(standing)
}

/// The mark of a rule; one that is not ours has none.
fn read_mark(rule: &[u8]) -> String {
    let comment = attribute(rule, 7).unwrap_or_default();
    match comment {
        [0, length, rest @ ..] if rest.len() >= usize::from(*length) && *length > 0 => {
            String::from_utf8_lossy(&rest[..usize::from(*length) - 1]).into_owned()
        }
        _ => String::new(),
    }
}

fn read_elements(socket: &Socket, table: &str, set: &str) -> Result<BTreeMap<Vec<u8>, Value>> {
    let mut elements = BTreeMap::new();
    let parts = socket.list(kind::GET_ELEMENT, INET, |a| {
        a.text(1, table);
        a.text(2, set);
    })?;
    for part in parts {
        let list = attribute(&part, 3).unwrap_or_default();
        for (_, element) in attributes(list) {
            let Some(key) = attribute(element, 1).and_then(|data| attribute(data, 1)) else {
                continue;
            };
            let data = attribute(element, 2);
            let bytes = data.and_then(|d| attribute(d, 1));
            let chain = data.and_then(|d| attribute(d, 2)).and_then(|v| text(v, 2));
            let value = match (bytes, chain) {
                (_, Some(chain)) => Value::Chain(chain),
                (Some(bytes), None) => Value::Bytes(bytes.to_vec()),
                (None, None) => Value::None,
            };
            elements.insert(key.to_vec(), value);
        }
    }
    Ok(elements)
}

/// Removes a table; one that is not there is no error.
pub(crate) fn remove(socket: &Socket, family: u8, table: &str) -> Result<()> {
    let mut batch = Batch::new(family);
    let name = |a: &mut Attributes<'_>| a.text(1, table);
    // Made first if it is missing, so that removing it cannot fail for its absence.
    batch.change(kind::NEW_TABLE, CREATE, format!("find table {table}"), name);
    batch.change(kind::DEL_TABLE, 0, format!("remove table {table}"), name);
    batch.commit(socket)
}
