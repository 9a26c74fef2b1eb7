//! The load reporting service: `envoy.service.load_stats.v3.LoadReportingService`.
//!
//! Owns: who may report, what is asked of it, and reading its reports. May use: the directory of proxies, `telemetry`.
//! Never: keeps a report; or looks at a node after the first message, though a stock Envoy sends it with each.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use prost::Message;
use proto::envoy::config::endpoint::v3 as endpoint_pb;
use proto::envoy::service::load_stats::v3 as load_pb;
use proto::envoy::service::load_stats::v3::load_reporting_service_server::{
    LoadReportingService, LoadReportingServiceServer,
};
use proto::google::protobuf as google_pb;
use proto::wire;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::stream::{Admission, Directory};
use crate::telemetry::loads::{ClusterLoad, LoadStream, Loads, LocalityLoad};

/// What a proxy advertises that can report on clusters that it is not asked for by name.
const SENDS_ALL_CLUSTERS: &str = "envoy.lrs.supports_send_all_clusters";

/// The service.
pub(super) struct LoadReports<D> {
    directory: Arc<D>,
    loads: Loads,
    /// How often a proxy is to report.
    interval: Duration,
    stop: CancellationToken,
}

// === impl LoadReports ===

impl<D: Directory> LoadReports<D> {
    pub(super) fn new(directory: Arc<D>, loads: Loads, interval: Duration, stop: CancellationToken) -> Self {
        Self { directory, loads, interval, stop }
    }

    /// The service as tonic mounts it.
    pub(super) fn into_server(self, most_bytes: usize) -> LoadReportingServiceServer<Self> {
        LoadReportingServiceServer::new(self).max_decoding_message_size(most_bytes)
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

#[tonic::async_trait]
impl<D: Directory> LoadReportingService for LoadReports<D> {
    type StreamLoadStatsStream = BoxStream<'static, Result<load_pb::LoadStatsResponse, Status>>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<load_pb::LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        let (_, extensions, mut messages) = request.into_parts();
        let first = tokio::select! {
            first = messages.message() => first?,
            () = self.stop.cancelled() => return Err(stopping()),
        };
        let node = first.as_ref().and_then(|first| first.node.as_ref()).filter(|node| !node.id.is_empty());
        let node = node.ok_or_else(|| Status::invalid_argument("the first request of a stream has no node id"))?;
        let node = wire::Node::decode(&node.encode_to_vec()[..])
            .map_err(|_| Status::invalid_argument("the node cannot be decoded"))?;
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
        Ok(Response::new(stream::once(std::future::ready(Ok(answer))).chain(end).boxed()))
    }
}

async fn follow(mut messages: Streaming<load_pb::LoadStatsRequest>, reports: LoadStream) -> Result<(), Status> {
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
