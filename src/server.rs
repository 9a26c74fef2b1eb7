//! The ports that proxies connect to: ADS and telemetry over one authenticated connection, or ADS alone for nodes
//! that are known by their own word.
//!
//! Owns: which service a request is for, the tasks of connections, and the end of a server. May use: `admission`,
//! `stream`, `telemetry`, `task`. Never: decides who may have what.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::{Connected, TcpIncoming};
use tracing::warn;

use crate::admission::{Admissions, Unproven};
use crate::identity::connection::Connection;
use crate::report::Report;
use crate::stream::{self, Directory};
use crate::task::Children;
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::{MetricsService, Serves};

mod connection;
mod cork;

/// How long connections may take to close once every stream has been ended.
const CLOSING: Duration = Duration::from_secs(2);
/// How long accepting rests when the process is out of file descriptors or memory.
const REST: Duration = Duration::from_millis(100);

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

/// What a request is for: the discovery service is asked first, and without a detour.
#[derive(Clone)]
struct Front<D> {
    discovery: stream::Service<D>,
    others: Routes,
}

/// Serves the connections of `incoming` until stopped.
pub async fn run(
    incoming: impl Stream<Item = std::io::Result<Connection>> + Send + 'static,
    services: Services,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Services { admissions, report, telemetry, serves } = services;
    let discovery = stream::Service::new(admissions.clone(), report, stop.clone());
    let metrics = MetricsService::new(Arc::new(admissions), telemetry, serves, stop.clone());
    serve(incoming, Front { discovery, others: Routes::new(metrics.into_server()) }, stop).await
}

/// Serves ADS, and nothing secret, to the connections of `incoming` until stopped.
pub async fn run_plaintext(
    incoming: TcpListener,
    nodes: Unproven,
    report: Report,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let discovery = stream::Service::new(nodes, report, stop.clone());
    let incoming = TcpIncoming::from(incoming).with_nodelay(Some(true));
    serve(incoming, Front { discovery, others: Routes::default() }, stop).await
}

async fn serve<C, D>(
    incoming: impl Stream<Item = std::io::Result<C>> + Send + 'static,
    front: Front<D>,
    stop: CancellationToken,
) -> anyhow::Result<()>
where
    C: Connected + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: Directory + Clone,
{
    let mut incoming = pin!(incoming);
    let mut connections = Children::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(()) = connections.next_ended() => continue,
            accepted = incoming.next() => accepted,
        };
        match accepted {
            Some(Ok(connection)) => connections.spawn(connection::serve(connection, front.clone(), stop.clone())),
            Some(Err(error)) => {
                warn!(%error, "a connection was not accepted");
                tokio::time::sleep(REST).await;
            }
            None => break,
        }
    }
    let closed = async { while connections.next_ended().await.is_some() {} };
    // A peer that does not close its side must not hold the process.
    if tokio::time::timeout(CLOSING, closed).await.is_err() {
        warn!("connections were still open at the end");
    }
    Ok(())
}

// === impl Front ===

impl<D: Directory> tower::Service<Request<Incoming>> for Front<D> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        if self.discovery.answers(request.uri().path()) {
            return tower::Service::call(&mut self.discovery, request).boxed();
        }
        tower::Service::call(&mut self.others, request).boxed()
    }
}

#[cfg(test)]
mod tests;
