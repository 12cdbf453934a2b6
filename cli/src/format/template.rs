//! `--format`: Go templates over JSON values.
//!
//! The template engine knows maps sorted by key; the daemon's JSON has an order of its own, which
//! `{{json .State}}` must keep. So each map and list handed to the engine is remembered by its
//! address together with its JSON text, and the function `json` looks there first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use gotmpl::TemplateError;
use gotmpl::{MissingKey, Value};
use serde_json::Value as Json;

/// Key under which a row keeps its labels for `.Label "name"`; no template can spell it.
const LABELS: &str = " labels";

/// Why a template could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("template parsing error: {0}")]
    Parse(String),
    #[error("failed to parse template: {0}")]
    ParseList(String),
    #[error("failed to execute template: {0}")]
    Execute(String),
    #[error("write the output: {0}")]
    Write(#[from] std::io::Error),
}

/// JSON texts of the values in use, by the address of the value.
type Originals = Arc<Mutex<HashMap<usize, String>>>;

/// A parsed template.
pub(crate) struct Template {
    inner: gotmpl::Template,
    source: String,
    originals: Originals,
}

impl std::fmt::Debug for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Template({:?})", self.source)
    }
}

impl Template {
    pub(crate) fn parse(source: &str) -> Result<Template, FormatError> {
        let originals = Originals::default();
        let for_json = Arc::clone(&originals);
        let inner = gotmpl::Template::new("")
            .missing_key(MissingKey::Error)
            .func("json", move |args| {
                Ok(Value::String(to_json(args.first(), &for_json).into()))
            })
            .func("label", label)
            .func("upper", |args| {
                Ok(text(args, 0).to_uppercase().as_str().into_value())
            })
            .func("lower", |args| {
                Ok(text(args, 0).to_lowercase().as_str().into_value())
            })
            .func("title", |args| {
                Ok(title(&text(args, 0)).as_str().into_value())
            })
            .func("split", |args| {
                let (whole, joint) = (text(args, 0), text(args, 1));
                let parts: Vec<Value> = whole.split(&joint).map(IntoValue::into_value).collect();
                Ok(Value::List(parts.into()))
            })
            .func("join", |args| match args.first() {
                Some(Value::List(parts)) => {
                    let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
                    Ok(parts.join(&text(args, 1)).as_str().into_value())
                }
                Some(Value::Nil) | None => Ok("".into_value()),
                Some(_) => Err(TemplateError::TypeMismatch {
                    expected: "list",
                    got: "other",
                }),
            })
            .func("pad", |args| {
                let count = |at: usize| {
                    args.get(at)
                        .and_then(Value::as_int)
                        .and_then(|n| usize::try_from(n).ok())
                };
                let (before, after) = (count(1).unwrap_or(0), count(2).unwrap_or(0));
                let whole = text(args, 0);
                Ok(match whole.is_empty() {
                    true => "".into_value(),
                    false => format!("{:before$}{whole}{:after$}", "", "")
                        .as_str()
                        .into_value(),
                })
            })
            .func("truncate", |args| {
                let most = args
                    .get(1)
                    .and_then(Value::as_int)
                    .and_then(|n| usize::try_from(n).ok());
                let whole = text(args, 0);
                Ok(whole
                    .chars()
                    .take(most.unwrap_or(usize::MAX))
                    .collect::<String>()
                    .as_str()
                    .into_value())
            })
            .parse(&with_label_calls(source))
            .map_err(|error| FormatError::Parse(parse_words(&error)))?;
        Ok(Template {
            inner,
            source: source.to_string(),
            originals,
        })
    }

    /// Fills the template in with a JSON value.
    pub(crate) fn render(&self, value: &Json) -> Result<String, FormatError> {
        self.render_with(value, None)
    }

    pub(super) fn render_with(
        &self,
        value: &Json,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Result<String, FormatError> {
        let mut originals = HashMap::new();
        let data = match (to_value(value, &mut originals), labels) {
            (Value::Map(map), Some(labels)) => {
                let mut with_labels = (*map).clone();
                let pairs = labels
                    .iter()
                    .map(|(key, value)| (key.as_str().into(), value.as_str().into_value()));
                with_labels.insert(LABELS.into(), Value::Map(Arc::new(pairs.collect())));
                let with_labels = Arc::new(with_labels);
                originals.insert(
                    Arc::as_ptr(&with_labels).addr(),
                    html_safe(&value.to_string()),
                );
                Value::Map(with_labels)
            }
            (data, _) => data,
        };
        *self
            .originals
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = originals;
        self.inner
            .execute_to_string(&data)
            .map_err(|error| match &error {
                TemplateError::UndefinedFunction(name) => {
                    FormatError::Parse(format!("template: :1: function {name:?} not defined"))
                }
                _ => FormatError::Execute(self.execute_words(&error)),
            })
    }

    /// An error of execution in Go's words, as far as they can be told.
    fn execute_words(&self, error: &TemplateError) -> String {
        let TemplateError::MissingKey { key } = error else {
            return format!("template: :1: {error}");
        };
        let field = format!(".{key}");
        let column = self.source.find(&field).unwrap_or(0);
        format!(
            "template: :1:{column}: executing \"\" at <{field}>: map has no entry for key {key:?}"
        )
    }
}

/// Go writes the signs of HTML in strings as escapes when an object spells itself, as rows do.
fn html_safe(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

fn parse_words(error: &TemplateError) -> String {
    match error {
        TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => {
            match message.strip_prefix("undefined function: ") {
                Some(name) => format!("template: :{line}: function {name:?} not defined"),
                None => format!("template: :{line}: {message}"),
            }
        }
        other => other.to_string(),
    }
}

/// Turns the method call `.Label "name"` into a function call, the only form that the engine has.
fn with_label_calls(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find(".Label ") {
        let before = rest[..at].chars().next_back();
        out += &rest[..at];
        if before.is_none_or(|c| " {(|-".contains(c)) {
            out += "label $ ";
        } else {
            out += ".Label ";
        }
        rest = &rest[at + ".Label ".len()..];
    }
    out + rest
}

fn label(args: &[Value]) -> gotmpl::Result<Value> {
    let found = match args.first() {
        Some(Value::Map(row)) => match row.get(LABELS) {
            Some(Value::Map(labels)) => labels.get(text(args, 1).as_str()).cloned(),
            _ => None,
        },
        _ => None,
    };
    Ok(found.unwrap_or_else(|| "".into_value()))
}

/// A short way from text to a template value.
trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for &str {
    fn into_value(self) -> Value {
        Value::String(self.into())
    }
}

fn text(args: &[Value], at: usize) -> String {
    args.get(at).map(ToString::to_string).unwrap_or_default()
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut first = true;
    for letter in text.chars() {
        if first {
            out.extend(letter.to_uppercase());
        } else {
            out.push(letter);
        }
        first = !letter.is_alphanumeric();
    }
    out
}

fn to_value(json: &Json, originals: &mut HashMap<usize, String>) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(yes) => Value::Bool(*yes),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::Uint(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => text.as_str().into_value(),
        Json::Array(items) => {
            let items: Arc<[Value]> = items.iter().map(|item| to_value(item, originals)).collect();
            originals.insert(Arc::as_ptr(&items).cast::<u8>().addr(), json.to_string());
            Value::List(items)
        }
        Json::Object(fields) => {
            let mut map: BTreeMap<Arc<str>, Value> = fields
                .iter()
                .map(|(key, value)| {
                    let value = match value {
                        Json::Null => unset(key, originals),
                        value => to_value(value, originals),
                    };
                    (key.as_str().into(), value)
                })
                .collect();
            // Docker's templates run over structs, where the field that is sent as Id is called ID.
            for (sent, called) in [("Id", "ID"), ("ApiVersion", "APIVersion")] {
                if let (Some(value), None) = (map.get(sent).cloned(), map.get(called)) {
                    map.insert(called.into(), value);
                }
            }
            let map = Arc::new(map);
            originals.insert(Arc::as_ptr(&map).addr(), json.to_string());
            Value::Map(map)
        }
    }
}

/// The fields that Docker's structs hold as lists and maps: unset ones are empty, not nothing.
const LISTS: [&str; 26] = [
    "Aliases",
    "Args",
    "Binds",
    "BlkioDeviceReadBps",
    "BlkioWeightDevice",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "Devices",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "Mounts",
    "OnBuild",
    "SecurityOpt",
    "Ulimits",
    "VolumesFrom",
];
const MAPS: [&str; 6] = [
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Options",
    "Ports",
    "Volumes",
];

/// What an unset field is to a template.
fn unset(key: &str, originals: &mut HashMap<usize, String>) -> Value {
    if LISTS.contains(&key) {
        let empty: Arc<[Value]> = Arc::from(Vec::new());
        originals.insert(Arc::as_ptr(&empty).cast::<u8>().addr(), "null".to_string());
        return Value::List(empty);
    }
    if MAPS.contains(&key) {
        let empty = Arc::new(BTreeMap::new());
        originals.insert(Arc::as_ptr(&empty).addr(), "null".to_string());
        return Value::Map(empty);
    }
    Value::Nil
}

fn to_json(value: Option<&Value>, originals: &Originals) -> String {
    let known = |address: usize| {
        let originals = originals.lock().unwrap_or_else(PoisonError::into_inner);
        originals.get(&address).cloned()
    };
    match value {
        None | Some(Value::Nil) => "null".to_string(),
        Some(Value::Bool(yes)) => yes.to_string(),
        Some(Value::Int(number)) => number.to_string(),
        Some(Value::Uint(number)) => number.to_string(),
        Some(Value::Float(number)) => Json::from(*number).to_string(),
        Some(Value::String(text)) => Json::from(text.as_ref()).to_string(),
        Some(Value::List(items)) => {
            known(Arc::as_ptr(items).cast::<u8>().addr()).unwrap_or_else(|| {
                let items: Vec<String> = items
                    .iter()
                    .map(|item| to_json(Some(item), originals))
                    .collect();
                format!("[{}]", items.join(","))
            })
        }
        Some(Value::Map(map)) => known(Arc::as_ptr(map).addr()).unwrap_or_else(|| {
            let fields: Vec<String> = map
                .iter()
                .map(|(key, value)| {
                    format!(
                        "{}:{}",
                        Json::from(key.as_ref()),
                        to_json(Some(value), originals)
                    )
                })
                .collect();
            format!("{{{}}}", fields.join(","))
        }),
        Some(Value::Function(_)) => "null".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(source: &str, value: &Json) -> String {
        Template::parse(source).unwrap().render(value).unwrap()
    }

    #[test]
    fn json_keeps_the_order_of_what_came() {
        let value = json!({"State": {"Status": "up", "A": [2, 1], "Z": null}, "Id": "x", "Mounts": [{"b": 1, "a": 2}]});
        assert_eq!(
            render("{{json .State}}", &value),
            r#"{"Status":"up","A":[2,1],"Z":null}"#
        );
        assert_eq!(
            render("{{range .Mounts}}{{json .}}{{end}}", &value),
            r#"{"b":1,"a":2}"#
        );
        assert_eq!(
            render("{{.ID}} {{.State.A}} {{index .State.A 0}}", &value),
            "x [2 1] 2"
        );
    }

    #[test]
    fn functions_are_dockers() {
        let value = json!({"N": "one two", "L": ["a", "b"]});
        assert_eq!(
            render(
                r#"{{join .L ","}}|{{upper .N}}|{{title .N}}|{{pad .N 1 2}}|{{truncate .N 3}}"#,
                &value
            ),
            "a,b|ONE TWO|One Two| one two  |one"
        );
        assert_eq!(render(r#"{{index (split .N " ") 1}}"#, &value), "two");
    }
}
