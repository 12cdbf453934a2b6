//! What each number of an architecture comes to.
//!
//! Three hundred numbers with mostly the same verdict: two bytes for each number
//! point into a short list of different outcomes. It is filled once for every
//! process that gets a filter, and has to be a small part of making that process.

use super::profile::{Call, Rule};
use super::table::{ARM_PRIVATE, X32_BIT};

/// Ordinary numbers lie below this, in all tables.
const ORDINARY: u32 = 1024;

/// Outcome by number, in order of the numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct CallMap {
    /// By slot: 0 for nothing said, else one more than the index into `outcomes`.
    slots: Vec<u16>,
    outcomes: Vec<Call>,
    /// What all numbers have in common: set for x32.
    bit: u32,
}

impl CallMap {
    /// Adds a rule about a call.
    pub(super) fn add(&mut self, number: u32, rule: &Rule) {
        self.bit |= number & X32_BIT;
        let slot = slot(number);
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, 0);
        }
        match usize::from(self.slots[slot]) {
            0 => {
                let index = if rule.conditions.is_empty() {
                    self.always(rule.verdict)
                } else {
                    self.push(Call::Depends(vec![rule.clone()]))
                };
                self.slots[slot] = index;
            }
            at => match &mut self.outcomes[at - 1] {
                Call::Always(_) => {}
                Call::Depends(_) if rule.conditions.is_empty() => {
                    self.slots[slot] = self.always(rule.verdict);
                }
                // No other number shares a list.
                list => list.and_rule(rule),
            },
        }
    }

    /// The index of an unconditional outcome; the last one is the likeliest.
    fn always(&mut self, verdict: u32) -> u16 {
        let same = |call: &Call| *call == Call::Always(verdict);
        match self.outcomes.iter().rposition(same) {
            Some(at) => index(at),
            None => self.push(Call::Always(verdict)),
        }
    }

    fn push(&mut self, call: Call) -> u16 {
        self.outcomes.push(call);
        index(self.outcomes.len() - 1)
    }

    /// Numbers and their outcomes, lowest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Call)> {
        let said = self.slots.iter().enumerate().filter(|(_, i)| **i != 0);
        said.map(|(slot, i)| (number(slot) | self.bit, &self.outcomes[usize::from(*i) - 1]))
    }

    /// The different outcomes.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = &Call> {
        self.outcomes.iter()
    }
}

fn index(at: usize) -> u16 {
    u16::try_from(at + 1).expect("no more outcomes than numbers")
}

/// Private calls of 32-bit ARM follow on the ordinary ones.
fn slot(number: u32) -> usize {
    let plain = number & !X32_BIT;
    let slot = match plain.checked_sub(ARM_PRIVATE) {
        Some(private) => ORDINARY + private,
        None => plain,
    };
    slot as usize
}

fn number(slot: usize) -> u32 {
    let slot = u32::try_from(slot).expect("made from a number");
    match slot.checked_sub(ORDINARY) {
        Some(private) => ARM_PRIVATE + private,
        None => slot,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn always(verdict: u32) -> Rule {
        Rule {
            conditions: Vec::new(),
            verdict,
        }
    }

    #[test]
    fn numbers_come_back_in_order() {
        let mut map = CallMap::default();
        for number in [ARM_PRIVATE + 5, 3, 470, 0] {
            map.add(number, &always(number));
        }
        map.add(3, &always(9));
        let all: Vec<_> = map.iter().map(|(n, c)| (n, c.clone())).collect();
        let same = |n| (n, Call::Always(n));
        assert_eq!(all, [same(0), same(3), same(470), same(ARM_PRIVATE + 5)]);
        let mut x32 = CallMap::default();
        x32.add(X32_BIT | 512, &always(1));
        assert_eq!(x32.iter().next().unwrap().0, X32_BIT | 512);
    }

    #[test]
    fn every_table_fits() {
        for name in super::super::table::names() {
            for arch in super::super::table::FAMILY {
                let found = super::super::table::number(*arch, name);
                let Some(n) = found else { continue };
                assert_eq!(number(slot(n)), n & !X32_BIT, "{name}");
            }
        }
    }
}
