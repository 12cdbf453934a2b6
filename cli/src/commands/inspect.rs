//! `inspect`: what the daemon knows of an object, as it sends it.

use bytes::Bytes;

use super::Session;
use crate::client::{ClientError, Request, escape_path};
use crate::error::{Failure, Outcome};
use crate::format::{FormatError, Template, compact, indent, print, print_bytes};

#[derive(Debug, clap::Args)]
#[command(
    about = "Show all that the daemon knows of objects",
    override_usage = "[OPTIONS] NAME|ID [NAME|ID...]",
    before_help = "inspect"
)]
pub(crate) struct Args {
    /// Format of the output: 'json' or a Go template
    #[arg(long, short = 'f', value_name = "string", default_value = "")]
    format: String,
    /// Show sizes on disk if it is a container
    #[arg(long, short = 's')]
    size: bool,
    /// Only objects of this kind
    #[arg(long = "type", value_name = "string", default_value = "")]
    kind: String,
    #[arg(required = true, num_args = 1..)]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Show all that the daemon knows of containers",
    override_usage = "[OPTIONS] CONTAINER [CONTAINER...]",
    before_help = "container inspect"
)]
pub(crate) struct ContainerArgs {
    /// Format of the output: 'json' or a Go template
    #[arg(long, short = 'f', value_name = "string", default_value = "")]
    format: String,
    /// Show sizes on disk
    #[arg(long, short = 's')]
    size: bool,
    #[arg(required = true, num_args = 1..)]
    names: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    about = "Show all that the daemon knows of images",
    override_usage = "[OPTIONS] IMAGE [IMAGE...]",
    before_help = "image inspect"
)]
pub(crate) struct ImageArgs {
    /// Format of the output: 'json' or a Go template
    #[arg(long, short = 'f', value_name = "string", default_value = "")]
    format: String,
    #[arg(required = true, num_args = 1..)]
    names: Vec<String>,
}

/// The kinds of objects, in the order in which a name is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Container { size: bool },
    Image,
    Network { verbose: bool },
    Volume,
}

impl Kind {
    fn request<'a>(self, session: &'a Session, name: &str) -> Request<'a> {
        let name = escape_path(name);
        let get = |path: String| session.client.get(&path);
        match self {
            Kind::Container { size } => {
                get(format!("/containers/{name}/json")).query_if("size", size)
            }
            Kind::Image => get(format!("/images/{name}/json")),
            Kind::Network { verbose } => {
                get(format!("/networks/{name}")).query_if("verbose", verbose)
            }
            Kind::Volume => get(format!("/volumes/{name}")),
        }
    }
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    let all = [
        Kind::Container { size: args.size },
        Kind::Image,
        Kind::Network { verbose: false },
        Kind::Volume,
    ];
    let kinds = match args.kind.as_str() {
        "" => &all[..],
        "container" => &all[..1],
        "image" => &all[1..2],
        "network" => &all[2..3],
        "volume" => &all[3..],
        "config" | "node" | "plugin" | "secret" | "service" | "task" => {
            return Err(Failure::new(format!(
                "objects of the type {:?} are not supported",
                args.kind
            )));
        }
        other => {
            return Err(Failure::new(format!(
                "unknown type: {other:?}: must be one of \"config\", \"container\", \"image\", \"network\", \
                 \"node\", \"plugin\", \"secret\", \"service\", \"task\", \"volume\""
            )));
        }
    };
    show(&args.names, &args.format, async |name| {
        for kind in kinds {
            match kind.request(session, name).bytes().await {
                Err(error) if error.is_not_found() && kinds.len() > 1 => {}
                other => return other.map_err(|error| error.to_string()),
            }
        }
        Err(format!("Error: No such object: {name}"))
    })
    .await
}

pub(crate) async fn container(session: &Session, args: ContainerArgs) -> Outcome {
    of_kind(
        session,
        Kind::Container { size: args.size },
        &args.names,
        &args.format,
    )
    .await
}

pub(crate) async fn image(session: &Session, args: ImageArgs) -> Outcome {
    of_kind(session, Kind::Image, &args.names, &args.format).await
}

/// Shows objects of one kind; what is missing is told in the daemon's words.
pub(crate) async fn of_kind(
    session: &Session,
    kind: Kind,
    names: &[String],
    format: &str,
) -> Outcome {
    show(names, format, async |name| {
        kind.request(session, name)
            .bytes()
            .await
            .map_err(|error: ClientError| error.to_string())
    })
    .await
}

/// Fetches each object and prints what was found, then tells what was not.
async fn show<F>(names: &[String], format: &str, fetch: F) -> Outcome
where
    F: AsyncFn(&str) -> Result<Bytes, String>,
{
    let template = match format {
        "" | "json" => None,
        source => Some(Template::parse(source)?),
    };
    let (mut found, mut failures, mut lines) = (Vec::new(), Vec::new(), String::new());
    for name in names {
        match (fetch(name).await, &template) {
            (Err(failure), _) => failures.push(failure),
            (Ok(object), None) => found.push(object),
            (Ok(object), Some(template)) => {
                let value = serde_json::from_slice(&object).map_err(|cause| {
                    Failure::new(format!("decode what the daemon says of {name}: {cause}"))
                })?;
                match template.render(&value) {
                    Ok(line) => lines += &(line + "\n"),
                    Err(error @ FormatError::Parse(_)) => return Err(error.into()),
                    Err(error) => failures.push(
                        error
                            .to_string()
                            .replace("failed to execute template", "template parsing error"),
                    ),
                }
            }
        }
    }
    if template.is_some() {
        print(if lines.is_empty() { "\n" } else { &lines })?;
    } else {
        print_bytes(&list(&found, format == "json"))?;
    }
    super::all_told(&failures)
}

/// A JSON array of objects as they came.
fn list(objects: &[Bytes], on_one_line: bool) -> Vec<u8> {
    let mut all = b"[".to_vec();
    for (at, object) in objects.iter().enumerate() {
        if at > 0 {
            all.push(b',');
        }
        all.extend_from_slice(object.trim_ascii());
    }
    all.push(b']');
    let mut out = if on_one_line {
        compact(&all)
    } else {
        indent(&all, "")
    };
    out.push(b'\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_listed_as_they_came() {
        let objects = [Bytes::from_static(b"{\"b\":1,\"a\":[]}\n")];
        assert_eq!(
            list(&objects, false),
            b"[\n    {\n        \"b\": 1,\n        \"a\": []\n    }\n]\n"
        );
        assert_eq!(list(&[], false), b"[]\n");
        assert_eq!(list(&objects, true), b"[{\"b\":1,\"a\":[]}]\n");
    }
}
