//! `/auth`, `/distribution` and `/images/search`: what is asked of a registry without pulling.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use proto::engine::{AuthConfig, AuthResponse};
use serde_json::json;

use super::{Json, Params, ok, request};
use crate::App;
use crate::error::{Error, Result};
use crate::images::reference::Reference;
use crate::registry::SearchWanted;

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/auth", post(auth))
        .route("/distribution/{*rest}", get(distribution))
        .route("/images/search", get(search))
}

async fn auth(
    State(app): State<Arc<App>>,
    Json(credentials): Json<AuthConfig>,
) -> Result<Response> {
    app.images.registries().login(&credentials).await?;
    Ok(ok(&AuthResponse {
        identity_token: String::new(),
        status: "Login Succeeded".into(),
    }))
}

async fn distribution(
    State(app): State<Arc<App>>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Result<Response> {
    let name = rest
        .strip_suffix("/json")
        .ok_or_else(|| Error::not_found("page not found"))?;
    let reference = Reference::parse(name)
        .map_err(|e| Error::invalid(e.to_string()))?
        .or_latest();
    let credentials = request::credentials(&headers)?;
    let (descriptor, platforms) = app
        .images
        .registries()
        .describe(&reference, &credentials)
        .await?;
    Ok(ok(
        &json!({"Descriptor": descriptor, "Platforms": platforms}),
    ))
}

async fn search(
    State(app): State<Arc<App>>,
    params: Params,
    headers: HeaderMap,
) -> Result<Response> {
    let filters = params.filters(SearchWanted::FILTERS)?;
    let wanted = SearchWanted::new(params.text("term"), params.int("limit")?, filters)?;
    let credentials = request::credentials(&headers)?;
    let registries = app.images.registries();
    Ok(ok(&registries.search(&wanted, &credentials).await?))
}
