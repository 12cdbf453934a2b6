//! Writes the program.
//!
//! Conditional jumps reach 255 instructions ahead and nothing jumps back, so the
//! program is written from its end: every target exists before the jump to it,
//! and one that is too far gets a stepping stone in between. A position is
//! counted from the end, and the whole is turned round at last.
//!
//! ```text
//!   load architecture
//!   if native goto A ... if the next goto B ... return kill
//!   A: load number
//!      if number >= middle goto upper half
//!      ...
//!   chain of a call with conditions:
//!      load argument, high half; compare; load low half; compare; verdict
//!      ... next rule ... default
//! ```

use std::collections::HashMap;

use super::profile::{Call, Calls, Condition, Op, RET_KILL_THREAD, Resolved, Rule};
use super::table::{Arch, X32_BIT};
use crate::sys::seccomp::Insn;

const LOAD: u16 = 0x20; // LD | W | ABS
const AND: u16 = 0x54; // ALU | AND | K
const JUMP: u16 = 0x05; // JMP | JA
const IF_EQ: u16 = 0x15; // JMP | JEQ | K
const IF_GT: u16 = 0x25; // JMP | JGT | K
const IF_GE: u16 = 0x35; // JMP | JGE | K
const RETURN: u16 = 0x06; // RET | K

const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// How far a conditional jump goes, less the stones that may come in between.
const REACH: usize = 253;

/// The place of an instruction, counted from the end of the program.
type Place = usize;

/// The program for a profile.
pub(super) fn program(profile: &Resolved) -> Vec<Insn> {
    let mut out = Emitter::default();
    let mut blocks: Vec<(u32, Place)> = Vec::new();
    for calls in profile.arches.iter().filter(|c| c.arch != Arch::X32) {
        let mut ranges = ranges(&mut out, profile, calls, 0);
        if calls.arch == Arch::X86_64 {
            // x32 calls come under the same architecture, with a bit in the number.
            ranges.retain(|(from, _)| *from < X32_BIT);
            match profile.arches.iter().find(|c| c.arch == Arch::X32) {
                Some(x32) => ranges.extend(self::ranges(&mut out, profile, x32, X32_BIT)),
                None => {
                    ranges.push((X32_BIT, Leaf::Verdict(RET_KILL_THREAD)));
                    // A tracer that skips a call leaves this number.
                    ranges.push((u32::MAX, Leaf::Verdict(profile.newer)));
                }
            }
        }
        let tree = out.tree(&ranges);
        let block = out.load(NUMBER, tree);
        blocks.push((calls.arch.audit(), block));
    }
    let mut entry = out.verdict(RET_KILL_THREAD);
    // The native architecture ends up first.
    for (audit, block) in blocks.into_iter().rev() {
        entry = out.branch(IF_EQ, audit, block, entry);
    }
    out.load(ARCH, entry);
    out.reversed.reverse();
    out.reversed
}

/// What a range of numbers leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaf {
    Verdict(u32),
    Chain(Place),
}

/// Splits the numbers from `floor` up into ranges with one outcome each, given
/// by where they start.
fn ranges(out: &mut Emitter, profile: &Resolved, calls: &Calls, floor: u32) -> Vec<(u32, Leaf)> {
    let mut ranges = Vec::new();
    let mut push = |from: u32, leaf: Leaf| {
        if ranges.last().is_none_or(|(_, last)| *last != leaf) {
            ranges.push((from, leaf));
        }
    };
    let mut next = floor;
    for (number, call) in calls.calls.iter() {
        if number > next {
            push(next, Leaf::Verdict(profile.default));
        }
        let leaf = match call {
            Call::Always(verdict) => Leaf::Verdict(*verdict),
            Call::Depends(rules) => {
                Leaf::Chain(out.chain(rules, profile.default, calls.arch.narrow()))
            }
        };
        push(number, leaf);
        next = number + 1;
    }
    let after_newest = calls.newest.map_or(floor, |n| n + 1);
    if after_newest > next {
        push(next, Leaf::Verdict(profile.default));
        next = after_newest;
    }
    // A profile that names nothing says nothing of what is new; and where private
    // calls of ARM lie above all others, what is between is not above.
    let newer = calls.newest.is_some() && after_newest == next;
    push(
        next,
        Leaf::Verdict(if newer {
            profile.newer
        } else {
            profile.default
        }),
    );
    ranges
}

#[derive(Default)]
struct Emitter {
    reversed: Vec<Insn>,
    verdicts: HashMap<u32, Place>,
}

impl Emitter {
    fn push(&mut self, code: u16, k: u32) -> Place {
        self.reversed.push(Insn {
            code,
            jt: 0,
            jf: 0,
            k,
        });
        self.reversed.len() - 1
    }

    /// How many instructions would be jumped over from the next place written.
    fn distance(&self, to: Place) -> usize {
        self.reversed.len() - 1 - to
    }

    /// A place that returns the verdict; one that exists and is near, if any.
    fn verdict(&mut self, verdict: u32) -> Place {
        match self.verdicts.get(&verdict) {
            Some(&place) if self.distance(place) < REACH => place,
            _ => {
                let place = self.push(RETURN, verdict);
                self.verdicts.insert(verdict, place);
                place
            }
        }
    }

    /// Makes sure that the next instructions can jump to a place.
    fn near(&mut self, place: Place) -> Place {
        let distance = self.distance(place);
        if distance < REACH {
            return place;
        }
        let target = self.reversed[place];
        if target.code == RETURN {
            return self.verdict(target.k);
        }
        self.push(
            JUMP,
            u32::try_from(distance).expect("a program has few thousand instructions"),
        )
    }

    fn branch(&mut self, code: u16, k: u32, yes: Place, no: Place) -> Place {
        let (yes, no) = (self.near(yes), self.near(no));
        let offset = |out: &Self, to| u8::try_from(out.distance(to)).expect("both are near");
        let (jt, jf) = (offset(self, yes), offset(self, no));
        self.reversed.push(Insn { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// Loads a word and goes on at a place.
    fn load(&mut self, offset: u32, then: Place) -> Place {
        self.go(then);
        self.push(LOAD, offset)
    }

    /// Makes the next instruction fall through to a place.
    fn go(&mut self, place: Place) {
        let distance = self.distance(place);
        if distance > 0 {
            self.push(
                JUMP,
                u32::try_from(distance).expect("a program has few thousand instructions"),
            );
        }
    }

    /// Finds the range of the loaded number by halving.
    fn tree(&mut self, ranges: &[(u32, Leaf)]) -> Place {
        match ranges {
            [] => unreachable!("there is always a range"),
            [(_, Leaf::Verdict(verdict))] => self.verdict(*verdict),
            [(_, Leaf::Chain(place))] => *place,
            _ => {
                let (lower, upper) = ranges.split_at(ranges.len() / 2);
                let above = self.tree(upper);
                let below = self.tree(lower);
                self.branch(IF_GE, upper[0].0, above, below)
            }
        }
    }

    /// The rules of one call, in order.
    fn chain(&mut self, rules: &[Rule], default: u32, narrow: bool) -> Place {
        let mut next = self.verdict(default);
        for rule in rules.iter().rev() {
            let mut then = self.verdict(rule.verdict);
            for condition in rule.conditions.iter().rev() {
                then = self.condition(condition, narrow, then, next);
            }
            next = then;
        }
        next
    }

    fn condition(&mut self, c: &Condition, narrow: bool, yes: Place, no: Place) -> Place {
        match c.op {
            Op::Eq => self.compare(c, narrow, IF_EQ, yes, no),
            Op::Ne => self.compare(c, narrow, IF_EQ, no, yes),
            Op::Ge => self.compare(c, narrow, IF_GE, yes, no),
            Op::Lt => self.compare(c, narrow, IF_GE, no, yes),
            Op::Gt => self.compare(c, narrow, IF_GT, yes, no),
            Op::Le => self.compare(c, narrow, IF_GT, no, yes),
            Op::MaskedEq(mask) => self.masked(c, narrow, mask, yes, no),
        }
    }

    /// Compares 64 bits by halves; with 32-bit programs only the low half counts.
    fn compare(&mut self, c: &Condition, narrow: bool, code: u16, yes: Place, no: Place) -> Place {
        let (high, low) = halves(c.value);
        let branch = self.branch(code, low, yes, no);
        let low_half = self.load(low_offset(c.arg), branch);
        if narrow {
            return low_half;
        }
        let mut branch = self.branch(IF_EQ, high, low_half, no);
        if code != IF_EQ {
            branch = self.branch(IF_GT, high, yes, branch);
        }
        self.load(low_offset(c.arg) + 4, branch)
    }

    fn masked(&mut self, c: &Condition, narrow: bool, mask: u64, yes: Place, no: Place) -> Place {
        let ((mask_high, mask_low), (high, low)) = (halves(mask), halves(c.value));
        let branch = self.branch(IF_EQ, low, yes, no);
        self.go(branch);
        let and = self.push(AND, mask_low);
        let low_half = self.load(low_offset(c.arg), and);
        if narrow {
            return low_half;
        }
        let branch = self.branch(IF_EQ, high, low_half, no);
        self.go(branch);
        let and = self.push(AND, mask_high);
        self.load(low_offset(c.arg) + 4, and)
    }
}

/// Where the low half of an argument lies; all our machines are little-endian.
fn low_offset(arg: u8) -> u32 {
    ARGS + 8 * u32::from(arg)
}

/// High and low half.
fn halves(value: u64) -> (u32, u32) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the other half is the other value"
    )]
    let low = value as u32;
    ((value >> 32) as u32, low)
}
