//! A containerd that has nothing.

use std::path::Path;

use proto::containerd::services::events::v1::events_server::{Events, EventsServer};
use proto::containerd::services::images::v1::images_server::{Images, ImagesServer};
use proto::containerd::services::tasks::v1::tasks_server::{Tasks, TasksServer};
use proto::containerd::types::Envelope;
use tokio_stream::wrappers::ReceiverStream;

use super::{Request, Response, Status, events, images, tasks};

/// Serves on a unix socket until the runtime is dropped.
pub(crate) fn serve(socket: &Path) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let listener = {
        let _inside = runtime.enter();
        tokio::net::UnixListener::bind(socket).unwrap()
    };
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let service =
                    hyper_util::service::TowerToHyperService::new(tower::service_fn(route));
                let _ =
                    hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                        .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                        .await;
            });
        }
    });
    runtime
}

async fn route(
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<tonic::body::Body>, std::convert::Infallible> {
    use tower::Service;
    let path = request.uri().path().to_owned();
    if path.starts_with("/containerd.services.events.v1.Events/") {
        return EventsServer::new(Fake).call(request).await;
    }
    if path.starts_with("/containerd.services.tasks.v1.Tasks/") {
        return TasksServer::new(Fake).call(request).await;
    }
    if path.starts_with("/containerd.services.images.v1.Images/") {
        return ImagesServer::new(Fake).call(request).await;
    }
    Ok(Status::unimplemented(path).into_http())
}

struct Fake;

type Answer<T> = Result<Response<T>, Status>;

fn absent<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this fake"))
}

#[tonic::async_trait]
impl Events for Fake {
    type SubscribeStream = ReceiverStream<Result<Envelope, Status>>;

    async fn publish(&self, _: Request<events::PublishRequest>) -> Answer<()> {
        absent()
    }
    async fn forward(&self, _: Request<events::ForwardRequest>) -> Answer<()> {
        absent()
    }
    async fn subscribe(
        &self,
        _: Request<events::SubscribeRequest>,
    ) -> Answer<Self::SubscribeStream> {
        let (sink, stream) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move { sink.closed().await });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl Images for Fake {
    async fn get(&self, _: Request<images::GetImageRequest>) -> Answer<images::GetImageResponse> {
        Err(Status::not_found("image not found"))
    }
    async fn list(
        &self,
        _: Request<images::ListImagesRequest>,
    ) -> Answer<images::ListImagesResponse> {
        Ok(Response::new(images::ListImagesResponse::default()))
    }
    async fn create(
        &self,
        _: Request<images::CreateImageRequest>,
    ) -> Answer<images::CreateImageResponse> {
        absent()
    }
    async fn update(
        &self,
        _: Request<images::UpdateImageRequest>,
    ) -> Answer<images::UpdateImageResponse> {
        absent()
    }
    async fn delete(&self, _: Request<images::DeleteImageRequest>) -> Answer<()> {
        absent()
    }
}

macro_rules! absent_tasks {
    ($($name:ident($request:ident) -> $reply:ty;)*) => {
        #[tonic::async_trait]
        impl Tasks for Fake {
            async fn list(
                &self,
                _: Request<tasks::ListTasksRequest>,
            ) -> Answer<tasks::ListTasksResponse> {
                Ok(Response::new(tasks::ListTasksResponse::default()))
            }
            async fn get(&self, _: Request<tasks::GetRequest>) -> Answer<tasks::GetResponse> {
                Err(Status::not_found("no such task"))
            }
            $( async fn $name(&self, _: Request<tasks::$request>) -> Answer<$reply> { absent() } )*
        }
    };
}

absent_tasks! {
    create(CreateTaskRequest) -> tasks::CreateTaskResponse;
    start(StartRequest) -> tasks::StartResponse;
    delete(DeleteTaskRequest) -> tasks::DeleteResponse;
    delete_process(DeleteProcessRequest) -> tasks::DeleteResponse;
    kill(KillRequest) -> ();
    exec(ExecProcessRequest) -> ();
    resize_pty(ResizePtyRequest) -> ();
    close_io(CloseIoRequest) -> ();
    pause(PauseTaskRequest) -> ();
    resume(ResumeTaskRequest) -> ();
    list_pids(ListPidsRequest) -> tasks::ListPidsResponse;
    checkpoint(CheckpointTaskRequest) -> tasks::CheckpointTaskResponse;
    update(UpdateTaskRequest) -> ();
    metrics(MetricsRequest) -> tasks::MetricsResponse;
    wait(WaitRequest) -> tasks::WaitResponse;
}
