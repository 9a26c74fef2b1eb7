//! The aggregated discovery service.
//!
//! Owns: the two methods, and what a stream must show to be let in. May use: tonic as the server that it is
//! mounted in. Never: spawns; a stream is driven by whoever sends its response body.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use proto::wire;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use translators::name::Owner;

use super::body::Driver;
use super::frame::Messages;
use super::group::Groups;
use super::session::{Fault, Protocol};
use crate::publish::{Reader, Snapshot};
use crate::report::Report;

/// A request may not be larger unless the service is told so.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

const STREAM: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Who knows the proxies.
pub trait Directory: Send + Sync + 'static {
    /// Lets a stream in: `extensions` are those of its HTTP request, `node` is what it says of itself.
    fn admit(&self, extensions: &http::Extensions, node: &wire::Node) -> Result<Admission, Refusal>;
}

/// A stream that was let in.
pub struct Admission {
    /// Whose configuration it receives.
    pub owner: Owner,
    /// The address that the proxy is reached at.
    pub address: IpAddr,
    /// Whether it has shown who it is; else it is served no secrets.
    pub proven: bool,
    /// What its group is to hold: streams with receivers of one sender share what they are sent. The stream ends when
    /// the sender is gone.
    pub snapshots: Reader<Snapshot>,
    /// Ready when it would not be let in like this any more, and the stream ends; says why.
    pub ended: BoxFuture<'static, Refusal>,
}

/// Why a stream is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not show who it is.
    #[error("{0}")]
    Unauthenticated(String),
    /// It may not be who it says.
    #[error("{0}")]
    Denied(String),
    /// There is nothing to serve yet.
    #[error("{0}")]
    NotReady(String),
}

/// The service, to be mounted in tonic's server. Cloning shares it.
#[derive(Debug)]
pub struct Service<D> {
    shared: Arc<Shared<D>>,
    max_request_bytes: usize,
}

/// What every stream uses.
#[derive(Debug)]
pub(super) struct Shared<D> {
    pub(super) directory: D,
    pub(super) report: Report,
    pub(super) stop: CancellationToken,
    pub(super) groups: Groups,
}

// === impl Service ===

impl<D: Directory> Service<D> {
    /// A service that asks `directory`, tells `report`, and ends every stream when `stop` is cancelled.
    pub fn new(directory: D, report: Report, stop: CancellationToken) -> Self {
        let shared = Arc::new(Shared { directory, report, stop, groups: Groups::default() });
        Self { shared, max_request_bytes: MAX_REQUEST_BYTES }
    }

    /// The same with another limit on the size of a request.
    #[must_use]
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.max_request_bytes = bytes;
        self
    }

    /// Whether a request for `path` is for this service.
    pub fn answers(&self, path: &str) -> bool {
        let service = path.strip_prefix('/').and_then(|path| path.split('/').next());
        service == Some(<Self as tonic::server::NamedService>::NAME)
    }
}

impl<D> Clone for Service<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), max_request_bytes: self.max_request_bytes }
    }
}

impl<D> tonic::server::NamedService for Service<D> {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl<D, B> tower::Service<http::Request<B>> for Service<D>
where
    D: Directory,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let protocol = match request.uri().path() {
            STREAM => Protocol::Sotw,
            DELTA => Protocol::Delta,
            _ => return ready(Ok(Status::unimplemented("no such method").into_http())),
        };
        let (parts, inbound) = request.into_parts();
        let requests = Messages::new(inbound, self.max_request_bytes);
        let driver = Driver::new(Arc::clone(&self.shared), protocol, parts.extensions, requests);
        let body = tonic::body::Body::new(driver);
        let mut response = http::Response::new(body);
        response.headers_mut().insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
        ready(Ok(response))
    }
}

// === Status ===

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthenticated(reason) => Self::unauthenticated(reason),
            Refusal::Denied(reason) => Self::permission_denied(reason),
            Refusal::NotReady(reason) => Self::unavailable(reason),
        }
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooManyNames => Self::resource_exhausted(fault.to_string()),
            Fault::Undecodable
            | Fault::NoNode
            | Fault::InvalidNode
            | Fault::NodeChanged
            | Fault::NoType
            | Fault::OtherType
            | Fault::OtherProtocol => Self::invalid_argument(fault.to_string()),
        }
    }
}
