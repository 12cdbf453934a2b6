//! Words of an instruction: where they end, and what variables in them become.
//!
//! The rules are those of Docker's reference, "Environment replacement": `$name`, `${name}`, and the modifiers `-`, `+`
//! and `?`, each with a colon before it where an empty value counts as none.

use std::iter::Peekable;
use std::str::Chars;

use crate::error::{Error, Result};

/// How deep `${a:-${b:-...}}` may go.
const DEPTH: usize = 32;
/// Longest text that replacement may make.
const LONGEST: usize = 1 << 20;

/// Cuts at blanks outside of quotes. Quotes and escapes stay.
pub(crate) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
        if c == escape && quote != Some('\'') {
            word.extend(chars.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// A JSON list of strings, if the text is one.
pub(crate) fn json_list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[')
        .then(|| serde_json::from_str(text).ok())
        .flatten()
}

/// Replaces variables.
pub(crate) struct Expander<'a> {
    /// The file's escape character.
    pub(crate) escape: char,
    /// The value of a variable.
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Expander<'_> {
    /// One word: quotes go, variables are replaced.
    pub(crate) fn word(&self, text: &str) -> Result<String> {
        Ok(self.scan(text, true)?.concat())
    }

    /// The same, but a value with blanks that stands outside of quotes makes several words.
    pub(crate) fn words(&self, text: &str) -> Result<Vec<String>> {
        self.scan(text, false)
    }

    /// A heredoc: variables are replaced, quotes are text.
    pub(crate) fn document(&self, text: &str) -> Result<String> {
        let mut out = Output::new(true);
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '$' => out.quoted(&self.variable(&mut chars, 0)?)?,
                c if c == self.escape => match chars.peek() {
                    Some('$') => {
                        out.push('$');
                        chars.next();
                    }
                    Some(next) if *next == self.escape => {
                        out.push(c);
                        chars.next();
                    }
                    _ => out.push(c),
                },
                c => out.push(c),
            }
        }
        Ok(out.finish().concat())
    }

    fn scan(&self, text: &str, whole: bool) -> Result<Vec<String>> {
        let mut out = Output::new(whole);
        let mut chars = text.chars().peekable();
        self.run(&mut chars, &mut out, None, 0)?;
        Ok(out.finish())
    }

    /// Reads to the end of the text, or to the brace that closes a modifier's word.
    fn run(
        &self,
        chars: &mut Peekable<Chars<'_>>,
        out: &mut Output,
        until: Option<char>,
        depth: usize,
    ) -> Result<()> {
        while let Some(c) = chars.next() {
            match c {
                c if Some(c) == until => return Ok(()),
                '\'' => {
                    out.begin();
                    loop {
                        match chars.next() {
                            Some('\'') => break,
                            Some(c) => out.push(c),
                            None => return Err(unclosed("single quote")),
                        }
                    }
                }
                '"' => self.double(chars, out, depth)?,
                '$' => out.value(&self.variable(chars, depth)?)?,
                c if c == self.escape => {
                    if let Some(next) = chars.next() {
                        out.push(next);
                    }
                }
                c if c.is_whitespace() && !out.whole => out.end(),
                c => out.push(c),
            }
        }
        match until {
            Some(_) => Err(unclosed("brace")),
            None => Ok(()),
        }
    }

    fn double(
        &self,
        chars: &mut Peekable<Chars<'_>>,
        out: &mut Output,
        depth: usize,
    ) -> Result<()> {
        out.begin();
        while let Some(c) = chars.next() {
            match c {
                '"' => return Ok(()),
                '$' => out.quoted(&self.variable(chars, depth)?)?,
                c if c == self.escape => match chars.peek() {
                    Some(next) if matches!(*next, '"' | '$') || *next == self.escape => {
                        out.push(*next);
                        chars.next();
                    }
                    _ => out.push(c),
                },
                c => out.push(c),
            }
        }
        Err(unclosed("double quote"))
    }

    /// What follows a `$`.
    fn variable(&self, chars: &mut Peekable<Chars<'_>>, depth: usize) -> Result<String> {
        if depth > DEPTH {
            return Err(Error::invalid("variables are nested too deep"));
        }
        if chars.peek() != Some(&'{') {
            let name = name(chars);
            return Ok(match name.as_str() {
                "" => "$".to_owned(),
                name => (self.lookup)(name).unwrap_or_default(),
            });
        }
        chars.next();
        let name = name(chars);
        if name.is_empty() {
            return Err(Error::invalid("bad substitution: a name is missing"));
        }
        let value = (self.lookup)(&name);
        let mut modifier = chars.next().ok_or_else(|| unclosed("brace"))?;
        if modifier == '}' {
            return Ok(value.unwrap_or_default());
        }
        let colon = modifier == ':';
        if colon {
            modifier = chars.next().ok_or_else(|| unclosed("brace"))?;
        }
        let mut word = Output::new(true);
        self.run(chars, &mut word, Some('}'), depth + 1)?;
        let word = word.finish().concat();
        let set = value.filter(|value| !(colon && value.is_empty()));
        match (modifier, set) {
            ('-', set) => Ok(set.unwrap_or(word)),
            ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            ('?', Some(value)) => Ok(value),
            ('?', None) if word.is_empty() => Err(Error::invalid(format!(
                "{name}: is not allowed to be unset"
            ))),
            ('?', None) => Err(Error::invalid(format!("{name}: {word}"))),
            (other, _) => Err(Error::invalid(format!(
                "unsupported modifier ({other}) in substitution of {name}"
            ))),
        }
    }
}

fn unclosed(what: &str) -> Error {
    Error::invalid(format!(
        "unexpected end of statement while looking for matching {what}"
    ))
}

/// A variable's name: letters, digits and underscores, or one of the shell's single characters.
fn name(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut name = String::new();
    while let Some(c) = chars.peek().copied() {
        let first = name.is_empty();
        let special = first && matches!(c, '@' | '*' | '#' | '?' | '-' | '!' | '0'..='9');
        if special {
            chars.next();
            return c.to_string();
        }
        if !c.is_alphanumeric() && c != '_' {
            break;
        }
        name.push(c);
        chars.next();
    }
    name
}

/// Words in the making.
struct Output {
    /// Whether all is one word.
    whole: bool,
    words: Vec<String>,
    word: Option<String>,
    length: usize,
}

impl Output {
    fn new(whole: bool) -> Self {
        Self {
            whole,
            words: Vec::new(),
            word: None,
            length: 0,
        }
    }

    /// A word begins here, be it empty.
    fn begin(&mut self) {
        self.word.get_or_insert_default();
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end(&mut self) {
        self.words.extend(self.word.take());
    }

    /// A value in quotes.
    fn quoted(&mut self, value: &str) -> Result<()> {
        self.length += value.len();
        if self.length > LONGEST {
            return Err(Error::invalid("variables make the text too long"));
        }
        self.word.get_or_insert_default().push_str(value);
        Ok(())
    }

    /// A value outside of quotes.
    fn value(&mut self, value: &str) -> Result<()> {
        if self.whole {
            return self.quoted(value);
        }
        for (i, part) in value.split(char::is_whitespace).enumerate() {
            if i > 0 {
                self.end();
            }
            if !part.is_empty() {
                self.quoted(part)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Vec<String> {
        self.end();
        self.words
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".into()),
            "E" => Some(String::new()),
            "W" => Some("a  b".into()),
            _ => None,
        }
    }

    fn with(text: &str) -> Result<String> {
        let expander = Expander {
            escape: '\\',
            lookup: &lookup,
        };
        expander.word(text)
    }

    #[test]
    fn one_word() {
        for (text, expected) in [
            ("$A", "one"),
            ("${A}x", "onex"),
            ("$Ax", ""),
            ("'$A'", "$A"),
            ("\"$A b\"", "one b"),
            ("\\$A", "$A"),
            ("\"\\$A \\n\"", "$A \\n"),
            ("a\\ b", "a b"),
            ("${N:-x}", "x"),
            ("${E:-x}", "x"),
            ("${E-x}", ""),
            ("${A:+y}", "y"),
            ("${N:+y}", ""),
            ("${E+y}", "y"),
            ("${N:-${A}}", "one"),
            ("${N:-'a}b'}", "a}b"),
            ("$", "$"),
            ("a$.", "a$."),
            ("$1", ""),
            ("${A:?no}", "one"),
            ("W=$W", "W=a  b"),
        ] {
            assert_eq!(with(text).unwrap(), expected, "{text}");
        }
        for text in ["\"a", "'a", "${A", "${A:-", "${}", "${N:?gone}", "${A^x}"] {
            assert!(with(text).is_err(), "{text}");
        }
        assert_eq!(with("${N?gone}").unwrap_err().message(), "N: gone");
    }

    #[test]
    fn several_words() {
        let expander = Expander {
            escape: '\\',
            lookup: &lookup,
        };
        assert_eq!(
            expander.words("$W \"$W\" ''").unwrap(),
            ["a", "b", "a  b", ""]
        );
        assert_eq!(
            expander.document("\"$A\" \\$A 'x'\n").unwrap(),
            "\"one\" $A 'x'\n"
        );
        assert_eq!(
            split("a \"b c\" d\\ e 'f\\' g", '\\'),
            ["a", "\"b c\"", "d\\ e", "'f\\'", "g"]
        );
    }

    #[test]
    fn nothing_grows_without_end() {
        let long = |_: &str| Some("x".repeat(1000));
        let expander = Expander {
            escape: '\\',
            lookup: &long,
        };
        assert!(expander.word(&"$a".repeat(2000)).is_err());
        assert!(with(&"${N:-".repeat(100)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~]{0,80}") {
            let _ = with(&text);
            // what is cut apart lacks only blanks
            let joined: String = split(&text, '\\').concat().chars().filter(|c| !c.is_whitespace()).collect();
            let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            assert_eq!(joined, plain);
        }
    }
}
