//! A Dockerfile's text as instructions: comments gone, continued lines joined, heredocs cut out.
//!
//! The rules are those of Docker's reference, "Format", "Parser directives" and "Here-Documents".

use super::heredoc::{self, Heredoc};
use crate::error::{Error, Result};

/// Longest Dockerfile that is read.
pub(crate) const SIZE_LIMIT: usize = 4 << 20;

/// One instruction as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Number of its first line, from 1.
    pub(crate) number: usize,
    /// The instruction's name, in capitals.
    pub(crate) word: String,
    /// Its options, `--name` or `--name=value`.
    pub(crate) flags: Vec<String>,
    /// What follows the options, lines joined.
    pub(crate) rest: String,
    /// The heredocs that `rest` names, in their order.
    pub(crate) heredocs: Vec<Heredoc>,
}

impl Line {
    /// The instruction as Docker shows it in `Step 1/2 : ...` and in the history.
    pub(crate) fn shown(&self) -> String {
        let mut shown = self.word.clone();
        for part in self
            .flags
            .iter()
            .map(String::as_str)
            .chain([self.rest.as_str()])
        {
            if !part.is_empty() {
                shown.push(' ');
                shown.push_str(part);
            }
        }
        shown
    }
}

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// What stands before a character that means itself: `\`, or a backtick by directive.
    pub(crate) escape: char,
    /// The instructions.
    pub(crate) lines: Vec<Line>,
}

/// Cuts a text into instructions.
pub(crate) fn parse(text: &str) -> Result<File> {
    if text.len() > SIZE_LIMIT {
        return Err(Error::invalid(format!(
            "Dockerfile is larger than {SIZE_LIMIT} bytes"
        )));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut rest: Vec<&str> = text.lines().collect();
    let escape = escape_directive(&rest)?;
    let mut lines = Vec::new();
    let mut at = 0;
    while at < rest.len() {
        if is_nothing(rest[at]) {
            at += 1;
            continue;
        }
        let start = at;
        let joined = join(&rest, &mut at, escape);
        if joined.is_empty() {
            continue;
        }
        let mut line = instruction(start + 1, &joined)?;
        let documents = match line.word.as_str() {
            "RUN" | "COPY" | "ADD" => heredoc::named(&line.rest, escape),
            _ => Vec::new(),
        };
        for mut document in documents {
            document.content = body(&mut rest, &mut at, &document).ok_or_else(|| {
                Error::invalid(format!(
                    "dockerfile parse error on line {}: unterminated heredoc {}",
                    start + 1,
                    document.name
                ))
            })?;
            line.heredocs.push(document);
        }
        lines.push(line);
    }
    if lines.is_empty() {
        return Err(Error::invalid("file with no instructions"));
    }
    Ok(File { escape, lines })
}

/// The `# escape=` directive: only in comments before everything else.
fn escape_directive(lines: &[&str]) -> Result<char> {
    let mut seen = None;
    for line in lines {
        let Some(comment) = line.trim().strip_prefix('#') else {
            break;
        };
        let Some((key, value)) = comment.split_once('=') else {
            break;
        };
        let key = key.trim();
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric()) {
            break;
        }
        if !key.eq_ignore_ascii_case("escape") {
            continue;
        }
        if seen.is_some() {
            return Err(Error::invalid(
                "only one escape parser directive can be used",
            ));
        }
        seen = Some(match value.trim() {
            "\\" => '\\',
            "`" => '`',
            other => {
                return Err(Error::invalid(format!(
                    "invalid ESCAPE '{other}' does not match ` or \\"
                )));
            }
        });
    }
    Ok(seen.unwrap_or('\\'))
}

/// Whether a line is a comment or blank.
fn is_nothing(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// The next instruction's lines as one; `at` moves behind them. Empty where only comments and blanks are left.
fn join(lines: &[&str], at: &mut usize, escape: char) -> String {
    let mut joined = String::new();
    let mut open = false;
    while let Some(line) = lines.get(*at) {
        let trimmed = line.trim_start();
        *at += 1;
        if is_nothing(trimmed) {
            // inside of a continued instruction they do not end it
            continue;
        }
        let line = if open { line } else { trimmed };
        match continued(line, escape) {
            Some(part) => {
                joined.push_str(part);
                open = true;
            }
            None => {
                joined.push_str(line);
                break;
            }
        }
    }
    joined.trim().to_owned()
}

/// The line without its last escape character, if it ends with one.
fn continued(line: &str, escape: char) -> Option<&str> {
    line.trim_end_matches([' ', '\t', '\r'])
        .strip_suffix(escape)
}

/// The instruction's name, options and rest.
fn instruction(number: usize, text: &str) -> Result<Line> {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let mut rest = rest.trim();
    let mut flags = Vec::new();
    while rest.starts_with("--") {
        let (flag, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        rest = after.trim_start();
        if flag == "--" {
            break;
        }
        flags.push(unquoted(number, flag)?);
    }
    Ok(Line {
        number,
        word: word.to_ascii_uppercase(),
        flags,
        rest: rest.to_owned(),
        heredocs: Vec::new(),
    })
}

/// An option without the quotes around its value.
fn unquoted(number: usize, flag: &str) -> Result<String> {
    let plain: String = flag.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
    let quotes = flag.len() - plain.len();
    if quotes % 2 == 1 {
        return Err(Error::invalid(format!(
            "dockerfile parse error on line {number}: option {flag} has a quote that is not closed"
        )));
    }
    Ok(plain)
}

/// The lines of a heredoc up to its end; `at` moves behind it. None where it has no end.
fn body(lines: &mut [&str], at: &mut usize, document: &Heredoc) -> Option<String> {
    let mut content = String::new();
    while let Some(line) = lines.get(*at) {
        *at += 1;
        let line = match document.strip_tabs {
            true => line.trim_start_matches('\t'),
            false => line,
        };
        if line == document.name {
            return Some(content);
        }
        content.push_str(line);
        content.push('\n');
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        parse(text).unwrap().lines.iter().map(Line::shown).collect()
    }

    #[test]
    fn comments_continuations_and_case() {
        let text = "\u{feff}# a comment\n\nfrom busybox\nRUN echo a \\\n  # inside\n\n  && echo b\n  CMD  [\"x\"]  \n";
        assert_eq!(
            shown(text),
            ["FROM busybox", "RUN echo a   && echo b", "CMD [\"x\"]"]
        );
        assert_eq!(parse(text).unwrap().lines[1].number, 4);
    }

    #[test]
    fn the_escape_directive() {
        let file = parse("# syntax=x\n# Escape = `\nFROM a\nRUN dir c:\\\nRUN a `\n b").unwrap();
        assert_eq!(file.escape, '`');
        assert_eq!(file.lines[1].rest, "dir c:\\");
        assert_eq!(file.lines[2].rest, "a  b");
        assert!(parse("# escape=x\nFROM a").is_err());
        // behind another comment it is a comment
        assert_eq!(parse("# hello\n# escape=`\nFROM a").unwrap().escape, '\\');
    }

    #[test]
    fn options_are_apart() {
        let line = &parse("COPY --from=a --chown=\"1:2\" x y").unwrap().lines[0];
        assert_eq!(line.flags, ["--from=a", "--chown=1:2"]);
        assert_eq!(line.rest, "x y");
        assert!(parse("COPY --from=\"a x y").is_err());
    }

    #[test]
    fn heredocs() {
        let file = parse(
            "RUN <<EOF sh\necho $x\n# stays\nEOF\nCOPY <<-'A' <<\"B\" /d/\n\ta\n\tA\nb\nB\nCMD x",
        )
        .unwrap();
        assert_eq!(file.lines.len(), 3);
        assert_eq!(file.lines[0].heredocs[0].content, "echo $x\n# stays\n");
        let two = &file.lines[1].heredocs;
        assert_eq!((two[0].content.as_str(), two[0].expand), ("a\n", false));
        assert_eq!((two[1].content.as_str(), two[1].expand), ("b\n", false));
        assert!(parse("RUN <<EOF\nx").is_err());
        // not a heredoc: a shell's arithmetic, a quoted one, one of another instruction
        assert!(parse("RUN echo $((1 <<2)) \"<<EOF\"\nCMD <<EOF").is_ok());
    }

    #[test]
    fn nothing_in_it() {
        assert_eq!(
            parse("# a\n\n").unwrap_err().message(),
            "file with no instructions"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(?s)[ -~\n\t\\\\`#<]{0,200}") {
            if let Ok(file) = parse(&text) {
                for line in file.lines {
                    assert!(!line.word.is_empty());
                }
            }
        }
    }
}
