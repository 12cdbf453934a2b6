//! The json-file log: one JSON object a line, `{"log":"...\n","stream":"stdout","time":"..."}`.
//!
//! Written by the shim in whole records, so a line that has no end yet is not there yet, and one that cannot be read was torn
//! by a dying machine: it is skipped, and reading goes on with the next.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::Deserialize;

/// One record.
#[derive(Debug, PartialEq, Deserialize)]
pub(crate) struct Entry<'a> {
    /// The output, with its newline unless the line was split.
    #[serde(borrow, default)]
    pub(crate) log: Cow<'a, str>,
    /// `stdout` or `stderr`.
    #[serde(borrow, default)]
    pub(crate) stream: Cow<'a, str>,
    /// When, as RFC 3339.
    #[serde(borrow, default)]
    pub(crate) time: Cow<'a, str>,
    /// What the options added.
    #[serde(default)]
    pub(crate) attrs: Option<std::collections::BTreeMap<String, String>>,
}

/// Reads one line; none if it is no record.
pub(crate) fn parse(line: &[u8]) -> Option<Entry<'_>> {
    serde_json::from_slice(line).ok()
}

/// Size of the blocks in which a file is read backwards.
const BLOCK: usize = 64 * 1024;

/// Where the last `lines` whole lines before `end` begin, and how many there are. Reads from the end, so that the cost is
/// that of the tail, not of the file.
pub(crate) fn tail(file: &File, end: u64, lines: u64) -> io::Result<(u64, u64)> {
    if lines == 0 {
        return Ok((end, 0));
    }
    let mut buffer = vec![0; BLOCK];
    let mut at = end;
    let mut found = 0;
    while at > 0 {
        let length = usize::try_from(at).unwrap_or(BLOCK).min(BLOCK);
        let from = at - length as u64;
        file.read_exact_at(&mut buffer[..length], from)?;
        for (index, byte) in buffer[..length].iter().enumerate().rev() {
            let offset = from + index as u64;
            // The newline that ends the last line begins none.
            if *byte == b'\n' && offset + 1 < end {
                found += 1;
                if found == lines {
                    return Ok((offset + 1, lines));
                }
            }
        }
        at = from;
    }
    Ok((0, if end > 0 { found + 1 } else { 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    #[test]
    fn a_record() {
        let line = br#"{"log":"a \"b\"\n","stream":"stderr","time":"2020-01-01T00:00:00.5Z"}"#;
        let entry = parse(line).unwrap();
        assert_eq!(
            (entry.log.as_ref(), entry.stream.as_ref()),
            ("a \"b\"\n", "stderr")
        );
        assert!(parse(b"{\"log\":\"torn").is_none());
    }

    proptest! {
        #[test]
        fn the_tail_is_the_last_lines(
            lines in proptest::collection::vec("[a-z]{0,40}", 0..60),
            wanted in 0u64..70,
        ) {
            let mut file = tempfile::tempfile().unwrap();
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            file.write_all(text.as_bytes()).unwrap();
            let (from, count) = tail(&file, text.len() as u64, wanted).unwrap();
            let kept = lines.len().min(wanted as usize);
            let expected: String =
                lines[lines.len() - kept..].iter().map(|line| format!("{line}\n")).collect();
            prop_assert_eq!(&text[from as usize..], expected.as_str());
            prop_assert_eq!(count, kept as u64);
        }

        #[test]
        fn no_line_breaks_the_parser(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }
    }
}
