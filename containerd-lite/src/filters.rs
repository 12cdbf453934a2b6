//! containerd's filter language.
//!
//! ```text
//! filters   none at all: everything; several: one of them
//! filter    selector {"," selector}          all must match; blanks around commas are ignored
//! selector  fieldpath [op value]             without op: the field is present
//! fieldpath part {"." part}                  part: bare, or quoted with "
//! op        ==  !=  ~=                       ~= is a regular expression, unanchored
//! value     bare, or quoted with "; after ~= also with | or /
//! ```
//!
//! Pure; an object tells its fields through [`Fields`].

use std::borrow::Cow;

use regex::Regex;

/// Why a filter is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("filter {filter:?}: {what} at byte {at}")]
pub(crate) struct FilterError {
    filter: String,
    what: String,
    at: usize,
}

impl crate::error::Kind for FilterError {
    fn kind(&self) -> proto::error::ErrorKind {
        proto::error::ErrorKind::InvalidArgument
    }
}

/// An object that filters look at.
pub(crate) trait Fields {
    /// The value of the field, none if the object has no such field or it is empty.
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>>;
}

/// The value of `labels.KEY`; a key with dots may also come in several parts.
pub(crate) fn in_map<'a>(
    map: &'a std::collections::BTreeMap<String, String>,
    key: &[&str],
) -> Option<Cow<'a, str>> {
    map.get(&key.join(".")).map(|v| Cow::Borrowed(v.as_str()))
}

/// A non-empty text as a field.
pub(crate) fn text(value: &str) -> Option<Cow<'_, str>> {
    (!value.is_empty()).then_some(Cow::Borrowed(value))
}

/// Parsed filters of one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filters(Vec<Vec<Selector>>);

#[derive(Debug, Clone)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filters {
    /// Parses what a request carries. Empty strings match everything, as the real one's do.
    pub(crate) fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self, FilterError> {
        filters
            .iter()
            .map(|f| {
                Parser {
                    text: f.as_ref(),
                    at: 0,
                }
                .filter()
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether the object passes.
    pub(crate) fn matches(&self, object: &impl Fields) -> bool {
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|all| all.iter().all(|s| s.matches(object)))
    }
}

impl Selector {
    fn matches(&self, object: &impl Fields) -> bool {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let value = object.field(&path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.is_some_and(|v| v == wanted.as_str()),
            // An absent field differs from every value.
            Test::NotEqual(unwanted) => value.is_none_or(|v| v != unwanted.as_str()),
            Test::Matches(regex) => value.is_some_and(|v| regex.is_match(&v)),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn error(&self, what: impl Into<String>) -> FilterError {
        FilterError {
            filter: self.text.to_owned(),
            what: what.into(),
            at: self.at,
        }
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        let there = self.rest().starts_with(token);
        if there {
            self.at += token.len();
        }
        there
    }

    fn filter(mut self) -> Result<Vec<Selector>, FilterError> {
        let mut all = Vec::new();
        self.blanks();
        if self.rest().is_empty() {
            return Ok(all);
        }
        loop {
            all.push(self.selector()?);
            self.blanks();
            if self.rest().is_empty() {
                return Ok(all);
            }
            if !self.eat(",") {
                return Err(self.error("expected a comma"));
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, FilterError> {
        self.blanks();
        let mut path = vec![self.part()?];
        while self.eat(".") {
            path.push(self.part()?);
        }
        self.blanks();
        let test = if self.eat("==") {
            Test::Equal(self.value(false)?)
        } else if self.eat("!=") {
            Test::NotEqual(self.value(false)?)
        } else if self.eat("~=") {
            let start = self.at;
            let pattern = self.value(true)?;
            Test::Matches(Regex::new(&pattern).map_err(|_| FilterError {
                filter: self.text.to_owned(),
                what: "invalid regular expression".into(),
                at: start,
            })?)
        } else if self.rest().is_empty() || self.rest().starts_with(',') {
            Test::Present
        } else {
            return Err(self.error("expected ==, != or ~="));
        };
        Ok(Selector { path, test })
    }

    fn part(&mut self) -> Result<String, FilterError> {
        if self.rest().starts_with('"') {
            return self.quoted('"');
        }
        self.bare(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '/'))
            .ok_or_else(|| self.error("expected a field"))
    }

    fn value(&mut self, pattern: bool) -> Result<String, FilterError> {
        self.blanks();
        match self.rest().chars().next() {
            Some('"') => self.quoted('"'),
            Some(c @ ('|' | '/')) if pattern => self.quoted(c),
            _ => self
                .bare(|c| c != ',' && c != '"' && !c.is_whitespace() && !c.is_control())
                .ok_or_else(|| self.error("expected a value")),
        }
    }

    fn bare(&mut self, belongs: impl Fn(char) -> bool) -> Option<String> {
        let end = self
            .rest()
            .find(|c| !belongs(c))
            .unwrap_or(self.rest().len());
        let found = self.rest()[..end].to_owned();
        self.at += end;
        (!found.is_empty()).then_some(found)
    }

    /// A quoted text. Between `"` it has Go's escapes; between other delimiters only the delimiter can be escaped, since
    /// backslashes belong to the pattern.
    fn quoted(&mut self, quote: char) -> Result<String, FilterError> {
        self.at += quote.len_utf8();
        let mut out = String::new();
        let mut chars = self.rest().char_indices();
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.at += i + c.len_utf8();
                return Ok(out);
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            match chars.next() {
                Some((_, e)) if e == quote => out.push(e),
                Some((_, e)) if quote != '"' => out.extend(['\\', e]),
                Some((_, e)) => match escape(e, &mut chars) {
                    Some(decoded) => out.push(decoded),
                    None => return Err(self.error("invalid escape in quoted text")),
                },
                None => break,
            }
        }
        Err(self.error("quoted text has no end"))
    }
}

/// One of Go's escapes in a string, after the backslash.
fn escape(kind: char, chars: &mut std::str::CharIndices<'_>) -> Option<char> {
    let mut hex = |digits: usize| {
        let text: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
        (text.len() == digits)
            .then(|| u32::from_str_radix(&text, 16).ok().and_then(char::from_u32))
            .flatten()
    };
    Some(match kind {
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '\\' => '\\',
        'x' => hex(2)?,
        'u' => hex(4)?,
        'U' => hex(8)?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Thing(std::collections::BTreeMap<String, String>);

    impl Fields for Thing {
        fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
            match path {
                ["name"] => Some("busybox:1".into()),
                ["topic"] => Some("/tasks/exit".into()),
                ["labels", rest @ ..] => in_map(&self.0, rest),
                _ => None,
            }
        }
    }

    fn matches(filters: &[&str]) -> bool {
        let labels = [("a.b/c", "x"), ("quo\"te", "y")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        Filters::parse(filters)
            .unwrap()
            .matches(&Thing(labels.into()))
    }

    #[test]
    fn matches_what_clients_send() {
        for yes in [
            "",
            "name",
            "name==busybox:1",
            "name==\"busybox:1\" , topic",
            "topic~=|^/tasks/|",
            "topic~=/exit$/",
            "topic~=\"^/tasks/\"",
            "labels.\"a.b/c\"==x",
            "labels.a.b/c",
            "name!=other,absent!=x",
            "labels.\"quo\\\"te\"==\"\\x79\"",
            "name~=^busy",
        ] {
            assert!(matches(&[yes]), "{yes}");
        }
        for no in [
            "absent",
            "name==x",
            "name,absent",
            "topic~=|^/images/|",
            "labels.\"a.b/c\"!=x",
        ] {
            assert!(!matches(&[no]), "{no}");
        }
        assert!(
            matches(&["absent", "name"]),
            "several filters: one is enough"
        );
        assert!(matches(&[]));
    }

    #[test]
    fn refuses_bad_syntax() {
        for bad in [
            "==x",
            "name=x",
            "name==",
            "name==\"x",
            "name~=|(|",
            "a..b",
            "name==x,",
            "name==x y",
            "a==\"\\q\"",
        ] {
            assert!(Filters::parse(&[bad]).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_quoted_values_come_back(text in any::<String>()) {
            let _ = Filters::parse(&[&text]);
            let quoted = format!("name==\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let filters = Filters::parse(&[&quoted]).unwrap();
            let Test::Equal(value) = &filters.0[0][0].test else { panic!() };
            prop_assert_eq!(value, &text);
        }
    }
}
