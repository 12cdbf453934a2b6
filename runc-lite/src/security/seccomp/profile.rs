//! From names to numbers: what each call of each architecture comes to.

use std::collections::BTreeMap;

use super::SeccompError;
use super::calls::CallMap;
use super::table::{self, Arch, Named};
use crate::spec::seccomp::{LinuxSeccomp, LinuxSeccompArg, LinuxSyscall};

const RET_KILL_PROCESS: u32 = 0x8000_0000;
pub(super) const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_NOTIFY: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
pub(super) const RET_ENOSYS: u32 = RET_ERRNO | libc::ENOSYS.cast_unsigned();

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    /// The argument's bits under the mask.
    MaskedEq(u64),
}

/// One condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) arg: u8,
    pub(super) op: Op,
    pub(super) value: u64,
}

/// All conditions together lead to the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: u32,
}

/// What a call comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Whatever its arguments.
    Always(u32),
    /// By the first rule that matches, else the default.
    Depends(Vec<Rule>),
}

impl Call {
    /// One rule more: unconditional ones win over all others, and end the list.
    pub(super) fn and_rule(&mut self, rule: &Rule) {
        match self {
            Self::Always(_) => {}
            Self::Depends(_) if rule.conditions.is_empty() => *self = Self::Always(rule.verdict),
            Self::Depends(list) => list.push(rule.clone()),
        }
    }
}

/// All calls of one architecture.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) arch: Arch,
    pub(super) calls: CallMap,
    /// Calls above this number are newer than the profile.
    pub(super) newest: Option<u32>,
}

/// The whole profile.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub(super) default: u32,
    /// What calls newer than the profile come to.
    pub(super) newer: u32,
    pub(super) arches: Vec<Calls>,
}

impl Resolved {
    /// Whether some verdict asks the listener.
    pub(super) fn notifies(&self) -> bool {
        let calls = || self.arches.iter().flat_map(|a| a.calls.outcomes());
        calls().any(|call| match call {
            Call::Always(verdict) => *verdict == RET_NOTIFY,
            Call::Depends(rules) => rules.iter().any(|r| r.verdict == RET_NOTIFY),
        })
    }
}

/// Resolves the names of a profile.
pub(super) fn resolve(profile: &LinuxSeccomp) -> Result<Resolved, SeccompError> {
    let default = verdict(&profile.default_action, profile.default_errno_ret)?;
    if default == RET_NOTIFY {
        // Whoever hands over the listener would be waiting for it.
        return Err(SeccompError::Invalid(
            "SCMP_ACT_NOTIFY cannot be the default action".into(),
        ));
    }
    let rules = profile
        .syscalls
        .iter()
        .map(prepare)
        .collect::<Result<Vec<_>, _>>()?;
    // A name is looked up once, whatever the number of architectures.
    let rules: Vec<(Vec<Known<'_>>, Vec<Rule>)> = rules
        .into_iter()
        .map(|(names, rules)| (names.iter().map(|n| Known::new(n)).collect(), rules))
        .collect();
    let mut arches = Vec::new();
    for arch in arches_of(profile)? {
        let mut calls = Calls {
            arch,
            calls: CallMap::default(),
            newest: None,
        };
        let mut second_ways = BTreeMap::new();
        for (names, rules) in &rules {
            for name in names {
                add(&mut calls, &mut second_ways, *name, rules, default);
            }
        }
        join_second_ways(&mut calls, second_ways, default);
        arches.push(calls);
    }
    // Where the default lets calls through, unknown ones go through as well; a
    // tracer is expected to know what to do with them.
    let lenient = matches!(default & 0xffff_0000, RET_ALLOW | RET_LOG | RET_TRACE);
    Ok(Resolved {
        default,
        newer: if lenient { default } else { RET_ENOSYS },
        arches,
    })
}

/// The machine's own architecture first, whether it is named or not.
fn arches_of(profile: &LinuxSeccomp) -> Result<Vec<Arch>, SeccompError> {
    let native = *table::FAMILY.first().ok_or(SeccompError::NoArchitecture)?;
    let mut arches = vec![native];
    for name in &profile.architectures {
        match table::arch(name) {
            Some(Named::Here(arch)) if !arches.contains(&arch) => arches.push(arch),
            Some(_) => {}
            None => {
                return Err(SeccompError::Unknown {
                    what: "architecture",
                    name: name.clone(),
                });
            }
        }
    }
    Ok(arches)
}

/// The rules that one entry of the profile stands for.
fn prepare(entry: &LinuxSyscall) -> Result<(&[String], Vec<Rule>), SeccompError> {
    let verdict = verdict(&entry.action, entry.errno_ret)?;
    if entry.names.is_empty() {
        return Err(SeccompError::Invalid("a rule names no system call".into()));
    }
    if verdict == RET_NOTIFY && entry.names.iter().any(|n| n == "write") {
        // With it the container could not be set up.
        return Err(SeccompError::Invalid(
            "SCMP_ACT_NOTIFY cannot be used for the write syscall".into(),
        ));
    }
    let conditions = entry
        .args
        .iter()
        .map(condition)
        .collect::<Result<Vec<_>, _>>()?;
    let twice = conditions
        .iter()
        .enumerate()
        .any(|(at, c)| conditions[..at].iter().any(|d| d.arg == c.arg));
    let rules = if twice {
        // Several conditions on one argument are alternatives, by old custom.
        conditions
            .into_iter()
            .map(|c| Rule {
                conditions: vec![c],
                verdict,
            })
            .collect()
    } else {
        vec![Rule {
            conditions,
            verdict,
        }]
    };
    Ok((&entry.names, rules))
}

/// By the number of the call for all and the argument that selects one.
type SecondWays = BTreeMap<(u32, u64), Call>;

/// A name of the profile, found in the table.
#[derive(Clone, Copy)]
struct Known<'a> {
    name: &'a str,
    row: Option<usize>,
}

impl<'a> Known<'a> {
    fn new(name: &'a str) -> Self {
        Self {
            name,
            row: table::row(name),
        }
    }
}

fn add(
    calls: &mut Calls,
    second_ways: &mut SecondWays,
    known: Known<'_>,
    rules: &[Rule],
    default: u32,
) {
    let arch = calls.arch;
    if let Some(number) = known.row.and_then(|row| table::number_in(arch, row)) {
        // Known to the profile, whatever it says about it.
        if number < table::ARM_PRIVATE || arch == Arch::X32 {
            calls.newest = calls.newest.max(Some(number));
        }
        insert(&mut calls.calls, number, rules, default);
    }
    if let Some((entry, selector)) = table::multiplexed(arch, known.name)
        && let Some(number) = table::number(arch, entry)
    {
        for rule in rules.iter().filter(|r| r.verdict != default) {
            second_ways
                .entry((number, selector))
                .or_insert_with(|| Call::Depends(Vec::new()))
                .and_rule(rule);
        }
    }
}

/// The second way into a call takes its arguments from memory, where no filter
/// can see them. Conditions on them are taken as met where that refuses more
/// than the default, and as not met where it would allow more.
fn join_second_ways(calls: &mut Calls, second_ways: SecondWays, default: u32) {
    for ((number, selector), call) in second_ways {
        let verdict = match call {
            Call::Always(verdict) => Some(verdict),
            Call::Depends(rules) => rules
                .iter()
                .map(|r| r.verdict)
                .filter(|&v| strictness(v) < strictness(default))
                .min_by_key(|&v| strictness(v)),
        };
        let Some(verdict) = verdict else { continue };
        let conditions = vec![Condition {
            arg: 0,
            op: Op::Eq,
            value: selector,
        }];
        insert(
            &mut calls.calls,
            number,
            &[Rule {
                conditions,
                verdict,
            }],
            default,
        );
    }
}

/// The kernel's order of actions, the strictest lowest.
fn strictness(verdict: u32) -> i32 {
    (verdict & 0xffff_0000).cast_signed()
}

fn insert(calls: &mut CallMap, number: u32, rules: &[Rule], default: u32) {
    // A rule that leads to the default says nothing that would not be so anyway.
    for rule in rules.iter().filter(|r| r.verdict != default) {
        calls.add(number, rule);
    }
}

fn verdict(action: &str, errno: Option<u32>) -> Result<u32, SeccompError> {
    let data = || match errno {
        None => Ok(libc::EPERM.cast_unsigned()),
        Some(n @ 0..=0xffff) => Ok(n),
        Some(n) => Err(SeccompError::Invalid(format!(
            "errnoRet {n} is not an error number"
        ))),
    };
    Ok(match action {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => RET_TRAP,
        "SCMP_ACT_ERRNO" => RET_ERRNO | data()?,
        "SCMP_ACT_TRACE" => RET_TRACE | data()?,
        "SCMP_ACT_ALLOW" => RET_ALLOW,
        "SCMP_ACT_LOG" => RET_LOG,
        "SCMP_ACT_NOTIFY" => RET_NOTIFY,
        _ => {
            return Err(SeccompError::Unknown {
                what: "action",
                name: action.to_owned(),
            });
        }
    })
}

fn condition(arg: &LinuxSeccompArg) -> Result<Condition, SeccompError> {
    let index = match arg.index {
        n @ 0..=5 => u8::try_from(n).expect("at most 5"),
        n => return Err(SeccompError::Invalid(format!("a call has no argument {n}"))),
    };
    let (op, value) = match arg.op.as_str() {
        "SCMP_CMP_NE" => (Op::Ne, arg.value),
        "SCMP_CMP_LT" => (Op::Lt, arg.value),
        "SCMP_CMP_LE" => (Op::Le, arg.value),
        "SCMP_CMP_EQ" => (Op::Eq, arg.value),
        "SCMP_CMP_GE" => (Op::Ge, arg.value),
        "SCMP_CMP_GT" => (Op::Gt, arg.value),
        // Bits outside the mask would never be met; by old custom they do not count.
        "SCMP_CMP_MASKED_EQ" => (Op::MaskedEq(arg.value), arg.value_two & arg.value),
        _ => {
            return Err(SeccompError::Unknown {
                what: "operator",
                name: arg.op.clone(),
            });
        }
    };
    Ok(Condition {
        arg: index,
        op,
        value,
    })
}
