//! One type on one stream: what is wanted, seen, owed, outstanding and refused.
//!
//! Owns: that state, and how requests and snapshots change it. May use: `publish`, subscriptions. Never: looks at
//! another type, or encodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use translators::resource::{Kind, Name, Resource, Version};

use super::group::{Due, Group};
use super::names::Names;
use super::push::{Content, Push, Said};
use super::request::Error;
use super::session::{Answer, GRACE, Outcome, Protocol};
use super::subscription::{Difference, Subscription};
use super::{delta, refusal};
use crate::publish::ResourceSet;
use crate::publish::snapshot::Change;
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
    /// Removed from the snapshot, but not yet from the proxy; without its content if it came from a client
    /// that reconnected.
    pub(super) held: BTreeMap<Name, Option<Arc<Resource>>>,
    /// When the held go even if their successors were not accepted.
    pub(super) release_at: Option<Instant>,
    /// The nonce of the last response.
    pub(super) nonce: Option<u64>,
    /// The last response, while it is not answered.
    pub(super) outstanding: Option<Arc<Push>>,
    /// When it was sent.
    pub(super) sent_at: Option<Instant>,
    /// The version last sent, and the one last accepted.
    pub(super) said: Option<Version>,
    pub(super) accepted: Option<Said>,
    /// How many responses were sent.
    pub(super) responses: u64,
    pub(super) refused: Refused,
}

/// What was refused, until it has other content or is accepted. That nothing is said twice follows from one
/// comparison: a response that would say what was refused last is not sent, and its names wait as suspects.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// The last response that was refused, unless it was asked for again since.
    pub(super) content: Option<Arc<Content>>,
    /// At fault, at the version that was refused: sent again only with other content, or asked for.
    pub(super) culprits: BTreeMap<Name, Version>,
    /// Refused though not known to be at fault: sent again as soon as that is another response.
    pub(super) suspects: BTreeSet<Name>,
}

/// What has to be said.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) names: BTreeSet<Name>,
    /// Among the names are some that the proxy does not have.
    pub(super) brings_new: bool,
}

// === impl Refused ===

impl Refused {
    fn is_any(&self) -> bool {
        self.content.is_some() || !self.culprits.is_empty() || !self.suspects.is_empty()
    }
}

// === impl TypeState ===

impl TypeState {
    /// Applies a change of subscription.
    pub(super) fn subscribe(&mut self, kind: Kind, difference: Difference, current: &ResourceSet) {
        let first = !std::mem::replace(&mut self.requested, true);
        let Difference { changed, everything, all, asked } = difference;
        self.retry = true;
        if !first && !changed {
            return;
        }
        let covers = |name: &Name| self.subscription.covers(name);
        self.owed.retain(covers);
        self.held.retain(|name, _| covers(name));
        self.refused.culprits.retain(|name, _| covers(name));
        self.refused.suspects.retain(covers);
        if everything || all || !asked.is_empty() {
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
            self.refused = Refused::default();
        }
        if self.held.is_empty() {
            self.release_at = None;
        }
    }

    /// Passes over what a reconnecting client says that it holds, if it is still so: that counts as accepted.
    pub(super) fn reconnect(
        &mut self,
        kind: Kind,
        current: &ResourceSet,
        versions: &[(&str, &str)],
        now: Instant,
    ) -> Option<Answer> {
        let delta::Held { same, other, gone } = delta::held(current, versions);
        if self.subscription.wildcard() {
            self.owed.extend(other);
            match kind {
                Kind::Cluster | Kind::Endpoints if !gone.is_empty() => {
                    self.held.extend(gone.into_iter().map(|name| (name, None)));
                    self.release_at = Some(now + GRACE);
                }
                _ => self.owed.extend(gone),
            }
            self.seen = same.clone();
        } else {
            self.owes_all = false;
            let names = self.subscription.names().into_iter().flat_map(|names| names.iter());
            self.owed = names.filter(|name| same.get(name).is_none()).cloned().collect();
        }
        let covered = same.iter().filter(|resource| self.subscription.covers(resource.name()));
        let names: Arc<[Name]> = covered.map(|resource| Name::clone(resource.name())).collect();
        // If it holds all that it asks for, that is the set as it is now, as after any response.
        let whole = !self.subscription.wildcard() && self.owed.is_empty();
        let version = if whole { current.version() } else { same.version() };
        if !names.is_empty() {
            // What it holds when it comes was sent once.
            (self.said, self.accepted) = (Some(version), Some(Said { version, text: None }));
        }
        (!names.is_empty()).then_some(Answer { kind, version, outcome: Outcome::Accepted(names) })
    }

    /// The answer to the outstanding response.
    pub(super) fn on_answer(&mut self, kind: Kind, error: Option<Error<'_>>) -> Option<Answer> {
        let push = self.outstanding.take()?;
        let sent = &push.content;
        let version = sent.said.version;
        let Some(error) = error else {
            self.accepted = Some(sent.said.clone());
            self.refused.content = None;
            if !self.refused.culprits.is_empty() {
                self.refused.culprits.retain(|name, _| !push.names.contains(name));
            }
            return Some(Answer { kind, version, outcome: Outcome::Accepted(Arc::clone(&push.names)) });
        };
        let names = |resources: &[&Arc<Resource>]| -> Vec<Name> {
            resources.iter().map(|resource| Name::clone(resource.name())).collect()
        };
        let all: Vec<&Arc<Resource>> = sent.resources.iter().collect();
        let (told, untold): (Vec<_>, Vec<_>) =
            all.iter().copied().partition(|resource| refusal::mentions(error.message, resource.name()));
        self.refused.suspects.extend(names(&untold).into_iter().chain(sent.removed.iter().cloned()));
        let culprits = if told.is_empty() { all } else { told };
        self.refused.culprits.extend(culprits.iter().map(|c| (Name::clone(c.name()), c.version())));
        let outcome = Outcome::Refused {
            code: error.code,
            reason: refusal::reason(kind, error.message),
            resources: names(&culprits),
            rules: refusal::rules(culprits.iter().copied()),
        };
        // What is owed was asked for after it was sent, and may bring it again.
        self.refused.content = (!self.owes()).then(|| Arc::clone(sent));
        Some(Answer { kind, version, outcome })
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
        self.outstanding = Some(Arc::clone(push));
        self.sent_at = Some(now);
    }

    /// What there is to be seen of it, but for what it refuses; `None` before something was said.
    pub(super) fn status(&self) -> Option<TypeStatus> {
        self.said.map(|sent| TypeStatus {
            subscribed: self.subscription.len(),
            sent: Some(sent),
            acked: self.accepted.as_ref().map(|said| said.version),
            rejections: Vec::new(),
            responses: self.responses,
        })
    }

    /// Puts what is owed into `owed`.
    fn spell_out(&mut self) {
        if std::mem::take(&mut self.owes_all) {
            self.owed.extend(self.subscription.names().into_iter().flat_map(|names| names.iter()).cloned());
        }
    }

    /// What the next response follows from, if nothing of that is this stream's alone.
    pub(super) fn due_to_all(&mut self, protocol: Protocol, kind: Kind, current: &ResourceSet) -> Option<Due> {
        let alone = !self.owed.is_empty() || !self.held.is_empty() || self.refused.is_any();
        let sum = |names: Option<&Arc<Names>>| names.map_or(Version::EMPTY, |names| names.sum());
        if self.owes_all && !self.subscription.wildcard() {
            // Whatever may be woken is owed anyway.
            self.woken = None;
        }
        (!alone).then(|| Due {
            protocol,
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

    /// The names that were asked for; what else is new or changed stays for later.
    pub(super) fn asked(&mut self, current: &ResourceSet) -> BTreeSet<Name> {
        self.spell_out();
        for name in &self.owed {
            match current.get(name) {
                Some(resource) => self.seen.put(Arc::clone(resource)),
                None => self.seen.remove(name),
            };
        }
        std::mem::take(&mut self.owed)
    }

    /// The names that have to be said: owed, new, changed, and removed unless that has to wait.
    pub(super) fn news(&mut self, protocol: Protocol, kind: Kind, current: &ResourceSet, now: Instant) -> News {
        let mut brings_new = false;
        self.spell_out();
        let mut names = std::mem::take(&mut self.owed);
        for name in self.woken.take().iter().flat_map(|woken| woken.iter()) {
            let culprit = self.refused.culprits.get(name);
            let as_refused = culprit.is_some() && culprit == current.get(name).map(|r| r.version()).as_ref();
            if self.subscription.covers(name) && !as_refused {
                names.insert(Name::clone(name));
            }
        }
        for name in &names {
            self.held.remove(name);
        }
        for change in self.seen.changes_to(current) {
            match change {
                Change::Put(resource) if self.subscription.covers(resource.name()) => {
                    brings_new |= self.seen.get(resource.name()).is_none();
                    self.held.remove(resource.name());
                    names.insert(Name::clone(resource.name()));
                }
                Change::Removed(name) if self.subscription.covers(&name) => {
                    self.retry = true;
                    match (kind, self.seen.get(&name)) {
                        (Kind::Cluster | Kind::Endpoints, Some(resource)) if !names.contains(&name) => {
                            self.held.insert(name, Some(Arc::clone(resource)));
                            self.release_at.get_or_insert(now + GRACE);
                        }
                        _ => {
                            names.insert(name);
                        }
                    }
                }
                Change::Put(_) | Change::Removed(_) => {}
            }
        }
        self.seen = current.clone();
        if self.held.is_empty() {
            self.release_at = None;
        }
        let unchanged = |name: &Name, version: &Version| current.get(name).is_some_and(|r| r.version() == *version);
        self.refused.culprits.retain(|name, version| unchanged(name, version));
        // Of what is gone, this protocol says nothing.
        let silent = protocol == Protocol::Sotw && !kind.is_full_state() && kind != Kind::Endpoints;
        names.retain(|name| !silent || current.get(name).is_some());
        self.join_suspects(&mut names);
        News { names, brings_new }
    }

    /// What was refused with others goes with whatever is sent next, or alone if that is another response.
    pub(super) fn join_suspects(&mut self, names: &mut BTreeSet<Name>) {
        if std::mem::take(&mut self.retry) || !names.is_empty() {
            let wanted = |name: &Name| self.subscription.covers(name) && !self.held.contains_key(name);
            names.extend(std::mem::take(&mut self.refused.suspects).into_iter().filter(wanted));
        }
    }

    /// Whether there are names under way, or still to be sent, that the proxy does not have yet.
    pub(super) fn awaits_new(&self, current: &ResourceSet) -> bool {
        let Some(outstanding) = &self.outstanding else { return false };
        let unsent = || {
            self.seen.changes_to(current).any(|change| match change {
                Change::Put(resource) => {
                    self.seen.get(resource.name()).is_none() && self.subscription.covers(resource.name())
                }
                Change::Removed(_) => false,
            })
        };
        outstanding.made.brings_new || unsent()
    }

    /// Whether the proxy has accepted all of `current` that it subscribes to.
    pub(super) fn is_settled(&self, current: &ResourceSet) -> bool {
        let covered = |change: Change| match change {
            Change::Put(resource) => self.subscription.covers(resource.name()),
            Change::Removed(name) => self.subscription.covers(&name),
        };
        !self.requested
            || (self.outstanding.is_none()
                && !self.owes()
                && self.refused.culprits.is_empty()
                && self.refused.suspects.is_empty()
                && !self.seen.changes_to(current).any(covered))
    }
}
