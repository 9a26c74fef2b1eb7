//! What a proxy has refused of one type, and what is said in its place.
//!
//! Owns: who is at fault, in which form it was accepted before, and when other content of it may be tried. May use:
//! resources. Never: looks at what is wanted, or at a clock.
//!
//! What is refused is not said again: a response that would say what was refused last is not sent, and its names wait
//! as suspects. A resource that was refused by its name is rolled back alone: the next response has it in the form that
//! was accepted before, if there is one, and its next content is tried at once, or after a delay that grows while one
//! content after the other is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use translators::resource::{Name, Resource, Version};

use super::push::Content;
use crate::publish::ResourceSet;

/// How long other content waits when two in a row were refused; twice as long for each more,
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// but never longer than this. The first other content does not wait, nor does content that was accepted before.
const MOST_DELAY: Duration = Duration::from_secs(32);

/// What was refused, until it has other content or is accepted.
#[derive(Debug, Clone, Default)]
pub(super) struct Refused {
    /// The last response that was refused, unless it was asked for again since.
    pub(super) content: Option<Arc<Content>>,
    /// At fault: sent again only with other content, or asked for.
    pub(super) culprits: BTreeMap<Name, Culprit>,
    /// Refused though not known to be at fault: sent again as soon as that is another response.
    pub(super) suspects: BTreeSet<Name>,
    /// Culprits whose accepted form goes with the next response.
    pub(super) mending: BTreeSet<Name>,
    /// Refused by their names, and no other content accepted since.
    offences: BTreeMap<Name, Offence>,
    /// Culprits that have other content, which waits.
    waiting: BTreeSet<Name>,
}

/// A resource that is refused.
#[derive(Debug, Clone)]
pub(super) struct Culprit {
    /// As it is, or was refused.
    pub(super) version: Version,
    /// By its name; else it may be that another was meant.
    told: bool,
    /// Why, in words fit to be shown.
    pub(super) reason: Arc<str>,
    pub(super) since: Instant,
}

/// A resource that was refused by its name.
#[derive(Debug, Clone)]
struct Offence {
    stand_in: StandIn,
    /// How many contents in a row.
    times: u32,
    /// When other content is tried at the earliest.
    not_before: Instant,
}

/// What is said in the place of a resource that is refused.
#[derive(Debug, Clone)]
enum StandIn {
    /// What the proxy had before is not known.
    Itself,
    /// What it accepted before.
    Former(Arc<Resource>),
    /// It did not have it.
    Nothing,
}

// === impl Refused ===

impl Refused {
    pub(super) fn is_any(&self) -> bool {
        self.content.is_some()
            || !self.culprits.is_empty()
            || !self.suspects.is_empty()
            || !self.offences.is_empty()
            || !self.mending.is_empty()
    }

    /// The form in which the resource is said; `None` to leave it out.
    pub(super) fn form<'a>(&'a self, resource: &'a Arc<Resource>) -> Option<&'a Arc<Resource>> {
        let culprit = self.culprits.get(resource.name());
        if culprit.is_none_or(|culprit| !culprit.told || culprit.version != resource.version()) {
            return Some(resource);
        }
        match self.offences.get(resource.name()).map(|offence| &offence.stand_in) {
            Some(StandIn::Former(former)) => Some(former),
            Some(StandIn::Nothing) => None,
            Some(StandIn::Itself) | None => Some(resource),
        }
    }

    /// What the proxy has of it, if not what it last accepted with everything else.
    pub(super) fn instead(&self, name: &str) -> Option<Option<&Arc<Resource>>> {
        match &self.offences.get(name)?.stand_in {
            StandIn::Former(former) => Some(Some(former)),
            StandIn::Nothing => Some(None),
            StandIn::Itself => None,
        }
    }

    /// The set as the proxy has it that accepted all of it but these.
    pub(super) fn as_held(&self, set: &ResourceSet) -> ResourceSet {
        let mut held = set.clone();
        for (name, offence) in &self.offences {
            match &offence.stand_in {
                StandIn::Former(former) => held.put(Arc::clone(former)),
                StandIn::Nothing | StandIn::Itself => held.remove(name),
            };
        }
        held
    }

    /// Enters a culprit. If it is `told` by its name, `former` is what the proxy accepted before: `None` if that is not
    /// known, `Some(None)` if there was none.
    pub(super) fn add(
        &mut self,
        resource: &Arc<Resource>,
        told: bool,
        former: Option<Option<&Arc<Resource>>>,
        (reason, now): (&Arc<str>, Instant),
    ) {
        let (name, version) = (resource.name(), resource.version());
        let culprit = Culprit { version, told, reason: Arc::clone(reason), since: now };
        if !told {
            self.culprits.insert(Name::clone(name), culprit);
            return;
        }
        let offence = self.offences.entry(Name::clone(name)).or_insert_with(|| {
            let stand_in = match former {
                Some(Some(former)) if former.version() != version => StandIn::Former(Arc::clone(former)),
                Some(None) => StandIn::Nothing,
                Some(Some(_)) | None => StandIn::Itself,
            };
            Offence { stand_in, times: 0, not_before: now }
        });
        if matches!(&offence.stand_in, StandIn::Former(former) if former.version() == version) {
            // The form that it accepted once: there is no other to try.
            offence.stand_in = StandIn::Itself;
            self.mending.remove(name);
            self.culprits.entry(Name::clone(name)).or_insert(culprit);
            return;
        }
        offence.times = offence.times.saturating_add(1);
        if let Some(doublings) = offence.times.checked_sub(2) {
            let delay = FIRST_DELAY.saturating_mul(2u32.saturating_pow(doublings)).min(MOST_DELAY);
            offence.not_before = now + delay;
        }
        if matches!(offence.stand_in, StandIn::Former(_)) {
            self.mending.insert(Name::clone(name));
        }
        self.culprits.insert(Name::clone(name), culprit);
    }

    /// Forgets what was accepted; a form that stands in for another says nothing of that.
    pub(super) fn accepted(&mut self, content: &Content) {
        self.content = None;
        if self.culprits.is_empty() && self.offences.is_empty() {
            return;
        }
        for resource in &content.resources {
            let stands_in = match self.offences.get(resource.name()).map(|offence| &offence.stand_in) {
                Some(StandIn::Former(former)) => former.version() == resource.version(),
                Some(StandIn::Nothing | StandIn::Itself) | None => false,
            };
            if !(stands_in && self.culprits.contains_key(resource.name())) {
                self.forget(resource.name());
            }
        }
    }

    /// Takes the suspects. A culprit is none, though the form that stands in for it was refused with another: that form
    /// goes with the next response again.
    pub(super) fn take_suspects(&mut self) -> BTreeSet<Name> {
        let culprits = &self.culprits;
        let told = |name: &Name| culprits.get(name).is_some_and(|culprit| culprit.told);
        let (culprits, suspects): (BTreeSet<Name>, _) = std::mem::take(&mut self.suspects).into_iter().partition(told);
        for name in culprits {
            if matches!(self.offences.get(&name).map(|offence| &offence.stand_in), Some(StandIn::Former(_))) {
                self.mending.insert(name);
            }
        }
        suspects
    }

    /// Whether it is refused as it is.
    pub(super) fn refuses(&self, resource: &Resource) -> bool {
        self.culprits.get(resource.name()).is_some_and(|culprit| culprit.version == resource.version())
    }

    /// Whether the content of a resource that has changed has to wait; it is then refused as it was before.
    pub(super) fn delays(&mut self, resource: &Resource, now: Instant) -> bool {
        let Some(offence) = self.offences.get(resource.name()).filter(|offence| now < offence.not_before) else {
            return false;
        };
        let accepted_once = matches!(&offence.stand_in, StandIn::Former(f) if f.version() == resource.version());
        let culprit = self.culprits.get_mut(resource.name()).filter(|_| !accepted_once);
        let Some(culprit) = culprit else { return false };
        culprit.version = resource.version();
        self.waiting.insert(Name::clone(resource.name()));
        true
    }

    /// Those whose content has waited long enough.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Name> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let offences = &self.offences;
        let is_due = |name: &Name| offences.get(name).is_none_or(|offence| offence.not_before <= now);
        let due: Vec<Name> = self.waiting.iter().filter(|name| is_due(name)).cloned().collect();
        for name in &due {
            self.waiting.remove(name);
            self.culprits.remove(name);
        }
        due
    }

    /// When content that waits is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|name| self.offences.get(name)).map(|offence| offence.not_before).min()
    }

    /// Forgets all but what is still `wanted`.
    pub(super) fn retain(&mut self, wanted: impl Fn(&Name) -> bool) {
        self.culprits.retain(|name, _| wanted(name));
        self.suspects.retain(&wanted);
        self.mending.retain(&wanted);
        self.offences.retain(|name, _| wanted(name));
        self.waiting.retain(wanted);
    }

    /// Forgets the culprits that have other content now, or are gone; the latter for good.
    pub(super) fn compare(&mut self, version: impl Fn(&Name) -> Option<Version>) {
        self.culprits.retain(|name, culprit| version(name) == Some(culprit.version));
        let Self { culprits, mending, waiting, offences, .. } = self;
        mending.retain(|name| culprits.contains_key(name));
        waiting.retain(|name| culprits.contains_key(name));
        offences.retain(|name, _| version(name).is_some());
    }

    fn forget(&mut self, name: &Name) {
        self.culprits.remove(name);
        self.offences.remove(name);
        self.mending.remove(name);
        self.waiting.remove(name);
    }
}
