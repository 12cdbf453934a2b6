//! Mount options: the words of config.json and what each one means.

use crate::sys::mount::MountAttr;

// Attributes of a mount, as mount_setattr has them.
/// Read-only.
pub(crate) const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME: u64 = 0x70;
const RELATIME: u64 = 0x00;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x0020_0000;

/// What one word does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Sets and clears attributes of the mount.
    Attr(u64, u64),
    /// Sets propagation, here or (true) in all below.
    Propagation(u64, bool),
    /// A flag of the file system itself.
    Super(&'static str),
    Bind,
    Rbind,
    Remount,
    CopyUp,
    IdMap(bool),
    Nothing,
}

const WORDS: &[(&str, Word)] = &[
    ("async", Word::Nothing),
    ("atime", Word::Attr(RELATIME, ATIME)),
    ("bind", Word::Bind),
    ("defaults", Word::Nothing),
    ("dev", Word::Attr(0, NODEV)),
    ("diratime", Word::Attr(0, NODIRATIME)),
    ("dirsync", Word::Super("dirsync")),
    ("exec", Word::Attr(0, NOEXEC)),
    ("iversion", Word::Super("iversion")),
    ("lazytime", Word::Super("lazytime")),
    ("loud", Word::Nothing),
    ("mand", Word::Super("mand")),
    ("noatime", Word::Attr(NOATIME, ATIME)),
    ("nodev", Word::Attr(NODEV, 0)),
    ("nodiratime", Word::Attr(NODIRATIME, 0)),
    ("noexec", Word::Attr(NOEXEC, 0)),
    ("noiversion", Word::Nothing),
    ("nolazytime", Word::Nothing),
    ("nomand", Word::Nothing),
    ("norelatime", Word::Attr(STRICTATIME, ATIME)),
    ("nostrictatime", Word::Attr(RELATIME, ATIME)),
    ("nosuid", Word::Attr(NOSUID, 0)),
    ("nosymfollow", Word::Attr(NOSYMFOLLOW, 0)),
    ("rbind", Word::Rbind),
    ("relatime", Word::Attr(RELATIME, ATIME)),
    ("remount", Word::Remount),
    ("ro", Word::Attr(RDONLY, 0)),
    ("rw", Word::Attr(0, RDONLY)),
    ("silent", Word::Nothing),
    ("strictatime", Word::Attr(STRICTATIME, ATIME)),
    ("suid", Word::Attr(0, NOSUID)),
    ("symfollow", Word::Attr(0, NOSYMFOLLOW)),
    ("sync", Word::Super("sync")),
    ("tmpcopyup", Word::CopyUp),
    ("idmap", Word::IdMap(false)),
    ("ridmap", Word::IdMap(true)),
    ("private", Word::Propagation(libc::MS_PRIVATE, false)),
    ("rprivate", Word::Propagation(libc::MS_PRIVATE, true)),
    ("rshared", Word::Propagation(libc::MS_SHARED, true)),
    ("rslave", Word::Propagation(libc::MS_SLAVE, true)),
    ("runbindable", Word::Propagation(libc::MS_UNBINDABLE, true)),
    ("shared", Word::Propagation(libc::MS_SHARED, false)),
    ("slave", Word::Propagation(libc::MS_SLAVE, false)),
    ("unbindable", Word::Propagation(libc::MS_UNBINDABLE, false)),
];

/// Words that take an `r` before them, acting on all mounts below.
const RECURSIVE: &[&str] = &[
    "atime",
    "dev",
    "diratime",
    "exec",
    "noatime",
    "nodev",
    "nodiratime",
    "noexec",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "relatime",
    "ro",
    "rw",
    "strictatime",
    "suid",
    "symfollow",
];

/// All options of one mount, sorted out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// For this mount.
    pub(crate) attr: MountAttr,
    /// For this mount and all below it.
    pub(crate) recursive: MountAttr,
    /// Propagation changes in order: flag, and whether to go below.
    pub(crate) propagation: Vec<(u64, bool)>,
    /// A bind mount; with true, of all below the source too.
    pub(crate) bind: Option<bool>,
    /// Change what is mounted there already.
    pub(crate) remount: bool,
    /// Fill the tmpfs with what it covers.
    pub(crate) copy_up: bool,
    /// Map ids; with true, in all below too.
    pub(crate) idmap: Option<bool>,
    /// What is meant for the file system.
    pub(crate) data: Vec<String>,
}

impl Options {
    /// Sorts the words; what is in no table is the file system's.
    pub(crate) fn parse(words: &[String]) -> Self {
        let mut options = Self::default();
        for word in words {
            options.add(word);
        }
        options
    }

    fn add(&mut self, word: &str) {
        if let Some((_, meaning)) = WORDS.iter().find(|(name, _)| *name == word) {
            match *meaning {
                Word::Attr(set, clear) => merge(&mut self.attr, set, clear),
                Word::Propagation(flag, below) => self.propagation.push((flag, below)),
                Word::Super(flag) => self.data.push(flag.to_owned()),
                Word::Bind => self.bind = Some(self.bind.unwrap_or(false)),
                Word::Rbind => self.bind = Some(true),
                Word::Remount => self.remount = true,
                Word::CopyUp => self.copy_up = true,
                Word::IdMap(below) => self.idmap = Some(below),
                Word::Nothing => {}
            }
            return;
        }
        let below = word
            .strip_prefix('r')
            .filter(|plain| RECURSIVE.contains(plain));
        let meaning = below.and_then(|plain| WORDS.iter().find(|(name, _)| *name == plain));
        match meaning {
            Some((_, Word::Attr(set, clear))) => merge(&mut self.recursive, *set, *clear),
            _ => self.data.push(word.to_owned()),
        }
    }
}

/// A later word wins over an earlier one.
fn merge(attr: &mut MountAttr, set: u64, clear: u64) {
    attr.set = (attr.set & !clear & !set) | set;
    attr.clear = (attr.clear & !set) | clear;
    if clear == ATIME {
        // The kernel wants the whole group cleared when one of it is set.
        attr.clear |= ATIME;
    }
}

/// Every word this module knows, for `features`.
pub(crate) fn known_words() -> Vec<String> {
    let recursive = RECURSIVE.iter().map(|w| format!("r{w}"));
    let mut all: Vec<_> = WORDS
        .iter()
        .map(|(w, _)| (*w).to_owned())
        .chain(recursive)
        .collect();
    all.sort();
    all
}

/// The word for a propagation of the root (`rootfsPropagation`).
pub(crate) fn propagation_flag(word: &str) -> Option<(u64, bool)> {
    WORDS
        .iter()
        .find(|(name, _)| *name == word)
        .and_then(|(_, meaning)| match meaning {
            Word::Propagation(flag, below) => Some((*flag, *below)),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(words: &str) -> Options {
        Options::parse(&words.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn words_of_docker_are_sorted() {
        let o = parse("nosuid,strictatime,mode=755,size=65536k");
        assert_eq!(o.attr.set, NOSUID | STRICTATIME);
        assert_eq!(o.attr.clear, ATIME);
        assert_eq!(o.data, ["mode=755", "size=65536k"]);
        let o = parse("rbind,rprivate,ro");
        assert_eq!(o.bind, Some(true));
        assert_eq!(o.propagation, [(libc::MS_PRIVATE, true)]);
        assert_eq!(o.attr.set, RDONLY);
    }

    #[test]
    fn the_last_word_wins() {
        assert_eq!(parse("ro,rw").attr, parse("rw").attr);
        assert_eq!(parse("rw,ro").attr.set, RDONLY);
        assert_eq!(parse("rw,ro").attr.clear, 0);
        assert_eq!(parse("noatime,strictatime").attr.set, STRICTATIME);
    }

    #[test]
    fn recursive_words_go_below() {
        let o = parse("rro,rnosuid,rbind,rsize=4096");
        assert_eq!(o.recursive.set, RDONLY | NOSUID);
        assert_eq!(o.attr.set, 0);
        assert_eq!(o.data, ["rsize=4096"]);
    }

    #[test]
    fn all_sixty_words_are_known() {
        assert!(known_words().len() >= 60, "{}", known_words().len());
    }

    proptest! {
        #[test]
        fn nothing_is_both_set_and_cleared(words in proptest::collection::vec(
            proptest::sample::select(known_words()), 0..10)) {
            let o = Options::parse(&words);
            for attr in [o.attr, o.recursive] {
                prop_assert_eq!(attr.set & attr.clear & !ATIME, 0);
                prop_assert!(attr.set & ATIME != ATIME);
            }
        }
    }
}
