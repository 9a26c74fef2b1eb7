//! One stream, sans-IO: requests in, responses and their answers out.
//!
//! Owns: what the proxy at the other end wants, holds, is owed and has refused, per type. May use:
//! `publish`; the time is passed in. Never: reads a clock, waits, or sends.
//!
//! What to send follows from two snapshots: the one last evaluated for a type and the current one. Their
//! difference, as far as it is subscribed to, plus the names that are owed for another reason, is the next
//! response. It is computed when it is asked for, so nothing queues.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::wire;
use translators::name::RuleRef;
use translators::resource::{Kind, Name, Resource, Version};

use super::types::TypeState;
use super::{delta, sotw};
use crate::publish::{ResourceSet, Snapshot};

/// How long clusters and endpoints outlive their snapshot when the proxy does not accept what replaces them.
pub const GRACE: Duration = Duration::from_secs(5);

/// How many names one stream may subscribe to, per type.
const MAX_NAMES: usize = 200_000;

/// Which of the two protocols a stream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// State of the world.
    Sotw,
    /// Incremental.
    Delta,
}

/// A request of either protocol.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// State of the world.
    Sotw(wire::DiscoveryRequest),
    /// Incremental.
    Delta(wire::DeltaDiscoveryRequest),
}

/// Why a stream has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
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
    /// The request is of the other protocol.
    #[error("the request is not of the stream's protocol")]
    OtherProtocol,
    /// More names than a stream may hold.
    #[error("more than 200000 names of one type")]
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
    Accepted(Vec<Name>),
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

/// A response: the message on the wire is the head followed by the entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The type.
    pub kind: Kind,
    /// The version of what it says.
    pub version: Version,
    /// The message without its resources.
    pub head: Bytes,
    /// The resources; shared with every other stream.
    pub entries: Vec<Bytes>,
}

/// What a response says, before it is bytes.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) version: Version,
    pub(super) resources: Vec<Arc<Resource>>,
    pub(super) removed: Vec<Name>,
}

/// One stream.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    secrets: bool,
    nonce: u64,
    types: [TypeState; Kind::ALL.len()],
}

// === impl Request ===

impl Request {
    /// The encoded node.
    pub fn node(&self) -> &Bytes {
        match self {
            Self::Sotw(request) => &request.node,
            Self::Delta(request) => &request.node,
        }
    }
}

// === impl Content ===

impl Content {
    /// Whether it says the same, in whatever order.
    fn says_the_same(&self, other: &Self) -> bool {
        let said = |content: &Self| -> BTreeMap<Name, Version> {
            content.resources.iter().map(|resource| (Name::clone(resource.name()), resource.version())).collect()
        };
        self.removed == other.removed && self.resources.len() == other.resources.len() && said(self) == said(other)
    }
}

// === impl Session ===

impl Session {
    /// A stream that has said nothing yet.
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, secrets: true, nonce: 0, types: Default::default() }
    }

    /// The same without secrets: they are passed over like a type that is not served.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        self.secrets = false;
        self
    }

    /// Takes a request: an answer to the last response, a change of subscription, or both. The node is not
    /// looked at. A type that is not served is passed over.
    pub fn on_request(
        &mut self,
        request: &Request,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Result<Option<Answer>, Fault> {
        match (self.protocol, request) {
            (Protocol::Sotw, Request::Sotw(request)) => self.on_sotw(request, snapshot),
            (Protocol::Delta, Request::Delta(request)) => self.on_delta(request, snapshot, now),
            (Protocol::Sotw, Request::Delta(_)) | (Protocol::Delta, Request::Sotw(_)) => Err(Fault::OtherProtocol),
        }
    }

    /// The next response, if one is due; to be asked again until there is none.
    pub fn poll(&mut self, snapshot: &Snapshot, now: Instant) -> Option<Response> {
        for kind in Kind::ALL {
            if let Some(response) = self.additions(kind, snapshot, now) {
                return Some(response);
            }
        }
        [Kind::Cluster, Kind::Endpoints].into_iter().find_map(|kind| self.removals(kind, snapshot, now))
    }

    /// When to ask again though nothing was received and nothing changed.
    pub fn wake_at(&self) -> Option<Instant> {
        let cluster = self.of(Kind::Cluster);
        let endpoints = self.of(Kind::Endpoints);
        let wake = |state: &TypeState| state.release_at.filter(|_| state.outstanding.is_none());
        // Endpoints go after their clusters.
        let removals = if cluster.held.is_empty() { wake(endpoints) } else { wake(cluster) };
        let unanswered = cluster.sent_at.filter(|_| cluster.outstanding.is_some()).map(|at| at + GRACE);
        [removals, unanswered].into_iter().flatten().min()
    }

    /// How many names of `kind` the stream subscribes to; `None` for everything.
    pub fn subscribed(&self, kind: Kind) -> Option<usize> {
        self.of(kind).subscription.len()
    }

    /// Whether the proxy refuses the resource as it is now.
    pub fn refuses(&self, kind: Kind, name: &Name) -> bool {
        self.of(kind).refused.culprits.contains_key(name)
    }

    /// The type of a request, if it is served here.
    fn kind_of(&self, type_url: &str) -> Result<Option<Kind>, Fault> {
        if type_url.is_empty() {
            return Err(Fault::NoType);
        }
        Ok(Kind::from_type_url(type_url).filter(|kind| self.secrets || *kind != Kind::Secret))
    }

    fn of(&self, kind: Kind) -> &TypeState {
        &self.types[kind as usize]
    }

    fn of_mut(&mut self, kind: Kind) -> &mut TypeState {
        &mut self.types[kind as usize]
    }

    fn on_sotw(&mut self, request: &wire::DiscoveryRequest, snapshot: &Snapshot) -> Result<Option<Answer>, Fault> {
        let Some(kind) = self.kind_of(&request.type_url)? else { return Ok(None) };
        if request.resource_names.len() > MAX_NAMES {
            return Err(Fault::TooManyNames);
        }
        let state = self.of_mut(kind);
        if sotw::is_stale(&request.response_nonce, state.nonce) {
            return Ok(None);
        }
        let answer = match &state.outstanding {
            Some(sent) if !request.response_nonce.is_empty() => {
                let accepted = sotw::accepts_despite_error(kind, &request.version_info, sent.version, state.accepted);
                state.on_answer(kind, request.error_detail.as_ref().filter(|_| !accepted))
            }
            _ => None,
        };
        let current = snapshot.of(kind);
        let difference = state.subscription.replace(kind, &request.resource_names, |name| intern(current, name));
        state.subscribe(kind, difference, current);
        Ok(answer)
    }

    fn on_delta(
        &mut self,
        request: &wire::DeltaDiscoveryRequest,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Result<Option<Answer>, Fault> {
        let Some(kind) = self.kind_of(&request.type_url)? else { return Ok(None) };
        let state = self.of_mut(kind);
        if state.subscription.size() + request.resource_names_subscribe.len() > MAX_NAMES {
            return Err(Fault::TooManyNames);
        }
        let answers_last = state.nonce.is_some_and(|nonce| nonce.to_string() == request.response_nonce);
        let answer = if answers_last { state.on_answer(kind, request.error_detail.as_ref()) } else { None };
        let current = snapshot.of(kind);
        let (first, subscribe, unsubscribe) =
            (!state.requested, &request.resource_names_subscribe, &request.resource_names_unsubscribe);
        let difference = state.subscription.change(kind, first, subscribe, unsubscribe, |name| intern(current, name));
        let reconnects = first && difference.everything;
        state.subscribe(kind, difference, current);
        Ok(if reconnects { state.reconnect(kind, current, &request.initial_resource_versions, now) } else { answer })
    }

    /// New and changed resources of `kind`, and whatever is owed.
    fn additions(&mut self, kind: Kind, snapshot: &Snapshot, now: Instant) -> Option<Response> {
        let current = snapshot.of(kind);
        let protocol = self.protocol;
        let waits = matches!(kind, Kind::Listener | Kind::Route) && self.clusters_are_on_their_way(snapshot, now);
        let state = self.of_mut(kind);
        if !state.requested || state.outstanding.is_some() {
            return None;
        }
        if state.subscription.is_empty() {
            state.seen = current.clone();
            return None;
        }
        // What answers a subscription to a whole says the whole.
        let whole = state.due || (kind.is_full_state() && !state.owed.is_empty());
        // A whole that was refused may be another one without a name that is not asked for any more.
        let again = state.retry && protocol == Protocol::Sotw && kind.is_full_state();
        let again = again && state.refused.content.is_some();
        let names = if waits && !whole { state.asked(current) } else { state.news(protocol, kind, current, now) };
        let due = std::mem::take(&mut state.due) || (again && !state.retry);
        if names.is_empty() && !due {
            return None;
        }
        let response = self.respond(kind, &names, current, due, now);
        if response.is_some() && kind == Kind::Cluster {
            self.wake_endpoints(&names, snapshot);
        }
        response
    }

    /// Clusters and endpoints that are gone, once nothing that the proxy holds refers to them.
    fn removals(&mut self, kind: Kind, snapshot: &Snapshot, now: Instant) -> Option<Response> {
        let state = self.of(kind);
        if state.held.is_empty() || state.outstanding.is_some() {
            return None;
        }
        if kind == Kind::Endpoints && !self.of(Kind::Cluster).held.is_empty() {
            return None;
        }
        let late = state.release_at.is_some_and(|at| at <= now);
        // Of a client that reconnected it is not known what refers to them before it asks for its listeners.
        let known = self.of(Kind::Listener).requested || state.held.values().all(Option::is_some);
        let before: &[Kind] = match kind {
            Kind::Endpoints => &[Kind::Cluster, Kind::Listener, Kind::Route],
            Kind::Secret | Kind::Cluster | Kind::Listener | Kind::Route => &[Kind::Listener, Kind::Route],
        };
        let replaced = || known && before.iter().all(|kind| self.of(*kind).is_settled(snapshot.of(*kind)));
        if !late && !replaced() {
            return None;
        }
        let state = self.of_mut(kind);
        state.release_at = None;
        let held = std::mem::take(&mut state.held);
        let mut names: BTreeSet<Name> = held.into_keys().filter(|name| state.subscription.covers(name)).collect();
        state.join_suspects(&mut names);
        if names.is_empty() {
            return None;
        }
        self.respond(kind, &names, snapshot.of(kind), false, now)
    }

    /// A cluster that is new takes requests only when the proxy has warmed it, which is when it accepts it: a route
    /// that leads there has to come later. What was asked for does not wait, nor anything longer than the grace.
    fn clusters_are_on_their_way(&self, snapshot: &Snapshot, now: Instant) -> bool {
        let clusters = self.of(Kind::Cluster);
        clusters.awaits_new(snapshot.of(Kind::Cluster)) && clusters.sent_at.is_some_and(|at| now < at + GRACE)
    }

    /// A proxy that takes a cluster again waits for its endpoints again, whether or not they changed.
    fn wake_endpoints(&mut self, clusters: &BTreeSet<Name>, snapshot: &Snapshot) {
        let current = snapshot.of(Kind::Cluster);
        let endpoints = self.of_mut(Kind::Endpoints);
        let taken = clusters.iter().filter(|name| current.get(name).is_some() && endpoints.subscription.covers(name));
        endpoints.woken.extend(taken.cloned());
    }

    fn respond(
        &mut self,
        kind: Kind,
        names: &BTreeSet<Name>,
        current: &ResourceSet,
        due: bool,
        now: Instant,
    ) -> Option<Response> {
        let protocol = self.protocol;
        let state = &mut self.types[kind as usize];
        let content = match protocol {
            Protocol::Sotw => sotw::content(kind, names, current, &state.subscription, &state.held),
            Protocol::Delta => delta::content(names, current),
        };
        if content.resources.is_empty() && content.removed.is_empty() && !kind.is_full_state() && !due {
            return None;
        }
        if state.refused.content.as_ref().is_some_and(|refused| refused.says_the_same(&content)) {
            state.refused.suspects.extend(names.iter().cloned());
            return None;
        }
        self.nonce += 1;
        let (head, entries) = match protocol {
            Protocol::Sotw => sotw::encode(kind, self.nonce, &content),
            Protocol::Delta => delta::encode(kind, self.nonce, &content),
        };
        let version = content.version;
        state.nonce = Some(self.nonce);
        state.outstanding = Some(content);
        state.sent_at = Some(now);
        Some(Response { kind, version, head, entries })
    }
}

/// The snapshot's own copy of the name, if it has one: streams share it.
fn intern(current: &ResourceSet, name: &str) -> Name {
    current.get(name).map_or_else(|| Name::from(name), |resource| Name::clone(resource.name()))
}
