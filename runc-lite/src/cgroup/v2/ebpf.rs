//! Compiles device rules to eBPF.
//!
//! The kernel hands the program a pointer to three words: the access (type in
//! the low half, wanted access in the high half), the major and the minor
//! number, and takes the returned 0 or 1 for no or yes. The program is a list of
//! blocks, one per exception; each checks and falls through to the next.
//!
//! ```text
//!   r2 = type   r3 = wanted access   r4 = major   r5 = minor
//!   block: if r2 != type goto next
//!          if r3 & ~access goto next        (only where not all access is meant)
//!          if r4 != major goto next         (only where a number is given)
//!          if r5 != minor goto next
//!          return !default
//!   ...
//!   return default
//! ```

use super::super::devices::{DeviceSet, Kind};
use crate::sys::bpf::Insn;

const LOAD_WORD: u8 = 0x61; // LDX | MEM | W
const MOV32_REG: u8 = 0xbc; // ALU | MOV | X
const MOV32_IMM: u8 = 0xb4; // ALU | MOV | K
const MOV64_IMM: u8 = 0xb7; // ALU64 | MOV | K
const AND32_IMM: u8 = 0x54; // ALU | AND | K
const RSH32_IMM: u8 = 0x74; // ALU | RSH | K
const JEQ_IMM: u8 = 0x15; // JMP | JEQ | K
const JNE_IMM: u8 = 0x55; // JMP | JNE | K
const JNE_REG: u8 = 0x5d; // JMP | JNE | X
const EXIT: u8 = 0x95;

const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// Free for comparisons.
const TEMP: u8 = 1;

const DEV_BLOCK: i32 = 1;
const DEV_CHAR: i32 = 2;
const ALL_ACCESS: u8 = 7;

fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Insn {
    Insn {
        code,
        regs: src << 4 | dst,
        off,
        imm,
    }
}

/// The program for a set of rules.
pub(super) fn compile(set: &DeviceSet) -> Vec<Insn> {
    let mut out = vec![
        insn(LOAD_WORD, TYPE, CONTEXT, 0, 0),
        insn(AND32_IMM, TYPE, 0, 0, 0xffff),
        insn(LOAD_WORD, ACCESS, CONTEXT, 0, 0),
        insn(RSH32_IMM, ACCESS, 0, 0, 16),
        insn(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        insn(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for (device, access) in &set.exceptions {
        // Built first, so that every jump knows how far the next block is.
        let mut tests: Vec<Vec<Insn>> = Vec::new();
        let kind = if device.kind == Kind::Block {
            DEV_BLOCK
        } else {
            DEV_CHAR
        };
        tests.push(vec![insn(JNE_IMM, TYPE, 0, 0, kind)]);
        if access.0 != ALL_ACCESS {
            // In a list of allowances all that is wanted must be in; in a list of
            // refusals one part is enough.
            let outside = i32::from(if set.allow_by_default {
                access.0
            } else {
                ALL_ACCESS & !access.0
            });
            let mut test = vec![
                insn(MOV32_REG, TEMP, ACCESS, 0, 0),
                insn(AND32_IMM, TEMP, 0, 0, outside),
            ];
            if set.allow_by_default {
                test.push(insn(JEQ_IMM, TEMP, 0, 0, 0));
            } else {
                test.push(insn(JNE_IMM, TEMP, 0, 0, 0));
            }
            tests.push(test);
        }
        for (register, number) in [(MAJOR, device.major), (MINOR, device.minor)] {
            if let Some(number) = number {
                // By register, since an immediate would be taken with its sign.
                let bits = i32::from_ne_bytes(number.to_ne_bytes());
                tests.push(vec![
                    insn(MOV32_IMM, TEMP, 0, 0, bits),
                    insn(JNE_REG, register, TEMP, 0, 0),
                ]);
            }
        }
        let verdict = [
            insn(MOV64_IMM, 0, 0, 0, i32::from(!set.allow_by_default)),
            insn(EXIT, 0, 0, 0, 0),
        ];
        let mut left: usize = tests.iter().map(Vec::len).sum::<usize>() + verdict.len();
        for test in &mut tests {
            left -= test.len();
            if let Some(jump) = test.last_mut() {
                jump.off = i16::try_from(left).expect("a block has about a dozen instructions");
            }
            out.extend_from_slice(test);
        }
        out.extend_from_slice(&verdict);
    }
    out.push(insn(MOV64_IMM, 0, 0, 0, i32::from(set.allow_by_default)));
    out.push(insn(EXIT, 0, 0, 0, 0));
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::devices::{Access, Device};
    use super::*;

    /// Runs a program the way the kernel would, for the instructions used here.
    fn run(program: &[Insn], context: [u32; 3]) -> u64 {
        let mut r = [0u64; 11];
        let mut at = 0usize;
        let mut context_known = true;
        for _ in 0..10_000 {
            let i = program[at];
            let (dst, src) = (usize::from(i.regs & 15), usize::from(i.regs >> 4));
            let imm32 = u32::from_ne_bytes(i.imm.to_ne_bytes());
            at += 1;
            let jump = match i.code {
                LOAD_WORD => {
                    assert!(src == 1 && context_known, "context pointer was overwritten");
                    r[dst] = u64::from(context[usize::try_from(i.off).unwrap() / 4]);
                    false
                }
                MOV32_REG => {
                    r[dst] = r[src] & 0xffff_ffff;
                    false
                }
                MOV32_IMM => {
                    r[dst] = u64::from(imm32);
                    false
                }
                MOV64_IMM => {
                    r[dst] = i64::from(i.imm) as u64;
                    false
                }
                AND32_IMM => {
                    r[dst] &= u64::from(imm32);
                    false
                }
                RSH32_IMM => {
                    r[dst] >>= imm32;
                    false
                }
                JNE_IMM => r[dst] != i64::from(i.imm) as u64,
                JEQ_IMM => r[dst] == i64::from(i.imm) as u64,
                JNE_REG => r[dst] != r[src],
                EXIT => return r[0],
                other => panic!("unknown instruction {other:#x}"),
            };
            context_known &= dst != 1 || !matches!(i.code, MOV32_REG | MOV32_IMM | AND32_IMM);
            if jump {
                at += usize::try_from(i.off).unwrap();
            }
        }
        panic!("no end");
    }

    fn verdict(set: &DeviceSet, kind: Kind, major: u32, minor: u32, wanted: u8) -> bool {
        let matches = |d: &Device, a: &Access| {
            let access = if set.allow_by_default {
                wanted & a.0 != 0
            } else {
                wanted & !a.0 == 0
            };
            d.kind == kind
                && d.major.is_none_or(|m| m == major)
                && d.minor.is_none_or(|m| m == minor)
                && access
        };
        set.exceptions.iter().any(|(d, a)| matches(d, a)) != set.allow_by_default
    }

    #[test]
    fn the_program_says_what_the_rules_say() {
        let list = "c 1:3 rwm\nc 1:4 r\nc 136:* rw\nb *:* m\nb 8:4294967295 rw\nb *:7 rwm\n";
        for allow_by_default in [false, true] {
            let mut set = DeviceSet::parse_list(list).unwrap();
            set.allow_by_default = allow_by_default;
            let program = compile(&set);
            for kind in [Kind::Block, Kind::Char] {
                for major in [0, 1, 8, 136] {
                    for minor in [0, 3, 4, 7, u32::MAX] {
                        for wanted in 1..8u8 {
                            let code = if kind == Kind::Block { 1 } else { 2 };
                            let got = run(&program, [code | u32::from(wanted) << 16, major, minor]);
                            let want = verdict(&set, kind, major, minor, wanted);
                            assert_eq!(got == 1, want, "{kind:?} {major}:{minor} {wanted}");
                        }
                    }
                }
            }
        }
    }
}
