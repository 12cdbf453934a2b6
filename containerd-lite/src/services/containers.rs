//! Containers: the records, not what runs.

use std::borrow::Cow;

use proto::containerd::events::{self, ContainerCreate, ContainerDelete, ContainerUpdate};
use proto::containerd::services::containers::v1 as wire;
use tonic::{Request, Response, Status};

use super::{Parts, filters, labels_in, labels_out, mask, namespace, required};
use crate::error::status;
use crate::filters::{Fields, in_map, text};
use crate::metadata::{Container, Runtime};

/// The service.
#[derive(Debug)]
pub(crate) struct Service(Parts);

impl Service {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }

    fn find(&self, namespace: &str, wanted: &[String]) -> Result<Vec<wire::Container>, Status> {
        let filters = filters(wanted)?;
        let all = self.0.store.containers().list(namespace).map_err(status)?;
        Ok(all
            .into_iter()
            .filter(|c| filters.matches(c))
            .map(out)
            .collect())
    }
}

impl Fields for Container {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["id"] => text(&self.id),
            ["image"] => text(&self.image),
            ["runtime", "name"] => text(&self.runtime.name),
            ["labels", key @ ..] => in_map(&self.labels, key),
            _ => None,
        }
    }
}

fn out(c: Container) -> wire::Container {
    wire::Container {
        id: c.id,
        labels: labels_out(c.labels),
        image: c.image,
        runtime: Some(wire::container::Runtime {
            name: c.runtime.name,
            options: c.runtime.options,
        }),
        spec: c.spec,
        snapshotter: c.snapshotter,
        snapshot_key: c.snapshot_key,
        created_at: crate::time::wire(c.created_at),
        updated_at: crate::time::wire(c.updated_at),
        extensions: c.extensions.into_iter().collect(),
        sandbox: c.sandbox,
    }
}

fn into(c: wire::Container) -> Container {
    Container {
        id: c.id,
        labels: labels_in(c.labels),
        image: c.image,
        runtime: c
            .runtime
            .map(|r| Runtime {
                name: r.name,
                options: r.options,
            })
            .unwrap_or_default(),
        spec: c.spec,
        snapshotter: c.snapshotter,
        snapshot_key: c.snapshot_key,
        extensions: c.extensions.into_iter().collect(),
        sandbox: c.sandbox,
        created_at: 0,
        updated_at: 0,
    }
}

type ListStream =
    tokio_stream::Iter<std::vec::IntoIter<Result<wire::ListContainerMessage, Status>>>;

#[tonic::async_trait]
impl wire::containers_server::Containers for Service {
    type ListStreamStream = ListStream;

    async fn get(
        &self,
        request: Request<wire::GetContainerRequest>,
    ) -> Result<Response<wire::GetContainerResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let found = self
            .0
            .store
            .containers()
            .get(&ns, &request.get_ref().id)
            .map_err(status)?;
        Ok(Response::new(wire::GetContainerResponse {
            container: Some(out(found)),
        }))
    }

    async fn list(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<wire::ListContainersResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let containers = self.find(&ns, &request.get_ref().filters)?;
        Ok(Response::new(wire::ListContainersResponse { containers }))
    }

    async fn list_stream(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<ListStream>, Status> {
        let ns = namespace(request.metadata())?;
        let found = self.find(&ns, &request.get_ref().filters)?;
        let messages: Vec<_> = found
            .into_iter()
            .map(|c| Ok(wire::ListContainerMessage { container: Some(c) }))
            .collect();
        Ok(Response::new(tokio_stream::iter(messages)))
    }

    async fn create(
        &self,
        request: Request<wire::CreateContainerRequest>,
    ) -> Result<Response<wire::CreateContainerResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let container = into(required(request.into_inner().container, "container")?);
        let made = self
            .0
            .store
            .containers()
            .create(&ns, container)
            .await
            .map_err(status)?;
        let event = ContainerCreate {
            id: made.id.clone(),
            image: made.image.clone(),
            runtime: Some(events::container_create::Runtime {
                name: made.runtime.name.clone(),
                options: made.runtime.options.clone(),
            }),
        };
        self.0
            .events
            .publish(&ns, "/containers/create", proto::any::pack(&event));
        Ok(Response::new(wire::CreateContainerResponse {
            container: Some(out(made)),
        }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateContainerRequest>,
    ) -> Result<Response<wire::UpdateContainerResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let container = into(required(request.container, "container")?);
        let made = self
            .0
            .store
            .containers()
            .update(&ns, container, mask(request.update_mask))
            .await
            .map_err(status)?;
        let event = ContainerUpdate {
            id: made.id.clone(),
            image: made.image.clone(),
            labels: labels_out(made.labels.clone()),
            snapshot_key: made.snapshot_key.clone(),
        };
        self.0
            .events
            .publish(&ns, "/containers/update", proto::any::pack(&event));
        Ok(Response::new(wire::UpdateContainerResponse {
            container: Some(out(made)),
        }))
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteContainerRequest>,
    ) -> Result<Response<()>, Status> {
        let ns = namespace(request.metadata())?;
        let id = request.into_inner().id;
        self.0
            .store
            .containers()
            .delete(&ns, &id)
            .await
            .map_err(status)?;
        self.0.events.publish(
            &ns,
            "/containers/delete",
            proto::any::pack(&ContainerDelete { id }),
        );
        Ok(Response::new(()))
    }
}
