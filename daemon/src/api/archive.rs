//! The archive routes.

use std::sync::Arc;

use axum::Router;

use crate::App;

/// The routes of this noun.
pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
}
