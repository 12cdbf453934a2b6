//! The one map from error kinds to HTTP.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use proto::error::ErrorKind;

use crate::error::Error;

/// The HTTP status of a kind.
pub(crate) fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::InvalidArgument | ErrorKind::OutOfRange => StatusCode::BAD_REQUEST,
        ErrorKind::AlreadyExists | ErrorKind::FailedPrecondition | ErrorKind::Aborted => {
            StatusCode::CONFLICT
        }
        ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::NotModified => StatusCode::NOT_MODIFIED,
        ErrorKind::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::ResourceExhausted
        | ErrorKind::Cancelled
        | ErrorKind::Unknown
        | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = status(self.kind());
        if status == StatusCode::NOT_MODIFIED {
            return status.into_response();
        }
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), "{self}");
        }
        message(status, self.message())
    }
}

/// Docker's error body.
pub(crate) fn message(status: StatusCode, text: &str) -> Response {
    let body = proto::engine::ErrorBody {
        message: text.to_owned(),
    };
    super::json(status, &body)
}
