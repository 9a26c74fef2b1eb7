//! One request of a client that keeps no stream: what it is to be answered.
//!
//! Owns: a session that lives for one request, and what the request says to the answer before. May use: the session,
//! tokio's time. Never: knows how request and answer are written.
//!
//! A client holds what its version says: over these transports the version of an answer is a sum over the resources in
//! it, so that it is another one exactly if the client would be told something else.

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
use super::pollers::Poller;
use super::request::{Error, Request, Wants};
use super::service::{Directory, Refusal, Shared};
use super::session::{Answer, Protocol, Session};
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

// === impl Poll ===

impl Poll {
    /// Lets a client in.
    pub(super) fn admit<D: Directory>(
        shared: &Shared<D>,
        extensions: &http::Extensions,
        kind: Kind,
        transport: &'static str,
        request: &Request<'_>,
    ) -> Result<Self, Status> {
        let (_, node) = Remembered::first(request.node)?;
        let admission = shared.directory.admit(extensions, &node)?;
        let poller = shared.pollers.of(&shared.report, body::proxy(node, &admission, transport), Instant::now())?;
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

    /// What the request is to be answered, whatever the client holds.
    pub(super) fn now(&self, request: &Request<'_>) -> Result<Said, Status> {
        let (said, _) = self.look(request)?;
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
        loop {
            if let (Some(said), true) = self.look(request)? {
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

    /// What there is to be said, and whether the client is to be told: it may hold it, or have refused it.
    fn look(&self, request: &Request<'_>) -> Result<(Option<Said>, bool), Status> {
        let Wants::Sotw { version, names } = &request.wants else {
            return Err(Status::internal("a request of another protocol"));
        };
        let (snapshot, mut answers) = (&*self.snapshot, Vec::new());
        let Some(mut said) = self.whole(request, None, &mut answers)? else { return Ok((None, false)) };
        let content = said.entries.iter().fold(Version::EMPTY, |sum, entry| sum.with(Version::of(entry)));
        // A version that was chosen for the snapshot stays the same while the content changes: then it is remembered
        // what was sent under it.
        let chosen = snapshot.said_version().is_some();
        if !chosen {
            said.head.version_info = content.to_string();
        }
        let last = self.poller.last(self.kind, names.digest());
        let holds = *version == said.head.version_info && (!chosen || last.is_none_or(|last| last == content));
        let refuses = request.error.is_some() && !holds && last == Some(content);
        if holds || refuses {
            if refuses {
                answers.clear();
                self.whole(request, request.error, &mut answers)?;
            }
            answers.drain(..).for_each(|answer| self.poller.answered(answer, snapshot));
        }
        let tell = !holds && !refuses;
        if tell || holds {
            self.poller.told(self.kind, names, snapshot, content, tell);
        }
        Ok((Some(said), tell))
    }

    /// All that a stream would be sent: in parts if it is large, of which each is answered with `error`.
    fn whole(
        &self,
        request: &Request<'_>,
        error: Option<Error<'_>>,
        answers: &mut Vec<Answer>,
    ) -> Result<Option<Said>, Status> {
        let (snapshot, now) = (&*self.snapshot, Instant::now());
        let session = Session::new(Protocol::Sotw).of_type(self.kind);
        let mut session = if self.proven { session } else { session.without_secrets() };
        session.on_request(&Request { nonce: "", error: None, ..request.clone() }, snapshot, now)?;
        let mut whole: Option<Said> = None;
        while let Some(response) = session.poll(snapshot, now) {
            let head = response.head.get(PREFIX..).unwrap_or_default();
            let mut head = wire::DiscoveryResponseHead::decode(head)
                .map_err(|error| Status::internal(format!("a response cannot be read: {error}")))?;
            let nonce = std::mem::take(&mut head.nonce);
            let said =
                whole.get_or_insert_with(|| Said { head, entries: Vec::new(), set: snapshot.of(self.kind).version() });
            said.entries.extend(response.entries);
            answers.extend(session.on_request(&Request { nonce: &nonce, error, ..request.clone() }, snapshot, now)?);
            // What is sent again after a refusal is for streams.
            if error.is_some() {
                break;
            }
        }
        Ok(whole)
    }
}
