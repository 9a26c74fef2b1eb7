//! The load reporting service: `envoy.service.load_stats.v3.LoadReportingService`.
//!
//! Owns: who may report, what is asked of it, and reading its reports. May use: the directory of proxies, `telemetry`.
//! Never: keeps a report; or looks at a node after the first message, though a stock Envoy sends it with each.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use http_body::Body;
use prost::Message;
use proto::envoy::config::endpoint::v3 as endpoint_pb;
use proto::envoy::service::load_stats::v3 as load_pb;
use proto::google::protobuf as google_pb;
use proto::wire;
use tokio_util::sync::CancellationToken;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::stream::{Admission, Directory};
use crate::telemetry::loads::{ClusterLoad, LoadStream, Loads, LocalityLoad};

/// What a proxy advertises that can report on clusters that it is not asked for by name.
const SENDS_ALL_CLUSTERS: &str = "envoy.lrs.supports_send_all_clusters";

const METHOD: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";

/// `envoy.service.load_stats.v3.LoadStatsRequest`, of which the node is only read where it is looked at.
#[derive(Clone, PartialEq, Message)]
struct LoadStats {
    #[prost(bytes = "bytes", tag = "1")]
    node: Bytes,
    #[prost(message, repeated, tag = "2")]
    cluster_stats: Vec<endpoint_pb::ClusterStats>,
}

/// The service. Cloning shares it.
pub(super) struct LoadReports<D>(Arc<Shared<D>>);

struct Shared<D> {
    directory: Arc<D>,
    loads: Loads,
    /// How often a proxy is to report.
    interval: Duration,
    /// A report may not be larger.
    most_bytes: usize,
    stop: CancellationToken,
}

// === impl LoadReports ===

impl<D: Directory> LoadReports<D> {
    pub(super) fn new(
        directory: Arc<D>,
        loads: Loads,
        interval: Duration,
        most_bytes: usize,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Shared { directory, loads, interval, most_bytes, stop }))
    }
}

impl<D> Clone for LoadReports<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D> NamedService for LoadReports<D> {
    const NAME: &'static str = "envoy.service.load_stats.v3.LoadReportingService";
}

impl<D, B> tower::Service<http::Request<B>> for LoadReports<D>
where
    D: Directory,
    B: Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != METHOD {
            return std::future::ready(Ok(Status::unimplemented("no such method").into_http())).boxed();
        }
        let reports = self.clone();
        let codec = ProstCodec::<load_pb::LoadStatsResponse, LoadStats>::default();
        let mut grpc = Grpc::new(codec).max_decoding_message_size(self.0.most_bytes);
        async move { Ok(grpc.streaming(reports, request).await) }.boxed()
    }
}

impl<D: Directory> StreamingService<LoadStats> for LoadReports<D> {
    type Response = load_pb::LoadStatsResponse;
    type ResponseStream = BoxStream<'static, Result<load_pb::LoadStatsResponse, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<LoadStats>>) -> Self::Future {
        let shared = Arc::clone(&self.0);
        async move { shared.open(request).await.map(Response::new) }.boxed()
    }
}

// === impl Shared ===

impl<D: Directory> Shared<D> {
    async fn open(
        &self,
        request: Request<Streaming<LoadStats>>,
    ) -> Result<BoxStream<'static, Result<load_pb::LoadStatsResponse, Status>>, Status> {
        let (_, extensions, mut messages) = request.into_parts();
        let first = tokio::select! {
            first = messages.message() => first?.unwrap_or_default(),
            () = self.stop.cancelled() => return Err(stopping()),
        };
        let node =
            wire::Node::decode(first.node).map_err(|_| Status::invalid_argument("the node cannot be decoded"))?;
        if node.id.is_empty() {
            return Err(Status::invalid_argument("the first request of a stream has no node id"));
        }
        let Admission { owner, ended, .. } = self.directory.admit(&extensions, &node)?;
        let reports = self.loads.open(&node.id, owner);
        let (answer, stop) = (self.answer(&node), self.stop.clone());
        let end = async move {
            tokio::select! {
                end = follow(messages, reports) => end.err(),
                reason = ended => Some(reason.into()),
                () = stop.cancelled() => Some(stopping()),
            }
        };
        let end = end.into_stream().filter_map(|end| std::future::ready(end.map(Err)));
        Ok(stream::once(std::future::ready(Ok(answer))).chain(end).boxed())
    }

    fn answer(&self, node: &wire::Node) -> load_pb::LoadStatsResponse {
        load_pb::LoadStatsResponse {
            send_all_clusters: node.client_features.iter().any(|feature| feature == SENDS_ALL_CLUSTERS),
            load_reporting_interval: Some(google_pb::Duration {
                seconds: i64::try_from(self.interval.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(self.interval.subsec_nanos()).unwrap_or_default(),
            }),
            report_endpoint_granularity: false,
            clusters: Vec::new(),
        }
    }
}

async fn follow(mut messages: Streaming<LoadStats>, reports: LoadStream) -> Result<(), Status> {
    while let Some(message) = messages.message().await? {
        reports.record(message.cluster_stats.into_iter().map(cluster), SystemTime::now());
    }
    Ok(())
}

fn cluster(stats: endpoint_pb::ClusterStats) -> ClusterLoad {
    let interval = stats.load_report_interval.unwrap_or_default();
    let interval = (u64::try_from(interval.seconds), u32::try_from(interval.nanos));
    ClusterLoad {
        cluster: stats.cluster_name,
        service: stats.cluster_service_name,
        interval: match interval {
            (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) => Duration::new(seconds, nanos),
            _ => Duration::ZERO,
        },
        dropped: stats.total_dropped_requests,
        localities: stats.upstream_locality_stats.into_iter().map(locality).collect(),
    }
}

fn locality(stats: endpoint_pb::UpstreamLocalityStats) -> LocalityLoad {
    let locality = stats.locality.unwrap_or_default();
    LocalityLoad {
        locality: [locality.region, locality.zone, locality.sub_zone],
        priority: stats.priority,
        issued: stats.total_issued_requests,
        succeeded: stats.total_successful_requests,
        failed: stats.total_error_requests,
        active: stats.total_requests_in_progress,
    }
}

fn stopping() -> Status {
    Status::unavailable("the control plane is stopping")
}
