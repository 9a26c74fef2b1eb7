//! The ports that proxies connect to: discovery and telemetry over one authenticated connection, or for nodes that are
//! known by their own word, without metrics and without anything secret.
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
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::{Connected, TcpIncoming};
use tracing::warn;

use crate::admission::Admissions;
use crate::csds::{self, ClientStatus};
use crate::identity::connection::Connection;
use crate::report::Report;
use crate::stream::{self, Directory, Limits};
use crate::task::Children;
use crate::telemetry::Telemetry;
use crate::telemetry::loads::Loads;
use crate::telemetry::logs::AccessLogService;
use crate::telemetry::metrics::{MetricsService, Serves};

mod connection;
mod cork;
mod health;
mod loads;
mod patience;

pub use health::Ready;
pub use patience::Patience;

use health::Healths;
use loads::LoadReports;

/// How often proxies are to report their load, unless it is said otherwise: a report carries the whole node each time.
pub const LOAD_INTERVAL: Duration = Duration::from_secs(60);
/// How long connections may take to close once every stream has been ended.
const CLOSING: Duration = Duration::from_secs(2);
/// How long accepting rests when the process is out of file descriptors or memory.
const REST: Duration = Duration::from_millis(100);
/// How often it is looked who has stopped asking.
const TIDY: Duration = Duration::from_secs(15);

/// How long a question about clients may take to come, and how large it may be: a stock Envoy's node is 77 kB.
const ASKED: Duration = Duration::from_secs(10);
const MOST_ASKED: usize = 1 << 20;

/// What the server answers with.
#[derive(Clone)]
pub struct Services {
    /// Who may have which group.
    pub admissions: Admissions,
    /// Where streams report.
    pub report: Report,
    /// Where measurements go.
    pub telemetry: Telemetry,
    /// Which workload serves which port, by the rules in force.
    pub serves: Serves,
    /// Where load reports go,
    pub loads: Loads,
    /// and how often proxies are to make one.
    pub load_interval: Duration,
    /// Whether there is something to serve.
    pub ready: Ready,
    /// What a client may ask.
    pub limits: Limits,
    /// How long a peer is waited for.
    pub patience: Patience,
}

/// What a request is for: the discovery services are asked first, and without a detour.
#[derive(Clone)]
struct Front<D> {
    discovery: stream::Service<D>,
    status: ClientStatus,
    others: Routes,
}

/// Serves the connections of `incoming` until stopped.
pub async fn run(
    incoming: impl Stream<Item = std::io::Result<Connection>> + Send + 'static,
    services: Services,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (admissions, telemetry) = (Arc::new(services.admissions.clone()), services.telemetry.clone());
    let metrics = MetricsService::new(Arc::clone(&admissions) as _, telemetry, services.serves.clone(), stop.clone());
    let logs = AccessLogService::new(Arc::clone(&admissions) as _, services.telemetry.logs().clone(), stop.clone());
    let others = services.others(admissions, &stop).add_service(metrics.into_server()).add_service(logs.into_server());
    let status = ClientStatus::of_oneself(services.report.clone(), Arc::new(services.admissions.clone()));
    let front = services.front(services.admissions.clone(), status, others, &stop);
    serve(incoming, front, services.patience, stop).await
}

/// Serves nothing that is secret to the connections of `incoming`, until stopped.
pub async fn run_plaintext(incoming: TcpListener, services: Services, stop: CancellationToken) -> anyhow::Result<()> {
    let nodes = services.admissions.clone().unproven();
    let others = services.others(Arc::new(nodes.clone()), &stop);
    let status = ClientStatus::of_oneself(services.report.clone(), Arc::new(nodes.clone()));
    let front = services.front(nodes, status, others, &stop);
    let incoming = TcpIncoming::from(incoming).with_nodelay(Some(true));
    serve(incoming, front, services.patience, stop).await
}

async fn serve<C, D>(
    incoming: impl Stream<Item = std::io::Result<C>> + Send + 'static,
    front: Front<D>,
    patience: Patience,
    stop: CancellationToken,
) -> anyhow::Result<()>
where
    C: Connected + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: Directory + Clone,
{
    let mut incoming = pin!(incoming);
    let mut connections = Children::default();
    let mut tidy = tokio::time::interval(TIDY);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(()) = connections.next_ended() => continue,
            _ = tidy.tick() => {
                front.discovery.tidy();
                continue;
            }
            accepted = incoming.next() => accepted,
        };
        match accepted {
            Some(Ok(connection)) => {
                connections.spawn(connection::serve(connection, front.clone(), patience, stop.clone()));
            }
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

// === impl Services ===

impl Services {
    fn front<D: Directory>(
        &self,
        directory: D,
        status: ClientStatus,
        others: Routes,
        stop: &CancellationToken,
    ) -> Front<D> {
        let discovery = stream::Service::within(self.limits, directory, self.report.clone(), stop.clone());
        Front { discovery, others: others.add_service(status.clone().into_server()), status }
    }

    /// What is offered beside discovery to whomever the directory knows.
    fn others<D: Directory>(&self, directory: Arc<D>, stop: &CancellationToken) -> Routes {
        let most = self.limits.request_bytes;
        let loads = LoadReports::new(directory, self.loads.clone(), self.load_interval, most, stop.clone());
        let healths = Healths::new(Arc::clone(&self.ready), stop.clone());
        Routes::new(loads).add_service(healths.into_server())
    }
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
        if !is_grpc(request.headers()) && request.uri().path() == csds::PATH {
            return client_status(self.status.clone(), request).map(Ok).boxed();
        }
        if !is_grpc(request.headers()) {
            return self.discovery.poll(request).map(Ok).boxed();
        }
        if request.version() < Version::HTTP_2 {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::HTTP_VERSION_NOT_SUPPORTED;
            return std::future::ready(Ok(response)).boxed();
        }
        let path = request.uri().path();
        if self.discovery.answers(path) {
            return tower::Service::call(&mut self.discovery, request).boxed();
        }
        match path.starts_with("/grpc.reflection.").then(health::reflection).flatten() {
            Some(mut reflection) => tower::Service::call(&mut reflection, request).boxed(),
            None => tower::Service::call(&mut self.others, request).boxed(),
        }
    }
}

/// Answers a question in JSON.
async fn client_status(status: ClientStatus, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(ASKED, Limited::new(body, MOST_ASKED).collect()).await;
    let (code, text) = match body {
        _ if parts.method != Method::POST => (StatusCode::METHOD_NOT_ALLOWED, "a question is a POST\n".to_owned()),
        Ok(Ok(body)) => status.poll(&parts.extensions, &body.to_bytes()),
        Ok(Err(error)) => (StatusCode::BAD_REQUEST, format!("the request does not come: {error}\n")),
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request does not come\n".to_owned()),
    };
    let kind = if code == StatusCode::OK { "application/json" } else { "text/plain; charset=utf-8" };
    let mut response = Response::new(Body::new(Full::from(text).map_err(|never| match never {})));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

#[cfg(test)]
mod tests;
