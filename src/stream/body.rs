//! The response body of a stream: it drives the session.
//!
//! Owns: waiting, for whichever comes first of a request, a change, the grace of a removal and the end. May
//! use: the session, tokio's time. Never: spawns, or computes a response before the last one was taken: a
//! slow reader costs itself only.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use http_body::{Body, Frame};
use proto::wire;
use tokio::time::Sleep;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;
use translators::resource::Kind;
use translators::xds::secret::IDENTITY;

use super::frame::{self, Messages};
use super::node::Remembered;
use super::request::Request;
use super::service::{Directory, Shared};
use super::session::{Answer, Outcome, Protocol, Response, Session};
use crate::publish::Snapshot;
use crate::report::{Proxy, Rejection, StreamReport};

/// How many requests are taken before the session is asked what it has to say.
const MOST_REQUESTS: usize = 16;

/// One stream: the frames of its response until its trailers.
pub(super) struct Driver<D, B> {
    shared: Arc<Shared<D>>,
    protocol: Protocol,
    extensions: http::Extensions,
    requests: Messages<B>,
    /// Whatever ends the stream from outside. Each is asked only when it has something to say.
    ends: FuturesUnordered<BoxFuture<'static, Status>>,
    open: Option<Box<Open>>,
    /// What is left of the response that is being sent.
    chunks: std::vec::IntoIter<Bytes>,
    /// The trailers were given.
    done: bool,
}

/// What a stream has once it was let in.
struct Open {
    session: Session,
    node: Remembered,
    /// The newest of `snapshots`.
    snapshot: Arc<Snapshot>,
    snapshots: WatchStream<Arc<Snapshot>>,
    /// Ready when the session is to be asked again; there while it says when.
    alarm: Option<(Instant, Pin<Box<Sleep>>)>,
    report: StreamReport,
    /// The report holds refusals.
    refusing: bool,
}

// === impl Driver ===

impl<D: Directory, B> Driver<D, B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(
        shared: Arc<Shared<D>>,
        protocol: Protocol,
        extensions: http::Extensions,
        requests: Messages<B>,
    ) -> Self {
        let ends = FuturesUnordered::new();
        let stopped = shared.stop.clone().cancelled_owned();
        ends.push(stopped.map(|()| Status::unavailable("the server stops")).boxed());
        let chunks = Vec::new().into_iter();
        Self { shared, protocol, extensions, requests, ends, open: None, chunks, done: false }
    }

    /// The next chunk, or how the stream ends.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        if let Some(chunk) = self.chunks.next() {
            return Poll::Ready(Ok(chunk));
        }
        // The room that they took is given back.
        self.chunks = Vec::new().into_iter();
        // Requests come first: most of them answer a response and make no other, so one look at the session is enough.
        for _ in 0..MOST_REQUESTS {
            let Poll::Ready(message) = self.requests.poll_next(context)? else {
                return self.poll_response(context);
            };
            // What was asked for is still answered.
            let Some(message) = message else {
                let last = self.poll_response(context);
                return if last.is_pending() { Poll::Ready(Err(ended())) } else { last };
            };
            let request = Request::read(self.protocol, &message)?;
            match &mut self.open {
                Some(open) => {
                    open.node.again(request.node)?;
                    open.on_request(&request)?;
                }
                None => {
                    let mut open = Box::new(self.admit(&request)?);
                    open.on_request(&request)?;
                    self.open = Some(open);
                }
            }
        }
        // There may be more.
        context.waker().wake_by_ref();
        self.poll_response(context)
    }

    /// The first chunk of the next response, or how the stream ends.
    fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        if let Poll::Ready(Some(end)) = self.ends.poll_next_unpin(context) {
            return Poll::Ready(Err(end));
        }
        let Some(open) = &mut self.open else { return Poll::Pending };
        let response = ready!(open.poll_next(context))?;
        self.chunks = response.entries.into_iter();
        Poll::Ready(Ok(response.head))
    }

    /// Lets the stream in on its first request.
    fn admit(&self, request: &Request<'_>) -> Result<Open, Status> {
        let (remembered, node) = Remembered::first(request.node)?;
        let admission = self.shared.directory.admit(&self.extensions, &node)?;
        let group = self.shared.groups.of(&admission.workload, &admission.snapshots);
        let proxy = Proxy {
            envoy: envoy_version(&node),
            node: node.id,
            workload: admission.workload,
            address: admission.address,
            protocol: match self.protocol {
                Protocol::Sotw => "sotw",
                Protocol::Delta => "delta",
            },
            connected: SystemTime::now(),
            types: BTreeMap::new(),
            listeners: BTreeSet::new(),
            has_certificate: false,
        };
        self.ends.push(admission.ended.map(Status::unauthenticated).boxed());
        let mut snapshots = admission.snapshots;
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        let session = Session::within(group, self.protocol);
        Ok(Open {
            session: if admission.proven { session } else { session.without_secrets() },
            node: remembered,
            snapshot,
            snapshots: WatchStream::from_changes(snapshots),
            alarm: None,
            report: self.shared.report.connect(proxy),
            refusing: false,
        })
    }
}

impl<D: Directory, B> Body for Driver<D, B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.done {
            return Poll::Ready(None);
        }
        self.poll_next(context).map(|next| match next {
            Ok(chunk) => Some(Ok(Frame::data(chunk))),
            Err(end) => {
                self.done = true;
                self.open = None;
                Some(Ok(frame::of_status(&end)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

// === impl Open ===

impl Open {
    /// The next response; waits for a change, and the time that the session gives.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Response, Status>> {
        while let Poll::Ready(snapshot) = self.snapshots.poll_next_unpin(context) {
            let gone = || Status::unavailable("the configuration of the proxy is gone");
            self.snapshot = snapshot.ok_or_else(gone)?;
        }
        loop {
            if let Some(response) = self.session.poll(&self.snapshot, Instant::now()) {
                self.sent(&response);
                return Poll::Ready(Ok(response));
            }
            self.forget_mended();
            ready!(self.poll_alarm(context));
        }
    }

    /// Ready when the session is to be asked again though nothing came and nothing changed.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.session.wake_at() else {
            self.alarm = None;
            return Poll::Pending;
        };
        let set = self.alarm.take().filter(|(set, _)| *set == at);
        let (_, sleep) = self.alarm.insert(set.unwrap_or_else(|| (at, Box::pin(tokio::time::sleep_until(at.into())))));
        sleep.poll_unpin(context)
    }

    fn on_request(&mut self, request: &Request<'_>) -> Result<(), Status> {
        if let Some(answer) = self.session.on_request(request, &self.snapshot, Instant::now())? {
            self.answered(answer);
        }
        Ok(())
    }

    fn sent(&self, response: &Response) {
        let subscribed = self.session.subscribed(response.kind);
        self.report.update(|proxy| {
            let status = proxy.types.entry(response.kind).or_default();
            status.subscribed = subscribed;
            status.sent = Some(response.version);
            status.responses += 1;
        });
    }

    /// Takes refusals out of the report whose resource was accepted since, has other content or is gone.
    fn forget_mended(&mut self) {
        if !std::mem::take(&mut self.refusing) {
            return;
        }
        let session = &self.session;
        self.refusing = self.report.update(|proxy| {
            for (kind, status) in &mut proxy.types {
                status.keep_refused(|name| session.refuses(*kind, name));
            }
            proxy.types.values().any(|status| !status.rejections.is_empty())
        });
    }

    fn answered(&mut self, Answer { kind, version, outcome }: Answer) {
        if let Outcome::Refused { code, reason, resources, rules: _ } = &outcome {
            self.refusing = true;
            tracing::warn!(%kind, %version, code, reason, ?resources, "resources refused");
        }
        let subscribed = self.session.subscribed(kind);
        self.report.update(|proxy| {
            let status = proxy.types.entry(kind).or_default();
            status.subscribed = subscribed;
            match outcome {
                Outcome::Accepted(names) => {
                    status.acked = Some(version);
                    // What it held when it came was sent once.
                    status.sent.get_or_insert(version);
                    match kind {
                        Kind::Listener => proxy.listeners.extend(names.iter().cloned()),
                        Kind::Secret => proxy.has_certificate |= names.iter().any(|name| **name == *IDENTITY),
                        Kind::Cluster | Kind::Endpoints | Kind::Route => {}
                    }
                }
                Outcome::Refused { code: _, reason, resources, rules } => {
                    status.refuse(Rejection { version, reason, resources, rules, since: SystemTime::now() });
                }
            }
        });
    }
}

/// The proxy has closed its half: nothing more will be asked.
fn ended() -> Status {
    Status::new(tonic::Code::Ok, "")
}

/// `1.40.0`; empty if the node does not say.
fn envoy_version(node: &wire::Node) -> String {
    let version = node.user_agent_build_version.as_ref().and_then(|build| build.version);
    version.map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch)).unwrap_or_default()
}
