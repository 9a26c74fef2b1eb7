//! What a stream is sent next.
//!
//! Owns: making a response, or taking part in one that another stream was sent; which types wait for which. May use: the
//! session and its types. Never: takes a request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use translators::resource::{Kind, Name};

use super::board::Siblings;
use super::group::Due;
use super::names::Names;
use super::news::News;
use super::push::{Content, Made, Push};
use super::session::{DRAIN, GRACE, Protocol, Response, Session};
use super::stance::{REFERRERS, Stance};
use super::types::{Leaving, TypeState};
use super::warmth::{endpoints_of, has_no_endpoints, mentions};
use super::{delta, sotw};
use crate::publish::Snapshot;
use crate::publish::snapshot::Change;

/// Why a response is made beside its news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// None.
    News,
    /// It is due even if it says nothing.
    Due,
    /// What was refused may be another response now.
    Again,
}

impl Session {
    /// New and changed resources of `kind`, and whatever is owed.
    pub(super) fn additions(
        &mut self,
        kind: Kind,
        siblings: Siblings<'_>,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Option<Response> {
        let current = snapshot.of(kind);
        let speech = (self.protocol, self.client);
        let state = self.of_mut(kind);
        let since = state.waits.take().map_or(now, |(since, _)| since);
        if !state.requested || state.outstanding.is_some() || state.is_quiet(current) {
            return None;
        }
        let clusters =
            if REFERRERS.contains(&kind) { self.new_clusters_until(kind, siblings, snapshot, since) } else { None };
        let state = self.of_mut(kind);
        state.waits = clusters.filter(|until| now < *until).map(|until| (since, until));
        let waits = state.waits.is_some();
        if state.subscription.is_empty() && state.owed.is_empty() {
            state.saw(current);
            return None;
        }
        // What answers a subscription to a whole says the whole.
        let whole = state.due || (kind.is_full_state() && state.owes());
        let waits = waits && !whole;
        if kind == Kind::Listener && !waits {
            self.note_drains(siblings, snapshot, now);
        }
        let state = self.of_mut(kind);
        let due_to_all = if waits { None } else { state.due_to_all(speech, kind, current) };
        if let Some(response) = due_to_all.and_then(|due| self.join(due, snapshot, now)) {
            return Some(response);
        }
        let whole_only = self.protocol == Protocol::Sotw && kind.is_full_state();
        let state = self.of_mut(kind);
        let woken = state.woken.clone();
        // A whole that was refused may be another one without a name that is not asked for any more.
        let again = whole_only && state.retry && state.refused.content.is_some();
        let news = if waits { state.asked(current) } else { state.news(speech, kind, current, now) };
        let reason = match std::mem::take(&mut state.due) {
            true => Reason::Due,
            false if again && !state.retry => Reason::Again,
            false => Reason::News,
        };
        if news.names.is_empty() && reason == Reason::News {
            return None;
        }
        let alone = !state.held.is_empty() || !state.kept.is_empty() || state.refused.is_any();
        let (of, names) = (Some(state.seen.clone()), state.subscription.names().cloned());
        let made = Made { names, woken, brings_new: news.brings_new, of, ..Made::default() };
        let push = self.respond(kind, &news, snapshot, reason, made, now)?;
        self.follow(&push, kind);
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
        self.follow(&push, due.kind);
        Some(push.in_one())
    }

    /// What follows from a response that was sent, made here or joined: which clusters are new, endpoints their clusters,
    /// that there are no virtual hosts to wait for their routes, and the rest what it had no room for.
    fn follow(&mut self, push: &Push, kind: Kind) {
        if !push.made.rest.is_empty() {
            let state = self.of_mut(kind);
            state.owed.extend(push.made.rest.iter().cloned());
            state.rest_is_new = push.made.brings_new;
        }
        if kind == Kind::Cluster && push.made.brings_new && self.of(Kind::Listener).accepted.is_some() {
            let state = self.of_mut(kind);
            state.fresh = state.warming().map(Box::new);
        }
        if let Some(clusters) = &push.made.clusters {
            self.types[Kind::Endpoints as usize].get_or_insert_default().wake(clusters, &self.group);
        }
        if kind == Kind::Route && self.asks_for(Kind::VirtualHost) {
            self.of_mut(Kind::VirtualHost).release(&push.content.resources);
        }
    }

    /// Notes to which clusters that are gone listeners lead that are replaced now, by themselves or by a route in them: their
    /// connections go on to use them.
    fn note_drains(&mut self, siblings: Siblings<'_>, snapshot: &Snapshot, now: Instant) {
        let clusters = snapshot.of(Kind::Cluster);
        let gone: BTreeSet<Name> =
            self.stances(Kind::Cluster, siblings).flat_map(|stance| stance.gone(clusters)).collect();
        let state = self.of_mut(Kind::Listener);
        state.leads_to.retain(|_, since| *since + DRAIN + 2 * GRACE > now);
        if gone.is_empty() {
            return;
        }
        let replaced = state.seen.changes_to(snapshot.of(Kind::Listener));
        let former = replaced.filter_map(|change| match change {
            Change::Put(listener) => state.seen.get(listener.name()).cloned(),
            Change::Removed(name) => state.seen.get(&name).cloned(),
        });
        for listener in former.filter(|listener| state.subscription.takes(listener)) {
            state.leads_to.extend(gone.iter().filter(|name| mentions(&listener, name)).map(|name| (name.clone(), now)));
        }
    }

    /// Clusters and endpoints that are gone, once nothing that the proxy holds refers to them.
    pub(super) fn removals(
        &mut self,
        kind: Kind,
        siblings: Siblings<'_>,
        snapshot: &Snapshot,
        now: Instant,
    ) -> Option<Response> {
        let state = self.of(kind);
        if state.held.is_empty() || state.outstanding.is_some() {
            return None;
        }
        if kind == Kind::Endpoints && !self.of(Kind::Cluster).held.is_empty() {
            return None;
        }
        let asks_for = |kind: Kind| self.stances(kind, siblings).next().is_some();
        let settled = |kind: Kind| {
            self.stances(kind, siblings).all(|stance| stance.is_settled(snapshot.of(kind)) && stance.holds.is_empty())
        };
        // Of a client that reconnected it is not known what refers to them before it asks for its listeners. Nor is it on
        // a stream of one type, or what becomes of the clusters, unless others ask for these.
        let known = || match self.only {
            None => state.held.values().all(|held| held.form.is_some()) || asks_for(Kind::Listener),
            Some(_) => asks_for(Kind::Cluster) && asks_for(Kind::Listener),
        };
        let replaced = || {
            let without_clusters = kind != Kind::Endpoints || settled(Kind::Cluster);
            known() && without_clusters && REFERRERS.into_iter().all(settled)
        };
        // What waits on another stream until the grace is sent and accepted after it.
        let grace = if self.only.is_some() && known() { GRACE } else { Duration::ZERO };
        let is_late = |held: &Leaving| held.late_at() + grace <= now;
        let all_are = state.held.values().all(is_late);
        let replaced = !all_are && replaced();
        if !replaced && !state.held.values().any(is_late) {
            return None;
        }
        // A listener that was replaced goes on to use what it leads to while its connections drain, and asks for its route,
        // though that is gone too.
        let routes = snapshot.of(Kind::Route);
        let asks = self.stances(Kind::Route, siblings).any(|stance| stance.asks_for_gone(routes));
        let leads_to = |name: &Name| {
            asks || self.stances(Kind::Listener, siblings).any(|stance| stance.leads_to.contains_key(name))
        };
        let goes =
            |name: &Name, held: &Leaving| (replaced || is_late(held)) && (held.drained_at() <= now || !leads_to(name));
        let going: BTreeSet<Name> =
            state.held.iter().filter(|(name, held)| goes(name, held)).map(|(name, _)| name.clone()).collect();
        if going.is_empty() {
            return None;
        }
        let state = self.of_mut(kind);
        state.held.retain(|name, _| !going.contains(name));
        let mut names: BTreeSet<Name> = going.into_iter().filter(|name| state.subscription.covers(name)).collect();
        state.join_suspects(&mut names);
        if names.is_empty() {
            return None;
        }
        let (of, asked_for) = (Some(state.seen.clone()), state.subscription.names().cloned());
        let made = Made { names: asked_for, of, ..Made::default() };
        let news = News { names, ..News::default() };
        let push = self.respond(kind, &news, snapshot, Reason::News, made, now)?;
        self.follow(&push, kind);
        Some(push.in_pieces())
    }

    /// That resources which live for a time only still live; nothing else is due.
    pub(super) fn heartbeat(&mut self, kind: Kind, snapshot: &Snapshot, now: Instant) -> Option<Response> {
        let state = self.types[kind as usize].as_deref_mut()?;
        if state.heartbeats.is_empty() || state.outstanding.is_some() {
            return None;
        }
        let TypeState { subscription, refused, heartbeats, accepted, said, .. } = state;
        let held =
            |resource: &translators::resource::Resource| subscription.takes(resource) && !refused.refuses(resource);
        let resources = heartbeats.due(snapshot.of(kind), now, held);
        // It goes under the version that the proxy has accepted, which is the last that was said.
        let said = accepted.clone().filter(|accepted| *said == Some(accepted.version))?;
        if resources.is_empty() {
            return None;
        }
        let content = Content { resources, is_heartbeat: true, ..Content::new(said) };
        Some(self.send(kind, content, Made::default(), now).in_pieces())
    }

    /// Until when what may lead to clusters that are on their way waits for them, if there are such; what was asked for
    /// does not wait.
    fn new_clusters_until(
        &self,
        kind: Kind,
        siblings: Siblings<'_>,
        snapshot: &Snapshot,
        since: Instant,
    ) -> Option<Instant> {
        let (clusters, endpoints) = (snapshot.of(Kind::Cluster), snapshot.of(Kind::Endpoints));
        // A proxy that comes has nothing to go on with meanwhile.
        let goes_on = self.of(kind).accepted.is_some();
        let is_empty = |name: &Name| goes_on && endpoints.find(name).is_some_and(|found| has_no_endpoints(found));
        let has = |name: &Name| siblings.of(Kind::Endpoints).any(|stance| stance.has(name));
        let until = |stance: Stance<'_>| {
            let warm = stance.brings_new_until(clusters, since).or_else(|| stance.warms_until(since, has));
            warm.max(stance.fills_until(since, is_empty))
        };
        self.stances(Kind::Cluster, siblings).filter_map(until).max()
    }

    /// How the proxy stands with a type: on this stream, or on others of one type each.
    fn stances<'a>(&'a self, kind: Kind, siblings: Siblings<'a>) -> impl Iterator<Item = Stance<'a>> {
        self.of(kind).stance().into_iter().chain(siblings.of(kind))
    }

    fn respond(
        &mut self,
        kind: Kind,
        news: &News,
        snapshot: &Snapshot,
        reason: Reason,
        mut made: Made,
        now: Instant,
    ) -> Option<Arc<Push>> {
        let protocol = self.protocol;
        let state = &mut **self.types[kind as usize].get_or_insert_default();
        let mut content = match protocol {
            Protocol::Sotw => sotw::content(kind, news, snapshot, state, self.client),
            Protocol::Delta => delta::content(kind, news, snapshot, state),
        };
        if content.is_empty() && !kind.is_full_state() && reason != Reason::Due {
            return None;
        }
        if state.refused.content.as_ref().is_some_and(|refused| refused.says_the_same(&content)) {
            state.refused.suspects.extend(news.names.iter().cloned());
            state.lost.extend(news.gone.iter().cloned());
            return None;
        }
        let whole = protocol == Protocol::Sotw && kind.is_full_state();
        if whole && news.retries && reason != Reason::Due && state.holds_already(&content) {
            return None;
        }
        if !whole {
            made.rest = content.cut(protocol);
        }
        if !made.rest.is_empty() {
            // All of it is accepted with the last of its parts.
            made.of = None;
        }
        if kind == Kind::Cluster {
            let brought = content.resources.iter();
            let brought = brought.filter(|cluster| !whole || news.names.contains(cluster.name()));
            made.clusters = self.group.share(brought.map(|cluster| endpoints_of(cluster)).collect());
        }
        Some(self.send(kind, content, made, now))
    }

    fn send(&mut self, kind: Kind, content: Content, made: Made, now: Instant) -> Arc<Push> {
        self.nonce = self.group.nonce();
        let push = Arc::new(Push::new((self.protocol, self.client), kind, self.nonce, content, made));
        self.of_mut(kind).sent(&push, now);
        push
    }
}
