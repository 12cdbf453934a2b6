//! Namespaces.

use proto::containerd::events::{NamespaceCreate, NamespaceDelete, NamespaceUpdate};
use proto::containerd::services::namespaces::v1 as wire;
use tonic::{Request, Response, Status};

use super::{Parts, labels_in, labels_out, mask, required};
use crate::error::status;
use crate::metadata::Namespace;

/// The service.
#[derive(Debug)]
pub(crate) struct Service(Parts);

impl Service {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }
}

fn out(n: Namespace) -> wire::Namespace {
    wire::Namespace {
        name: n.name,
        labels: labels_out(n.labels),
    }
}

fn into(n: wire::Namespace) -> Namespace {
    Namespace {
        name: n.name,
        labels: labels_in(n.labels),
    }
}

#[tonic::async_trait]
impl wire::namespaces_server::Namespaces for Service {
    async fn get(
        &self,
        request: Request<wire::GetNamespaceRequest>,
    ) -> Result<Response<wire::GetNamespaceResponse>, Status> {
        let found = self
            .0
            .store
            .namespaces()
            .get(&request.get_ref().name)
            .map_err(status)?;
        Ok(Response::new(wire::GetNamespaceResponse {
            namespace: Some(out(found)),
        }))
    }

    async fn list(
        &self,
        _: Request<wire::ListNamespacesRequest>,
    ) -> Result<Response<wire::ListNamespacesResponse>, Status> {
        let all = self.0.store.namespaces().list().map_err(status)?;
        Ok(Response::new(wire::ListNamespacesResponse {
            namespaces: all.into_iter().map(out).collect(),
        }))
    }

    async fn create(
        &self,
        request: Request<wire::CreateNamespaceRequest>,
    ) -> Result<Response<wire::CreateNamespaceResponse>, Status> {
        let namespace = into(required(request.into_inner().namespace, "namespace")?);
        let made = self
            .0
            .store
            .namespaces()
            .create(namespace)
            .await
            .map_err(status)?;
        let event = NamespaceCreate {
            name: made.name.clone(),
            labels: labels_out(made.labels.clone()),
        };
        self.0
            .events
            .publish(&made.name, "/namespaces/create", proto::any::pack(&event));
        Ok(Response::new(wire::CreateNamespaceResponse {
            namespace: Some(out(made)),
        }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateNamespaceRequest>,
    ) -> Result<Response<wire::UpdateNamespaceResponse>, Status> {
        let request = request.into_inner();
        let namespace = into(required(request.namespace, "namespace")?);
        let made = self
            .0
            .store
            .namespaces()
            .update(namespace, mask(request.update_mask))
            .await
            .map_err(status)?;
        let event = NamespaceUpdate {
            name: made.name.clone(),
            labels: labels_out(made.labels.clone()),
        };
        self.0
            .events
            .publish(&made.name, "/namespaces/update", proto::any::pack(&event));
        Ok(Response::new(wire::UpdateNamespaceResponse {
            namespace: Some(out(made)),
        }))
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteNamespaceRequest>,
    ) -> Result<Response<()>, Status> {
        let name = request.into_inner().name;
        self.0
            .store
            .namespaces()
            .delete(name.clone())
            .await
            .map_err(status)?;
        let event = NamespaceDelete { name: name.clone() };
        self.0
            .events
            .publish(&name, "/namespaces/delete", proto::any::pack(&event));
        Ok(Response::new(()))
    }
}
