//! One stream, sans-IO: requests in, responses and their answers out.
//!
//! Owns: what the proxy at the other end wants, holds, is owed and has refused, per type. May use:
//! `publish`; the time is passed in. Never: reads a clock, waits, or sends.
//!
//! What to send follows from two snapshots: the one last evaluated for a type and the current one. Their
//! difference, as far as it is subscribed to, plus the names that are owed for another reason, is the next
//! response (`respond.rs`). It is computed when it is asked for, so nothing queues.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use translators::name::RuleRef;
use translators::resource::{Kind, Name, Version};

use super::board::Siblings;
use super::group::Group;
use super::interest::Interest;
use super::node::Client;
use super::request::{Holding, List, Request, Wants};
use super::sotw;
use super::stance::Stance;
use super::types::{Leaving, TypeState};
use super::warmth::Warming;
use crate::publish::{ResourceSet, Snapshot};
use crate::report::TypeStatus;

/// How long clusters and endpoints outlive their snapshot when the proxy does not accept what replaces them.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long they outlive it while a listener that was replaced drains: as long as Envoy's do by default.
pub const DRAIN: Duration = Duration::from_secs(600);

/// How many names one stream may subscribe to, over all types.
pub(super) const MAX_NAMES: usize = 200_000;

/// Which of the two protocols a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// State of the world.
    Sotw,
    /// Incremental.
    Delta,
}

/// Why a stream has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The request is no request.
    #[error("the request cannot be decoded")]
    Undecodable,
    /// The first request names no node.
    #[error("the first request of a stream has no node id")]
    NoNode,
    /// The node is no node.
    #[error("the node cannot be decoded")]
    InvalidNode,
    /// A later request names another node.
    #[error("the node changed within the stream")]
    NodeChanged,
    /// The request names no type.
    #[error("the request has no type url")]
    NoType,
    /// The stream is of another type.
    #[error("the service of the stream is for another type")]
    OtherType,
    /// The request is of the other protocol.
    #[error("the request is not of the stream's protocol")]
    OtherProtocol,
    /// More names than a stream may hold.
    #[error("more than 200000 names on one stream")]
    TooManyNames,
}

/// What a proxy said to a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The type.
    pub kind: Kind,
    /// The version of the response.
    pub version: Version,
    /// What it said.
    pub outcome: Outcome,
}

/// Yes or no.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It holds these now.
    Accepted(Arc<[Name]>),
    /// It refused; see [`crate::report::Rejection`].
    Refused {
        /// The gRPC code.
        code: i32,
        /// Its words, fit to be shown.
        reason: String,
        /// The resources, as far as its words tell.
        resources: Vec<Name>,
        /// The rules that made them.
        rules: Vec<RuleRef>,
    },
}

/// A response: the frame on the wire is the head followed by the entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The type.
    pub kind: Kind,
    /// The version of what it says.
    pub version: Version,
    /// How large the message is.
    pub bytes: usize,
    /// The gRPC frame: all of it if other streams are sent the same, else without the resources.
    pub head: Bytes,
    /// The resources that follow; shared with every other stream.
    pub entries: Vec<Bytes>,
}

/// One stream.
#[derive(Debug)]
pub struct Session {
    pub(super) protocol: Protocol,
    pub(super) client: Client,
    secrets: bool,
    /// The only type that is served.
    pub(super) only: Option<Kind>,
    pub(super) group: Arc<Group>,
    /// The last that was used.
    pub(super) nonce: u64,
    /// When it was last asked for a response: what was to be said by then was said.
    polled_at: Option<Instant>,
    /// A bit for each kind that was asked for.
    asked_for: u16,
    /// It may subscribe to something else than when it was asked for its interest.
    moved: bool,
    /// What was not asked for has no state.
    pub(super) types: [Option<Box<TypeState>>; Kind::ALL.len()],
}

// === impl Session ===

impl Session {
    /// A stream that has said nothing yet, alone in its group.
    pub fn new(protocol: Protocol) -> Self {
        Self::within(Arc::default(), protocol)
    }

    /// A stream that has said nothing yet.
    pub fn within(group: Arc<Group>, protocol: Protocol) -> Self {
        Self {
            protocol,
            client: Client::default(),
            secrets: true,
            only: None,
            group,
            nonce: 0,
            polled_at: None,
            asked_for: 0,
            moved: false,
            types: Default::default(),
        }
    }

    /// The same without secrets: they are passed over like a type that is not served.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        self.secrets = false;
        self
    }

    /// The same for a client that can do more than all can.
    #[must_use]
    pub fn with_client(mut self, client: Client) -> Self {
        self.client = client;
        self
    }

    /// The same of a service for one type: a request need not name it, and may name no other.
    #[must_use]
    pub fn of_type(mut self, kind: Kind) -> Self {
        self.only = Some(kind);
        self
    }

    /// Takes a request: an answer to the last response, a change of subscription, or both. The node is not
    /// looked at. A type that is not served is passed over.
    pub fn on_request(
        &mut self,
        request: &Request<'_>,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Result<Option<Answer>, Fault> {
        match (self.protocol, &request.wants) {
            (Protocol::Sotw, Wants::Sotw { version, names }) => self.on_sotw(request, version, names, snapshot, now),
            (Protocol::Delta, Wants::Delta { subscribe, unsubscribe, holds }) => {
                self.on_delta(request, [subscribe, unsubscribe], holds, snapshot, now)
            }
            (Protocol::Sotw, Wants::Delta { .. }) | (Protocol::Delta, Wants::Sotw { .. }) => Err(Fault::OtherProtocol),
        }
    }

    /// The next response, if one is due; to be asked again until there is none.
    pub fn poll(&mut self, snapshot: &Snapshot, now: Instant) -> Option<Response> {
        self.poll_beside(Siblings::default(), snapshot, now)
    }

    /// The same beside other streams of the same proxy.
    pub(super) fn poll_beside(
        &mut self,
        siblings: Siblings<'_>,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Option<Response> {
        self.polled_at = Some(now);
        for kind in Kind::ALL {
            if self.asks_for(kind)
                && let Some(response) = self.additions(kind, siblings, snapshot, now)
            {
                return Some(response);
            }
        }
        for kind in [Kind::Cluster, Kind::Endpoints] {
            if self.asks_for(kind)
                && let Some(response) = self.removals(kind, siblings, snapshot, now)
            {
                return Some(response);
            }
        }
        Kind::ALL.into_iter().find_map(|kind| self.heartbeat(kind, snapshot, now))
    }

    /// What it is to be told of from now on, if that may be something else than before. Of anything else it has nothing
    /// to say.
    pub(super) fn next_interest(&mut self) -> Option<Arc<Interest>> {
        if !std::mem::take(&mut self.moved) {
            return None;
        }
        let asked = Kind::ALL.into_iter().filter(|kind| self.asks_for(*kind));
        Some(self.group.interest(Interest::of(asked.map(|kind| (kind, &self.of(kind).subscription)))))
    }

    /// Passes over changes since it was asked for a response last, as far as they are none of what it takes.
    pub(super) fn pass_over(&mut self, snapshot: &Snapshot) {
        for kind in Kind::ALL {
            if self.asks_for(kind) {
                self.of_mut(kind).pass_over(snapshot.of(kind));
            }
        }
    }

    /// When to ask again though nothing was received and nothing changed.
    pub fn wake_at(&self) -> Option<Instant> {
        let asked = |kind: Kind| self.asks_for(kind).then(|| self.of(kind));
        let (cluster, endpoints) = (asked(Kind::Cluster), asked(Kind::Endpoints));
        // Endpoints go after their clusters.
        let holding = cluster.filter(|cluster| !cluster.held.is_empty()).or(endpoints);
        let held =
            holding.into_iter().filter(|state| state.outstanding.is_none()).flat_map(|state| state.held.values());
        let late = |held: &Leaving| [held.late_at(), held.late_at() + GRACE, held.drained_at()];
        let removals = held.flat_map(late).filter(|at| Some(*at) > self.polled_at).min();
        let sent = cluster.filter(|cluster| cluster.outstanding.is_some()).and_then(|cluster| cluster.sent_at);
        let unanswered = sent.map(|at| at + GRACE);
        let answered = Kind::ALL.into_iter().filter_map(asked).filter(|state| state.outstanding.is_none());
        let later = answered.flat_map(|state| [state.refused.due_at(), state.heartbeats.due_at()]);
        let waiting = Kind::ALL.into_iter().filter_map(asked).filter_map(|state| state.waits).map(|(_, until)| until);
        [removals, unanswered, waiting.min()]
            .into_iter()
            .chain(later)
            .flatten()
            .filter(|at| Some(*at) > self.polled_at)
            .min()
    }

    /// How a stream of one type stands, as far as others of the same proxy may wait for it.
    pub(super) fn stance_alone(&self) -> Option<Stance<'_>> {
        self.of(self.only?).stance()
    }

    /// The clusters under way that the proxy does not have, of a stream for clusters.
    pub(super) fn warming_alone(&self) -> Option<Warming> {
        self.only.filter(|kind| *kind == Kind::Cluster).and_then(|kind| self.of(kind).warming())
    }

    /// Whether what others of the same proxy do next may make a response due.
    pub(super) fn waits_for_siblings(&self) -> bool {
        self.only.map(|kind| self.of(kind)).is_some_and(|state| state.waits.is_some() || !state.held.is_empty())
    }

    /// How many responses of this type were larger than what clients take by default.
    pub fn large_responses(&self, kind: Kind) -> u64 {
        self.of(kind).large
    }

    /// What there is to be seen of each type, but for what the proxy refuses.
    pub fn status(&self) -> BTreeMap<Kind, TypeStatus> {
        Kind::ALL.into_iter().filter_map(|kind| Some((kind, self.of(kind).status()?))).collect()
    }

    /// Whether the proxy refuses the resource as it is now.
    pub fn refuses(&self, kind: Kind, name: &Name) -> bool {
        self.of(kind).refused.culprits.contains_key(name)
    }

    /// The type of a request, if it is served here.
    fn kind_of(&self, type_url: &str) -> Result<Option<Kind>, Fault> {
        let kind = match self.only {
            None if type_url.is_empty() => return Err(Fault::NoType),
            Some(only) if type_url.is_empty() || type_url == only.type_url() => Some(only),
            Some(_) => return Err(Fault::OtherType),
            None => Kind::from_type_url(type_url),
        };
        let served = |kind: &Kind| match self.protocol {
            Protocol::Sotw => !kind.is_incremental(),
            Protocol::Delta => true,
        };
        let kind = kind.filter(served);
        Ok(kind.filter(|kind| self.secrets || *kind != Kind::Secret))
    }

    /// Whether the type was ever asked for: a stream of one type is not to look through the state of all.
    pub(super) fn asks_for(&self, kind: Kind) -> bool {
        self.asked_for & (1 << kind as u8) != 0
    }

    /// How many names are subscribed to of all other types.
    fn names_but(&self, kind: Kind) -> usize {
        let others = Kind::ALL.into_iter().filter(|other| *other != kind && self.asks_for(*other));
        others.map(|other| self.of(other).subscription.size()).sum()
    }

    pub(super) fn of(&self, kind: Kind) -> &TypeState {
        static NEVER_ASKED_FOR: LazyLock<TypeState> = LazyLock::new(TypeState::default);
        self.types[kind as usize].as_deref().unwrap_or_else(|| &NEVER_ASKED_FOR)
    }

    pub(super) fn of_mut(&mut self, kind: Kind) -> &mut TypeState {
        self.types[kind as usize].get_or_insert_default()
    }

    /// Tells a proxy that comes for virtual hosts of which routes it is not to wait for any: of those that it takes, or
    /// of all if it asks for them elsewhere.
    fn release(&mut self, snapshot: &Snapshot) {
        let routes = snapshot.of(Kind::Route).iter();
        let elsewhere = self.only.is_some();
        let taken: Vec<_> =
            routes.filter(|route| elsewhere || self.of(Kind::Route).subscription.takes(route)).cloned().collect();
        self.of_mut(Kind::VirtualHost).release(&taken);
    }

    fn on_sotw(
        &mut self,
        request: &Request<'_>,
        version: &str,
        names: &List<'_>,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Result<Option<Answer>, Fault> {
        let Some(kind) = self.kind_of(request.type_url)? else { return Ok(None) };
        self.asked_for |= 1 << kind as u8;
        if self.names_but(kind) + names.len() > MAX_NAMES {
            return Err(Fault::TooManyNames);
        }
        let state = &mut **self.types[kind as usize].get_or_insert_default();
        if sotw::is_stale(request.nonce, state.nonce) {
            return Ok(None);
        }
        let answer = match &state.outstanding {
            Some(sent) if !request.nonce.is_empty() => {
                let accepted = sotw::accepts_despite_error(kind, version, &sent.content.said, state.accepted.as_ref());
                state.on_answer(kind, request.error.filter(|_| !accepted), now)
            }
            _ => None,
        };
        remember(&self.group, kind, state, answer.as_ref());
        let current = snapshot.of(kind);
        if !state.requested {
            // It has nothing yet, or what others of its group accepted with everything else.
            state.good = if version.is_empty() { Some(ResourceSet::default()) } else { self.group.accepted(kind) };
        }
        let difference = state.subscription.replace(kind, names, &self.group, |name| intern(current, name));
        self.moved |= difference.changed;
        state.subscribe(kind, difference, current);
        Ok(answer)
    }

    fn on_delta(
        &mut self,
        request: &Request<'_>,
        [subscribe, unsubscribe]: [&List<'_>; 2],
        holds: &[Holding<'_>],
        snapshot: &Snapshot,
        now: Instant,
    ) -> Result<Option<Answer>, Fault> {
        let Some(kind) = self.kind_of(request.type_url)? else { return Ok(None) };
        self.asked_for |= 1 << kind as u8;
        let others = self.names_but(kind);
        let state = &mut **self.types[kind as usize].get_or_insert_default();
        if others + subscribe.len() > MAX_NAMES {
            return Err(Fault::TooManyNames);
        }
        let answers_last = state.nonce.is_some_and(|nonce| request.nonce.parse() == Ok(nonce));
        let answer = if answers_last { state.on_answer(kind, request.error, now) } else { None };
        remember(&self.group, kind, state, answer.as_ref());
        let current = snapshot.of(kind);
        let (first, group) = (!state.requested, &self.group);
        let difference =
            state.subscription.change(kind, first, subscribe, unsubscribe, group, |name| intern(current, name));
        // What is asked for again counts once.
        if others + state.subscription.size() > MAX_NAMES {
            return Err(Fault::TooManyNames);
        }
        // Endpoints that are not answered are sent when their cluster is; nothing brings the other named types again.
        let resumes = difference.everything || (kind == Kind::Endpoints && difference.all && !holds.is_empty());
        self.moved |= first || difference.changed;
        state.subscribe(kind, difference, current);
        if !first {
            return Ok(answer);
        }
        if kind == Kind::VirtualHost {
            self.release(snapshot);
        }
        let state = self.of_mut(kind);
        if resumes {
            return Ok(state.reconnect(kind, current, holds, now));
        }
        state.returns(kind, current, holds);
        Ok(None)
    }
}

/// What a stream that takes everything has accepted is the last good of its group.
fn remember(group: &Group, kind: Kind, state: &TypeState, answer: Option<&Answer>) {
    let accepted = answer.is_some_and(|answer| matches!(answer.outcome, Outcome::Accepted(_)));
    let whole = kind.is_full_state() && state.subscription.wildcard() && state.refused.suspects.is_empty();
    if accepted
        && whole
        && let Some(good) = &state.good
    {
        group.accept(kind, state.refused.as_held(good));
    }
}

/// The snapshot's own copy of the name, if it has one: streams share it.
fn intern(current: &ResourceSet, name: &str) -> Name {
    current.get(name).map_or_else(|| Name::from(name), |resource| Name::clone(resource.name()))
}
