//! The records of sandboxes.

use std::borrow::Cow;

use proto::containerd::services::sandbox::v1 as wire;
use proto::containerd::types::Sandbox;
use tonic::{Request, Response, Status};

use super::super::{Parts, filters, namespace, required};
use crate::error::status;
use crate::filters::{Fields, text};

/// The service.
#[derive(Debug)]
pub(crate) struct Store(Parts);

impl Store {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }
}

impl Fields for Sandbox {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["id"] => text(&self.sandbox_id),
            ["runtime", "name"] => text(self.runtime.as_ref()?.name.as_str()),
            ["sandboxer"] => text(&self.sandboxer),
            ["labels", key @ ..] => text(self.labels.get(&key.join("."))?),
            _ => None,
        }
    }
}

#[tonic::async_trait]
impl wire::store_server::Store for Store {
    async fn create(
        &self,
        request: Request<wire::StoreCreateRequest>,
    ) -> Result<Response<wire::StoreCreateResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let sandbox = required(request.into_inner().sandbox, "sandbox")?;
        let made = self.0.store.sandboxes().create(&ns, sandbox).await;
        Ok(Response::new(wire::StoreCreateResponse {
            sandbox: Some(made.map_err(status)?),
        }))
    }

    async fn update(
        &self,
        request: Request<wire::StoreUpdateRequest>,
    ) -> Result<Response<wire::StoreUpdateResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let sandbox = required(request.sandbox, "sandbox")?;
        let sandboxes = self.0.store.sandboxes();
        let made = sandboxes.update(&ns, sandbox, request.fields).await;
        Ok(Response::new(wire::StoreUpdateResponse {
            sandbox: Some(made.map_err(status)?),
        }))
    }

    async fn delete(
        &self,
        request: Request<wire::StoreDeleteRequest>,
    ) -> Result<Response<wire::StoreDeleteResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let id = request.into_inner().sandbox_id;
        let deleted = self.0.store.sandboxes().delete(&ns, &id).await;
        deleted.map_err(status)?;
        Ok(Response::new(wire::StoreDeleteResponse {}))
    }

    async fn list(
        &self,
        request: Request<wire::StoreListRequest>,
    ) -> Result<Response<wire::StoreListResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let filters = filters(&request.get_ref().filters)?;
        let mut list = self.0.store.sandboxes().list(&ns).map_err(status)?;
        list.retain(|sandbox| filters.matches(sandbox));
        Ok(Response::new(wire::StoreListResponse { list }))
    }

    async fn get(
        &self,
        request: Request<wire::StoreGetRequest>,
    ) -> Result<Response<wire::StoreGetResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let found = self
            .0
            .store
            .sandboxes()
            .get(&ns, &request.get_ref().sandbox_id);
        Ok(Response::new(wire::StoreGetResponse {
            sandbox: Some(found.map_err(status)?),
        }))
    }
}
