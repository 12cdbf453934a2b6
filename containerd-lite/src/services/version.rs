//! Version: who we are.

use proto::containerd::services::version::v1::{VersionResponse, version_server::Version};
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub(crate) struct Service;

#[tonic::async_trait]
impl Version for Service {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: crate::version::VERSION.to_owned(),
            revision: crate::version::REVISION.to_owned(),
        }))
    }
}
