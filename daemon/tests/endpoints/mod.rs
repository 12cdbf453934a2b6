//! The table of endpoints in docs/compatibility.md, and the routes of the source.

use std::path::Path;

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) state: String,
    shown_by: String,
}

impl Row {
    /// The tests that are named as `file::function`.
    pub(crate) fn tests(&self) -> impl Iterator<Item = &str> {
        let names = self.shown_by.split('`').skip(1).step_by(2);
        names.filter(|name| name.contains("::"))
    }
}

pub(crate) fn read(page: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(page).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let rank = cells.next()?;
        if !["must", "should", "could"].contains(&rank) {
            return None;
        }
        let (method, path) = cells.next()?.split_once(' ')?;
        Some(Row {
            method: method.to_owned(),
            path: path.to_owned(),
            state: cells.next()?.to_owned(),
            shown_by: cells.next()?.to_owned(),
        })
    });
    rows.collect()
}

/// The path for an object that is not there; streams that would not end are asked for their end.
pub(crate) fn example(path: &str) -> String {
    let words = path.split('/').map(|word| match word.starts_with('{') {
        true => "nosuch",
        false => word,
    });
    let path = words.collect::<Vec<_>>().join("/");
    match path.as_str() {
        "/events" => "/events?until=1".into(),
        "/distribution/nosuch/json" => "/distribution/127.0.0.1:1/nosuch/json".into(),
        _ => path,
    }
}

/// Every literal path that is given to a router.
pub(crate) fn of_the_source(folder: &Path) -> Vec<String> {
    let mut routes = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let after = text.split(".route(").skip(1);
        routes.extend(after.filter_map(|rest| {
            let path = rest.trim_start().strip_prefix('"')?;
            Some(path.split('"').next()?.to_owned())
        }));
    }
    assert!(routes.len() > 40, "{routes:?}");
    routes
}
