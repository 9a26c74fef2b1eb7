//! The response body of a stream: it drives the session.
//!
//! Owns: waiting, for whichever comes first of a request, a change, the grace of a removal and the end. May
//! use: the session, tokio's time. Never: spawns, or computes a response before the last one was taken: a
//! slow reader costs itself only.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use http_body::Frame;
use proto::wire;
use tokio::sync::watch;
use tonic::Status;
use tonic::codec::Streaming;
use translators::resource::Kind;
use translators::xds::secret::IDENTITY;

use super::frame;
use super::node::Remembered;
use super::service::{Directory, Shared};
use super::session::{Answer, Outcome, Protocol, Request, Response, Session};
use crate::publish::Snapshot;
use crate::report::{Proxy, Rejection, StreamReport};

/// The frames of one stream, until its trailers.
pub(super) fn frames<D: Directory>(
    shared: Arc<Shared<D>>,
    protocol: Protocol,
    extensions: http::Extensions,
    requests: Streaming<Request>,
) -> impl Stream<Item = Result<Frame<Bytes>, Status>> + Send {
    let driver = Driver { shared, protocol, extensions, requests, open: None, frames: Vec::new() };
    futures::stream::unfold(Some(driver), async |driver| {
        let mut driver = driver?;
        match driver.next().await {
            Ok(chunk) => Some((Ok(Frame::data(chunk)), Some(driver))),
            Err(end) => Some((Ok(frame::of_status(&end)), None)),
        }
    })
}

/// One stream.
struct Driver<D> {
    shared: Arc<Shared<D>>,
    protocol: Protocol,
    extensions: http::Extensions,
    requests: Streaming<Request>,
    open: Option<Open>,
    /// What is left of the response that is being sent, last chunk first.
    frames: Vec<Bytes>,
}

/// What a stream has once it was let in.
struct Open {
    session: Session,
    node: Remembered,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    ended: BoxFuture<'static, String>,
    report: StreamReport,
    /// The report holds refusals.
    refusing: bool,
}

// === impl Driver ===

impl<D: Directory> Driver<D> {
    /// The next chunk, or how the stream ends.
    async fn next(&mut self) -> Result<Bytes, Status> {
        loop {
            if let Some(chunk) = self.frames.pop() {
                return Ok(chunk);
            }
            if self.shared.stop.is_cancelled() {
                return Err(Status::unavailable("the server stops"));
            }
            let Some(open) = &mut self.open else {
                let stop = &self.shared.stop;
                let first = tokio::select! {
                    () = stop.cancelled() => continue,
                    request = self.requests.message() => request?.ok_or_else(ended)?,
                };
                let open = self.admit(&first)?;
                self.open.insert(open).on_request(&first)?;
                continue;
            };
            let snapshot = Arc::clone(&open.snapshots.borrow_and_update());
            if let Some(response) = open.session.poll(&snapshot, Instant::now()) {
                open.sent(&response);
                self.frames = frame::of_response(response);
                continue;
            }
            drop(snapshot);
            open.forget_mended();
            tokio::select! {
                () = self.shared.stop.cancelled() => {}
                () = sleep_until(open.session.wake_at()) => {}
                reason = &mut open.ended => return Err(Status::unauthenticated(reason)),
                changed = open.snapshots.changed() => {
                    changed.map_err(|_| Status::unavailable("the configuration of the proxy is gone"))?;
                }
                request = self.requests.message() => open.on_request(&request?.ok_or_else(ended)?)?,
            }
        }
    }

    /// Lets the stream in on its first request.
    fn admit(&self, request: &Request) -> Result<Open, Status> {
        let (remembered, node) = Remembered::first(request.node())?;
        let admission = self.shared.directory.admit(&self.extensions, &node)?;
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
        let session = Session::new(self.protocol);
        Ok(Open {
            session: if admission.proven { session } else { session.without_secrets() },
            node: remembered,
            snapshots: admission.snapshots,
            ended: admission.ended,
            report: self.shared.report.connect(proxy),
            refusing: false,
        })
    }
}

// === impl Open ===

impl Open {
    fn on_request(&mut self, request: &Request) -> Result<(), Status> {
        self.node.again(request.node())?;
        let snapshot = Arc::clone(&self.snapshots.borrow());
        if let Some(answer) = self.session.on_request(request, &snapshot, Instant::now())? {
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
                    match kind {
                        Kind::Listener => proxy.listeners.extend(names),
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

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
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
