//! ARG: where its values come from, and where they go.

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::config::variable;

/// Arguments that need no ARG, and that neither history nor cache shall know. Docker's reference, "Predefined ARGs".
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The arguments of a build.
#[derive(Debug)]
pub(super) struct Args<'a> {
    given: &'a BTreeMap<String, Option<String>>,
    /// Those before the first FROM.
    global: BTreeMap<String, Option<String>>,
    /// Those of the stage that is built.
    stage: BTreeMap<String, Option<String>>,
    used: BTreeSet<String>,
}

impl<'a> Args<'a> {
    pub(super) fn new(given: &'a BTreeMap<String, Option<String>>) -> Self {
        Self {
            given,
            global: BTreeMap::new(),
            stage: BTreeMap::new(),
            used: BTreeSet::new(),
        }
    }

    /// A new stage knows none yet.
    pub(super) fn enter_stage(&mut self) {
        self.stage.clear();
    }

    /// An ARG before the first FROM.
    pub(super) fn declare_global(&mut self, name: &str, default: Option<String>) {
        let value = self.given_value(name).or(default);
        self.global.insert(name.to_owned(), value);
    }

    /// An ARG of a stage.
    pub(super) fn declare(&mut self, name: &str, default: Option<String>) {
        let inherited = || self.global.get(name).cloned().flatten();
        let value = self
            .given
            .get(name)
            .cloned()
            .flatten()
            .or_else(|| default.or_else(inherited));
        self.used.insert(name.to_owned());
        self.stage.insert(name.to_owned(), value);
    }

    fn given_value(&mut self, name: &str) -> Option<String> {
        self.used.insert(name.to_owned());
        self.given.get(name).cloned().flatten()
    }

    /// The value that a FROM sees.
    pub(super) fn global(&self, name: &str) -> Option<String> {
        self.global.get(name).cloned().flatten()
    }

    /// The value that a stage's instruction sees: the environment comes first.
    pub(super) fn value(&self, env: &[String], name: &str) -> Option<String> {
        variable(env, name).or_else(|| self.stage.get(name).cloned().flatten())
    }

    /// What RUN gets into its environment, sorted: those of the stage that the environment does not have.
    pub(super) fn for_run(&self, env: &[String]) -> Vec<String> {
        let declared = self.stage.iter().filter_map(|(name, value)| {
            let value = value.as_ref()?;
            let hidden = variable(env, name).is_some() || PREDEFINED.contains(&name.as_str());
            (!hidden).then(|| format!("{name}={value}"))
        });
        declared.collect()
    }

    /// What RUN gets besides, and nobody is told of.
    pub(super) fn proxies(&self, env: &[String]) -> Vec<String> {
        let given = PREDEFINED.iter().filter_map(|name| {
            let value = self.given.get(*name)?.as_ref()?;
            variable(env, name)
                .is_none()
                .then(|| format!("{name}={value}"))
        });
        given.collect()
    }

    /// The given ones that no ARG has asked for.
    pub(super) fn unused(&self) -> Vec<&str> {
        let unused = self.given.keys().map(String::as_str);
        unused
            .filter(|name| !self.used.contains(*name) && !PREDEFINED.contains(name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
    use super::*;

    #[test]
    fn where_values_come_from() {
        let given = BTreeMap::from([
            ("G".to_owned(), Some("given".to_owned())),
            ("N".to_owned(), None),
            ("U".to_owned(), Some("u".to_owned())),
            ("http_proxy".to_owned(), Some("p".to_owned())),
        ]);
        let mut args = Args::new(&given);
        args.declare_global("V", Some("global".into()));
        args.enter_stage();
        assert_eq!(args.value(&[], "V"), None);
        for (name, default) in [("V", None), ("G", Some("d")), ("D", Some("d")), ("N", None)] {
            args.declare(name, default.map(str::to_owned));
        }
        let value = |name| args.value(&["D=env".to_owned()], name);
        assert_eq!(value("V").unwrap(), "global");
        assert_eq!(value("G").unwrap(), "given");
        assert_eq!(value("D").unwrap(), "env");
        assert_eq!(value("N"), None);
        assert_eq!(args.for_run(&["D=env".to_owned()]), ["G=given", "V=global"]);
        assert_eq!(args.proxies(&[]), ["http_proxy=p"]);
        assert_eq!(args.unused(), ["U"]);
    }
}
