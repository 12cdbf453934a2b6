//! The lines of pull, push, load, import and build: one JSON object each.

use serde_json::Value;

use super::wire::wire;

wire! {
    /// One line of progress. A line with `errorDetail` is the last one and means failure.
    pub struct JsonProgress {
        "stream" [omitempty] stream: String,
        "status" [omitempty] status: String,
        "progressDetail" [omitempty] progress_detail: Option<ProgressDetail>,
        "progress" [omitempty] progress: String,
        "id" [omitempty] id: String,
        "from" [omitempty] from: String,
        "time" [omitempty] time: i64,
        "timeNano" [omitempty] time_nano: i64,
        "errorDetail" [omitempty] error_detail: Option<ErrorDetail>,
        "error" [omitempty] error: String,
        "aux" [omitempty] aux: Option<Value>,
    }

    /// How far a step has come.
    pub struct ProgressDetail {
        "current" [omitempty] current: i64,
        "total" [omitempty] total: i64,
        "start" [omitempty] start: i64,
        "hidecounts" [omitempty] hide_counts: bool,
        "units" [omitempty] units: String,
    }

    /// Why it failed.
    pub struct ErrorDetail {
        "code" [omitempty] code: i64,
        "message" [omitempty] message: String,
    }
}
