//! The response body of a stream: it drives the session.
//!
//! Owns: waiting, for whichever comes first of a request, a change, the grace of a removal and the end. May
//! use: the session, tokio's time. Never: spawns, or computes a response before the last one was taken: a
//! slow reader costs itself only.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body::{Body, Frame};
use proto::wire;
use tokio::time::Sleep;
use tonic::Status;
use translators::resource::{Kind, Name};
use translators::xds::secret::IDENTITY;

use super::board::Seat;
use super::frame::{self, Chunks, Messages};
use super::node::{Client, Remembered, is_proxyless};
use super::pulse::Pulse;
use super::push::MOST_TAKEN;
use super::refusal::Standing;
use super::request::Request;
use super::service::{Admission, Directory, Refusal, Shared};
use super::session::{Answer, Outcome, Protocol, Response, Session};
use super::stance::takes_part;
use crate::bell::Bell;
use crate::publish::{Reader, Snapshot};
use crate::report::{Connected, Observed, Proxy, Rejection, ResourceStatus, StreamReport};

/// How long a stream that has reached its age may go on until everything that it was sent is answered.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// How many requests are taken before the session is asked what it has to say.
const MOST_REQUESTS: usize = 16;

/// One stream: the frames of its response until its trailers.
pub(super) struct Driver<D, B> {
    shared: Arc<Shared<D>>,
    protocol: Protocol,
    /// The one type of its service, if it is for one.
    kind: Option<Kind>,
    extensions: http::Extensions,
    pulse: Pulse,
    requests: Messages<B>,
    /// Its age, unless it may become as old as it likes.
    age: Option<Age>,
    /// Whatever ends the stream from outside.
    ends: Vec<BoxFuture<'static, Status>>,
    /// Rings when one of `ends` has something to say.
    bell: Bell,
    /// Until it is let in: its first request.
    coming: Option<Coming>,
    open: Option<Admitted>,
    /// What is left of the response that is being sent.
    chunks: Chunks,
    /// The trailers were given.
    done: bool,
}

/// A stream that is not let in yet, though what it asked is known.
struct Coming {
    message: Bytes,
    remembered: Remembered,
    node: wire::Node,
    admission: BoxFuture<'static, Result<Admission, Refusal>>,
}

/// When a stream has become old enough.
struct Age {
    reached: Pin<Box<Sleep>>,
    /// It was: the stream ends as soon as nothing is under way, or when `reached` is again.
    old: bool,
}

/// A stream that was let in. Its lock is free but for a glance of whoever wants to see what there is.
struct Admitted {
    report: StreamReport,
    open: Arc<Mutex<Open>>,
}

/// What a stream has once it was let in.
struct Open {
    session: Session,
    /// Of a stream of one type that may wait for others of its proxy, or they for it.
    seat: Option<Box<Seat>>,
    node: Remembered,
    /// It keeps none of them: while nothing concerns it, what is gone is not kept.
    snapshots: Reader<Snapshot>,
    /// Ready when the session is to be asked again; there while it says when.
    alarm: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Who it is, and what it holds; its types are asked of the session.
    proxy: Proxy,
    refused: Standing,
    /// Something was refused since it was last looked what still is.
    refusing: bool,
    /// What others act on has changed.
    to_tell: bool,
}

// === impl Driver ===

impl<D: Directory, B> Driver<D, B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) fn new(
        shared: Arc<Shared<D>>,
        (protocol, kind): (Protocol, Option<Kind>),
        extensions: http::Extensions,
        requests: Messages<B>,
    ) -> Self {
        let age = shared.limits.stream_age().map(|age| Age { reached: Box::pin(tokio::time::sleep(age)), old: false });
        let pulse = extensions.get::<Pulse>().cloned().unwrap_or_default();
        let stopped = shared.stop.clone().cancelled_owned();
        let ends = vec![stopped.map(|()| Status::unavailable("the server stops")).boxed()];
        let (bell, chunks) = (Bell::default(), Chunks::default());
        let (coming, open) = (None, None);
        Self { shared, protocol, kind, extensions, pulse, requests, age, ends, bell, coming, open, chunks, done: false }
    }

    /// The next chunk, or how the stream ends.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        if let Some(chunk) = self.chunks.next() {
            return Poll::Ready(Ok(chunk));
        }
        // The room that they took is given back.
        self.chunks = Chunks::default();
        // Requests come first: most of them answer a response and make no other, so one look at the session is enough.
        for _ in 0..MOST_REQUESTS {
            if self.poll_coming(context)?.is_pending() {
                return self.poll_response(context);
            }
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
                Some(admitted) => {
                    let mut open = lock(&admitted.open);
                    open.node.again(request.node)?;
                    open.on_request(&request)?;
                    admitted.tell(open);
                }
                None => {
                    let (remembered, node) = Remembered::first(request.node)?;
                    let admission = self.shared.admit(&self.extensions, &node);
                    self.coming = Some(Coming { message, remembered, node, admission });
                }
            }
        }
        // There may be more.
        context.waker().wake_by_ref();
        self.poll_response(context)
    }

    /// The first chunk of the next response, or how the stream ends.
    fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        if self.bell.has_rung(context) {
            for end in &mut self.ends {
                if let Poll::Ready(end) = end.poll_unpin(&mut self.bell.context()) {
                    return Poll::Ready(Err(end));
                }
            }
            if let Some(age) = &mut self.age
                && age.poll_over(&mut self.bell.context()).is_ready()
            {
                return Poll::Ready(Err(too_old()));
            }
        }
        let Some(admitted) = &self.open else { return Poll::Pending };
        let mut open = lock(&admitted.open);
        let Poll::Ready(response) = open.poll_next(context) else {
            let end = self.age.as_ref().is_some_and(|age| age.old) && open.is_answered();
            return if end { Poll::Ready(Err(too_old())) } else { Poll::Pending };
        };
        let response = response?;
        open.warn_of_size(&response);
        self.chunks = Chunks::new(response.head, response.entries);
        Poll::Ready(Ok(self.chunks.next().unwrap_or_default()))
    }

    /// Lets a stream in that is coming; pending while what it is to be served is being made.
    fn poll_coming(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, Status> {
        let Some(coming) = &mut self.coming else { return Ok(Poll::Ready(())) };
        let Poll::Ready(admission) = coming.admission.poll_unpin(context) else { return Ok(Poll::Pending) };
        let admission = admission?;
        // Nobody who is not let in anyway takes the place of another.
        if !self.shared.gate.lets_in(Instant::now()) {
            return Err(Status::resource_exhausted("too many streams are opened, come again later"));
        }
        let Some(Coming { message, remembered, node, .. }) = self.coming.take() else { return Ok(Poll::Ready(())) };
        let admitted = self.let_in(admission, remembered, node);
        self.requests.let_in();
        let mut open = lock(&admitted.open);
        open.on_request(&Request::read(self.protocol, &message)?)?;
        admitted.tell(open);
        self.open = Some(admitted);
        Ok(Poll::Ready(()))
    }

    fn let_in(&mut self, admission: Admission, remembered: Remembered, node: wire::Node) -> Admitted {
        let client = Client::of(&node);
        let group = self.shared.groups.of(&admission.owner, &admission.snapshots);
        let kind = self.kind.filter(|kind| takes_part(*kind));
        let seat = kind.map(|kind| Box::new(Seat::at(group.board(&node.id), kind)));
        let proxy = proxy(
            node,
            &admission,
            match self.protocol {
                Protocol::Sotw => "sotw",
                Protocol::Delta => "delta",
            },
        );
        self.ends.push(admission.ended.map(Status::from).boxed());
        self.bell.ring();
        let session = Session::within(group, self.protocol).with_client(client);
        let session = match self.kind {
            Some(kind) => session.of_type(kind),
            None => session,
        };
        let open = Arc::new(Mutex::new(Open {
            session: if admission.proven { session } else { session.without_secrets() },
            seat,
            node: remembered,
            snapshots: admission.snapshots,
            alarm: None,
            proxy,
            refused: Standing::default(),
            refusing: false,
            to_tell: false,
        }));
        Admitted { report: self.shared.report.connect(open.clone()), open }
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
        self.pulse.asked();
        self.poll_next(context).map(|next| match next {
            Ok(chunk) => {
                self.pulse.gave();
                Some(Ok(Frame::data(chunk)))
            }
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

// === impl Age ===

impl Age {
    /// Ready when there is no more waiting.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        ready!(self.reached.poll_unpin(context));
        if std::mem::replace(&mut self.old, true) {
            return Poll::Ready(());
        }
        self.reached.as_mut().reset(tokio::time::Instant::now() + LAST_ANSWERS);
        self.reached.poll_unpin(context)
    }
}

// === impl Admitted ===

impl Admitted {
    /// Tells those who act on it what they act on, if that has changed.
    fn tell(&self, mut open: MutexGuard<'_, Open>) {
        if std::mem::take(&mut open.to_tell) {
            let connected: Connected = open.proxy.connected();
            drop(open);
            self.report.tell(connected);
        }
    }
}

// === impl Open ===

impl Open {
    /// The next response; waits for a change, and the time that the session gives.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Response, Status>> {
        if let Poll::Ready(None) = self.snapshots.poll_next(context) {
            return Poll::Ready(Err(Status::unavailable("the configuration of the proxy is gone")));
        }
        let snapshot = self.snapshots.current();
        loop {
            let now = Instant::now();
            let response = match &self.seat {
                None => self.session.poll(&snapshot, now),
                Some(seat) => seat.poll(&mut self.session, &snapshot, now, context.waker()),
            };
            if let Some(response) = response {
                return Poll::Ready(Ok(response));
            }
            self.forget_mended();
            ready!(self.poll_alarm(context));
        }
    }

    /// Once for each type: a client that takes no more than it does by default is cut off without a word.
    fn warn_of_size(&self, response: &Response) {
        if response.bytes > MOST_TAKEN && self.session.large_responses(response.kind) == 1 {
            let (node, kind) = (self.proxy.node.escape_debug(), response.kind.service());
            tracing::warn!(
                %node,
                r#type = kind,
                bytes = response.bytes,
                "a response is larger than the 4 MiB that a gRPC client takes unless it is told otherwise"
            );
        }
    }

    /// Whether everything that was sent is answered.
    fn is_answered(&self) -> bool {
        self.session.status().values().all(|status| status.sent == status.acked)
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
        let answer = self.session.on_request(request, &self.snapshots.current(), Instant::now())?;
        // Before the session is asked again: it is woken for whatever changes from here on.
        if let Some(interest) = self.session.next_interest() {
            self.snapshots.follow(interest);
        }
        if let Some(answer) = answer {
            self.answered(answer);
        }
        Ok(())
    }

    /// Forgets refusals whose resource was accepted since, has other content or is gone.
    fn forget_mended(&mut self) {
        if self.refusing {
            let session = &self.session;
            self.refusing = self.refused.keep(|kind, name| session.refuses(kind, name));
        }
    }

    fn answered(&mut self, Answer { kind, version, outcome }: Answer) {
        match outcome {
            Outcome::Accepted(names) => match kind {
                Kind::Listener => self.holds(&names),
                Kind::Secret if !self.proxy.has_certificate => {
                    self.proxy.has_certificate = names.iter().any(|name| **name == *IDENTITY);
                    self.to_tell |= self.proxy.has_certificate;
                }
                _ => {}
            },
            Outcome::Refused { code, reason, resources, rules } => {
                tracing::warn!(%kind, %version, code, reason, ?resources, "resources refused");
                self.refusing = true;
                self.refused.add(kind, Rejection { version, reason, resources, rules, since: SystemTime::now() });
            }
        }
    }

    /// It has accepted these listeners.
    fn holds(&mut self, listeners: &[Name]) {
        let before = self.proxy.listeners.len();
        self.proxy.listeners.extend(listeners.iter().cloned());
        self.to_tell |= self.proxy.listeners.len() != before;
    }
}

impl Observed for Mutex<Open> {
    fn proxy(&self) -> Proxy {
        let mut open = lock(self);
        let snapshot = open.snapshots.current();
        open.session.pass_over(&snapshot);
        let mut types = open.session.status();
        for (kind, status) in &mut types {
            status.rejections = open.refused.of(*kind).to_vec();
        }
        Proxy { types, ..open.proxy.clone() }
    }

    fn resources(&self) -> Vec<ResourceStatus> {
        let mut open = lock(self);
        let snapshot = open.snapshots.current();
        open.session.resources(&snapshot)
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is said of a proxy before anything was sent.
pub(super) fn proxy(node: wire::Node, admission: &Admission, protocol: &'static str) -> Proxy {
    Proxy {
        envoy: envoy_version(&node),
        node: node.id,
        owner: admission.owner.clone(),
        address: admission.address,
        proven: admission.proven,
        protocol,
        connected: SystemTime::now(),
        types: BTreeMap::new(),
        listeners: BTreeSet::new(),
        has_certificate: false,
    }
}

fn too_old() -> Status {
    Status::unavailable("the stream has reached its maximum age")
}

/// The proxy has closed its half: nothing more will be asked.
fn ended() -> Status {
    Status::new(tonic::Code::Ok, "")
}

/// `1.40.0` of an Envoy, the name and the version of another client; empty if the node does not say.
fn envoy_version(node: &wire::Node) -> String {
    if is_proxyless(node) {
        return format!("{} {}", node.user_agent_name, node.user_agent_version).trim_end().to_owned();
    }
    let version = node.user_agent_build_version.as_ref().and_then(|build| build.version);
    version.map(|v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch)).unwrap_or_default()
}
