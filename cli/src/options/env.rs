//! Environment variables and labels, given one by one or by file. Pure but for reading the files.

use std::collections::BTreeMap;

/// Why a file of variables or labels could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvError {
    #[error("open {path}: {}", plain(source))]
    Open {
        path: String,
        source: std::io::Error,
    },
    #[error("invalid env file ({path}): {why}")]
    Line { path: String, why: String },
    #[error("invalid environment variable: {0}")]
    Variable(String),
    #[error("invalid label: '{0}' (empty name)")]
    Label(String),
}

/// The system's words for a failed file operation, without the error number.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_string(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_string(),
        _ => error.to_string(),
    }
}

/// All variables in order, files first. A name without a value takes the value of our own environment, if it has one.
pub(crate) fn variables(files: &[String], given: &[String]) -> Result<Vec<String>, EnvError> {
    let own = |name: &str| std::env::var(name).ok();
    let mut out = Vec::new();
    for path in files {
        for line in lines(path)? {
            let name = line.split('=').next().unwrap_or_default();
            if name.is_empty() {
                return Err(EnvError::Line {
                    path: path.clone(),
                    why: format!("no variable name on line '{line}'"),
                });
            }
            if name.contains(char::is_whitespace) {
                return Err(EnvError::Line {
                    path: path.clone(),
                    why: format!("variable '{name}' contains whitespaces"),
                });
            }
            out.extend(resolved(&line, own));
        }
    }
    for variable in given {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(EnvError::Variable(variable.clone()));
        }
        match resolved(variable, own) {
            Some(variable) => out.push(variable),
            // Sent without a value it means: take it away, if the image has it.
            None => out.push(variable.clone()),
        }
    }
    Ok(out)
}

fn resolved(variable: &str, own: impl Fn(&str) -> Option<String>) -> Option<String> {
    if variable.contains('=') {
        return Some(variable.to_string());
    }
    own(variable).map(|value| format!("{variable}={value}"))
}

/// All labels, files first; the last of a name wins.
pub(crate) fn labels(
    files: &[String],
    given: &[String],
) -> Result<BTreeMap<String, String>, EnvError> {
    let mut out = BTreeMap::new();
    let mut add = |label: &str| {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        if name.is_empty() {
            return Err(EnvError::Label(label.to_string()));
        }
        out.insert(name.to_string(), value.to_string());
        Ok(())
    };
    for path in files {
        for line in lines(path)? {
            add(&line)?;
        }
    }
    for label in given {
        add(label)?;
    }
    Ok(out)
}

/// Checks a label given as a flag.
pub(crate) fn label(text: &str) -> Result<String, String> {
    match text.split('=').next() {
        None | Some("") => Err(format!("invalid label '{text}': empty name")),
        Some(_) => Ok(text.to_string()),
    }
}

/// Pairs `name=value` as a map.
pub(crate) fn pairs(given: &[String]) -> BTreeMap<String, String> {
    given
        .iter()
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

/// The lines of a file that say something: not empty, no comments.
fn lines(path: &str) -> Result<Vec<String>, EnvError> {
    let bytes = std::fs::read(path).map_err(|source| EnvError::Open {
        path: path.to_string(),
        source,
    })?;
    let text = String::from_utf8(bytes).map_err(|_| EnvError::Line {
        path: path.to_string(),
        why: "it is not valid UTF-8".to_string(),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text
        .lines()
        .map(|line| line.trim_start().to_string())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_before_flags() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env").to_str().unwrap().to_string();
        std::fs::write(
            &path,
            "# remark\n\n  A=1\nB=two words\nDOCKER_LITE_NO_SUCH\n",
        )
        .unwrap();
        let got = variables(
            std::slice::from_ref(&path),
            &["C=3".into(), "DOCKER_LITE_NO_SUCH".into()],
        )
        .unwrap();
        assert_eq!(got, ["A=1", "B=two words", "C=3", "DOCKER_LITE_NO_SUCH"]);
        std::fs::write(&path, "A B=1\n").unwrap();
        let error = variables(std::slice::from_ref(&path), &[])
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            format!("invalid env file ({path}): variable 'A B' contains whitespaces")
        );
        assert_eq!(
            variables(&["/nope".into()], &[]).unwrap_err().to_string(),
            "open /nope: no such file or directory"
        );
        assert!(variables(&[], &["=x".into()]).is_err());
    }

    #[test]
    fn the_last_label_of_a_name_wins() {
        let got = labels(&[], &["a=1".into(), "b".into(), "a=2=3".into()]).unwrap();
        assert_eq!(
            got,
            BTreeMap::from([("a".into(), "2=3".into()), ("b".into(), String::new())])
        );
    }
}
