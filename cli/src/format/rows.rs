//! Lists: rows of named fields, printed as a table, as JSON or by a template.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::table::LIST_STYLE;
use super::template::{FormatError, Template};

/// One object of a list: what each name in a template stands for.
#[derive(Debug, Default, Clone)]
pub(crate) struct Row {
    fields: BTreeMap<&'static str, Json>,
    labels: BTreeMap<String, String>,
}

impl Row {
    /// Adds a field.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Json>) -> Row {
        self.fields.insert(name, value.into());
        self
    }

    /// Adds the labels, as the field `Labels` and for `.Label "name"`.
    pub(crate) fn with_labels(mut self, labels: &BTreeMap<String, String>) -> Row {
        let pairs: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        self.labels = labels.clone();
        self.with("Labels", pairs.join(","))
    }

    fn json(&self) -> Json {
        Json::Object(
            self.fields
                .iter()
                .map(|(name, value)| (name.to_string(), value.clone()))
                .collect(),
        )
    }
}

/// How one kind of list is printed when nothing else is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style<'a> {
    /// The template of the table's rows.
    pub(crate) table: &'a str,
    /// The heading of each name.
    pub(crate) headings: &'a [(&'static str, &'a str)],
}

/// Prints a list by the format that the user gave: empty or "table", "table ...", "json", or a template.
pub(crate) fn print_rows(format: &str, style: Style<'_>, rows: &[Row]) -> Result<(), FormatError> {
    super::print(&rows_text(format, style, rows)?)?;
    Ok(())
}

fn rows_text(format: &str, style: Style<'_>, rows: &[Row]) -> Result<String, FormatError> {
    let format = format.trim();
    let (table, source) = match format.strip_prefix("table") {
        None if format.is_empty() => (true, style.table),
        None if format == "json" => (false, "{{json .}}"),
        None => (false, format),
        Some("") => (true, style.table),
        Some(rest) => (true, rest.trim()),
    };
    let source = source.replace("\\t", "\t").replace("\\n", "\n");
    let template = Template::parse(&source).map_err(|error| match error {
        FormatError::Parse(why) => FormatError::ParseList(why),
        other => other,
    })?;
    let mut out = String::new();
    if table {
        let mut heads = Row::default();
        for (name, heading) in style.headings {
            heads = heads.with(name, *heading);
        }
        out += &template.render_with(&heads.json(), Some(&label_headings(&source)))?;
        out.push('\n');
    }
    for row in rows {
        out += &template.render_with(&row.json(), Some(&row.labels))?;
        out.push('\n');
    }
    Ok(if table { LIST_STYLE.layout(&out) } else { out })
}

/// A column of `.Label "name"` is headed by the name.
fn label_headings(source: &str) -> BTreeMap<String, String> {
    source
        .split(".Label \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(|name| (name.to_string(), name.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_print_as_table_json_or_template() {
        let labels = BTreeMap::from([("k".to_string(), "v".to_string())]);
        let rows = [Row::default()
            .with("ID", "abc")
            .with("Name", "web")
            .with_labels(&labels)];
        let style = Style {
            table: "{{.ID}}\t{{.Name}}",
            headings: &[("ID", "ID"), ("Name", "NAME"), ("Labels", "LABELS")],
        };
        assert_eq!(
            rows_text("", style, &rows).unwrap(),
            "ID        NAME\nabc       web\n"
        );
        assert_eq!(
            rows_text("json", style, &rows).unwrap(),
            "{\"ID\":\"abc\",\"Labels\":\"k=v\",\"Name\":\"web\"}\n"
        );
        assert_eq!(
            rows_text("{{.Name}}={{.Label \"k\"}}{{.Label \"no\"}}", style, &rows).unwrap(),
            "web=v\n"
        );
        assert_eq!(
            rows_text("table {{.Name}}\\t{{.Labels}}", style, &rows).unwrap(),
            "NAME      LABELS\nweb       k=v\n"
        );
        let error = rows_text("{{.Foo}}", style, &rows).unwrap_err().to_string();
        assert!(
            error.contains("at <.Foo>: map has no entry for key \"Foo\""),
            "{error}"
        );
    }
}
