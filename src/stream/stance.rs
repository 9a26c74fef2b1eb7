//! How a stream stands with one type, as far as other types wait for it.
//!
//! Owns: what is waited for, and how long at most. May use: subscriptions, sets of resources. Never: knows whether the
//! stream that waits is the same, as an aggregated one is, or another one of the same proxy.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use translators::resource::{Kind, Name};

use super::session::GRACE;
use super::subscription::Subscription;
use super::types::Leaving;
use super::warmth::Warming;
use crate::publish::ResourceSet;
use crate::publish::snapshot::Change;

/// What may refer to clusters, and with them to endpoints.
pub(super) const REFERRERS: [Kind; 5] =
    [Kind::Listener, Kind::ExtensionConfig, Kind::ScopedRoute, Kind::Route, Kind::VirtualHost];

/// Whether something of one type may wait for what becomes of another: what refers to clusters for these, and these and
/// endpoints, when they are gone, for what refers to them.
pub(super) fn waits_for(kind: Kind, other: Kind) -> bool {
    match kind {
        Kind::Cluster => REFERRERS.contains(&other),
        Kind::Endpoints => other == Kind::Cluster || REFERRERS.contains(&other),
        _ => REFERRERS.contains(&kind) && [Kind::Cluster, Kind::Endpoints].contains(&other),
    }
}

/// Whether anything of a type may wait for another type, or another for it.
pub(super) fn takes_part(kind: Kind) -> bool {
    Kind::ALL.into_iter().any(|other| waits_for(kind, other))
}

/// How a stream stands with a type that it has asked for.
#[derive(Debug, Clone)]
pub(super) struct Stance<'a> {
    pub(super) subscription: Cow<'a, Subscription>,
    /// The set that it was last compared with.
    pub(super) seen: Cow<'a, ResourceSet>,
    /// Since when a response is not answered.
    pub(super) sent_at: Option<Instant>,
    /// That one, or what is left of it, has names that the proxy does not have.
    pub(super) brings_new: bool,
    /// Something is owed, or was refused.
    pub(super) is_behind: bool,
    /// What is gone from the set, and still with the proxy.
    pub(super) holds: Cow<'a, BTreeMap<Name, Leaving>>,
    /// Of listeners: the clusters to which those lead that were replaced.
    pub(super) leads_to: Cow<'a, BTreeMap<Name, Instant>>,
    /// Clusters that it has accepted, perhaps before they were warm.
    pub(super) warming: Option<&'a Warming>,
    /// The last new clusters, whose endpoints may be still to come.
    pub(super) fresh: Option<&'a Warming>,
}

// === impl Stance ===

impl Stance<'_> {
    /// Until when what may lead to new clusters waits for these to be accepted. Nothing waits longer than the grace, after what it waits for was
    /// sent or `since` there is something to wait for.
    pub(super) fn brings_new_until(&self, current: &ResourceSet, since: Instant) -> Option<Instant> {
        match self.sent_at {
            Some(sent_at) if self.brings_new || self.lacks_new(current) => Some(sent_at.min(since) + GRACE),
            None if self.lacks_new(current) => Some(since + GRACE),
            Some(_) | None => None,
        }
    }

    /// Until when it waits for clusters to be warm that were accepted before they were; `has` says whether the endpoints
    /// of one were accepted.
    pub(super) fn warms_until(&self, since: Instant, has: impl Fn(&Name) -> bool) -> Option<Instant> {
        let warming = self.warming.filter(|warming| warming.unseen || !warming.endpoints.iter().all(has))?;
        Some(warming.at.min(since) + GRACE)
    }

    /// Until when what leads to new clusters waits for them to have any endpoint: who serves them may be about to say so.
    pub(super) fn fills_until(&self, since: Instant, is_empty: impl Fn(&Name) -> bool) -> Option<Instant> {
        let fresh = self.fresh.filter(|fresh| since < fresh.at + GRACE && fresh.endpoints.iter().any(is_empty))?;
        Some(fresh.at.min(since) + GRACE)
    }

    /// Whether the proxy has accepted what is called `name`.
    pub(super) fn has(&self, name: &Name) -> bool {
        self.sent_at.is_none() && !self.is_behind && self.subscription.covers(name)
    }

    /// Whether the proxy has accepted all of `current` that is subscribed to.
    pub(super) fn is_settled(&self, current: &ResourceSet) -> bool {
        self.sent_at.is_none() && !self.is_behind && !self.subscription.takes_any_change(&self.seen, current)
    }

    /// What is gone, or is going from `current`, as far as the proxy had it.
    pub(super) fn gone(&self, current: &ResourceSet) -> BTreeSet<Name> {
        let going = self.seen.changes_to(current).filter_map(|change| match change {
            Change::Put(_) => None,
            Change::Removed(name) => Some(name),
        });
        going.filter(|name| self.subscription.covers(name)).chain(self.holds.keys().cloned()).collect()
    }

    /// Whether it asks for something that there is not in `current`.
    pub(super) fn asks_for_gone(&self, current: &ResourceSet) -> bool {
        let mut names = self.subscription.names().into_iter().flat_map(|names| names.iter());
        names.any(|name| current.called(name).next().is_none())
    }

    /// Whether it stands otherwise than this.
    pub(super) fn differs(&self, other: &Stance<'_>) -> bool {
        let flags = |stance: &Stance<'_>| (stance.sent_at, stance.brings_new, stance.is_behind);
        flags(self) != flags(other)
            || self.holds != other.holds
            || self.leads_to != other.leads_to
            || self.seen.version() != other.seen.version()
            || *self.subscription != *other.subscription
    }

    /// The same, to be looked at.
    pub(super) fn borrowed(&self) -> Stance<'_> {
        Stance {
            subscription: Cow::Borrowed(&*self.subscription),
            seen: Cow::Borrowed(&*self.seen),
            holds: Cow::Borrowed(&*self.holds),
            leads_to: Cow::Borrowed(&*self.leads_to),
            ..*self
        }
    }

    /// The same, to be kept.
    pub(super) fn into_owned(self) -> Stance<'static> {
        Stance {
            subscription: Cow::Owned(self.subscription.into_owned()),
            seen: Cow::Owned(self.seen.into_owned()),
            holds: Cow::Owned(self.holds.into_owned()),
            leads_to: Cow::Owned(self.leads_to.into_owned()),
            warming: None,
            fresh: None,
            ..self
        }
    }

    /// Whether there are names still to be sent.
    fn lacks_new(&self, current: &ResourceSet) -> bool {
        self.seen.changes_to(current).any(|change| match change {
            Change::Put(resource) => self.seen.get(resource.name()).is_none() && self.subscription.takes(&resource),
            Change::Removed(_) => false,
        })
    }
}
