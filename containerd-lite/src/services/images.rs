//! Images.

use std::borrow::Cow;

use proto::containerd::services::images::v1 as wire;
use proto::containerd::types::Descriptor;
use tonic::{Request, Response, Status};

use super::{Parts, filters, labels_in, labels_out, mask, namespace, required};
use crate::error::status;
use crate::filters::{Fields, in_map, text};
use crate::metadata::{Image, Target};

/// The service.
#[derive(Debug)]
pub(crate) struct Service(Parts);

impl Service {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(parts)
    }
}

impl Fields for Image {
    fn field(&self, path: &[&str]) -> Option<Cow<'_, str>> {
        match path {
            ["name"] => text(&self.name),
            ["target", "digest"] => text(&self.target.digest),
            ["target", "mediatype"] => text(&self.target.media_type),
            ["labels", key @ ..] => in_map(&self.labels, key),
            ["annotations", key @ ..] => in_map(&self.target.annotations, key),
            _ => None,
        }
    }
}

fn out(image: Image) -> wire::Image {
    wire::Image {
        name: image.name,
        labels: labels_out(image.labels),
        target: Some(Descriptor {
            media_type: image.target.media_type,
            digest: image.target.digest,
            size: image.target.size,
            annotations: labels_out(image.target.annotations),
        }),
        created_at: crate::time::wire(image.created_at),
        updated_at: crate::time::wire(image.updated_at),
    }
}

fn into(image: wire::Image) -> Image {
    let target = image.target.unwrap_or_default();
    Image {
        name: image.name,
        labels: labels_in(image.labels),
        target: Target {
            media_type: target.media_type,
            digest: target.digest,
            size: target.size,
            annotations: labels_in(target.annotations),
        },
        created_at: 0,
        updated_at: 0,
    }
}

#[tonic::async_trait]
impl wire::images_server::Images for Service {
    async fn get(
        &self,
        request: Request<wire::GetImageRequest>,
    ) -> Result<Response<wire::GetImageResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let image = self
            .0
            .store
            .images()
            .get(&ns, &request.get_ref().name)
            .map_err(status)?;
        Ok(Response::new(wire::GetImageResponse {
            image: Some(out(image)),
        }))
    }

    async fn list(
        &self,
        request: Request<wire::ListImagesRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let filters = filters(&request.get_ref().filters)?;
        let all = self.0.store.images().list(&ns).map_err(status)?;
        let images = all
            .into_iter()
            .filter(|i| filters.matches(i))
            .map(out)
            .collect();
        Ok(Response::new(wire::ListImagesResponse { images }))
    }

    async fn create(
        &self,
        request: Request<wire::CreateImageRequest>,
    ) -> Result<Response<wire::CreateImageResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let image = into(required(request.into_inner().image, "image")?);
        let made = self
            .0
            .store
            .images()
            .create(&ns, image)
            .await
            .map_err(status)?;
        let event = wire::ImageCreate {
            name: made.name.clone(),
            labels: labels_out(made.labels.clone()),
        };
        self.0
            .events
            .publish(&ns, "/images/create", proto::any::pack(&event));
        Ok(Response::new(wire::CreateImageResponse {
            image: Some(out(made)),
        }))
    }

    async fn update(
        &self,
        request: Request<wire::UpdateImageRequest>,
    ) -> Result<Response<wire::UpdateImageResponse>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let image = into(required(request.image, "image")?);
        let made = self
            .0
            .store
            .images()
            .update(&ns, image, mask(request.update_mask))
            .await
            .map_err(status)?;
        let event = wire::ImageUpdate {
            name: made.name.clone(),
            labels: labels_out(made.labels.clone()),
        };
        self.0
            .events
            .publish(&ns, "/images/update", proto::any::pack(&event));
        // What the name pointed at before may be free now.
        self.0.gc.soon();
        Ok(Response::new(wire::UpdateImageResponse {
            image: Some(out(made)),
        }))
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteImageRequest>,
    ) -> Result<Response<()>, Status> {
        let ns = namespace(request.metadata())?;
        let request = request.into_inner();
        let target = request.target.map(|t| t.digest).filter(|d| !d.is_empty());
        self.0
            .store
            .images()
            .delete(&ns, &request.name, target)
            .await
            .map_err(status)?;
        let event = wire::ImageDelete { name: request.name };
        self.0
            .events
            .publish(&ns, "/images/delete", proto::any::pack(&event));
        self.0.gc.after_delete(request.sync).await.map_err(status)?;
        Ok(Response::new(()))
    }
}
