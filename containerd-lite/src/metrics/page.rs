//! Prometheus' text form: families by name, each with its help and type once, whatever order samples come in.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

/// What kind of figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Comes and goes.
    Gauge,
    /// Counts by size; its samples have names of their own.
    Histogram,
}

#[derive(Debug)]
struct Family {
    kind: Kind,
    help: String,
    samples: String,
}

/// The page under way.
#[derive(Debug, Default)]
pub(super) struct Page(BTreeMap<String, Family>);

impl Page {
    /// Adds a sample to the family of its name.
    pub(super) fn put(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) {
        self.put_part(name, "", kind, help, labels, value);
    }

    /// Adds a sample that is named after its family and `part`.
    pub(super) fn put_part(
        &mut self,
        name: &str,
        part: &str,
        kind: Kind,
        help: &str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) {
        if !self.0.contains_key(name) {
            let family = Family {
                kind,
                help: help.to_owned(),
                samples: String::new(),
            };
            self.0.insert(name.to_owned(), family);
        }
        let family = self.0.get_mut(name).expect("just put there");
        let out = &mut family.samples;
        out.push_str(name);
        out.push_str(part);
        for (i, (label, text)) in labels.iter().enumerate() {
            out.push(if i == 0 { '{' } else { ',' });
            out.push_str(label);
            out.push_str("=\"");
            escape(out, text);
            out.push('"');
        }
        if !labels.is_empty() {
            out.push('}');
        }
        let _ = writeln!(out, " {value}");
    }

    /// The whole page.
    pub(super) fn into_text(self) -> String {
        let mut out = String::new();
        for (name, family) in self.0 {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            out.push_str(&family.samples);
        }
        out
    }
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_family_stand_together_and_labels_are_escaped() {
        let mut page = Page::default();
        page.put("b", Kind::Gauge, "Second", &[("x", "1")], 2);
        page.put("a", Kind::Counter, "First", &[], 1.5);
        page.put(
            "b",
            Kind::Gauge,
            "Second",
            &[("x", "q\"\\\n"), ("y", "")],
            3,
        );
        assert_eq!(
            page.into_text(),
            "# HELP a First\n# TYPE a counter\na 1.5\n\
             # HELP b Second\n# TYPE b gauge\nb{x=\"1\"} 2\nb{x=\"q\\\"\\\\\\n\",y=\"\"} 3\n"
        );
    }
}
