//! Prints JSON as it came: same order, same numbers, same escapes, other white space.
//!
//! `inspect` shows what the daemon sent. Parsing and writing again would sort keys or respell
//! numbers, so only the white space outside strings is changed.

/// Sets JSON over several lines, four spaces a level, as docker prints it.
pub(crate) fn indent(text: &[u8], first: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut fresh = false;
    tokens(text, |token| {
        let closes = matches!(token, b"}" | b"]");
        if fresh && !closes {
            depth += 1;
            line(&mut out, first, depth);
        }
        match token {
            b"{" | b"[" => {
                out.extend_from_slice(token);
                fresh = true;
                return;
            }
            b"," => {
                out.push(b',');
                line(&mut out, first, depth);
            }
            b":" => out.extend_from_slice(b": "),
            _ if closes => {
                if !fresh {
                    depth = depth.saturating_sub(1);
                    line(&mut out, first, depth);
                }
                out.extend_from_slice(token);
            }
            _ => out.extend_from_slice(token),
        }
        fresh = false;
    });
    out
}

/// Takes out all white space between tokens.
pub(crate) fn compact(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    tokens(text, |token| out.extend_from_slice(token));
    out
}

fn line(out: &mut Vec<u8>, first: &str, depth: usize) {
    out.push(b'\n');
    out.extend_from_slice(first.as_bytes());
    out.extend(std::iter::repeat_n(b' ', depth * 4));
}

/// Calls for each token: a bracket, a comma, a colon, a string with its quotes, or a bare word.
fn tokens(text: &[u8], mut each: impl FnMut(&[u8])) {
    let mut at = 0;
    while at < text.len() {
        let start = at;
        match text[at] {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'{' | b'}' | b'[' | b']' | b',' | b':' => at += 1,
            b'"' => {
                at += 1;
                while at < text.len() && text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                at = (at + 1).min(text.len());
            }
            _ => {
                while at < text.len() && !b" \t\n\r{}[],:\"".contains(&text[at]) {
                    at += 1;
                }
            }
        }
        each(&text[start..at]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn empty_things_stay_on_one_line() {
        let text = br#"{"b":[],"a":{"x":1.50,"y":"a\"\u003c: {"}, "c":{}}"#;
        let want = "{\n    \"b\": [],\n    \"a\": {\n        \"x\": 1.50,\n        \"y\": \"a\\\"\\u003c: {\"\n    },\n    \"c\": {}\n}";
        assert_eq!(String::from_utf8(indent(text, "")).unwrap(), want);
        assert_eq!(compact(&indent(text, "  ")), compact(text));
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = indent(&text, "");
        }
    }
}
