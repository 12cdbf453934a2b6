//! Which devices a container may use.
//!
//! The rules of the specification are a list applied in order to a whitelist
//! that starts empty. What the kernel holds is a default and a set of
//! exceptions to it; [`DeviceSet`] follows the rules in the same form, so that
//! v1 can write the difference from what is in force and v2 can compile it.
//! After the container's own rules come those no container can do without.

use std::collections::BTreeMap;
use std::fmt;

use super::CgroupError;
use crate::spec::resources::LinuxDeviceCgroup;

const FIELD: &str = "linux.resources.devices";

/// Making a node, reading and writing, as bits in the kernel's order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Access(pub(super) u8);

impl Access {
    const ALL: Self = Self(7);

    fn parse(text: &str) -> Option<Self> {
        text.chars().try_fold(Self(0), |a, c| {
            let bit = match c {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => return None,
            };
            Some(Self(a.0 | bit))
        })
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, c) in [(2, 'r'), (4, 'w'), (1, 'm')] {
            if self.0 & bit != 0 {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// Block or character.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Block,
    Char,
}

/// A device or a range of them; `None` is every number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Device {
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
}

impl Device {
    const fn char(major: Option<u32>, minor: Option<u32>) -> Self {
        Self {
            kind: Kind::Char,
            major,
            minor,
        }
    }

    /// Whether this, being wider, includes the other.
    fn covers(&self, other: &Device) -> bool {
        self.kind == other.kind
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let kind = if self.kind == Kind::Block { 'b' } else { 'c' };
        write!(f, "{kind} {}:{}", number(self.major), number(self.minor))
    }
}

/// What every container may use, whatever its own rules say: making nodes (using
/// them is another matter), the standard nodes, terminals, tun.
const DEFAULTS: [(Device, Access); 11] = [
    (Device::char(None, None), Access(1)),
    (
        Device {
            kind: Kind::Block,
            major: None,
            minor: None,
        },
        Access(1),
    ),
    (Device::char(Some(1), Some(3)), Access::ALL),
    (Device::char(Some(1), Some(5)), Access::ALL),
    (Device::char(Some(1), Some(7)), Access::ALL),
    (Device::char(Some(1), Some(8)), Access::ALL),
    (Device::char(Some(1), Some(9)), Access::ALL),
    (Device::char(Some(5), Some(0)), Access::ALL),
    (Device::char(Some(5), Some(2)), Access::ALL),
    (Device::char(Some(10), Some(200)), Access::ALL),
    (Device::char(Some(136), None), Access::ALL),
];

/// A default and the exceptions to it.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct DeviceSet {
    pub(super) allow_by_default: bool,
    pub(super) exceptions: BTreeMap<Device, Access>,
}

/// One line for devices.allow or devices.deny.
#[derive(Debug, PartialEq)]
pub(super) struct Step {
    pub(super) allow: bool,
    pub(super) line: String,
}

impl DeviceSet {
    /// What the rules of a container come to, the defaults included.
    pub(super) fn of_container(rules: &[LinuxDeviceCgroup]) -> Result<Self, CgroupError> {
        let mut set = Self::default();
        for rule in rules {
            set.apply(rule)?;
        }
        for (device, access) in DEFAULTS {
            set.change(true, device, access)?;
        }
        Ok(set)
    }

    fn apply(&mut self, rule: &LinuxDeviceCgroup) -> Result<(), CgroupError> {
        let access = match rule.access.as_deref() {
            None | Some("") => Access::ALL,
            Some(text) => Access::parse(text).ok_or_else(|| {
                CgroupError::invalid(FIELD, format!("access {text:?} is not made of r, w and m"))
            })?,
        };
        let (major, minor) = (number(rule.major)?, number(rule.minor)?);
        let kinds: &[Kind] = match rule.kind.as_deref() {
            None | Some("" | "a")
                if major.is_none() && minor.is_none() && access == Access::ALL =>
            {
                self.allow_by_default = rule.allow;
                self.exceptions.clear();
                return Ok(());
            }
            // All kinds of one number: the kernel has no such rule, but two say it.
            None | Some("" | "a") => &[Kind::Block, Kind::Char],
            Some("b") => &[Kind::Block],
            // An unbuffered character device is a character device.
            Some("c" | "u") => &[Kind::Char],
            Some(other) => {
                return Err(CgroupError::invalid(
                    FIELD,
                    format!("unknown device type {other:?}"),
                ));
            }
        };
        kinds
            .iter()
            .try_for_each(|&kind| self.change(rule.allow, Device { kind, major, minor }, access))
    }

    /// Follows one rule as the kernel does: a rule of the other mind than the
    /// default is an exception, one of the same mind takes exceptions back.
    fn change(&mut self, allow: bool, device: Device, access: Access) -> Result<(), CgroupError> {
        if allow != self.allow_by_default {
            let entry = self.exceptions.entry(device).or_insert(Access(0));
            entry.0 |= access.0;
            return Ok(());
        }
        // The kernel takes back exact entries only, so a part of a wider one would
        // stay, silently.
        let hole = self
            .exceptions
            .iter()
            .find(|(d, a)| **d != device && d.covers(&device) && a.0 & access.0 != 0);
        if let Some((wide, a)) = hole {
            return Err(CgroupError::invalid(
                FIELD,
                format!(
                    "rule [{device} {access}] cannot punch a hole in the wildcard rule [{wide} {a}]"
                ),
            ));
        }
        if let Some(entry) = self.exceptions.get_mut(&device) {
            *entry = entry.without(access);
            if entry.is_empty() {
                self.exceptions.remove(&device);
            }
        }
        Ok(())
    }

    /// Reads devices.list. A group that allows by default does not tell its exceptions.
    pub(super) fn parse_list(text: &str) -> Option<Self> {
        let mut set = Self::default();
        for line in text.lines() {
            let mut words = line.split(' ');
            let kind = match words.next()? {
                "a" => {
                    return Some(Self {
                        allow_by_default: true,
                        exceptions: BTreeMap::new(),
                    });
                }
                "b" => Kind::Block,
                "c" => Kind::Char,
                _ => return None,
            };
            let (major, minor) = words.next()?.split_once(':')?;
            let number = |t: &str| {
                if t == "*" {
                    Some(None)
                } else {
                    t.parse().ok().map(Some)
                }
            };
            let device = Device {
                kind,
                major: number(major)?,
                minor: number(minor)?,
            };
            set.exceptions.insert(device, Access::parse(words.next()?)?);
        }
        Some(set)
    }

    /// The fewest lines that lead from here to there. What is to be allowed
    /// comes first, so that nothing allowed before and after is ever refused.
    pub(super) fn steps_to(&self, target: &Self) -> Vec<Step> {
        let mut steps = Vec::new();
        let reset = self.allow_by_default != target.allow_by_default;
        let nothing = BTreeMap::new();
        let current = if reset { &nothing } else { &self.exceptions };
        if reset {
            steps.push(Step {
                allow: target.allow_by_default,
                line: "a".to_owned(),
            });
        }
        let difference =
            |from: &BTreeMap<Device, Access>, to: &BTreeMap<Device, Access>| -> Vec<String> {
                to.iter()
                    .map(|(d, a)| (d, a.without(from.get(d).copied().unwrap_or(Access(0)))))
                    .filter(|(_, a)| !a.is_empty())
                    .map(|(d, a)| format!("{d} {a}"))
                    .collect()
            };
        let added = difference(current, &target.exceptions);
        let removed = difference(&target.exceptions, current);
        // Exceptions are allowances or refusals, as the default has it.
        let adds_allow = !target.allow_by_default;
        let (first, second) = if adds_allow {
            (added, removed)
        } else {
            (removed, added)
        };
        steps.extend(first.into_iter().map(|line| Step { allow: true, line }));
        steps.extend(second.into_iter().map(|line| Step { allow: false, line }));
        steps
    }
}

fn number(n: Option<i64>) -> Result<Option<u32>, CgroupError> {
    match n {
        None | Some(-1) => Ok(None),
        Some(n) => match u32::try_from(n) {
            Ok(n) => Ok(Some(n)),
            Err(_) => Err(CgroupError::invalid(
                FIELD,
                format!("device number {n} is out of range"),
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> LinuxDeviceCgroup {
        LinuxDeviceCgroup {
            allow,
            kind: Some(kind.into()),
            major: Some(major),
            minor: Some(minor),
            access: Some(access.into()),
        }
    }

    fn lines(steps: &[Step]) -> Vec<String> {
        steps
            .iter()
            .map(|s| format!("{}{}", if s.allow { '+' } else { '-' }, s.line))
            .collect()
    }

    #[test]
    fn order_decides_and_the_defaults_come_last() {
        let set = DeviceSet::of_container(&[
            rule(true, "b", 8, 0, "rwm"),
            rule(false, "a", -1, -1, "rwm"),
            rule(true, "c", 10, 229, "rwm"),
            rule(false, "c", 10, 229, "w"),
            rule(false, "c", 1, 3, "rwm"),
        ])
        .unwrap();
        assert!(!set.allow_by_default);
        assert_eq!(set.exceptions.len(), DEFAULTS.len() + 1);
        assert_eq!(
            set.exceptions[&Device::char(Some(10), Some(229))],
            Access(3)
        );
    }

    #[test]
    fn privileged_needs_no_step_from_a_group_that_allows_all() {
        let all = DeviceSet::parse_list("a *:* rwm\n").unwrap();
        let target = DeviceSet::of_container(&[rule(true, "a", -1, -1, "rwm")]).unwrap();
        assert_eq!(all.steps_to(&target), []);
    }

    #[test]
    fn steps_are_minimal_and_never_take_before_they_give() {
        let from = DeviceSet::parse_list("c 1:3 rwm\nc 136:* rw\nb 8:0 r\n").unwrap();
        let to = DeviceSet::parse_list("c 1:3 rwm\nc 136:* r\nc 10:200 rwm\n").unwrap();
        assert_eq!(
            lines(&from.steps_to(&to)),
            ["+c 10:200 rwm", "-b 8:0 r", "-c 136:* w"]
        );
        assert_eq!(to.steps_to(&to), []);
        let all = DeviceSet::parse_list("a *:* rwm").unwrap();
        assert_eq!(lines(&all.steps_to(&to))[0], "-a");
        assert_eq!(lines(&to.steps_to(&all)), ["+a"]);
    }

    #[test]
    fn a_hole_in_a_wildcard_and_nonsense_are_refused() {
        for rules in [
            vec![
                rule(true, "c", 10, -1, "rwm"),
                rule(false, "c", 10, 229, "m"),
            ],
            vec![rule(true, "x", 1, 1, "r")],
            vec![rule(true, "c", 1, 1, "rx")],
            vec![rule(true, "c", 1 << 33, 1, "r")],
        ] {
            assert!(DeviceSet::of_container(&rules).is_err(), "{rules:?}");
        }
        // No overlap in access, no hole.
        assert!(
            DeviceSet::of_container(&[
                rule(true, "c", 10, -1, "r"),
                rule(false, "c", 10, 229, "m")
            ])
            .is_ok()
        );
    }
}
