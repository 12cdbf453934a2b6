//! `/images`: names hold slashes, so one route takes the whole rest of the path and splits it from its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use proto::engine::{AuthConfig, Config, IdResponse, ImageConfig, ImageSummary};

use super::{Json, Params, Version, json, ok};
use crate::App;
use crate::archive::container;
use crate::container::{Command, Handle};
use crate::error::{Error, Result};
use crate::images::manifest::Platform;
use crate::images::progress::{self, Progress};
use crate::images::reference::{Reference, ReferenceError, is_digest, is_tag};
use crate::images::{CommitOptions, CommitSource, ImportOptions, User, list};

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/images/json", get(list_all))
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        .route("/images/get", get(save))
        .route("/images/prune", post(prune))
        .route("/commit", post(commit))
        .route("/images/{*rest}", get(read).post(write).delete(remove))
}

/// Splits `NAME/VERB` and takes off the slashes that some clients double.
fn split(rest: &str) -> Result<(&str, &str)> {
    rest.rsplit_once('/')
        .map(|(name, verb)| (name.trim_matches('/'), verb))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| Error::not_found("page not found"))
}

async fn list_all(
    State(app): State<Arc<App>>,
    version: Version,
    params: Params,
) -> Result<Response> {
    let mut filters = params.filters(&list::FILTERS)?;
    if version < Version(25) && !params.text("filter").is_empty() {
        let pattern = params.text("filter").to_owned();
        filters
            .0
            .entry("reference".into())
            .or_default()
            .insert(pattern);
    }
    let mut images = app.images.list(&filters).await?;
    for image in &mut images {
        old_shape(version, image);
    }
    Ok(ok(&images))
}

/// What clients of old expect.
fn old_shape(version: Version, image: &mut ImageSummary) {
    if version < Version(43) && image.repo_tags.is_empty() && image.repo_digests.is_empty() {
        image.repo_tags = vec!["<none>:<none>".into()];
        image.repo_digests = vec!["<none>@<none>".into()];
    }
    if version < Version(44) {
        image.virtual_size = Some(image.size);
    }
}

async fn read(
    State(app): State<Arc<App>>,
    version: Version,
    Path(rest): Path<String>,
) -> Result<Response> {
    let (name, verb) = split(&rest)?;
    match verb {
        "json" => {
            let mut image = app.images.inspect(name).await?;
            if version < Version(44) {
                image.virtual_size = Some(image.size);
            }
            Ok(ok(&image))
        }
        "history" => Ok(ok(&app.images.history(name).await?)),
        "get" => saved(app.images.save(&[name]).await?),
        _ => Err(Error::not_found("page not found")),
    }
}

async fn write(
    State(app): State<Arc<App>>,
    Path(rest): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    let (name, verb) = split(&rest)?;
    match verb {
        "tag" => {
            let (id, name) = app
                .images
                .tag(name, params.text("repo"), params.text("tag"))
                .await?;
            emit(&app, "tag", &id, &name);
            Ok(StatusCode::CREATED.into_response())
        }
        "push" => push(app, name, params.text("tag"), &headers).await,
        _ => Err(Error::not_found("page not found")),
    }
}

async fn remove(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response> {
    let name = name.trim_matches('/');
    let items = app
        .images
        .remove(name, params.flag("force"), |id| users(&app, id))
        .await?;
    for item in &items {
        if !item.untagged.is_empty() {
            emit(&app, "untag", &item.untagged, &item.untagged);
        }
        if !item.deleted.is_empty() {
            emit(&app, "delete", &item.deleted, &item.deleted);
        }
    }
    Ok(ok(&items))
}

async fn prune(State(app): State<Arc<App>>, params: Params) -> Result<Response> {
    let filters = params.filters(&["dangling", "label", "label!", "until"])?;
    let pruned = app.images.prune(&filters, |id| users(&app, id)).await?;
    emit(&app, "prune", "", "");
    Ok(ok(&pruned))
}

/// Pull (`fromImage`) or import (`fromSrc`).
async fn create(
    State(app): State<Arc<App>>,
    params: Params,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    match (params.text("fromImage"), params.text("fromSrc")) {
        ("", "-") => Ok(import(app, &params, body).await),
        ("", "") => Err(Error::invalid("neither fromImage nor fromSrc is given")),
        ("", _) => Err(Error::unimplemented(
            "importing from an address is not supported yet",
        )),
        _ => pull(app, &params, &headers).await,
    }
}

async fn pull(app: Arc<App>, params: &Params, headers: &HeaderMap) -> Result<Response> {
    let reference = pulled(params.text("fromImage"), params.text("tag"))?;
    let platform = match params.text("platform") {
        "" => Platform::host(),
        text => Platform::parse(text)?,
    };
    let credentials = super::request::credentials(headers)?;
    let work = |progress: Progress| async move {
        let registries = app.images.registries();
        for reference in meant(&app, reference, &credentials).await? {
            let images = app.images.clone();
            let pull = registries.pull(images, &reference, &platform, &credentials, &progress);
            pull.await?;
            let shown = reference.familiar();
            emit(&app, "pull", &shown, &reference.familiar_repository());
        }
        Ok(())
    };
    Ok(progress::answer(true, work).await)
}

async fn push(app: Arc<App>, name: &str, tag: &str, headers: &HeaderMap) -> Result<Response> {
    let mut reference = Reference::parse(name).map_err(|e| Error::invalid(e.to_string()))?;
    if reference.digest.is_some() {
        return Err(Error::invalid("cannot push a digest reference"));
    }
    if !tag.is_empty() {
        if !is_tag(tag) {
            return Err(Error::invalid("invalid tag format"));
        }
        reference.tag = Some(tag.to_owned());
    }
    if !headers.contains_key("x-registry-auth") {
        return Err(Error::invalid("missing X-Registry-Auth: EOF"));
    }
    let credentials = super::request::credentials(headers)?;
    let work = |progress: Progress| async move {
        let images = app.images.clone();
        images
            .registries()
            .push(images.clone(), &reference, &credentials, &progress)
            .await?;
        emit(
            &app,
            "push",
            &reference.familiar(),
            &reference.familiar_repository(),
        );
        Ok(())
    };
    Ok(progress::answer(true, work).await)
}

/// The reference that `fromImage=` and `tag=` mean together; the tag may be a digest.
fn pulled(image: &str, tag: &str) -> Result<Reference> {
    let invalid = |e: ReferenceError| Error::invalid(e.to_string());
    let mut reference = Reference::parse(image).map_err(invalid)?;
    if is_digest(tag) {
        reference.digest = Some(tag.to_owned());
    } else if !tag.is_empty() {
        if !is_tag(tag) {
            return Err(Error::invalid("invalid tag format"));
        }
        reference.tag = Some(tag.to_owned());
    }
    Ok(reference)
}

/// One reference; or one for each tag that its repository has, where it names neither tag nor digest.
async fn meant(
    app: &App,
    reference: Reference,
    credentials: &AuthConfig,
) -> Result<Vec<Reference>> {
    if reference.tag.is_some() || reference.digest.is_some() {
        return Ok(vec![reference]);
    }
    let tags = app
        .images
        .registries()
        .tags(&reference, credentials)
        .await?;
    if tags.is_empty() {
        let shown = reference.familiar_repository();
        return Err(Error::not_found(format!("repository {shown} has no tags")));
    }
    let one = |tag| Reference {
        tag: Some(tag),
        ..reference.clone()
    };
    Ok(tags.into_iter().map(one).collect())
}

async fn load(State(app): State<Arc<App>>, body: Body) -> Response {
    progress::answer(true, |progress: Progress| async move {
        for (id, name) in app.images.load(body, &progress).await? {
            emit(&app, "load", &id, name.as_deref().unwrap_or(&id));
        }
        Ok(())
    })
    .await
}

async fn save(State(app): State<Arc<App>>, params: Params) -> Result<Response> {
    // Several names in one value, or several values.
    let names: Vec<&str> = params.every("names");
    let names: Vec<&str> = names
        .iter()
        .flat_map(|text| text.split(','))
        .filter(|name| !name.is_empty())
        .collect();
    saved(app.images.save(&names).await?)
}

fn saved(body: Body) -> Result<Response> {
    let kind = [(header::CONTENT_TYPE, "application/x-tar")];
    Ok((StatusCode::OK, kind, body).into_response())
}

async fn commit(
    State(app): State<Arc<App>>,
    params: Params,
    Json(wanted): Json<Option<Config>>,
) -> Result<Response> {
    let options = CommitOptions {
        repository: params.text("repo").to_owned(),
        tag: params.text("tag").to_owned(),
        author: params.text("author").to_owned(),
        comment: params.text("comment").to_owned(),
        changes: params
            .every("changes")
            .into_iter()
            .map(str::to_owned)
            .collect(),
    };
    let handle = app.containers.find(params.text("container"))?;
    let record = handle.record();
    let running = record.state.running();
    // Without a cgroup there is nothing to pause it by; what it writes meanwhile is as with `pause=0`.
    let can = app.config.has_cgroups();
    let pause = can && params.flag_or("pause", true) && running.is_some_and(|r| !r.paused);
    let source = CommitSource {
        container: record.id.clone(),
        image: record.image.clone(),
        chain: record.chain.clone(),
        mounts: container::snapshot(&app, &record).await?,
        config: image_config(wanted.as_ref().unwrap_or(&record.config)),
        command: std::iter::once(&record.path)
            .chain(&record.args)
            .cloned()
            .collect::<Vec<_>>()
            .join(" "),
    };
    if pause {
        freeze(&handle, true).await?;
    }
    let made = app.images.commit(source, &options).await;
    if pause {
        // The image's failure is the one to be told.
        let resumed = freeze(&handle, false).await;
        if let (Err(e), Ok(_)) = (resumed, &made) {
            tracing::warn!("resume container {} after a commit: {e}", record.id);
        }
    }
    let (id, name) = made?;
    let mut attributes = record.attributes();
    attributes.insert("comment".into(), options.comment.clone());
    attributes.insert("imageID".into(), id.clone());
    attributes.insert("imageRef".into(), name.clone().unwrap_or_default());
    app.events
        .emit("container", "commit", &record.id, attributes);
    if let Some(name) = name {
        emit(&app, "tag", &id, &name);
    }
    Ok(json(StatusCode::CREATED, &IdResponse { id }))
}

async fn freeze(handle: &Handle, on: bool) -> Result<()> {
    handle.ask(|reply| Command::Freeze { on, reply }).await
}

/// The part of a container's config that an image keeps.
fn image_config(config: &Config) -> ImageConfig {
    ImageConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone(),
        env: config.env.clone().unwrap_or_default(),
        entrypoint: config.entrypoint.clone().unwrap_or_default(),
        cmd: config.cmd.clone().unwrap_or_default(),
        volumes: config.volumes.clone().unwrap_or_default(),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        healthcheck: config.healthcheck.clone(),
        on_build: config.on_build.clone().unwrap_or_default(),
        shell: config.shell.clone().unwrap_or_default(),
        ..ImageConfig::default()
    }
}

async fn import(app: Arc<App>, params: &Params, body: Body) -> Response {
    let options = ImportOptions {
        repository: params.text("repo").to_owned(),
        tag: params.text("tag").to_owned(),
        message: params.text("message").to_owned(),
        changes: params
            .every("changes")
            .into_iter()
            .map(str::to_owned)
            .collect(),
        platform: params.text("platform").to_owned(),
    };
    progress::answer(true, |progress: Progress| async move {
        let (id, name) = app.images.import(body, &options).await?;
        emit(&app, "import", &id, name.as_deref().unwrap_or(&id));
        progress.status(id).await;
        Ok(())
    })
    .await
}

/// The containers made from an image.
fn users(app: &App, id: &str) -> Vec<User> {
    let records = app
        .containers
        .all()
        .into_iter()
        .map(|handle| handle.record());
    records
        .filter(|record| record.image == id)
        .map(|record| User {
            container: record.id.clone(),
            running: record.state.running().is_some(),
        })
        .collect()
}

fn emit(app: &App, action: &str, id: &str, name: &str) {
    let attributes = match name {
        "" => BTreeMap::new(),
        name => BTreeMap::from([("name".to_owned(), name.to_owned())]),
    };
    app.events.emit("image", action, id, attributes);
}
