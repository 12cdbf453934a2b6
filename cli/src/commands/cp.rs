//! `cp`: files between a container and here, or a tar on standard input or output.
//!
//! The rules about the destination are those of `cp -a`: an existing folder takes the source in, a
//! name that does not exist becomes the source's new name, `/.` at the end of the source means its
//! contents.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use proto::engine::ContainerPathStat;

use super::{Session, container_path};
use crate::archive::{self, ChannelReader, Target, plain, upload_file, upload_tree};
use crate::client::ClientError;
use crate::error::{Failure, Outcome};
use crate::format::{bytes_1000_precise, print_bytes};
use crate::terminal;

#[derive(Debug, clap::Args)]
#[command(
    about = "Copy files between a container and this machine",
    override_usage = "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    before_help = "container cp, cp"
)]
pub(crate) struct Args {
    /// Keep owner and group
    #[arg(long, short = 'a')]
    archive: bool,
    /// Copy what a link in SRC_PATH points at
    #[arg(long, short = 'L')]
    follow_link: bool,
    /// Don't tell what was copied
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(required = true, num_args = 2)]
    paths: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> Outcome {
    match (split(&args.paths[0]), split(&args.paths[1])) {
        ((Some(_), _), (Some(_), _)) => {
            Err(Failure::new("copying between containers is not supported"))
        }
        ((Some(container), source), (None, target)) => {
            out(session, &args, container, source, target).await
        }
        ((None, source), (Some(container), target)) => {
            into(session, &args, container, source, target).await
        }
        ((None, _), (None, _)) => Err(Failure::new("must specify at least one container source")),
    }
}

/// `container:path`; a local path has no colon, or starts with a slash or a dot.
fn split(text: &str) -> (Option<&str>, &str) {
    match text.split_once(':') {
        Some((container, path)) if !text.starts_with(['/', '.']) && !container.is_empty() => {
            (Some(container), path)
        }
        _ => (None, text),
    }
}

/// The bits of a mode as Go writes them.
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;

/// Asks about a path in a container. None: there is nothing.
async fn stat(
    session: &Session,
    container: &str,
    path: &str,
) -> Result<Option<ContainerPathStat>, Failure> {
    let answer = session
        .client
        .request(hyper::Method::HEAD, &container_path(container, "/archive"))
        .query("path", path)
        .send_unchecked()
        .await?;
    match answer.status() {
        404 => Ok(None),
        status if status >= 400 => {
            // A HEAD has no room for a reason; the same question by GET has.
            session
                .client
                .get(&container_path(container, "/archive"))
                .query("path", path)
                .send()
                .await?;
            Err(Failure::new(format!(
                "the daemon answered {status} about {container}:{path}"
            )))
        }
        _ => decode_stat(answer.header("X-Docker-Container-Path-Stat")).map(Some),
    }
}

fn decode_stat(header: Option<String>) -> Result<ContainerPathStat, Failure> {
    let wrong = |cause: &dyn std::fmt::Display| {
        Failure::new(format!(
            "unable to get container path stat information from the answer: {cause}"
        ))
    };
    let text = header.ok_or_else(|| wrong(&"no such header"))?;
    let json = base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_err(|cause| wrong(&cause))?;
    serde_json::from_slice(&json).map_err(|cause| wrong(&cause))
}

/// A link's destination, seen from the link.
fn resolve(path: &str, link: &str) -> String {
    if link.starts_with('/') {
        return link.to_string();
    }
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    parent.join(link).to_string_lossy().into_owned()
}

/// The last part of a path; a path that ends in `/.` is about contents and has none.
fn base(path: &str) -> Option<&str> {
    if path.ends_with("/.") || path == "." || path == "/" {
        return None;
    }
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .filter(|name| !name.is_empty() && *name != "..")
}

/// From a container to here.
async fn out(
    session: &Session,
    args: &Args,
    container: &str,
    source: &str,
    target: &str,
) -> Outcome {
    let mut source = source.to_string();
    if args.follow_link
        && let Some(found) = stat(session, container, &source).await?
        && found.mode & SYMLINK != 0
    {
        source = resolve(&source, &found.link_target);
    }
    let mut answer = session
        .client
        .get(&container_path(container, "/archive"))
        .query("path", &source)
        .send()
        .await?;
    if target == "-" {
        while let Some(piece) = answer.piece().await? {
            print_bytes(&piece)?;
        }
        return Ok(0);
    }
    let found = decode_stat(answer.header("X-Docker-Container-Path-Stat"))?;
    let place = local_place(&source, found.mode & DIRECTORY != 0, target, args.archive)?;
    let (sender, reader) = ChannelReader::new();
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut reader = reader;
        let done = archive::unpack(&mut reader, &place);
        if done.is_ok() {
            // What follows the end of the archive is read and dropped, so that the daemon can finish.
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
        }
        done
    });
    while let Some(piece) = answer.piece().await? {
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    let copied = unpacking
        .await
        .map_err(|error| Failure::new(format!("unpack to {target}: {error}")))?
        .map_err(|cause| Failure::new(format!("unpack to {target}: {}", plain(&cause))))?;
    report(args, copied, target);
    Ok(0)
}

/// Where a source goes on the local side.
fn local_place(
    source: &str,
    is_dir: bool,
    target: &str,
    keep_owner: bool,
) -> Result<Target, Failure> {
    let path = PathBuf::from(target);
    let place = |dir: PathBuf, name: &str| {
        Ok(Target {
            dir,
            name: name.to_string(),
            keep_owner,
        })
    };
    let contents = base(source).is_none();
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => match base(source) {
            Some(name) => place(path, name),
            // The daemon roots such an archive at the folder's own name or at a dot; both are dropped.
            None => place(
                path,
                if source.ends_with("/.") || source == "." {
                    "."
                } else {
                    ""
                },
            ),
        },
        Ok(_) if is_dir => Err(Failure::new("cannot copy directory")),
        Ok(_) | Err(_) => {
            let missing = !path.exists();
            if missing && target.ends_with('/') && !is_dir {
                return Err(Failure::new("no such directory"));
            }
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            if !parent.is_dir() {
                return Err(Failure::new(format!(
                    "invalid output path: directory {:?} does not exist",
                    std::path::absolute(parent)
                        .unwrap_or_default()
                        .display()
                        .to_string()
                )));
            }
            let name = base(target)
                .ok_or_else(|| Failure::new(format!("invalid output path {target:?}")))?;
            if contents {
                std::fs::create_dir_all(&path)?;
                return place(path, ".");
            }
            place(parent.to_path_buf(), name)
        }
    }
}

/// From here into a container.
async fn into(
    session: &Session,
    args: &Args,
    container: &str,
    source: &str,
    target: &str,
) -> Outcome {
    let mut target = target.to_string();
    let mut found = stat(session, container, &target).await?;
    if let Some(link) = found.as_ref().filter(|found| found.mode & SYMLINK != 0) {
        target = resolve(&target, &link.link_target);
        found = stat(session, container, &target).await?;
    }
    let target_is_dir = found
        .as_ref()
        .is_some_and(|found| found.mode & DIRECTORY != 0);
    let (dir, pieces, size) = if source == "-" {
        if !target_is_dir {
            return Err(Failure::new(format!(
                "destination \"{container}:{target}\" must be a directory"
            )));
        }
        (target.clone(), upload_file("")?, 0)
    } else {
        let (dir, name) = remote_place(
            source,
            args.follow_link,
            found.is_some(),
            target_is_dir,
            &target,
        )?;
        let path = match args.follow_link {
            true => std::fs::canonicalize(source).map_err(|cause| local_error(source, &cause))?,
            false => PathBuf::from(source),
        };
        let size = tree_size(&path);
        (dir, upload_tree(path, name), size)
    };
    let sent = session
        .client
        .request(hyper::Method::PUT, &container_path(container, "/archive"))
        .query("path", &dir)
        .query("noOverwriteDirNonDir", "true")
        .query_some("copyUIDGID", if args.archive { "true" } else { "" })
        .upload("application/x-tar", pieces)
        .done()
        .await;
    if let Err(ClientError::Refused {
        status: 404,
        message,
    }) = &sent
        && source != "-"
        && found.is_none()
        && !message.contains("No such container")
    {
        return Err(Failure::new(format!(
            "Error response from daemon: {message}"
        )));
    }
    sent?;
    report(args, size, &format!("{container}:{target}"));
    Ok(0)
}

fn local_error(path: &str, cause: &std::io::Error) -> Failure {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    Failure::new(format!("lstat {}: {}", path.display(), plain(cause)))
}

/// The folder in the container, and the name that the source gets there (empty: its contents).
fn remote_place(
    source: &str,
    follow_link: bool,
    exists: bool,
    target_is_dir: bool,
    target: &str,
) -> Result<(String, String), Failure> {
    let meta = if follow_link {
        std::fs::metadata(source)
    } else {
        std::fs::symlink_metadata(source)
    };
    let meta = meta.map_err(|cause| local_error(source, &cause))?;
    let contents = meta.is_dir() && base(source).is_none();
    if exists && target_is_dir {
        let name = match base(source) {
            _ if contents => String::new(),
            Some(name) => name.to_string(),
            None => return Err(Failure::new(format!("invalid source path {source:?}"))),
        };
        return Ok((target.to_string(), name));
    }
    if exists && meta.is_dir() {
        return Err(Failure::new("cannot copy directory"));
    }
    if target.ends_with('/') && !meta.is_dir() {
        return Err(Failure::new("no such directory"));
    }
    let clean = target.trim_end_matches('/');
    let (dir, name) = clean.rsplit_once('/').unwrap_or(("", clean));
    let dir = if dir.is_empty() { "/" } else { dir };
    Ok((dir.to_string(), name.to_string()))
}

fn tree_size(path: &Path) -> u64 {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return 0;
    };
    if !meta.is_dir() {
        return meta.len();
    }
    std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| tree_size(&entry.path()))
        .sum()
}

fn report(args: &Args, bytes: u64, target: &str) {
    if !args.quiet && terminal::stdout_is_terminal() {
        crate::format::tell(&format!(
            "Successfully copied {} to {target}\n",
            bytes_1000_precise(bytes as f64, 3)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_container_or_not() {
        assert_eq!(split("web:/x"), (Some("web"), "/x"));
        assert_eq!(split("./a:b"), (None, "./a:b"));
        assert_eq!(split("-"), (None, "-"));
        assert_eq!(base("/a/b/"), Some("b"));
        assert_eq!(base("/a/."), None);
        assert_eq!(resolve("/a/l", "b"), "/a/b");
    }

    #[test]
    fn the_destination_follows_the_rules_of_cp() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().to_str().unwrap();
        std::fs::write(dir.path().join("f"), "x").unwrap();
        let into_dir = local_place("/etc/passwd", false, here, false).unwrap();
        assert_eq!(
            (into_dir.dir.as_path(), into_dir.name.as_str()),
            (dir.path(), "passwd")
        );
        let renamed = local_place("/etc/passwd", false, &format!("{here}/new"), false).unwrap();
        assert_eq!(renamed.name, "new");
        assert!(local_place("/etc", true, &format!("{here}/f"), false).is_err());
        assert!(local_place("/etc/passwd", false, &format!("{here}/no/"), false).is_err());
        assert!(local_place("/etc/passwd", false, &format!("{here}/no/x"), false).is_err());
        let source = format!("{here}/f");
        assert_eq!(
            remote_place(&source, false, true, true, "/tmp").unwrap(),
            ("/tmp".into(), "f".into())
        );
        assert_eq!(
            remote_place(&source, false, false, false, "/tmp/g").unwrap(),
            ("/tmp".into(), "g".into())
        );
        assert_eq!(
            remote_place(here, false, false, false, "/d/").unwrap().1,
            "d"
        );
        assert_eq!(
            remote_place(&format!("{here}/."), false, true, true, "/d")
                .unwrap()
                .1,
            ""
        );
        assert!(remote_place(here, false, true, false, "/etc/passwd").is_err());
    }
}
