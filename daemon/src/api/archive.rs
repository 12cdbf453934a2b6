//! `/containers/ID/archive`, `/changes`, `/export`: files of containers.

use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{Params, ok};
use crate::App;
use crate::archive::container::{self, Place};
use crate::archive::extract::{Options, extract};
use crate::archive::pack::Packer;
use crate::archive::{changes, stream};
use crate::container::Record;
use crate::container::rootfs::Accounts;
use crate::error::{During, Error, Result};
use crate::images::BodyReader;
use crate::volumes::blocking;

/// The header that describes the path.
const STAT: &str = "x-docker-container-path-stat";

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/containers/{id}/archive", get(read).put(write))
        .route("/containers/{id}/changes", get(diff))
        .route("/containers/{id}/export", get(export))
}

/// HEAD tells what is there, GET also sends it.
async fn read(
    State(app): State<Arc<App>>,
    method: Method,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response> {
    let place = Place::open(&app, &id, params.text("path")).await?;
    let (place, stat) = blocking(move || {
        let stat = place.stat()?;
        Ok((place, stat))
    })
    .await?;
    if method == Method::HEAD {
        return Ok((StatusCode::OK, [(STAT, stat)]).into_response());
    }
    let body = stream::body(move |writer| {
        let mut packer = Packer::new(writer);
        let base = place.base();
        let (parent, name) = place.root.parent(&place.path).map_err(|e| place.error(e))?;
        if name.as_os_str().is_empty() {
            packer.tree(&parent, &base)?;
        } else {
            packer.entry(&parent, &name, &base)?;
        }
        packer.finish()?;
        Ok(())
    });
    let headers = [
        (
            header::CONTENT_TYPE.as_str(),
            "application/x-tar".to_owned(),
        ),
        (STAT, stat),
    ];
    Ok((StatusCode::OK, headers, body).into_response())
}

/// Extracts the body into a directory of the container.
async fn write(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    params: Params,
    body: Body,
) -> Result<Response> {
    let path = params.text("path");
    let place = Place::open(&app, &id, path).await?;
    if let Some(why) = place.read_only {
        return Err(Error::forbidden(why));
    }
    let record = app.containers.find(&id)?.record();
    let options = Options {
        keep_kind: params.flag("noOverwriteDirNonDir"),
        owner: match params.flag("copyUIDGID") {
            true => owner(&app, &record).await?,
            false => None,
        },
        ..Options::default()
    };
    let reader = BodyReader::new(body);
    blocking(move || {
        // A missing directory is told apart from a file in its place before anything is read.
        let mut whole = place.path.clone().into_os_string();
        whole.push("/");
        let target = FilePath::new(&whole);
        place.root.directory(target).map_err(|e| match e {
            rustix::io::Errno::NOTDIR => Error::internal("extraction point is not a directory"),
            other => place.error(other),
        })?;
        let mut source = std::io::BufReader::with_capacity(128 << 10, reader);
        let compression = sniff(&mut source)?;
        let content = compression
            .decoder(&mut source)
            .during(|| "read the archive")?;
        extract(&place.root, target, content, options)
    })
    .await?;
    Ok(StatusCode::OK.into_response())
}

fn sniff(source: &mut impl std::io::BufRead) -> Result<crate::images::Compression> {
    let start = source.fill_buf().during(|| "read the archive")?;
    crate::images::Compression::sniff(start)
}

/// The user that the container runs as; none if that is the default.
async fn owner(app: &App, record: &Record) -> Result<Option<(u32, u32)>> {
    if record.config.user.is_empty() {
        return Ok(None);
    }
    let root = container::root(app, record).await?;
    let text = record.config.user.clone();
    blocking(move || {
        let user = Accounts::below(&root)?.resolve(&text, &[])?;
        Ok(Some((user.uid, user.gid)))
    })
    .await
}

async fn diff(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response> {
    let record = app.containers.find(&id)?.record();
    let changes = changes::changes(&app, &record).await?;
    // No change at all is null, as Docker has it.
    Ok(ok(&Some(changes).filter(|list| !list.is_empty())))
}

/// The container's own files, without what is mounted into it.
async fn export(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response> {
    let record = app.containers.find(&id)?.record();
    let root = container::root(&app, &record).await?;
    let attributes = record.attributes();
    app.events
        .emit("container", "export", &record.id, attributes);
    let body = stream::body(move |writer| {
        let directory = root.directory(FilePath::new("/"))?;
        let mut packer = Packer::new(writer);
        packer.stay_on_mount(&directory)?;
        packer.tree(&directory, FilePath::new(""))?;
        packer.finish()?;
        Ok(())
    });
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((StatusCode::OK, kind, body).into_response())
}
