//! gRPC health, and reflection of what the server offers: for probes, load balancers and tools.
//!
//! Owns: what is healthy, and the list of services. May use: the messages of tonic-health, tonic-reflection, Envoy's
//! descriptors. Never: asks who wants to know: neither says anything of a proxy or its configuration.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, unfold};
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{self, HealthCheckRequest, HealthCheckResponse};

use crate::stream;

/// The services that are offered beside discovery.
const OTHERS: [&str; 3] = [
    "envoy.service.load_stats.v3.LoadReportingService",
    "envoy.service.metrics.v3.MetricsService",
    "grpc.health.v1.Health",
];
/// How often it is looked for those who watch.
const LOOK: Duration = Duration::from_secs(1);

/// Whether there is a configuration to be served.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// The health service.
#[derive(Clone)]
pub(super) struct Healths {
    ready: Ready,
    stop: CancellationToken,
}

// === impl Healths ===

impl Healths {
    /// Healthy while it is ready, until it stops.
    pub(super) fn new(ready: Ready, stop: CancellationToken) -> Self {
        Self { ready, stop }
    }

    /// The service as tonic mounts it.
    pub(super) fn into_server(self) -> HealthServer<Self> {
        HealthServer::new(self)
    }

    /// The health of a service, or of all if it has no name; `None` if there is none of that name.
    fn of(&self, service: &str) -> Option<ServingStatus> {
        let known = service.is_empty() || OTHERS.contains(&service) || stream::services().any(|name| name == service);
        let serves = !self.stop.is_cancelled() && (self.ready)();
        known.then_some(if serves { ServingStatus::Serving } else { ServingStatus::NotServing })
    }
}

#[tonic::async_trait]
impl Health for Healths {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let health = self.of(&request.get_ref().service);
        health.map(|health| Response::new(response(health))).ok_or_else(|| Status::not_found("no such service"))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (service, healths) = (request.into_inner().service, self.clone());
        let changes = unfold((healths, service, None), |(healths, service, said)| async move {
            loop {
                let health = healths.of(&service).unwrap_or(ServingStatus::ServiceUnknown);
                if Some(health) != said {
                    return Some((Ok(response(health)), (healths, service, Some(health))));
                }
                if healths.stop.is_cancelled() {
                    return None;
                }
                let _ = tokio::time::timeout(LOOK, healths.stop.cancelled()).await;
            }
        });
        Ok(Response::new(changes.boxed()))
    }
}

fn response(health: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: health.into() }
}

/// The reflection service, made when it is asked for first: the descriptors are large, and hardly ever wanted.
pub(super) fn reflection() -> Option<Routes> {
    static ROUTES: LazyLock<Option<Routes>> = LazyLock::new(|| {
        let builder = || {
            let builder = tonic_reflection::server::Builder::configure();
            let builder = builder.register_encoded_file_descriptor_set(descriptors());
            stream::services().chain(OTHERS).fold(builder, |builder, service| builder.with_service_name(service))
        };
        Some(Routes::new(builder().build_v1().ok()?).add_service(builder().build_v1alpha().ok()?))
    });
    ROUTES.clone()
}

/// The files that the services are described in, with all that they refer to: a `FileDescriptorSet`.
fn descriptors() -> &'static [u8] {
    static DESCRIPTORS: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let pool = proto::descriptors();
        let services = stream::services().chain(OTHERS).filter_map(|name| pool.get_service_by_name(name));
        let mut wanted: Vec<_> = services.map(|service| service.parent_file()).collect();
        let (mut names, mut set) = (BTreeSet::new(), pb::FILE_DESCRIPTOR_SET.to_vec());
        while let Some(file) = wanted.pop() {
            if names.insert(file.name().to_owned()) {
                let encoded = file.encode_to_vec();
                encode_key(1, WireType::LengthDelimited, &mut set);
                encode_varint(encoded.len() as u64, &mut set);
                set.extend(encoded);
                wanted.extend(file.dependencies());
            }
        }
        set
    });
    &DESCRIPTORS
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    async fn check(healths: &Healths, service: &str) -> Result<i32, tonic::Code> {
        let request = Request::new(HealthCheckRequest { service: service.into() });
        healths.check(request).await.map(|response| response.get_ref().status).map_err(|status| status.code())
    }

    #[tokio::test(start_paused = true)]
    async fn it_serves_when_there_is_something_to_serve_and_until_it_stops() {
        let (ready, stop) = (Arc::new(AtomicBool::new(false)), CancellationToken::new());
        let is_ready = Arc::clone(&ready);
        let healths = Healths::new(Arc::new(move || is_ready.load(Ordering::SeqCst)), stop.clone());
        let request = Request::new(HealthCheckRequest::default());
        let mut watched = healths.watch(request).await.expect("a stream").into_inner();
        let mut next = async || watched.next().await.map(|next| next.expect("no error").status);
        let (serving, not) = (ServingStatus::Serving as i32, ServingStatus::NotServing as i32);
        assert_eq!((next().await, check(&healths, "").await), (Some(not), Ok(not)));
        ready.store(true, Ordering::SeqCst);
        assert_eq!((next().await, check(&healths, "").await), (Some(serving), Ok(serving)));
        let ads = stream::services().next().expect("there are some");
        assert_eq!(check(&healths, ads).await, Ok(serving));
        assert_eq!(check(&healths, "shop.Cart").await, Err(tonic::Code::NotFound));
        stop.cancel();
        assert_eq!((next().await, check(&healths, "").await), (Some(not), Ok(not)));
        assert_eq!(next().await, None);
    }

    #[test]
    fn every_service_is_described() {
        assert!(reflection().is_some());
        let pool = proto::descriptors();
        let services = stream::services().chain(OTHERS);
        let missing: Vec<_> = services.filter(|name| pool.get_service_by_name(name).is_none()).collect();
        assert_eq!(missing, ["grpc.health.v1.Health"], "that one brings its own");
    }
}
