//! The parsed file. Keys are taken out as they are read, so what stays is unknown.

use std::path::Path;

use super::{ConfigError, Table, Value};

/// The file and where it lies.
pub(super) struct File<'a> {
    path: &'a Path,
    table: Table,
    /// Plugins of which at least one key was asked for: the others of these are named one by one.
    known: Vec<String>,
}

impl<'a> File<'a> {
    /// Reads the text; a version that we do not know is refused.
    pub(super) fn parse(text: &str, path: &'a Path) -> Result<Self, ConfigError> {
        let table = text.parse::<Table>().map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let mut file = Self {
            path,
            table,
            known: Vec::new(),
        };
        match file.integer(&["version"])? {
            None | Some(2..=3) => Ok(file),
            Some(version) => Err(ConfigError::Version {
                path: path.to_owned(),
                version,
            }),
        }
    }

    /// The error of a key with a value of the wrong kind.
    pub(super) fn wrong(&self, key: &[&str], wanted: &'static str) -> ConfigError {
        ConfigError::Type {
            path: self.path.to_owned(),
            key: dotted(key),
            wanted,
        }
    }

    /// Takes a key out.
    pub(super) fn take(&mut self, key: &[&str]) -> Option<Value> {
        if let ["plugins", plugin, ..] = key
            && !self.known.iter().any(|known| known == plugin)
        {
            self.known.push((*plugin).to_owned());
        }
        let (last, sections) = key.split_last()?;
        let mut table = &mut self.table;
        for section in sections {
            table = table.get_mut(*section)?.as_table_mut()?;
        }
        table.remove(*last)
    }

    /// A text that is not empty: the real daemon's default file has many empty ones.
    pub(super) fn filled(&mut self, key: &[&str]) -> Result<Option<String>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    /// Where the file lies.
    pub(super) fn path(&self) -> &Path {
        self.path
    }

    /// Names of the tables in a section.
    pub(super) fn sections(&self, section: &str) -> Vec<String> {
        let section = self.table.get(section).and_then(Value::as_table);
        let tables = section.into_iter().flatten();
        tables
            .filter(|(_, value)| value.is_table())
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &[&str]) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let texts = value.as_array().and_then(|all| {
            let texts = all.iter().map(|v| v.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>()
        });
        match texts {
            Some(texts) => Ok(Some(texts)),
            None => Err(self.wrong(key, "a list of strings")),
        }
    }

    /// A whole number.
    pub(super) fn integer(&mut self, key: &[&str]) -> Result<Option<i64>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Integer(number)) => Ok(Some(number)),
            Some(_) => Err(self.wrong(key, "an integer")),
        }
    }

    /// A number that can be an id or a size.
    pub(super) fn number(&mut self, key: &[&str]) -> Result<Option<u32>, ConfigError> {
        self.integer(key)?
            .map(|n| u32::try_from(n).map_err(|_| self.wrong(key, "a number from 0 to 4294967295")))
            .transpose()
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &[&str]) -> Result<Option<bool>, ConfigError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Boolean(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// Puts a key in, unless it is there.
    pub(super) fn put(&mut self, key: &[&str], value: Value) {
        let Some((last, sections)) = key.split_last() else {
            return;
        };
        let mut table = &mut self.table;
        for section in sections {
            let next = table
                .entry(*section)
                .or_insert_with(|| Value::Table(Table::new()));
            match next.as_table_mut() {
                Some(next) => table = next,
                // A value where a section belongs: nothing can be put below it.
                None => return,
            }
        }
        table.entry(*last).or_insert(value);
    }

    /// What is in it now.
    pub(super) fn into_text(self) -> String {
        self.table.to_string()
    }

    /// A warning for each key that nobody took: of a plugin that we know nothing of one for all its keys.
    pub(super) fn rest(self) -> Vec<String> {
        let mut keys = Vec::new();
        for (key, value) in &self.table {
            let Value::Table(section) = value else {
                keys.push(dotted(&[key]));
                continue;
            };
            for (inner, value) in section {
                match value {
                    value if is_empty(value) => {}
                    Value::Table(rest) if self.known.contains(inner) => {
                        let left = rest.iter().filter(|(_, value)| !is_empty(value));
                        keys.extend(left.map(|(last, _)| dotted(&[key, inner, last])));
                    }
                    _ => keys.push(dotted(&[key, inner])),
                }
            }
        }
        let path = self.path.display();
        keys.iter()
            .map(|key| format!("configuration {path}: key {key} has no effect"))
            .collect()
    }
}

/// A table without keys, or of such tables: it says nothing, or all it said was taken.
fn is_empty(value: &Value) -> bool {
    value
        .as_table()
        .is_some_and(|table| table.values().all(is_empty))
}

/// A key as the file writes it.
fn dotted(key: &[&str]) -> String {
    let is_bare = |part: &str| {
        part.chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    };
    let parts = key.iter().map(|part| {
        if is_bare(part) {
            (*part).to_owned()
        } else {
            format!("{part:?}")
        }
    });
    parts.collect::<Vec<_>>().join(".")
}
