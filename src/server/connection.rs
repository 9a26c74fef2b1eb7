//! One connection with all of its streams, as one future.
//!
//! Owns: the limits and timers of HTTP, and the order in which streams and connection have their turns. May use:
//! hyper. Never: spawns; a change that concerns many streams of a connection wakes one task, and is written at once.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::server::Connected;
use tower::{Service, ServiceExt};

use super::cork::{Corked, Progress};
use super::patience::Patience;
use crate::bell::Bell;
use crate::stream::{Lobby, Pulse};

/// Streams on one connection: an Envoy may open one for each resource.
const MAX_STREAMS: u32 = 100_000;
/// How much of a connection may be unread. HTTP/2 ends a connection whose small unread messages use up half of it, as
/// the acceptances of thousands of streams do when a change was for all of them.
const WINDOW: u32 = 16 << 20;
/// The largest block of headers that is read.
const MAX_HEADERS: u32 = 64 << 10;
/// What a reader of one stream that takes nothing makes the connection hold: this, and a slice of a response more.
const MAX_UNSENT: usize = 128 << 10;
/// Streams that a peer has reset before they were looked at, and that were reset because of what it sent: beyond so
/// many, it is no peer to talk to.
const MAX_RESETS: (usize, usize) = (64, 1024);
/// Opening a connection means to send so many bytes: the preface of HTTP/2, or no whole request of HTTP/1.
const OPENING: u64 = 24;

/// How often streams have their turn before the connection has its own.
const MOST_TURNS: usize = 1024;

/// The streams of one connection that hyper has opened and nobody drives yet.
#[derive(Clone)]
struct Opened(Arc<Mutex<Fresh>>);

struct Fresh {
    streams: Vec<Watched>,
    /// That of the request which was handed over last: its stream is opened next.
    pulse: Option<Pulse>,
    stalled: Duration,
}

/// A stream that ends when its reader takes nothing for too long.
struct Watched {
    stream: BoxFuture<'static, ()>,
    pulse: Option<Pulse>,
    stalled: Duration,
    /// What its reader does not take, and how long it may go on so.
    waits: Option<(u64, Pin<Box<Sleep>>)>,
}

/// When a connection is given up: nothing of these happens to one that is in use.
struct Timers {
    /// It has sent its first bytes by then.
    opening: Option<Pin<Box<Sleep>>>,
    /// It takes no more new streams from then on.
    age: Option<Pin<Box<Sleep>>>,
    /// What its peer does not take, and how long it may go on so.
    blocked: Option<(u64, Pin<Box<Sleep>>)>,
}

/// Serves `connection` until it ends. When `stop` is cancelled, it takes no new streams and ends with the last one.
pub(super) async fn serve<C, S>(connection: C, service: S, patience: Patience, stop: CancellationToken)
where
    C: Connected + AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let peer = connection.connect_info();
    let (io, uncork) = Corked::pair(connection);
    let opened = Opened::new(patience.stalled);
    let (fresh, lobby) = (opened.clone(), Lobby::default());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(lobby.clone());
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(fresh.pulse());
        service.clone().oneshot(request)
    });
    let builder = builder(opened.clone(), &patience);
    let mut http = pin!(builder.serve_connection(TokioIo::new(io), service));
    let mut streams = FuturesUnordered::new();
    let mut stopped = pin!(stop.cancelled());
    let mut timers = Timers::new(&patience);
    let (mut stopping, mut bell, mut quiet) = (false, Bell::default(), Bell::default());
    let ended = poll_fn(move |context: &mut Context<'_>| {
        if quiet.has_rung(context) {
            let mut quiet = quiet.context();
            if !stopping && (stopped.as_mut().poll(&mut quiet).is_ready() || timers.is_old(&mut quiet)) {
                stopping = true;
                http.as_mut().graceful_shutdown();
            }
            if timers.gives_up(&uncork.progress(), &mut quiet) {
                tracing::debug!("a connection was given up: its peer sends nothing");
                return Poll::Ready(Ok(()));
            }
        }
        // What came in first, then what the streams make of it, then all of that goes out.
        let mut ended = http.as_mut().poll(context);
        let fresh = opened.take();
        if !fresh.is_empty() {
            streams.extend(fresh);
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
            // What it has opened since has its turn though nothing else may wake us.
            if opened.has_any() {
                context.waker().wake_by_ref();
            }
        }
        // The next turn is the connection's own if it cannot take all.
        if let Poll::Ready(Err(error)) = uncork.poll_uncork(context) {
            tracing::debug!(%error, "a connection broke");
            return Poll::Ready(Ok(()));
        }
        if timers.is_blocked(&uncork.progress(), patience.stalled, context) {
            tracing::debug!("a connection was given up: its peer takes nothing");
            return Poll::Ready(Ok(()));
        }
        ended
    });
    if let Err(error) = ended.await {
        // How a connection ends is its peer's business.
        tracing::debug!(error = &*error, "a connection failed");
    }
}

fn builder(opened: Opened, patience: &Patience) -> auto::Builder<Opened> {
    let mut builder = auto::Builder::new(opened);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience.idle).max_buf_size(MAX_HEADERS as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(patience.probe)
        .keep_alive_timeout(patience.answer)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buf_size(MAX_UNSENT)
        .max_pending_accept_reset_streams(MAX_RESETS.0)
        .max_local_error_reset_streams(MAX_RESETS.1);
    builder
}

// === impl Timers ===

impl Timers {
    fn new(patience: &Patience) -> Self {
        let timer = |after: Duration| Box::pin(sleep(after));
        Self { opening: Some(timer(patience.opening)), age: patience.connection_age().map(timer), blocked: None }
    }

    /// Whether it has reached its age.
    fn is_old(&mut self, context: &mut Context<'_>) -> bool {
        self.age.as_mut().is_some_and(|age| age.as_mut().poll(context).is_ready())
    }

    /// Whether the peer has not even begun in time.
    fn gives_up(&mut self, progress: &Progress, context: &mut Context<'_>) -> bool {
        let over = self.opening.as_mut().is_some_and(|opening| opening.as_mut().poll(context).is_ready());
        if over {
            self.opening = None;
        }
        over && progress.read < OPENING
    }

    /// Whether the peer has taken nothing for too long of what there is for it.
    fn is_blocked(&mut self, progress: &Progress, stalled: Duration, context: &mut Context<'_>) -> bool {
        if !progress.blocked {
            self.blocked = None;
            return false;
        }
        let (written, over) = self.blocked.get_or_insert_with(|| (progress.written, Box::pin(sleep(stalled))));
        if *written != progress.written {
            *written = progress.written;
            over.as_mut().reset(Instant::now() + stalled);
        }
        over.as_mut().poll(context).is_ready()
    }
}

// === impl Opened ===

impl Opened {
    fn new(stalled: Duration) -> Self {
        Self(Arc::new(Mutex::new(Fresh { streams: Vec::new(), pulse: None, stalled })))
    }

    /// One for the next stream.
    fn pulse(&self) -> Pulse {
        let pulse = Pulse::default();
        self.lock().pulse = Some(pulse.clone());
        pulse
    }

    fn has_any(&self) -> bool {
        !self.lock().streams.is_empty()
    }

    fn take(&self) -> Vec<Watched> {
        std::mem::take(&mut self.lock().streams)
    }

    fn lock(&self) -> MutexGuard<'_, Fresh> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Opened {
    fn execute(&self, stream: F) {
        let stream = Box::pin(stream);
        let mut fresh = self.lock();
        let (pulse, stalled) = (fresh.pulse.take(), fresh.stalled);
        fresh.streams.push(Watched { stream, pulse, stalled, waits: None });
    }
}

// === impl Watched ===

impl Future for Watched {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let Some(given) = self.pulse.as_ref().and_then(Pulse::waits) else {
            self.waits = None;
            return Poll::Pending;
        };
        let stalled = self.stalled;
        let (number, over) = self.waits.get_or_insert_with(|| (given, Box::pin(sleep(stalled))));
        if *number != given {
            *number = given;
            over.as_mut().reset(Instant::now() + stalled);
        }
        // Dropping it resets the stream.
        over.as_mut().poll(context).map(|()| tracing::debug!("a stream was given up: its reader takes nothing"))
    }
}
