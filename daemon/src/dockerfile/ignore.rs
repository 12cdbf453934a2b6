//! `.dockerignore`: which files of a context are left out.
//!
//! One pattern a line; `!` takes back; the last that matches decides. `*` and `?` stay inside of a name, `**` does not. A
//! pattern that matches a folder matches all below it. Docker's reference, ".dockerignore files".

use crate::error::{Error, Result};

/// Longest file that is read.
pub(crate) const SIZE_LIMIT: usize = 1 << 20;

/// A `.dockerignore`.
#[derive(Debug, Default)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    parts: Vec<Vec<char>>,
    keeps: bool,
}

impl Ignore {
    /// Reads the file.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.len() > SIZE_LIMIT {
            return Err(Error::invalid(format!(
                ".dockerignore is larger than {SIZE_LIMIT} bytes"
            )));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let line = line.trim();
            let (keeps, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if pattern.is_empty() {
                match keeps {
                    true => return Err(Error::invalid("illegal exclusion pattern: \"!\"")),
                    false => continue,
                }
            }
            let parts: Vec<Vec<char>> = clean(pattern).map(|part| part.chars().collect()).collect();
            if !parts.is_empty() {
                rules.push(Rule { parts, keeps });
            }
        }
        Ok(Self { rules })
    }

    /// Whether the file at this path, relative to the context, is left out.
    pub(crate) fn leaves_out(&self, path: &str) -> bool {
        let names: Vec<Vec<char>> = clean(path).map(|part| part.chars().collect()).collect();
        let mut out = false;
        for rule in &self.rules {
            if rule.keeps == out && matches(&rule.parts, &names) {
                out = !rule.keeps;
            }
        }
        out
    }
}

/// A path's names, `.` and `..` resolved.
fn clean(path: &str) -> impl Iterator<Item = &str> {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names.into_iter()
}

/// Whether a path or a folder above it matches: step by step over the names, keeping every place of the pattern that is possible.
fn matches(parts: &[Vec<char>], names: &[Vec<char>]) -> bool {
    let any = |part: &[char]| part == ['*', '*'];
    let mut possible = vec![false; parts.len() + 1];
    possible[0] = true;
    let skip = |possible: &mut Vec<bool>| {
        for (i, part) in parts.iter().enumerate() {
            if possible[i] && any(part) {
                possible[i + 1] = true;
            }
        }
    };
    skip(&mut possible);
    for name in names {
        let mut next = vec![false; parts.len() + 1];
        for (i, part) in parts.iter().enumerate().filter(|(i, _)| possible[*i]) {
            if any(part) {
                next[i] = true;
            } else if name_matches(part, name) {
                next[i + 1] = true;
            }
        }
        possible = next;
        skip(&mut possible);
        if possible[parts.len()] {
            return true;
        }
    }
    false
}

/// Whether a name matches a pattern of one name: `*`, `?`, `[a-z]`, `[^a]`, `\x`. Linear in the product of both lengths.
pub(crate) fn name_matches(pattern: &[char], name: &[char]) -> bool {
    let tokens = tokens(pattern);
    let mut possible = vec![false; tokens.len() + 1];
    possible[0] = true;
    let skip = |possible: &mut Vec<bool>| {
        for (i, token) in tokens.iter().enumerate() {
            if possible[i] && matches!(token, Token::Any) {
                possible[i + 1] = true;
            }
        }
    };
    skip(&mut possible);
    for c in name {
        let mut next = vec![false; tokens.len() + 1];
        for (i, token) in tokens.iter().enumerate().filter(|(i, _)| possible[*i]) {
            match token {
                Token::Any => next[i] = true,
                Token::One => next[i + 1] = true,
                Token::Char(own) => next[i + 1] |= own == c,
                Token::Class { ranges, inverted } => {
                    next[i + 1] |= ranges.iter().any(|(a, b)| a <= c && c <= b) != *inverted;
                }
            }
        }
        possible = next;
        skip(&mut possible);
    }
    possible[tokens.len()]
}

enum Token {
    Any,
    One,
    Char(char),
    Class {
        ranges: Vec<(char, char)>,
        inverted: bool,
    },
}

fn tokens(pattern: &[char]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = pattern.get(at) {
        at += 1;
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => {
                let own = pattern.get(at).copied().unwrap_or('\\');
                at += 1;
                Token::Char(own)
            }
            '[' => match class(&pattern[at..]) {
                Some((token, length)) => {
                    at += length;
                    token
                }
                None => Token::Char('['),
            },
            c => Token::Char(*c),
        });
    }
    tokens
}

/// What stands in brackets, and how long it is with the closing one.
fn class(text: &[char]) -> Option<(Token, usize)> {
    let inverted = text.first() == Some(&'^');
    let mut at = usize::from(inverted);
    let mut ranges = Vec::new();
    loop {
        let low = *text.get(at)?;
        if low == ']' && !ranges.is_empty() {
            return Some((Token::Class { ranges, inverted }, at + 1));
        }
        let high = match (text.get(at + 1), text.get(at + 2)) {
            (Some('-'), Some(high)) if *high != ']' => {
                at += 2;
                *high
            }
            _ => low,
        };
        ranges.push((low, high));
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
    use super::*;

    #[test]
    fn patterns() {
        for (text, path, out) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "b/a", false),
            ("/a/", "a/b", true),
            ("*/a", "b/a", true),
            ("*", "a/b", true),
            ("*.o", "x/y.o", false),
            ("**/*.o", "x/y.o", true),
            ("**/*.o", "y.o", true),
            ("a/**", "a/b/c", true),
            ("a/**/z", "a/z", true),
            ("*\n!keep", "keep/x", false),
            ("*.md\n!R*.md\nREADME.md", "README.md", true),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[^a]x", "ax", false),
            ("x/../a", "a", true),
            ("# a\n\n b ", "b", true),
            ("#a", "#a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
        ] {
            let ignore = Ignore::parse(text).unwrap();
            assert_eq!(ignore.leaves_out(path), out, "{text:?} of {path}");
        }
        assert!(Ignore::parse("!").is_err());
    }

    #[test]
    fn hostile_patterns_take_no_time() {
        let ignore = Ignore::parse(&"*a".repeat(2000)).unwrap();
        assert!(!ignore.leaves_out(&"a".repeat(250)));
        assert!(
            !Ignore::parse(&format!("{}b", "**/".repeat(500)))
                .unwrap()
                .leaves_out(&"a/".repeat(500))
        );
    }

    proptest::proptest! {
        #[test]
        fn any_pattern_is_taken(text in "[a-c*?!\\[\\]\\\\/.^-]{0,20}", path in "[a-c/.]{0,12}") {
            if let Ok(ignore) = Ignore::parse(&text) {
                ignore.leaves_out(&path);
            }
        }
    }
}
