//! One stream, sans-IO: requests in, responses and their answers out.
//!
//! Owns: what the proxy at the other end wants, holds, is owed and has refused, per type. May use:
//! `publish`; the time is passed in. Never: reads a clock, waits, or sends.
//!
//! What to send follows from two snapshots: the one last evaluated for a type and the current one. Their
//! difference, as far as it is subscribed to, plus the names that are owed for another reason, is the next
//! response. It is computed when it is asked for, so nothing queues.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use translators::name::RuleRef;
use translators::resource::{Kind, Name, Version};

use super::group::{Due, Group};
use super::names::Names;
use super::push::{Made, Push};
use super::request::{List, Request, Wants};
use super::types::{News, TypeState};
use super::{delta, sotw};
use crate::publish::{ResourceSet, Snapshot};
use crate::report::TypeStatus;

/// How long clusters and endpoints outlive their snapshot when the proxy does not accept what replaces them.
pub const GRACE: Duration = Duration::from_secs(5);

/// How many names one stream may subscribe to, per type.
const MAX_NAMES: usize = 200_000;

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
    /// The gRPC frame: all of it if other streams are sent the same, else without the resources.
    pub head: Bytes,
    /// The resources that follow; shared with every other stream.
    pub entries: Vec<Bytes>,
}

/// One stream.
#[derive(Debug)]
pub struct Session {
    protocol: Protocol,
    secrets: bool,
    /// The only type that is served.
    only: Option<Kind>,
    group: Arc<Group>,
    /// The last that was used.
    nonce: u64,
    /// When it was last asked for a response: what was to be said by then was said.
    polled_at: Option<Instant>,
    /// A bit for each kind that was asked for.
    asked_for: u16,
    /// What was not asked for has no state.
    types: [Option<Box<TypeState>>; Kind::ALL.len()],
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
            secrets: true,
            only: None,
            group,
            nonce: 0,
            polled_at: None,
            asked_for: 0,
            types: Default::default(),
        }
    }

    /// The same without secrets: they are passed over like a type that is not served.
    #[must_use]
    pub fn without_secrets(mut self) -> Self {
        self.secrets = false;
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
            (Protocol::Sotw, Wants::Sotw { version, names }) => self.on_sotw(request, version, names, snapshot),
            (Protocol::Delta, Wants::Delta { subscribe, unsubscribe, holds }) => {
                self.on_delta(request, [subscribe, unsubscribe], holds, snapshot, now)
            }
            (Protocol::Sotw, Wants::Delta { .. }) | (Protocol::Delta, Wants::Sotw { .. }) => Err(Fault::OtherProtocol),
        }
    }

    /// The next response, if one is due; to be asked again until there is none.
    pub fn poll(&mut self, snapshot: &Snapshot, now: Instant) -> Option<Response> {
        self.polled_at = Some(now);
        for kind in Kind::ALL {
            if self.asks_for(kind)
                && let Some(response) = self.additions(kind, snapshot, now)
            {
                return Some(response);
            }
        }
        for kind in [Kind::Cluster, Kind::Endpoints] {
            if self.asks_for(kind)
                && let Some(response) = self.removals(kind, snapshot, now)
            {
                return Some(response);
            }
        }
        None
    }

    /// When to ask again though nothing was received and nothing changed.
    pub fn wake_at(&self) -> Option<Instant> {
        let asked = |kind: Kind| self.asks_for(kind).then(|| self.of(kind));
        let (cluster, endpoints) = (asked(Kind::Cluster), asked(Kind::Endpoints));
        let wake = |state: &TypeState| state.release_at.filter(|_| state.outstanding.is_none());
        // Endpoints go after their clusters.
        let removals = cluster.filter(|cluster| !cluster.held.is_empty()).or(endpoints).and_then(wake);
        let sent = cluster.filter(|cluster| cluster.outstanding.is_some()).and_then(|cluster| cluster.sent_at);
        let unanswered = sent.map(|at| at + GRACE);
        [removals, unanswered].into_iter().flatten().filter(|at| Some(*at) > self.polled_at).min()
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
    fn asks_for(&self, kind: Kind) -> bool {
        self.asked_for & (1 << kind as u8) != 0
    }

    fn of(&self, kind: Kind) -> &TypeState {
        static NEVER_ASKED_FOR: LazyLock<TypeState> = LazyLock::new(TypeState::default);
        self.types[kind as usize].as_deref().unwrap_or_else(|| &NEVER_ASKED_FOR)
    }

    fn of_mut(&mut self, kind: Kind) -> &mut TypeState {
        self.types[kind as usize].get_or_insert_default()
    }

    fn on_sotw(
        &mut self,
        request: &Request<'_>,
        version: &str,
        names: &List<'_>,
        snapshot: &Snapshot,
    ) -> Result<Option<Answer>, Fault> {
        let Some(kind) = self.kind_of(request.type_url)? else { return Ok(None) };
        self.asked_for |= 1 << kind as u8;
        if names.len() > MAX_NAMES {
            return Err(Fault::TooManyNames);
        }
        let state = &mut **self.types[kind as usize].get_or_insert_default();
        if sotw::is_stale(request.nonce, state.nonce) {
            return Ok(None);
        }
        let answer = match &state.outstanding {
            Some(sent) if !request.nonce.is_empty() => {
                let accepted = sotw::accepts_despite_error(kind, version, &sent.content.said, state.accepted.as_ref());
                state.on_answer(kind, request.error.filter(|_| !accepted))
            }
            _ => None,
        };
        let current = snapshot.of(kind);
        let difference = state.subscription.replace(kind, names, &self.group, |name| intern(current, name));
        state.subscribe(kind, difference, current);
        Ok(answer)
    }

    fn on_delta(
        &mut self,
        request: &Request<'_>,
        [subscribe, unsubscribe]: [&List<'_>; 2],
        holds: &[(&str, &str)],
        snapshot: &Snapshot,
        now: Instant,
    ) -> Result<Option<Answer>, Fault> {
        let Some(kind) = self.kind_of(request.type_url)? else { return Ok(None) };
        self.asked_for |= 1 << kind as u8;
        let state = &mut **self.types[kind as usize].get_or_insert_default();
        if state.subscription.size() + subscribe.len() > MAX_NAMES {
            return Err(Fault::TooManyNames);
        }
        let answers_last = state.nonce.is_some_and(|nonce| request.nonce.parse() == Ok(nonce));
        let answer = if answers_last { state.on_answer(kind, request.error) } else { None };
        let current = snapshot.of(kind);
        let (first, group) = (!state.requested, &self.group);
        let difference =
            state.subscription.change(kind, first, subscribe, unsubscribe, group, |name| intern(current, name));
        // Endpoints that are not answered are sent when their cluster is; nothing brings the other named types again.
        let resumes = difference.everything || (kind == Kind::Endpoints && difference.all && !holds.is_empty());
        state.subscribe(kind, difference, current);
        Ok(if first && resumes { state.reconnect(kind, current, holds, now) } else { answer })
    }

    /// New and changed resources of `kind`, and whatever is owed.
    fn additions(&mut self, kind: Kind, snapshot: &Snapshot, now: Instant) -> Option<Response> {
        let current = snapshot.of(kind);
        let protocol = self.protocol;
        let state = self.of(kind);
        if !state.requested || state.outstanding.is_some() || state.is_quiet(current) {
            return None;
        }
        let waits = matches!(kind, Kind::Listener | Kind::Route) && self.clusters_are_on_their_way(snapshot, now);
        let state = self.of_mut(kind);
        if state.subscription.is_empty() {
            state.seen = current.clone();
            return None;
        }
        // What answers a subscription to a whole says the whole.
        let whole = state.due || (kind.is_full_state() && state.owes());
        let waits = waits && !whole;
        let due_to_all = if waits { None } else { state.due_to_all(protocol, kind, current) };
        if let Some(response) = due_to_all.and_then(|due| self.join(due, snapshot, now)) {
            return Some(response);
        }
        let state = self.of_mut(kind);
        let (woken, clusters) = (state.woken.clone(), kind == Kind::Cluster);
        // A whole that was refused may be another one without a name that is not asked for any more.
        let again = state.retry && protocol == Protocol::Sotw && kind.is_full_state();
        let again = again && state.refused.content.is_some();
        let News { names, brings_new } = match waits {
            true => News { names: state.asked(current), brings_new: false },
            false => state.news(protocol, kind, current, now),
        };
        let due = std::mem::take(&mut state.due) || (again && !state.retry);
        if names.is_empty() && !due {
            return None;
        }
        let alone = !state.held.is_empty();
        let taken = || names.iter().filter(|name| current.get(name).is_some()).cloned().collect();
        let clusters = if clusters { self.group.share(taken()) } else { None };
        let made = Made { names: self.of(kind).subscription.names().cloned(), woken, clusters, brings_new };
        let push = self.respond(kind, &names, snapshot, due, made, now)?;
        if let Some(clusters) = &push.made.clusters {
            self.types[Kind::Endpoints as usize].get_or_insert_default().wake(clusters, &self.group);
        }
        if let Some(due) = due_to_all.filter(|_| !alone) {
            self.group.put(due, &push);
        }
        Some(push.in_pieces())
    }

    /// The response that another stream was sent in the same place, if there is one.
    fn join(&mut self, due: Due, snapshot: &Snapshot, now: Instant) -> Option<Response> {
        let state = &mut **self.types[due.kind as usize].get_or_insert_default();
        let same = |one: Option<&Arc<Names>>, other: &Option<Arc<Names>>| {
            one.map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
        };
        let push = self.group.push(&due, |push| {
            let names = same(state.subscription.names(), &push.made.names);
            let said = push.content.said.text.as_ref() == snapshot.said_version();
            names && said && same(state.woken.as_ref(), &push.made.woken) && push.nonce > self.nonce
        })?;
        state.owes_all = false;
        state.due = false;
        state.retry = false;
        state.woken = None;
        state.seen = snapshot.of(due.kind).clone();
        state.sent(&push, now);
        self.nonce = push.nonce;
        if let Some(clusters) = &push.made.clusters {
            self.types[Kind::Endpoints as usize].get_or_insert_default().wake(clusters, &self.group);
        }
        Some(push.in_one())
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
            _ => &[Kind::Listener, Kind::Route],
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
        let made = Made { names: state.subscription.names().cloned(), ..Made::default() };
        let push = self.respond(kind, &names, snapshot, false, made, now)?;
        Some(push.in_pieces())
    }

    /// A cluster that is new takes requests only when the proxy has warmed it, which is when it accepts it: a route
    /// that leads there has to come later. What was asked for does not wait, nor anything longer than the grace.
    fn clusters_are_on_their_way(&self, snapshot: &Snapshot, now: Instant) -> bool {
        let clusters = self.of(Kind::Cluster);
        clusters.awaits_new(snapshot.of(Kind::Cluster)) && clusters.sent_at.is_some_and(|at| now < at + GRACE)
    }

    fn respond(
        &mut self,
        kind: Kind,
        names: &BTreeSet<Name>,
        snapshot: &Snapshot,
        due: bool,
        made: Made,
        now: Instant,
    ) -> Option<Arc<Push>> {
        let protocol = self.protocol;
        let state = &mut **self.types[kind as usize].get_or_insert_default();
        let content = match protocol {
            Protocol::Sotw => sotw::content(kind, names, snapshot, &state.subscription, &state.held),
            Protocol::Delta => delta::content(kind, names, snapshot),
        };
        if content.resources.is_empty() && content.removed.is_empty() && !kind.is_full_state() && !due {
            return None;
        }
        if state.refused.content.as_ref().is_some_and(|refused| refused.says_the_same(&content)) {
            state.refused.suspects.extend(names.iter().cloned());
            return None;
        }
        self.nonce = self.group.nonce();
        let push = Arc::new(Push::new(protocol, kind, self.nonce, content, made));
        state.sent(&push, now);
        Some(push)
    }
}

/// The snapshot's own copy of the name, if it has one: streams share it.
fn intern(current: &ResourceSet, name: &str) -> Name {
    current.get(name).map_or_else(|| Name::from(name), |resource| Name::clone(resource.name()))
}
