//! The discovery services.
//!
//! Owns: which transport answers a request, and what a client must show to be let in. May use: tonic as the server
//! that they are mounted in. Never: spawns; a stream is driven by whoever sends its response body.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{BoxFuture, Either};
use proto::wire;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use translators::name::Owner;

use super::body::Driver;
use super::frame::Messages;
use super::gate::Gate;
use super::group::Groups;
use super::limits::Limits;
use super::lobby::Lobby;
use super::methods::{self, Form, Method};
use super::pollers::Pollers;
use super::rest::texts::Texts;
use super::session::Fault;
use super::{fetch, rest};
use crate::publish::{Reader, Snapshot};
use crate::report::Report;

/// How long a client waits at most for what is being made for it.
const MADE_WITHIN: Duration = Duration::from_secs(10);

/// Who knows the proxies.
pub trait Directory: Send + Sync + 'static {
    /// Lets a stream in: `extensions` are those of its HTTP request, `node` is what it says of itself.
    fn admit(&self, extensions: &http::Extensions, node: &wire::Node) -> Result<Admission, Refusal>;

    /// Ready when whom [`Refusal::BeingMade`] turned away before it was called may be let in. Who turns nobody away by that
    /// has no news.
    fn news(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
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
    /// What it is to be served is being made now, since nobody like it was there before.
    #[error("{0}")]
    BeingMade(String),
}

/// The services, to be mounted in tonic's server. Cloning shares them.
#[derive(Debug)]
pub struct Service<D> {
    pub(super) shared: Arc<Shared<D>>,
}

/// What every stream uses.
#[derive(Debug)]
pub(super) struct Shared<D> {
    pub(super) directory: D,
    pub(super) report: Report,
    pub(super) stop: CancellationToken,
    pub(super) groups: Groups,
    pub(super) limits: Limits,
    pub(super) gate: Gate,
    /// Clients that ask again and again.
    pub(super) pollers: Pollers,
    /// What they are answered with.
    pub(super) texts: Texts,
}

// === impl Service ===

impl<D: Directory> Service<D> {
    /// Services that ask `directory`, tell `report`, and end every stream when `stop` is cancelled.
    pub fn new(directory: D, report: Report, stop: CancellationToken) -> Self {
        Self::within(Limits::DEFAULT, directory, report, stop)
    }

    /// The same with other limits.
    pub fn within(limits: Limits, directory: D, report: Report, stop: CancellationToken) -> Self {
        let shared = Shared {
            directory,
            report,
            stop,
            groups: Groups::default(),
            limits,
            gate: Gate::new(limits.opened),
            pollers: Pollers::default(),
            texts: Texts::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether a gRPC request for `path` is for one of these services.
    pub fn answers(&self, path: &str) -> bool {
        methods::of(path).is_some()
    }

    /// Answers a request that is not gRPC.
    pub fn poll<B>(&self, request: http::Request<B>) -> BoxFuture<'static, http::Response<tonic::body::Body>>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Box::pin(rest::answer(Arc::clone(&self.shared), request))
    }

    /// Forgets the clients that have stopped polling; to be called now and then.
    pub fn tidy(&self) {
        let now = Instant::now();
        self.shared.pollers.tidy(now);
        self.shared.texts.tidy(now);
    }
}

impl<D> Clone for Service<D> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
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
    type Future =
        Either<Ready<Result<Self::Response, Infallible>>, BoxFuture<'static, Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = methods::of(request.uri().path()).unwrap_or(Err(methods::NoSuchMethod));
        let Ok(Method { kind, form }) = method else {
            return Either::Left(ready(Ok(Status::unimplemented("no such method").into_http())));
        };
        let shared = Arc::clone(&self.shared);
        match form {
            Form::Stream(protocol) => {
                let (parts, inbound) = request.into_parts();
                let lobby = parts.extensions.get::<Lobby>().cloned().unwrap_or_default();
                let requests = Messages::new(inbound, shared.limits.request_bytes).of(lobby.guest());
                let driver = Driver::new(shared, (protocol, kind), parts.extensions, requests);
                Either::Left(ready(Ok(grpc(tonic::body::Body::new(driver)))))
            }
            Form::Fetch(kind) => {
                let answer = fetch::answer(shared, kind, request);
                Either::Right(Box::pin(async { Ok(answer.await.map_or_else(|status| status.into_http(), grpc)) }))
            }
        }
    }
}

// === impl Shared ===

impl<D: Directory> Shared<D> {
    /// Lets a client in; what is being made for it is waited for, for a while.
    pub(super) fn admit(
        self: &Arc<Self>,
        extensions: &http::Extensions,
        node: &wire::Node,
    ) -> BoxFuture<'static, Result<Admission, Refusal>> {
        match self.directory.admit(extensions, node) {
            Err(Refusal::BeingMade(_)) => {}
            decided => return Box::pin(ready(decided)),
        }
        let (shared, extensions, node) = (Arc::clone(self), extensions.clone(), node.clone());
        Box::pin(async move {
            let deadline = tokio::time::Instant::now() + MADE_WITHIN;
            loop {
                // Before it is asked: it may be made in between.
                let news = shared.directory.news();
                match shared.directory.admit(&extensions, &node) {
                    Err(Refusal::BeingMade(reason)) => {
                        let made = tokio::time::timeout_at(deadline, news).await;
                        made.map_err(|_| Refusal::BeingMade(reason))?;
                    }
                    decided => return decided,
                }
            }
        })
    }
}

/// An answer with a body of gRPC frames.
fn grpc(body: tonic::body::Body) -> http::Response<tonic::body::Body> {
    let mut response = http::Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, tonic::metadata::GRPC_CONTENT_TYPE);
    response
}

// === Status ===

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthenticated(reason) => Self::unauthenticated(reason),
            Refusal::Denied(reason) => Self::permission_denied(reason),
            Refusal::NotReady(reason) | Refusal::BeingMade(reason) => Self::unavailable(reason),
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
