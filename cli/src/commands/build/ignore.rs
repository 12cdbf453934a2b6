//! `.dockerignore`: which files of a context stay at home. Pure.
//!
//! A pattern a line; the last that fits a path, or a folder above it, decides, and `!` takes it back in. `*` and `?` stay within
//! a name, `**` goes over any number of folders.

/// The patterns of a file.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    patterns: Vec<(bool, String)>,
}

impl Ignore {
    pub(super) fn parse(text: &str) -> Ignore {
        let text = text.trim_start_matches('\u{feff}');
        let patterns = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::trim)
            .filter_map(|line| {
                let (back, pattern) = match line.strip_prefix('!') {
                    Some(rest) => (true, rest.trim()),
                    None => (false, line),
                };
                let clean = clean(pattern);
                (!clean.is_empty()).then_some((back, clean))
            })
            .collect();
        Ignore { patterns }
    }

    /// Takes a file in whatever the patterns say.
    pub(super) fn keep(&mut self, path: &str) {
        if self.leaves_out(path) {
            let literal = path.chars().map(|c| match c {
                '*' | '?' | '[' | '\\' => format!("\\{c}"),
                c => c.to_string(),
            });
            self.patterns.push((true, literal.collect()));
        }
    }

    /// Whether something may be taken back in below a folder that is left out.
    pub(super) fn takes_back(&self) -> bool {
        self.patterns.iter().any(|(back, _)| *back)
    }

    pub(super) fn leaves_out(&self, path: &str) -> bool {
        let mut out = false;
        for (back, pattern) in &self.patterns {
            if *back == out && or_a_parent(pattern, path) {
                out = !back;
            }
        }
        out
    }
}

fn or_a_parent(pattern: &str, path: &str) -> bool {
    let ends = path.match_indices('/').map(|(at, _)| at);
    let pattern = pattern.as_bytes();
    ends.chain(std::iter::once(path.len()))
        .any(|end| fits(pattern, &path.as_bytes()[..end]))
}

/// A pattern without what changes nothing: `/a/./b/../c/` is `a/c`.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn fits(pattern: &[u8], path: &[u8]) -> bool {
    match pattern {
        [] => path.is_empty(),
        [b'*', b'*', rest @ ..] => {
            let rest = match rest {
                [b'/', rest @ ..] => rest,
                rest => rest,
            };
            if rest.is_empty() {
                return true;
            }
            let after_slash = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            std::iter::once(0)
                .chain(after_slash.map(|(at, _)| at + 1))
                .any(|from| fits(rest, &path[from..]))
        }
        [b'*', rest @ ..] => {
            let name = path
                .iter()
                .position(|byte| *byte == b'/')
                .unwrap_or(path.len());
            (0..=name).any(|taken| fits(rest, &path[taken..]))
        }
        [b'?', rest @ ..] => match path {
            [byte, after @ ..] if *byte != b'/' => fits(rest, after),
            _ => false,
        },
        [b'[', rest @ ..] => match (class(rest, path), path) {
            (Some((true, rest)), [_, after @ ..]) => fits(rest, after),
            _ => false,
        },
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => match path {
            [byte, after @ ..] if byte == literal => fits(rest, after),
            _ => false,
        },
    }
}

/// Whether the first byte is in a class such as `a-z]` or `^0]`, and what follows the class.
fn class<'a>(class: &'a [u8], path: &[u8]) -> Option<(bool, &'a [u8])> {
    let byte = *path.first()?;
    let (not, mut rest) = match class {
        [b'^' | b'!', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [b']', after @ ..] => return Some((found != not && byte != b'/', after)),
            [low, b'-', high, after @ ..] if *high != b']' => {
                found |= (*low..=*high).contains(&byte);
                after
            }
            [b'\\', one, after @ ..] | [one, after @ ..] => {
                found |= *one == byte;
                after
            }
            [] => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn out(patterns: &str, path: &str) -> bool {
        Ignore::parse(patterns).leaves_out(path)
    }

    #[test]
    fn the_last_that_fits_decides() {
        for (patterns, path, want) in [
            ("# none\n\n", "a", false),
            ("a", "a/b/c", true),
            ("/a/", "a", true),
            ("*/x", "a/x", true),
            ("*/x", "x", false),
            ("*.log", "a/b.log", false),
            ("**/*.log", "a/b.log", true),
            ("**/*.log", "b.log", true),
            ("a/**", "a/b/c", true),
            ("a/**/d", "a/b/c/d", true),
            ("a/**/d", "a/d", true),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README.md", "x.md", true),
            ("!README.md\n*.md", "README.md", true),
            ("a\n!a/b", "a/b", false),
            ("f?o", "foo", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*", "a/b", true),
        ] {
            assert_eq!(out(patterns, path), want, "{patterns:?} {path}");
        }
        let mut all = Ignore::parse("*");
        all.keep("Dockerfile");
        assert!(!all.leaves_out("Dockerfile") && all.leaves_out("x"));
    }

    proptest! {
        #[test]
        fn no_pattern_is_too_odd(pattern in "[]a*?/!\\[^\\\\-]{0,8}", path in "[a/]{0,8}") {
            let _ = out(&pattern, &path);
        }
    }
}
