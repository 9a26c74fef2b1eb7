//! Clients that ask again and again, without a stream: who they are, what each was told and has said to it.
//!
//! Owns: how long a client counts as connected after it has asked. May use: `report`. Never: decides what a client is
//! told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tonic::Status;
use translators::name::Owner;
use translators::resource::{Kind, Name, Resource, Version};
use translators::xds::secret::IDENTITY;

use super::refusal::Standing;
use super::refused::Refused;
use super::request::List;
use super::session::{Answer, Outcome};
use crate::publish::{ResourceSet, Snapshot};
use crate::report::{Observed, Proxy, Rejection, Report, ResourceState, ResourceStatus, StreamReport};

/// A client that does not ask for so long has gone, or for three times as long as it lets pass between two requests of
/// the same, if that is longer,
const LINGER: Duration = Duration::from_secs(60);
/// but not for longer than this.
const MOST_LINGER: Duration = Duration::from_secs(3600);
/// As many clients are known.
const MOST: usize = 65_536;
/// Of each client it is known for so many subscriptions what it was told last.
const MOST_SUBSCRIPTIONS: usize = 4_096;

/// The clients, by whose configuration they receive, and node.
#[derive(Debug, Default)]
pub(super) struct Pollers(Mutex<BTreeMap<(Owner, String), Entry>>);

#[derive(Debug)]
struct Entry {
    /// None of one that has gone: it may come again, and was only slow.
    poller: Option<Arc<Poller>>,
    asked: Instant,
    /// How long it let pass between two requests of the same.
    pause: Duration,
    /// When it asked for what.
    subscriptions: BTreeMap<(Kind, Version), Instant>,
}

/// What is known of a client that asks for a whole: see the state of a stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    /// What it accepted last.
    pub(super) good: Option<ResourceSet>,
    /// What it refuses of that.
    pub(super) refused: Refused,
}

/// One client.
pub(super) struct Poller {
    report: StreamReport,
    known: Arc<Mutex<Known>>,
}

/// What is known of a client.
struct Known {
    proxy: Proxy,
    refused: Standing,
    /// The versions of the resources that it refuses.
    culprits: BTreeMap<(Kind, Name), Version>,
    /// What it was told last, by the names that it asked for.
    last: BTreeMap<(Kind, Version), Told>,
    /// What it holds and refuses of wholes, by the same.
    memories: BTreeMap<(Kind, Version), Memory>,
}

/// What a client was told when it asked for the same names last.
struct Told {
    /// The sum over what was said.
    content: Version,
    /// The names; `None` for everything.
    names: Option<Box<[Name]>>,
    /// The set of which that was,
    set: ResourceSet,
    /// and the one of which it has said that it holds it.
    held: ResourceSet,
}

// === impl Pollers ===

impl Pollers {
    /// The client that `proxy` tells of, which asks for these names of a type; one that was not known is entered into the
    /// report.
    pub(super) fn of(
        &self,
        report: &Report,
        proxy: Proxy,
        subscription: (Kind, Version),
        now: Instant,
    ) -> Result<Arc<Poller>, Status> {
        let mut entries = lock(&self.0);
        let key = (proxy.owner.clone(), proxy.node.clone());
        if entries.len() >= MOST && !entries.contains_key(&key) {
            entries.retain(|_, entry| entry.poller.is_some());
            if entries.len() >= MOST {
                return Err(Status::resource_exhausted("too many clients ask"));
            }
        }
        let new = || Entry { poller: None, asked: now, pause: Duration::ZERO, subscriptions: BTreeMap::new() };
        let entry = entries.entry(key).or_insert_with(new);
        entry.asks(subscription, now);
        let poller = entry.poller.get_or_insert_with(|| {
            let (refused, culprits, last, memories) = Default::default();
            let known = Arc::new(Mutex::new(Known { proxy, refused, culprits, last, memories }));
            Arc::new(Poller { report: report.connect(known.clone()), known })
        });
        Ok(Arc::clone(poller))
    }

    /// Forgets those that have gone.
    pub(super) fn tidy(&self, now: Instant) {
        let mut entries = lock(&self.0);
        let mut gone = Vec::new();
        entries.retain(|_, entry| {
            let silent = now.saturating_duration_since(entry.asked);
            if silent > entry.linger() {
                gone.extend(entry.poller.take());
            }
            silent <= MOST_LINGER
        });
        drop(entries);
        drop(gone);
    }
}

// === impl Entry ===

impl Entry {
    fn asks(&mut self, subscription: (Kind, Version), now: Instant) {
        if self.subscriptions.len() >= MOST_SUBSCRIPTIONS {
            self.subscriptions.clear();
        }
        self.asked = now;
        if let Some(before) = self.subscriptions.insert(subscription, now) {
            self.pause = now.saturating_duration_since(before);
        }
    }

    /// How long it counts as connected.
    fn linger(&self) -> Duration {
        (3 * self.pause).clamp(LINGER, MOST_LINGER)
    }
}

// === impl Poller ===

impl Poller {
    /// What it was told last when it asked for these names.
    pub(super) fn last(&self, kind: Kind, names: Version) -> Option<Version> {
        lock(&self.known).last.get(&(kind, names)).map(|told| told.content)
    }

    /// What is known of what it holds and refuses.
    pub(super) fn memory(&self, kind: Kind, names: Version) -> Option<Memory> {
        lock(&self.known).memories.get(&(kind, names)).cloned()
    }

    /// It holds what it was told last when it asked for these names.
    pub(super) fn accepted(&self, kind: Kind, names: Version) {
        let mut known = lock(&self.known);
        let Some(told) = known.last.get_mut(&(kind, names)) else { return };
        told.held = told.set.clone();
        let held = told.held.clone();
        let memory = known.memories.get_mut(&(kind, names));
        // Of what it refuses it was told the former form.
        if let Some(memory) = memory.filter(|memory| kind.is_full_state() && !memory.refused.is_any()) {
            memory.good = Some(held);
        }
    }

    /// Keeps that.
    pub(super) fn remember(&self, kind: Kind, names: Version, memory: Memory) {
        let mut known = lock(&self.known);
        if known.memories.len() >= MOST_SUBSCRIPTIONS {
            known.memories.clear();
        }
        known.memories.insert((kind, names), memory);
    }

    /// It asks for `names`, whose `content` is as in the snapshot, and is told so, unless it holds that.
    pub(super) fn told(&self, kind: Kind, names: &List<'_>, snapshot: &Snapshot, content: Version, tell: bool) {
        let mut known = lock(&self.known);
        let Known { proxy, refused, culprits, last, .. } = &mut *known;
        let status = proxy.types.entry(kind).or_default();
        let all = kind.is_full_state() && names.iter().all(|name| name == "*");
        status.subscribed = (!all).then(|| names.len());
        let version = snapshot.of(kind).version();
        status.sent = Some(version);
        if tell {
            status.responses += 1;
        } else {
            status.acked = Some(version);
        }
        if last.len() >= MOST_SUBSCRIPTIONS {
            last.clear();
        }
        let set = snapshot.of(kind).clone();
        let asked = (kind, names.digest());
        let held = match (tell, last.remove(&asked)) {
            (false, _) => set.clone(),
            (true, before) => before.map(|before| before.held).unwrap_or_default(),
        };
        let name = |name: &str| set.get(name).map_or_else(|| Name::from(name), |resource| Name::clone(resource.name()));
        let names = (!all).then(|| names.iter().map(name).collect());
        last.insert(asked, Told { content, names, set, held });
        // What has other content by now is refused no more.
        culprits.retain(|(kind, name), version| {
            snapshot.of(*kind).get(name).is_some_and(|resource| resource.version() == *version)
        });
        refused.keep(|kind, name| culprits.contains_key(&(kind, Name::clone(name))));
    }

    /// What it says to what it was told.
    pub(super) fn answered(&self, Answer { kind, version, outcome }: Answer, snapshot: &Snapshot) {
        let mut known = lock(&self.known);
        let Known { proxy, refused, culprits, .. } = &mut *known;
        let before = (proxy.listeners.len(), proxy.has_certificate);
        match outcome {
            Outcome::Accepted(names) => {
                culprits.retain(|(of, name), _| *of != kind || !names.contains(name));
                refused.keep(|of, name| of != kind || !names.contains(name));
                match kind {
                    Kind::Listener => proxy.listeners.extend(names.iter().cloned()),
                    Kind::Secret => proxy.has_certificate |= names.iter().any(|name| **name == *IDENTITY),
                    _ => {}
                }
            }
            Outcome::Refused { code, reason, resources, rules } => {
                tracing::warn!(%kind, %version, code, reason, ?resources, "resources refused");
                let versions = resources.iter().filter_map(|name| {
                    let resource = snapshot.of(kind).get(name)?;
                    Some(((kind, Name::clone(name)), resource.version()))
                });
                culprits.extend(versions);
                refused.add(kind, Rejection { version, reason, resources, rules, since: SystemTime::now() });
            }
        }
        if before != (proxy.listeners.len(), proxy.has_certificate) {
            let connected = proxy.connected();
            drop(known);
            self.report.tell(connected);
        }
    }
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}

impl Observed for Mutex<Known> {
    fn proxy(&self) -> Proxy {
        let known = lock(self);
        let mut proxy = known.proxy.clone();
        for (kind, status) in &mut proxy.types {
            status.rejections = known.refused.of(*kind).to_vec();
        }
        proxy
    }

    fn resources(&self) -> Vec<ResourceStatus> {
        let known = lock(self);
        let mut all: BTreeMap<(Kind, Name), ResourceStatus> = BTreeMap::new();
        for ((kind, _), told) in &known.last {
            let mut show = |resource: &Arc<Resource>| {
                let (kind, name, state) =
                    (*kind, Name::clone(resource.name()), known.state(*kind, resource, &told.held));
                let status = ResourceStatus { kind, name: name.clone(), resource: Some(Arc::clone(resource)), state };
                all.insert((kind, name), status);
            };
            match &told.names {
                None => told.set.iter().for_each(show),
                Some(names) => names.iter().flat_map(|name| told.set.called(name)).for_each(&mut show),
            }
            let missing = told.names.iter().flatten().filter(|name| told.set.called(name).next().is_none());
            for name in missing {
                let (kind, name, state) = (*kind, Name::clone(name), ResourceState::NotSent);
                all.insert((kind, name.clone()), ResourceStatus { kind, name, resource: None, state });
            }
        }
        all.into_values().collect()
    }
}

impl Known {
    /// How far the client is with a resource as it was told of it, and with what it holds.
    fn state(&self, kind: Kind, resource: &Resource, held: &ResourceSet) -> ResourceState {
        let name = resource.name();
        if self.culprits.get(&(kind, Name::clone(name))) == Some(&resource.version()) {
            let refused = self.refused.of(kind).iter().find(|rejection| rejection.resources.contains(name));
            if let Some(Rejection { reason, since, .. }) = refused {
                let ago = since.elapsed().unwrap_or_default();
                let since = Instant::now().checked_sub(ago).unwrap_or_else(Instant::now);
                return ResourceState::Error { reason: reason.as_str().into(), since };
            }
        }
        match held.get(name) {
            Some(held) if held.version() == resource.version() => ResourceState::Synced,
            Some(_) | None => ResourceState::Stale,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
