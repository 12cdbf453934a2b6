//! Leases.

use std::borrow::Cow;

use proto::containerd::services::leases::v1 as wire;
use tonic::{Request, Response, Status};

use super::{Parts, filters, labels_in, labels_out, namespace, required};
use crate::error::status;
use crate::filters::{Fields, in_map, text};
use crate::metadata::{Lease, Resource};

/// The service.
#[derive(Debug)]
pub(crate) struct Service(Parts);

impl Service {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }
}

impl Fields for Lease {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["id"] => text(&self.id),
            ["labels", key @ ..] => in_map(&self.labels, key),
            _ => None,
        }
    }
}

fn out(lease: Lease) -> wire::Lease {
    wire::Lease {
        id: lease.id,
        created_at: crate::time::wire(lease.created_at),
        labels: labels_out(lease.labels),
    }
}

fn into(resource: wire::Resource) -> Resource {
    Resource {
        kind: resource.r#type,
        id: resource.id,
    }
}

#[tonic::async_trait]
impl wire::leases_server::Leases for Service {
    async fn create(
        &self,
        request: Request<wire::CreateRequest>,
    ) -> Result<Response<wire::CreateResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let lease = self
            .0
            .store
            .leases()
            .create(&ns, &request.id, labels_in(request.labels))
            .await
            .map_err(status)?;
        Ok(Response::new(wire::CreateResponse {
            lease: Some(out(lease)),
        }))
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Result<Response<()>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        self.0
            .store
            .leases()
            .delete(&ns, &request.id)
            .await
            .map_err(status)?;
        self.0.gc.after_delete(request.sync).await.map_err(status)?;
        Ok(Response::new(()))
    }

    async fn list(
        &self,
        request: Request<wire::ListRequest>,
    ) -> Result<Response<wire::ListResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let filters = filters(&request.get_ref().filters)?;
        let all = self.0.store.leases().list(&ns).map_err(status)?;
        let leases = all
            .into_iter()
            .filter(|l| filters.matches(l))
            .map(out)
            .collect();
        Ok(Response::new(wire::ListResponse { leases }))
    }

    async fn add_resource(
        &self,
        request: Request<wire::AddResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let resource = into(required(request.resource, "resource")?);
        self.0
            .store
            .leases()
            .add(&ns, &request.id, resource)
            .await
            .map_err(status)?;
        Ok(Response::new(()))
    }

    async fn delete_resource(
        &self,
        request: Request<wire::DeleteResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let resource = into(required(request.resource, "resource")?);
        self.0
            .store
            .leases()
            .remove(&ns, &request.id, resource)
            .await
            .map_err(status)?;
        self.0.gc.soon();
        Ok(Response::new(()))
    }

    async fn list_resources(
        &self,
        request: Request<wire::ListResourcesRequest>,
    ) -> Result<Response<wire::ListResourcesResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let found = self
            .0
            .store
            .leases()
            .resources(&ns, &request.get_ref().id)
            .map_err(status)?;
        let resources = found
            .into_iter()
            .map(|r| wire::Resource {
                id: r.id,
                r#type: r.kind,
            })
            .collect();
        Ok(Response::new(wire::ListResourcesResponse { resources }))
    }
}
