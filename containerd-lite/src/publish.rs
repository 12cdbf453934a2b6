//! `containerd-lite publish`: one event from standard input to a running daemon, for shims that know no other way.

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use prost::Message as _;
use proto::containerd::services::events::v1::{PublishRequest, events_client::EventsClient};

/// Longest event in bytes; a pipe that never ends must not fill the memory.
const MAX_EVENT: u64 = 4 << 20;

/// Reads an Any from standard input and publishes it.
pub(crate) fn run(address: &Path, namespace: &str, topic: &str) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .take(MAX_EVENT)
        .read_to_end(&mut bytes)
        .context("read the event from standard input")?;
    let event =
        prost_types::Any::decode(bytes.as_slice()).context("decode the event on standard input")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the async runtime")?;
    let call = async {
        let channel =
            tonic::transport::Endpoint::try_from(format!("unix://{}", address.display()))?
                .connect()
                .await?;
        let mut request = tonic::Request::new(PublishRequest {
            topic: topic.to_owned(),
            event: Some(event),
        });
        request
            .metadata_mut()
            .insert("containerd-namespace", namespace.parse()?);
        EventsClient::new(channel).publish(request).await?;
        anyhow::Ok(())
    };
    runtime
        .block_on(async { tokio::time::timeout(std::time::Duration::from_secs(5), call).await })
        .context("no answer within 5 s")
        .and_then(|r| r)
        .with_context(|| format!("publish {topic} to {}", address.display()))
}
