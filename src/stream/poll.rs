//! One request of a client that keeps no stream: what it is to be answered.
//!
//! Owns: a session that lives for one request, which is given what is remembered of the client, and what the request
//! says to the answer before. May use: the session,
//! tokio's time. Never: knows how request and answer are written.
//!
//! A client holds what its version says: over these transports the version of an answer is a sum over the resources in
//! it, so that it is another one exactly if the client would be told something else. That a resource lives for a time
//! only is not told: what is polled for does not expire.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use prost::Message;
use proto::wire;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use translators::name::Owner;
use translators::resource::{Kind, Version};

use super::body;
use super::frame::PREFIX;
use super::node::Remembered;
use super::pollers::{Memory, Poller};
use super::request::{Error, Request, Wants};
use super::service::{Directory, Refusal, Shared};
use super::session::{Answer, Outcome, Protocol, Session};
use crate::publish::{Reader, Snapshot};

/// A request of a client that was let in.
pub(super) struct Poll {
    pub(super) kind: Kind,
    pub(super) owner: Owner,
    pub(super) snapshots: Reader<Snapshot>,
    /// The newest of `snapshots`.
    snapshot: Arc<Snapshot>,
    proven: bool,
    ended: BoxFuture<'static, Refusal>,
    stop: CancellationToken,
    poller: Arc<Poller>,
}

/// What there is to be said.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    /// The message without resources and nonce.
    pub(super) head: wire::DiscoveryResponseHead,
    /// The resources: field 2 of the message, once for each.
    pub(super) entries: Vec<Bytes>,
    /// The version of the set that they were taken from.
    pub(super) set: Version,
}

/// All of what a request is answered.
struct Whole {
    said: Option<Said>,
    /// What the client says to it,
    answers: Vec<Answer>,
    /// and what is to be known of it then.
    memory: Memory,
}

// === impl Poll ===

impl Poll {
    /// Lets a client in.
    pub(super) async fn admit<D: Directory>(
        shared: &Arc<Shared<D>>,
        extensions: &http::Extensions,
        kind: Kind,
        transport: &'static str,
        request: &Request<'_>,
    ) -> Result<Self, Status> {
        let (_, node) = Remembered::first(request.node)?;
        let admission = shared.admit(extensions, &node).await?;
        let names = match &request.wants {
            Wants::Sotw { names, .. } => names.digest(),
            Wants::Delta { .. } => Version::EMPTY,
        };
        let proxy = body::proxy(node, &admission, transport);
        let poller = shared.pollers.of(&shared.report, proxy, (kind, names), Instant::now())?;
        let mut snapshots = admission.snapshots;
        Ok(Self {
            kind,
            owner: admission.owner,
            snapshot: snapshots.current(),
            snapshots,
            proven: admission.proven,
            ended: admission.ended,
            stop: shared.stop.clone(),
            poller,
        })
    }

    /// What the request is to be answered, whatever the client holds or has refused.
    pub(super) fn now(&self, request: &Request<'_>) -> Result<Said, Status> {
        let (said, _) = self.look(request, false)?;
        Ok(said.unwrap_or_else(|| Said {
            head: wire::DiscoveryResponseHead {
                version_info: self.snapshot.of(self.kind).version().to_string(),
                type_url: self.kind.type_url().to_owned(),
                ..Default::default()
            },
            entries: Vec::new(),
            set: self.snapshot.of(self.kind).version(),
        }))
    }

    /// The same, once it is other than what the client holds; `None` if it still is not after `patience`.
    pub(super) async fn news(&mut self, request: &Request<'_>, patience: Duration) -> Result<Option<Said>, Status> {
        let mut over = std::pin::pin!(tokio::time::sleep(patience));
        // Who has nothing and refuses nothing begins anew.
        let begins = matches!(&request.wants, Wants::Sotw { version, .. } if version.is_empty());
        let remembers = !begins || request.error.is_some();
        loop {
            if let (Some(said), true) = self.look(request, remembers)? {
                return Ok(Some(said));
            }
            let looked_at = self.snapshot.of(self.kind).version();
            while self.snapshot.of(self.kind).version() == looked_at {
                tokio::select! {
                    snapshot = poll_fn(|context| self.snapshots.poll_next(context)) => {
                        let gone = || Status::unavailable("the configuration of the proxy is gone");
                        self.snapshot = snapshot.ok_or_else(gone)?;
                    }
                    reason = &mut self.ended => return Err(reason.into()),
                    () = self.stop.cancelled() => return Err(Status::unavailable("the server stops")),
                    () = &mut over => return Ok(None),
                }
            }
        }
    }

    /// What there is to be said, and whether the client is to be told: it may hold it, or have refused it. What it
    /// `remembers` to have refused of a whole is said in the form that it accepted before, as on a stream.
    fn look(&self, request: &Request<'_>, remembers: bool) -> Result<(Option<Said>, bool), Status> {
        let Wants::Sotw { version, names } = &request.wants else {
            return Err(Status::internal("a request of another protocol"));
        };
        let (snapshot, digest) = (&*self.snapshot, names.digest());
        // What is said to be held was told last: it is accepted, whatever there is by now.
        let last = self.poller.last(self.kind, digest);
        if remembers && request.error.is_none() && last.is_some_and(|last| *version == last.to_string()) {
            self.poller.accepted(self.kind, digest);
        }
        let memory = if remembers { self.poller.memory(self.kind, digest) } else { None };
        let Whole { said: Some(mut said), answers, memory: accepted } = self.whole(request, None, memory.clone())?
        else {
            return Ok((None, false));
        };
        let content = said.entries.iter().fold(Version::EMPTY, |sum, entry| sum.with(Version::of(entry)));
        // A version that was chosen for the snapshot stays the same while the content changes: then it is remembered
        // what was sent under it, and an error is about that. Of whom nothing is remembered is told once more.
        let chosen = snapshot.said_version().is_some();
        if !chosen {
            said.head.version_info = content.to_string();
        }
        let is_last = || last == Some(content) && request.error.is_none();
        let holds = *version == said.head.version_info && (!chosen || is_last());
        if request.error.is_some() && !holds && last == Some(content) {
            let refused = self.whole(request, request.error, memory)?;
            refused.answers.into_iter().for_each(|answer| self.poller.answered(answer, snapshot));
            if !(remembers && self.kind.is_full_state()) {
                return Ok((Some(said), false));
            }
            self.poller.remember(self.kind, digest, refused.memory);
            return self.look(&Request { error: None, ..request.clone() }, true);
        }
        if holds {
            answers.into_iter().for_each(|answer| self.poller.answered(answer, snapshot));
            if self.kind.is_full_state() {
                self.poller.remember(self.kind, digest, accepted);
            }
        }
        self.poller.told(self.kind, names, snapshot, content, !holds);
        Ok((Some(said), !holds))
    }

    /// All that a stream would be sent: in parts if it is large, of which each is answered with `error`.
    fn whole(&self, request: &Request<'_>, error: Option<Error<'_>>, memory: Option<Memory>) -> Result<Whole, Status> {
        let (kind, snapshot, now) = (self.kind, &*self.snapshot, Instant::now());
        let session = Session::new(Protocol::Sotw).of_type(kind);
        let mut session = if self.proven { session } else { session.without_secrets() };
        session.on_request(&Request { nonce: "", error: None, ..request.clone() }, snapshot, now)?;
        if let Some(Memory { good, refused }) = memory {
            let (state, current) = (session.of_mut(kind), snapshot.of(kind));
            // What is refused as it is does not count as a change.
            let as_refused = current.iter().filter(|resource| refused.refuses(resource)).cloned();
            as_refused.for_each(|resource| _ = state.seen.put(resource));
            (state.good, state.refused) = (good, refused);
        }
        let (mut said, mut answers): (Option<Said>, Vec<Answer>) = Default::default();
        while let Some(response) = session.poll(snapshot, now) {
            let head = response.head.get(PREFIX..).unwrap_or_default();
            let mut head = wire::DiscoveryResponseHead::decode(head)
                .map_err(|error| Status::internal(format!("a response cannot be read: {error}")))?;
            let nonce = std::mem::take(&mut head.nonce);
            let set = snapshot.of(kind).version();
            let whole = said.get_or_insert_with(|| Said { head, entries: Vec::new(), set });
            whole.entries.extend(response.entries);
            let mut reply = Request { nonce: &nonce, error, ..request.clone() };
            // What the error is about was found out before: a version that stays the same says nothing of that.
            if let (Some(_), Wants::Sotw { version, .. }) = (error, &mut reply.wants) {
                *version = "";
            }
            let answer = session.on_request(&reply, snapshot, now)?;
            answers.extend(answer.map(|answer| as_it_is(answer, &session)));
            // What is sent again after a refusal is looked at anew.
            if error.is_some() {
                break;
            }
        }
        let state = session.of_mut(kind);
        let memory = Memory { good: state.good.take(), refused: std::mem::take(&mut state.refused) };
        Ok(Whole { said, answers, memory })
    }
}

/// The answer, without names of which another form was accepted than there is.
fn as_it_is(answer: Answer, session: &Session) -> Answer {
    match answer.outcome {
        Outcome::Accepted(names) => {
            let names = names.iter().filter(|name| !session.refuses(answer.kind, name)).cloned().collect();
            Answer { outcome: Outcome::Accepted(names), ..answer }
        }
        Outcome::Refused { .. } => answer,
    }
}
