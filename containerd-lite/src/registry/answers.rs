//! What answers of a registry say, and errors of those that are none.

use std::time::Duration;

use reqwest::Response;

use super::{RegistryError, Result};

/// Longest manifest that is read.
const MANIFEST: usize = 8 << 20;

/// What to tell of several hosts: that one does not have it says less than anything else.
pub(super) fn later(earlier: Option<RegistryError>, now: RegistryError) -> RegistryError {
    match (earlier, now) {
        (Some(earlier), RegistryError::NotFound(_)) => earlier,
        (_, now) => now,
    }
}

pub(super) fn lost<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &str,
) -> impl FnOnce(E) -> RegistryError {
    let what = what.to_owned();
    move |source| RegistryError::Request {
        what,
        source: source.into(),
    }
}

pub(super) fn pause(tries: u32) -> Duration {
    Duration::from_millis(100 << tries.min(6))
}

pub(super) fn retry_after(answer: &Response) -> Option<Duration> {
    let header = answer.headers().get("retry-after")?.to_str().ok()?;
    let seconds: u64 = header.parse().ok()?;
    Some(Duration::from_secs(seconds.min(10)))
}

pub(super) fn plain_type(header: &str) -> String {
    header
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The error of an answer that is none.
pub(super) async fn refused(what: &str, answer: Response) -> RegistryError {
    let status = answer.status().as_u16();
    let (host, path) = (
        answer.url().host_str().unwrap_or_default().to_owned(),
        answer.url().path().to_owned(),
    );
    let message = message(answer).await;
    if status == 404 {
        return RegistryError::NotFound(format!("{what}: {host}{path}{message}"));
    }
    RegistryError::Status {
        what: format!("{what}: {host}{path}"),
        status,
        message,
    }
}

/// What a registry says of an error, after a colon; nothing if it says nothing.
pub(super) async fn message(answer: Response) -> String {
    let Ok(bytes) = body(answer, "").await else {
        return String::new();
    };
    let parsed: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let first = &parsed["errors"][0];
    let text = first["message"]
        .as_str()
        .filter(|t| !t.is_empty())
        .or_else(|| first["code"].as_str())
        .or_else(|| parsed["details"].as_str());
    text.map_or(String::new(), |text| {
        let short: String = text.chars().take(300).collect();
        format!(": {short}")
    })
}

/// The whole of a short answer.
pub(super) async fn body(mut answer: Response, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(lost(what))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MANIFEST {
            return Err(RegistryError::Answer(format!(
                "{what}: the answer is longer than {MANIFEST} bytes"
            )));
        }
    }
    Ok(bytes)
}
