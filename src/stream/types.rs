//! One type on one stream: what is wanted, seen, owed, outstanding and refused.
//!
//! Owns: that state, and how requests and snapshots change it. May use: `publish`, subscriptions. Never: looks at
//! another type, or encodes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use translators::resource::{Kind, Name, Resource, Version};

use super::group::{Due, Group};
use super::heartbeat::Heartbeats;
use super::names::Names;
use super::node::Client;
use super::push::{Content, MOST_TAKEN, Push, Said};
use super::refused::Refused;
use super::request::{Error, Holding};
use super::session::{Answer, DRAIN, GRACE, Outcome, Protocol};
use super::stance::Stance;
use super::subscription::{Difference, Subscription};
use super::warmth::{Warming, nobody_of};
use super::{delta, refusal};
use crate::publish::ResourceSet;
use crate::report::TypeStatus;

/// One type on one stream.
#[derive(Debug, Default)]
pub(super) struct TypeState {
    pub(super) requested: bool,
    pub(super) subscription: Subscription,
    /// The set last evaluated: whatever differs from it is news.
    pub(super) seen: ResourceSet,
    /// Names to be answered whether or not they changed.
    pub(super) owed: BTreeSet<Name>,
    /// All of the names that are subscribed to are owed.
    pub(super) owes_all: bool,
    /// Clusters that were sent: their endpoints are to be sent too, unless they were refused as they are.
    pub(super) woken: Option<Arc<Names>>,
    /// A response is due even if it says nothing.
    pub(super) due: bool,
    /// A request was taken, or something is gone: what was refused may make another response now.
    pub(super) retry: bool,
    /// Removed from the snapshot, but not yet from the proxy.
    pub(super) held: BTreeMap<Name, Leaving>,
    /// Of clusters: the last new ones, if the proxy had listeners when they were sent.
    pub(super) fresh: Option<Box<Warming>>,
    /// Of listeners: to which clusters those lead that were replaced while these were gone, and when that was.
    pub(super) leads_to: BTreeMap<Name, Instant>,
    /// Gone from the snapshot, and left with the proxy for good: of these no removal is said.
    pub(super) kept: BTreeSet<Name>,
    /// What is gone though the client has it, as it said when it came back or as it refused the removal: asked for or
    /// not, it is removed.
    pub(super) lost: BTreeSet<Name>,
    /// Since when there is something that waits for clusters, and until when at most.
    pub(super) waits: Option<(Instant, Instant)>,
    /// The nonce of the last response.
    pub(super) nonce: Option<u64>,
    /// The last response, while it is not answered.
    pub(super) outstanding: Option<Arc<Push>>,
    /// When it was sent.
    pub(super) sent_at: Option<Instant>,
    /// The version last sent, and the one last accepted.
    pub(super) said: Option<Version>,
    pub(super) accepted: Option<Said>,
    /// The set that the proxy accepted last, as far as it takes it and but for what it refuses of it; `None` if that is
    /// not known.
    pub(super) good: Option<ResourceSet>,
    pub(super) heartbeats: Heartbeats,
    /// What was too much for the last response has names that the proxy does not have.
    pub(super) rest_is_new: bool,
    /// How many responses were sent.
    pub(super) responses: u64,
    /// How many of them were larger than what clients take by default.
    pub(super) large: u64,
    pub(super) refused: Refused,
}

/// What is gone, as the proxy has it still.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Leaving {
    /// Its content; `None` if it came from a client that reconnected.
    pub(super) form: Option<Arc<Resource>>,
    /// When it was gone.
    pub(super) since: Instant,
}

// === impl Leaving ===

impl Leaving {
    /// Until when it stays, if its successors are not accepted.
    pub(super) fn late_at(&self) -> Instant {
        self.since + GRACE
    }

    /// Until when it stays, if a listener that drains leads to it.
    pub(super) fn drained_at(&self) -> Instant {
        self.late_at() + DRAIN
    }
}

// === impl TypeState ===

impl TypeState {
    /// Applies a change of subscription.
    pub(super) fn subscribe(&mut self, kind: Kind, difference: Difference, current: &ResourceSet) {
        let first = !std::mem::replace(&mut self.requested, true);
        let Difference { had_everything, had, changed, everything, all, asked } = difference;
        self.retry = true;
        if !first && !changed {
            return;
        }
        let adds = everything || all || !asked.is_empty();
        if adds && !first && !had_everything && kind.is_full_state() {
            // Of a whole it has accepted only what it took of it.
            self.good = self.good.take().map(|good| {
                let names = had.iter().flat_map(|had| had.iter());
                names.filter_map(|name| good.get(name)).cloned().collect()
            });
        }
        let wants = |name: &Name| self.subscription.wants(name, current) || self.subscription.wants(name, &self.seen);
        self.owed.retain(wants);
        self.held.retain(|name, _| wants(name));
        self.kept.retain(wants);
        self.refused.retain(wants);
        if adds {
            // Missing from a full state is an answer too.
            self.due |= kind.is_full_state();
            // What is asked for is answered, refused or not.
            self.refused.content = None;
        }
        self.owed.extend(asked);
        self.owes_all |= all;
        match (first, everything) {
            (true, true) => {}
            (true, false) => self.seen = current.clone(),
            (false, true) => {
                // It may have forgotten meanwhile what it was sent before: all of that is said again.
                let before = std::mem::replace(&mut self.seen, current.clone());
                let names = current.iter().chain(before.iter()).map(|resource| Name::clone(resource.name()));
                self.owed.extend(names);
            }
            (false, false) => {}
        }
        if self.subscription.is_empty() {
            self.owed.clear();
            self.owes_all = false;
            self.woken = None;
            self.due = false;
            self.held.clear();
            self.kept.clear();
            self.refused = Refused::default();
        }
    }

    /// Passes over what a reconnecting client says that it holds, if it is still so: that counts as accepted.
    pub(super) fn reconnect(
        &mut self,
        kind: Kind,
        current: &ResourceSet,
        versions: &[Holding<'_>],
        now: Instant,
    ) -> Option<Answer> {
        let delta::Held { same, other, gone } = delta::held(current, versions);
        if self.subscription.wildcard() {
            self.owed.extend(other);
            match kind {
                Kind::Cluster | Kind::Endpoints if !gone.is_empty() => {
                    self.held.extend(gone.into_iter().map(|name| (name, Leaving { form: None, since: now })));
                }
                Kind::ExtensionConfig => self.kept.extend(gone),
                _ => self.owed.extend(gone),
            }
            self.seen = same.clone();
        } else {
            self.owes_all = false;
            let names = self.subscription.names().into_iter().flat_map(|names| names.iter());
            self.owed = names.filter(|name| same.get(name).is_none()).cloned().collect();
        }
        // What lives for a time only is said again.
        self.owed.extend(same.mortal().map(|resource| Name::clone(resource.name())));
        let covered = same.iter().filter(|resource| self.subscription.takes(resource));
        let names: Arc<[Name]> = covered.map(|resource| Name::clone(resource.name())).collect();
        // If it holds all that it asks for, that is the set as it is now, as after any response.
        let whole = !self.subscription.wildcard() && self.owed.is_empty();
        let version = if whole { current.version() } else { same.version() };
        if !names.is_empty() {
            // What it holds when it comes was sent once.
            (self.said, self.accepted) = (Some(version), Some(Said { version, text: None }));
        }
        self.good = Some(same);
        (!names.is_empty()).then_some(Answer { kind, version, outcome: Outcome::Accepted(names) })
    }

    /// A client that comes back to names holds these: of what is gone it is to be told.
    pub(super) fn returns(&mut self, kind: Kind, current: &ResourceSet, versions: &[Holding<'_>]) {
        for (name, _) in versions {
            let taken = current.get(name).is_some_and(|resource| self.subscription.takes(resource));
            match kind {
                _ if taken => {}
                Kind::ExtensionConfig if self.subscription.covers(name) => _ = self.kept.insert(Name::from(&**name)),
                // It was asked for by another name, which is not told.
                Kind::VirtualHost => {
                    self.owed.insert(Name::from(&**name));
                    self.lost.insert(Name::from(&**name));
                }
                _ if self.subscription.covers(name) => _ = self.owed.insert(Name::from(&**name)),
                _ => {}
            }
        }
    }

    /// Tells the proxy of each route that is not to wait for virtual hosts.
    pub(super) fn release<'a>(&mut self, routes: impl IntoIterator<Item = &'a Arc<Resource>>) {
        for name in routes.into_iter().filter_map(|route| nobody_of(route)) {
            self.owed.insert(Name::clone(&name));
            self.lost.insert(name);
        }
    }

    /// The answer to the outstanding response.
    pub(super) fn on_answer(&mut self, kind: Kind, error: Option<Error<'_>>, now: Instant) -> Option<Answer> {
        let push = self.outstanding.take()?;
        let sent = &push.content;
        let version = sent.said.version;
        let Some(error) = error else {
            self.accepted = Some(sent.said.clone());
            match (&push.made.of, &mut self.good) {
                (Some(whole), good) => *good = Some(whole.clone()),
                // A part of more.
                (None, good) if !sent.is_heartbeat => {
                    let good = good.get_or_insert_default();
                    sent.removed.iter().for_each(|name| _ = good.remove(name));
                    sent.resources.iter().for_each(|resource| _ = good.put(Arc::clone(resource)));
                }
                (None, _) => {}
            }
            self.refused.accepted(sent);
            return Some(Answer { kind, version, outcome: Outcome::Accepted(Arc::clone(&push.names)) });
        };
        if sent.is_heartbeat {
            // It does not have them: they are sent whole.
            self.heartbeats.refused(&push.names);
            self.owed.extend(push.names.iter().filter(|name| self.subscription.covers(name)).cloned());
            return None;
        }
        let names = |resources: &[&Arc<Resource>]| -> Vec<Name> {
            resources.iter().map(|resource| Name::clone(resource.name())).collect()
        };
        let all: Vec<&Arc<Resource>> = sent.resources.iter().collect();
        let (told, untold): (Vec<_>, Vec<_>) =
            all.iter().copied().partition(|resource| refusal::mentions(error.message, resource.name()));
        self.lost.extend(sent.removed.iter().cloned());
        let others = names(&untold).into_iter().chain(sent.removed.iter().cloned());
        self.refused.suspects.extend(others.chain(sent.absent.iter().cloned()));
        let by_name = !told.is_empty();
        let culprits = if by_name { told } else { all };
        let reason = refusal::reason(kind, error.message);
        let why: Arc<str> = reason.as_str().into();
        for culprit in &culprits {
            // What it went by then it may not have asked for.
            let had = |former: &&Arc<Resource>| self.subscription.takes(former);
            let former = self.good.as_ref().map(|good| good.get(culprit.name()).filter(had));
            self.refused.add(culprit, by_name, former, (&why, now));
        }
        // What it has unsubscribed from meanwhile is not mended.
        self.refused.retain(|name| self.subscription.wants(name, &self.seen));
        let (resources, rules) = (names(&culprits), refusal::rules(culprits.iter().copied()));
        let outcome = Outcome::Refused { code: error.code, reason, resources, rules };
        // What is owed was asked for after it was sent, and may bring it again.
        self.refused.content = (!self.owes()).then(|| Arc::clone(sent));
        Some(Answer { kind, version, outcome })
    }

    /// Whether the content says what the proxy has accepted, and nothing else.
    pub(super) fn holds_already(&self, content: &Content) -> bool {
        let Some(good) = &self.good else { return false };
        let holds = |name: &Name| self.refused.instead(name).unwrap_or_else(|| good.get(name));
        let as_held = |resource: &&Arc<Resource>| {
            self.held.contains_key(resource.name())
                || holds(resource.name()).is_some_and(|held| held.version() == resource.version())
        };
        let taken = good.iter().filter(|resource| self.subscription.takes(resource));
        let held = taken.filter(|resource| holds(resource.name()).is_some()).count();
        content.resources.iter().all(|resource| as_held(&resource)) && held == content.resources.len()
    }

    /// Whether names are owed.
    pub(super) fn owes(&self) -> bool {
        self.owes_all || !self.owed.is_empty()
    }

    /// Whether there is nothing to say.
    pub(super) fn is_quiet(&self, current: &ResourceSet) -> bool {
        let alone = self.owes() || !self.held.is_empty() || self.refused.is_any();
        !alone && !self.due && self.woken.is_none() && self.seen.version() == current.version()
    }

    /// Endpoints follow the clusters that were sent; also if they are subscribed to only then.
    pub(super) fn wake(&mut self, clusters: &Arc<Names>, group: &Group) {
        if self.requested && self.subscription.is_empty() {
            return;
        }
        self.woken = match self.woken.take() {
            None => Some(Arc::clone(clusters)),
            Some(woken) => {
                let mut woken = Arc::unwrap_or_clone(woken);
                clusters.iter().for_each(|name| woken.insert(Name::clone(name)));
                group.share(woken)
            }
        };
    }

    /// Takes a response for sent.
    pub(super) fn sent(&mut self, push: &Arc<Push>, now: Instant) {
        self.nonce = Some(push.nonce);
        self.said = Some(push.content.said.version);
        self.responses += 1;
        self.large += u64::from(push.bytes > MOST_TAKEN);
        self.heartbeats.sent(push, now);
        self.outstanding = Some(Arc::clone(push));
        self.sent_at = Some(now);
    }

    /// Takes a set for seen in which it takes nothing that it has not seen: what the proxy has of it is the same.
    pub(super) fn saw(&mut self, current: &ResourceSet) {
        if self.good.as_ref().is_some_and(|good| good.version() == self.seen.version()) {
            self.good = Some(current.clone());
        }
        self.seen = current.clone();
    }

    /// Takes a set for seen if that is so.
    pub(super) fn pass_over(&mut self, current: &ResourceSet) {
        let other = self.requested && self.seen.version() != current.version();
        if other && self.outstanding.is_none() && !self.subscription.takes_any_change(&self.seen, current) {
            self.saw(current);
        }
    }

    /// What there is to be seen of it, but for what it refuses; `None` before something was said.
    pub(super) fn status(&self) -> Option<TypeStatus> {
        let accepted = self.accepted.as_ref().map(|said| said.version);
        let alone = self.outstanding.is_some() || self.owes() || !self.held.is_empty() || self.refused.is_any();
        // What it has accepted is then all that it takes of the set that it has seen last.
        let whole = !alone && !self.due && self.woken.is_none() && accepted == self.said;
        let as_seen = |version| if whole { self.seen.version() } else { version };
        self.said.map(|sent| TypeStatus {
            subscribed: self.subscription.len(),
            sent: Some(as_seen(sent)),
            acked: accepted.map(as_seen),
            rejections: Vec::new(),
            responses: self.responses,
            large: self.large,
            unanswered: self.sent_at.filter(|_| self.outstanding.is_some()),
        })
    }

    /// What the next response follows from, if nothing of that is this stream's alone.
    pub(super) fn due_to_all(&mut self, speech: (Protocol, Client), kind: Kind, current: &ResourceSet) -> Option<Due> {
        let alone = !self.owed.is_empty() || !self.held.is_empty() || !self.kept.is_empty() || self.refused.is_any();
        let sum = |names: Option<&Arc<Names>>| names.map_or(Version::EMPTY, |names| names.sum());
        if self.owes_all && !self.subscription.wildcard() {
            // Whatever may be woken is owed anyway.
            self.woken = None;
        }
        (!alone).then(|| Due {
            speech,
            kind,
            seen: self.seen.version(),
            current: current.version(),
            wildcard: self.subscription.wildcard(),
            names: sum(self.subscription.names()),
            all: self.owes_all,
            due: self.due,
            woken: sum(self.woken.as_ref()),
        })
    }

    /// The clusters under way that the proxy does not have.
    pub(super) fn warming(&self) -> Option<Warming> {
        let (sent, at) = (self.outstanding.as_ref()?, self.sent_at?);
        let has = |name: &Name| self.good.as_ref().is_some_and(|good| good.get(name).is_some());
        let new = sent.content.resources.iter().filter(|cluster| !has(cluster.name()));
        Warming::of(new.map(Arc::as_ref), at)
    }

    /// How it stands, once it was asked for.
    pub(super) fn stance(&self) -> Option<Stance<'_>> {
        let brings_new = |outstanding: &Arc<Push>| outstanding.made.brings_new || self.rest_is_new;
        self.requested.then(|| Stance {
            subscription: Cow::Borrowed(&self.subscription),
            seen: Cow::Borrowed(&self.seen),
            sent_at: self.sent_at.filter(|_| self.outstanding.is_some()),
            brings_new: self.outstanding.as_ref().is_some_and(brings_new),
            is_behind: self.owes() || !self.refused.culprits.is_empty() || !self.refused.suspects.is_empty(),
            holds: Cow::Borrowed(&self.held),
            leads_to: Cow::Borrowed(&self.leads_to),
            warming: None,
            fresh: self.fresh.as_deref(),
        })
    }
}
