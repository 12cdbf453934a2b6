//! What the text in a request's `stdout` means. Pure.
//!
//! | text | meaning |
//! |---|---|
//! | empty | nothing |
//! | `/PATH`, `fifo:///PATH` | a fifo, or a plain file that exists |
//! | `file:///PATH` | append stdout and stderr to a file, made if missing |
//! | `binary:///PROGRAM?key=value` | a logger program (`binary-v2` waits for its ready byte) |
//! | `json-file:///PATH?max-size=&max-file=&compress=&attrs=&attach=SOCK` | the shim writes the log and serves attachers |
//! | `attach:///SOCK` | attachers only |

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use super::IoError;

/// Longest path of a unix socket that this project uses.
const SOCKET_PATH: usize = 106;

/// Where output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    Null,
    Path(PathBuf),
    File(PathBuf),
    Binary {
        program: PathBuf,
        args: Vec<OsString>,
        needs_byte: bool,
    },
    JsonFile(JsonFileConfig),
    Attach(PathBuf),
}

/// A log in docker's json-file format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonFileConfig {
    pub(crate) path: PathBuf,
    /// Bytes after which the file is rotated.
    pub(crate) max_size: Option<u64>,
    /// Files kept, the current one included.
    pub(crate) max_files: u32,
    /// Whether all but the current one are compressed.
    pub(crate) compress: bool,
    /// A JSON object put into every record.
    pub(crate) attrs: Option<String>,
    /// Where attachers connect.
    pub(crate) attach: Option<PathBuf>,
}

impl Output {
    /// Reads the text of a request.
    pub(crate) fn parse(text: &str) -> Result<Self, IoError> {
        if text.is_empty() {
            return Ok(Self::Null);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Path(absolute(text, text.into())?));
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = || absolute(text, PathBuf::from(OsString::from_vec(decode(path, false))));
        match scheme {
            "fifo" => Ok(Self::Path(path()?)),
            "file" => Ok(Self::File(path()?)),
            "binary" | "binary-v2" => Ok(Self::Binary {
                program: path()?,
                args: binary_args(query),
                needs_byte: scheme == "binary-v2",
            }),
            "attach" => Ok(Self::Attach(socket(path()?)?)),
            "json-file" => json_file(path()?, query).map(Self::JsonFile),
            other => Err(IoError::Uri(format!("unknown STDIO scheme {other}"))),
        }
    }
}

fn absolute(text: &str, path: PathBuf) -> Result<PathBuf, IoError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if path.is_absolute() && !bytes.contains(&0) {
        return Ok(path);
    }
    Err(IoError::Uri(format!(
        "stdio {text:?}: path must be absolute"
    )))
}

fn socket(path: PathBuf) -> Result<PathBuf, IoError> {
    let length = path.as_os_str().len();
    if length > SOCKET_PATH {
        let shown = path.display();
        return Err(IoError::Uri(format!(
            "attach socket {shown}: path of {length} bytes is longer than {SOCKET_PATH}"
        )));
    }
    absolute(&path.to_string_lossy(), path.clone())
}

fn json_file(path: PathBuf, query: &str) -> Result<JsonFileConfig, IoError> {
    let mut config = JsonFileConfig {
        path,
        max_size: None,
        max_files: 1,
        compress: false,
        attrs: None,
        attach: None,
    };
    for (key, value) in pairs(query) {
        if value.is_empty() {
            continue;
        }
        let text = String::from_utf8_lossy(&value).into_owned();
        let bad = |why: &str| IoError::Uri(format!("json-file option {key}={text:?}: {why}"));
        match key.as_str() {
            "max-size" => {
                config.max_size = size(&text).ok_or_else(|| bad("want a size such as 10m"))?
            }
            "max-file" => {
                let files = text.parse().ok().filter(|n| *n > 0);
                config.max_files = files.ok_or_else(|| bad("want a number above 0"))?;
            }
            "compress" => match text.as_str() {
                "false" | "0" => config.compress = false,
                "true" | "1" => config.compress = true,
                _ => return Err(bad("want true or false")),
            },
            "attrs" => {
                serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text)
                    .map_err(|e| bad(&e.to_string()))?;
                config.attrs = Some(text).filter(|t| t.trim() != "{}");
            }
            "attach" => {
                config.attach = Some(socket(Path::new(&OsString::from_vec(value)).to_owned())?)
            }
            _ => return Err(bad("unknown option")),
        }
    }
    let needs = |what: &str| Err(IoError::Uri(format!("json-file option {what}")));
    if config.max_files > 1 && config.max_size.is_none() {
        return needs("max-file needs max-size");
    }
    if config.compress && config.max_files < 2 {
        return needs("compress needs a max-file of 2 or more");
    }
    Ok(config)
}

/// Docker's sizes: decimal units; -1 means no limit. The outer none is a text that is no size.
fn size(text: &str) -> Option<Option<u64>> {
    if text == "-1" {
        return Some(None);
    }
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches('b');
    let (digits, unit) = match digits.as_bytes().last()? {
        b'k' => (&digits[..digits.len() - 1], 1_000),
        b'm' => (&digits[..digits.len() - 1], 1_000_000),
        b'g' => (&digits[..digits.len() - 1], 1_000_000_000),
        b't' => (&digits[..digits.len() - 1], 1_000_000_000_000),
        _ => (digits, 1),
    };
    let number: u64 = digits.trim().parse().ok()?;
    number.checked_mul(unit).filter(|n| *n > 0).map(Some)
}

/// Each key, then its value if it has one, in the order of the URI.
fn binary_args(query: &str) -> Vec<OsString> {
    let mut args = Vec::new();
    for (key, value) in pairs(query) {
        args.push(OsString::from(key));
        if !value.is_empty() {
            args.push(OsString::from_vec(value));
        }
    }
    args
}

fn pairs(query: &str) -> impl Iterator<Item = (String, Vec<u8>)> + '_ {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let key = String::from_utf8_lossy(&decode(key, true)).into_owned();
            (key, decode(value, true))
        })
}

/// Undoes percent encoding; a percent sign that begins none stands for itself.
fn decode(text: &str, query: bool) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two hex digits are one byte"));
                at += 3;
                continue;
            }
            (b'+', ..) if query => out.push(b' '),
            (byte, ..) => out.push(*byte),
        }
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_scheme() {
        assert_eq!(Output::parse("").unwrap(), Output::Null);
        assert_eq!(
            Output::parse("/run/f/c-stdout").unwrap(),
            Output::Path("/run/f/c-stdout".into())
        );
        assert_eq!(
            Output::parse("file:///var/log/x%20y").unwrap(),
            Output::File("/var/log/x y".into())
        );
        assert_eq!(
            Output::parse("binary:///bin/l?--tag=a+b&-v").unwrap(),
            Output::Binary {
                program: "/bin/l".into(),
                args: vec!["--tag".into(), "a b".into(), "-v".into()],
                needs_byte: false
            }
        );
        let uri = "json-file:///l.log?max-size=10m&max-file=3&compress=true&attrs=%7B%22a%22%3A%22%2B%22%7D&attach=%2Frun%2Fa.sock";
        let Output::JsonFile(config) = Output::parse(uri).unwrap() else {
            panic!("not a json-file");
        };
        assert_eq!((config.max_size, config.max_files), (Some(10_000_000), 3));
        assert!(config.compress);
        assert_eq!(config.attrs.as_deref(), Some("{\"a\":\"+\"}"));
        assert_eq!(config.attach.as_deref(), Some(Path::new("/run/a.sock")));
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        for bad in [
            "local:///x",
            "relative",
            "json-file://x",
            "json-file:///x?compress=true",
            "json-file:///x?max-file=2",
            "json-file:///x?max-size=huge",
            "json-file:///x?attrs=[]",
            "json-file:///x?shape=round",
            &format!("attach:///{}", "a".repeat(106)),
        ] {
            assert!(Output::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn encoded_paths_come_back(path in "/[^\0]{0,40}") {
            let encoded: String = path.bytes().map(|b| format!("%{b:02x}")).collect();
            prop_assert_eq!(Output::parse(&format!("file://{encoded}")).unwrap(), Output::File(path.into()));
        }

        #[test]
        fn any_text_is_survived(text in any::<String>()) {
            let _ = Output::parse(&text);
            let _ = Output::parse(&format!("json-file:///{text}"));
        }
    }
}
