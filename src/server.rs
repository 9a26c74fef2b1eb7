//! The ports that proxies connect to: ADS and telemetry over one authenticated connection, or ADS alone for nodes
//! that are known by their own word.
//!
//! Owns: the limits and timers of HTTP/2, and the end of a server. May use: `admission`, `stream`,
//! `telemetry`. Never: decides who may have what.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router, TcpIncoming};
use tracing::warn;

use crate::admission::{Admissions, Unproven};
use crate::identity::connection::Connection;
use crate::report::Report;
use crate::stream;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::{MetricsService, Serves};

/// How often a silent connection is probed, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Streams on one connection: an Envoy may open one for each resource.
const MAX_STREAMS: u32 = 100_000;
/// The largest block of headers that is read.
const MAX_HEADERS: u32 = 64 << 10;
/// How long connections may take to close once every stream has been ended.
const CLOSING: Duration = Duration::from_secs(2);

/// What the server answers with.
pub struct Services {
    /// Who may have which group.
    pub admissions: Admissions,
    /// Where streams report.
    pub report: Report,
    /// Where measurements go.
    pub telemetry: Telemetry,
    /// Which workload serves which port, by the rules in force.
    pub serves: Serves,
}

/// Serves the connections of `incoming` until stopped.
pub async fn run(
    incoming: impl Stream<Item = std::io::Result<Connection>> + Send + 'static,
    services: Services,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Services { admissions, report, telemetry, serves } = services;
    let ads = stream::Service::new(admissions.clone(), report, stop.clone());
    let metrics = MetricsService::new(Arc::new(admissions), telemetry, serves, stop.clone());
    serve(incoming, builder().add_service(ads).add_service(metrics.into_server()), stop).await
}

/// Serves ADS, and nothing secret, to the connections of `incoming` until stopped.
pub async fn run_plaintext(
    incoming: TcpListener,
    nodes: Unproven,
    report: Report,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let ads = stream::Service::new(nodes, report, stop.clone());
    let incoming = TcpIncoming::from(incoming).with_nodelay(Some(true));
    serve(incoming, builder().add_service(ads), stop).await
}

fn builder() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_max_header_list_size(Some(MAX_HEADERS))
}

async fn serve<C>(
    incoming: impl Stream<Item = std::io::Result<C>> + Send + 'static,
    router: Router,
    stop: CancellationToken,
) -> anyhow::Result<()>
where
    C: Connected + AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let server = router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    tokio::select! {
        served = server => Ok(served?),
        // A peer that does not close its side must not hold the process.
        () = async { stop.cancelled().await; tokio::time::sleep(CLOSING).await } => {
            warn!("connections were still open at the end");
            Ok(())
        }
    }
}
