//! One connection with all of its streams, as one future.
//!
//! Owns: the limits and timers of HTTP/2, and the order in which streams and connection have their turns. May use:
//! hyper. Never: spawns; a change that concerns many streams of a connection wakes one task, and is written at once.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::server::Connected;
use tower::{Service, ServiceExt};

use super::cork::Corked;
use crate::bell::Bell;

/// How often a silent connection is probed, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Streams on one connection: an Envoy may open one for each resource.
const MAX_STREAMS: u32 = 100_000;
/// How much of a connection may be unread. HTTP/2 ends a connection whose small unread messages use up half of it, as
/// the acceptances of thousands of streams do when a change was for all of them.
const WINDOW: u32 = 16 << 20;
/// The largest block of headers that is read.
const MAX_HEADERS: u32 = 64 << 10;

/// How often streams have their turn before the connection has its own.
const MOST_TURNS: usize = 1024;

/// The streams of one connection that hyper has opened and nobody drives yet.
#[derive(Clone, Default)]
struct Opened(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

/// Serves `connection` until it ends. When `stop` is cancelled, it takes no new streams and ends with the last one.
pub(super) async fn serve<C, S>(connection: C, service: S, stop: CancellationToken)
where
    C: Connected + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let peer = connection.connect_info();
    let (io, uncork) = Corked::pair(connection);
    let opened = Opened::default();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        service.clone().oneshot(request)
    });
    let builder = builder(opened.clone());
    let mut http = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut streams = FuturesUnordered::new();
    let mut stopped = pin!(stop.cancelled());
    let (mut stopping, mut bell) = (false, Bell::default());
    let ended = poll_fn(move |context: &mut Context<'_>| {
        if !stopping && stopped.as_mut().poll(context).is_ready() {
            stopping = true;
            http.as_mut().graceful_shutdown();
        }
        // What came in first, then what the streams make of it, then all of that goes out.
        let mut ended = http.as_mut().poll(context);
        let opened = opened.take();
        if !opened.is_empty() {
            streams.extend(opened);
            bell.ring();
        }
        let mut turns = 0;
        // They come back early when two of them could go on at once, as every stream can that has sent something.
        while turns < MOST_TURNS && bell.has_rung(context) {
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(&mut bell.context()) {}
            turns += 1;
        }
        if turns == MOST_TURNS {
            context.waker().wake_by_ref();
        }
        if turns > 0 && ended.is_pending() {
            ended = http.as_mut().poll(context);
        }
        // The next turn is the connection's own if it cannot take all.
        if let Poll::Ready(Err(error)) = uncork.poll_uncork(context) {
            tracing::debug!(%error, "a connection broke");
            return Poll::Ready(Ok(()));
        }
        ended
    });
    if let Err(error) = ended.await {
        // How a connection ends is its peer's business.
        tracing::debug!(error = &*error, "a connection failed");
    }
}

fn builder(opened: Opened) -> auto::Builder<Opened> {
    let mut builder = auto::Builder::new(opened).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MAX_HEADERS);
    builder
}

// === impl Opened ===

impl Opened {
    fn take(&self) -> Vec<BoxFuture<'static, ()>> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Opened {
    fn execute(&self, stream: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(stream));
    }
}
