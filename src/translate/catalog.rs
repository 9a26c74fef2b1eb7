//! The catalog: every resource of the mesh, who needs it, and what each group holds.
//!
//! Owns: the one index from services to entries, from entries to resources and from resources to groups. May use:
//! `translators::xds`, `snapshot`. Never: goes through services, workloads or groups that a change does not concern.
//!
//! What a workload needs is the sum of what its entries add. An entry's own resources (listeners, the way to its
//! application) live in the groups of its workload alone; the others are shared and counted. What an entry added
//! before follows from the mesh before, so that nothing of it is written down.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use imbl::OrdMap;
use rayon::prelude::*;
use translators::mesh::{Instances, Mesh, Workload};
use translators::name::QualifiedName;
use translators::resource::Resource;
use translators::xds::{self, Contribution, Entry, Features, ResourceKey, Slots};

use super::{GroupKey, snapshots};
use crate::snapshot::Snapshot;

use change::Concerned;
use edits::Edits;

mod change;
mod edits;

/// From how many pieces on work is spread over all cores.
const MANY: usize = 64;

/// The resources of a mesh, as it was last followed.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    mesh: Option<Mesh>,
    features: BTreeSet<Features>,
    instances: Instances,
    /// By the service that they are about.
    shared: HashMap<QualifiedName, BTreeMap<ResourceKey, Shared>>,
    /// The entries whose contribution follows from a service.
    followers: HashMap<QualifiedName, BTreeSet<EntryId>>,
    /// Of the workloads that have entries to be told apart.
    slots: BTreeMap<QualifiedName, Slots>,
    groups: OrdMap<GroupKey, Arc<Snapshot>>,
    built: usize,
}

/// A resource that several entries may need.
#[derive(Debug, Default)]
struct Shared {
    /// `None` until it is built.
    resource: Option<Arc<Resource>>,
    /// How many entries of each workload need it.
    users: BTreeMap<QualifiedName, usize>,
}

/// One entry of a workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct EntryId {
    workload: QualifiedName,
    side: Side,
    index: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Serves,
    Calls,
}

/// What one entry added before, and what it adds now.
struct Replanned {
    id: EntryId,
    before: Contribution,
    after: Contribution,
}

/// One resource to build.
enum Job {
    Shared(ResourceKey),
    Own(EntryId, ResourceKey),
}

// === impl Catalog ===

impl Catalog {
    /// What each group holds, secrets apart.
    pub(super) fn groups(&self) -> &OrdMap<GroupKey, Arc<Snapshot>> {
        &self.groups
    }

    /// How many resources the last change had built.
    pub(super) fn built(&self) -> usize {
        self.built
    }

    /// Brings the groups in line with `mesh`, the connected proxies and what their Envoys know.
    pub(super) fn follow(&mut self, mesh: &Mesh, features: &BTreeSet<Features>, instances: &Instances) {
        if self.features.is_empty() {
            *self = Self { features: features.clone(), ..Self::default() };
        }
        let nothing =
            || Mesh { services: OrdMap::new(), workloads: OrdMap::new(), snapshots: OrdMap::new(), ..mesh.clone() };
        let former = self.mesh.replace(mesh.clone()).unwrap_or_else(nothing);
        let former_instances = std::mem::replace(&mut self.instances, instances.clone());

        let new_features: BTreeSet<Features> = features.difference(&self.features).copied().collect();
        self.set_groups(&former, mesh, features);
        let mut concerned = Concerned::default();
        concerned.add_workloads(self, &former, mesh);
        concerned.add_features(self, mesh, &new_features);
        concerned.add_services(self, &former, mesh);
        concerned.add_instances(self, mesh, &former_instances);
        concerned.add_settings(self, &former, mesh);

        let mut edits = Edits::default();
        let replanned = self.replan(&former, mesh, &concerned);
        for (workload, slots) in concerned.slots {
            if slots == *Slots::NONE_TWICE {
                self.slots.remove(&workload);
            } else {
                self.slots.insert(workload, slots);
            }
        }
        let joined = self.count(&replanned, &mut edits);
        let jobs = self.jobs(mesh, replanned, concerned.shared, concerned.own);
        let built = self.build(mesh, &jobs);
        self.built = jobs.len();
        self.enter(jobs, built, &mut edits);
        for (key, workload) in joined {
            if let Some(resource) = self.shared(&key).and_then(|shared| shared.resource.as_ref()) {
                edits.put(&workload, None, Arc::clone(resource));
            }
        }
        edits.apply(&mut self.groups, &self.features);
        self.built += snapshots::follow(&mut self.groups, &former, mesh);
    }

    /// Groups for the workloads of `mesh` and these `features`, and for no others. A new one begins with what another group of its workload holds.
    fn set_groups(&mut self, former: &Mesh, mesh: &Mesh, features: &BTreeSet<Features>) {
        if self.features != *features {
            for workload in former.workloads.keys() {
                let group = |features: &Features| GroupKey::Workload { name: workload.clone(), features: *features };
                let another = self.features.first().and_then(|any| self.groups.get(&group(any))).cloned();
                for gone in self.features.difference(features) {
                    self.groups.remove(&group(gone));
                }
                for new in features.difference(&self.features) {
                    self.groups.insert(group(new), another.clone().unwrap_or_default());
                }
            }
            self.features.clone_from(features);
        }
        for change in former.workloads.diff(&mesh.workloads) {
            let group = |workload: &QualifiedName, features: &Features| GroupKey::Workload {
                name: workload.clone(),
                features: *features,
            };
            match change {
                imbl::ordmap::DiffItem::Add(name, _) => {
                    self.groups.extend(features.iter().map(|of| (group(name, of), Arc::default())));
                }
                imbl::ordmap::DiffItem::Remove(name, _) => {
                    for of in features {
                        self.groups.remove(&group(name, of));
                    }
                }
                imbl::ordmap::DiffItem::Update { .. } => {}
            }
        }
    }

    fn replan(&self, former: &Mesh, mesh: &Mesh, concerned: &Concerned) -> Vec<Replanned> {
        let added = |mesh: &Mesh, id: &EntryId, slots: &Slots| {
            let found = id.entry(mesh);
            found.map(|(workload, entry)| xds::contribution(mesh, workload, entry, slots, &self.features))
        };
        let one = |id: EntryId| {
            let before = added(former, &id, self.slots(&id.workload)).unwrap_or_default();
            let after = added(mesh, &id, concerned.slots(self, &id.workload)).unwrap_or_default();
            Replanned { id, before, after }
        };
        each(concerned.replan.iter().cloned().collect(), one)
    }

    /// Enters what each entry needs now; gives back which workloads need a resource that they did not need before.
    fn count(&mut self, replanned: &[Replanned], edits: &mut Edits) -> Vec<(ResourceKey, QualifiedName)> {
        let mut joined = Vec::new();
        for Replanned { id, before, after } in replanned {
            for service in after.follows_from.difference(&before.follows_from) {
                self.followers.entry(service.clone()).or_default().insert(id.clone());
            }
            for key in after.shared.difference(&before.shared) {
                let of_service = self.shared.entry(key.service().clone()).or_default();
                let users = &mut of_service.entry(key.clone()).or_default().users;
                let entries = users.entry(id.workload.clone()).or_default();
                *entries += 1;
                if *entries == 1 {
                    joined.push((key.clone(), id.workload.clone()));
                }
            }
        }
        for Replanned { id, before, after } in replanned {
            for service in before.follows_from.difference(&after.follows_from) {
                remove_from(&mut self.followers, service, |followers| {
                    followers.remove(id);
                    followers.is_empty()
                });
            }
            for key in before.shared.difference(&after.shared) {
                self.release(key, &id.workload, edits);
            }
            for key in before.own.difference(&after.own) {
                edits.remove(&id.workload, key);
            }
        }
        joined
    }

    fn release(&mut self, key: &ResourceKey, workload: &QualifiedName, edits: &mut Edits) {
        remove_from(&mut self.shared, key.service(), |of_service| {
            let Some(shared) = of_service.get_mut(key) else { return of_service.is_empty() };
            let entries = shared.users.get_mut(workload);
            if entries.is_some_and(|entries| {
                *entries -= 1;
                *entries == 0
            }) {
                shared.users.remove(workload);
                edits.remove(workload, key);
            }
            if shared.users.is_empty() {
                of_service.remove(key);
            }
            of_service.is_empty()
        });
    }

    /// Everything to build: what is new, and what reads something that has changed.
    fn jobs(
        &self,
        mesh: &Mesh,
        replanned: Vec<Replanned>,
        mut shared: BTreeSet<ResourceKey>,
        mut own: BTreeSet<(EntryId, ResourceKey)>,
    ) -> Vec<Job> {
        for Replanned { id, before, after } in replanned {
            let is_new = |key: &&ResourceKey| self.shared(key).is_some_and(|shared| shared.resource.is_none());
            shared.extend(after.shared.difference(&before.shared).filter(is_new).cloned());
            own.extend(after.own.difference(&before.own).map(|key| (id.clone(), key.clone())));
        }
        shared.retain(|key| self.shared(key).is_some());
        own.retain(|(id, _)| id.entry(mesh).is_some());
        let own = own.into_iter().map(|(id, key)| Job::Own(id, key));
        shared.into_iter().map(Job::Shared).chain(own).collect()
    }

    fn build(&self, mesh: &Mesh, jobs: &[Job]) -> Vec<Resource> {
        let one = |job: &Job| match job {
            Job::Shared(ResourceKey::Endpoints(destination)) => xds::endpoints(mesh, destination, &self.instances),
            Job::Shared(key) => xds::build(mesh, key),
            Job::Own(id, key) => match id.entry(mesh) {
                Some((workload, entry)) => xds::build_own(mesh, workload, entry, key),
                None => xds::build(mesh, key),
            },
        };
        each(jobs.iter().collect(), one)
    }

    /// Enters what was built; what says the same by the same rules stays the same allocation.
    fn enter(&mut self, jobs: Vec<Job>, built: Vec<Resource>, edits: &mut Edits) {
        for (job, resource) in jobs.into_iter().zip(built) {
            match job {
                Job::Own(id, key) => {
                    let only = if let ResourceKey::Inbound(_, features) = key { Some(features) } else { None };
                    edits.put(&id.workload, only, Arc::new(resource));
                }
                Job::Shared(key) => {
                    let of_service = self.shared.get_mut(key.service());
                    let Some(shared) = of_service.and_then(|of_service| of_service.get_mut(&key)) else { continue };
                    if shared.resource.as_ref().is_some_and(|held| **held == resource) {
                        continue;
                    }
                    let resource = Arc::new(resource);
                    for workload in shared.users.keys() {
                        edits.put(workload, None, Arc::clone(&resource));
                    }
                    shared.resource = Some(resource);
                }
            }
        }
    }

    fn shared(&self, key: &ResourceKey) -> Option<&Shared> {
        self.shared.get(key.service())?.get(key)
    }

    fn slots(&self, workload: &QualifiedName) -> &Slots {
        self.slots.get(workload).unwrap_or(Slots::NONE_TWICE)
    }
}

// === impl EntryId ===

impl EntryId {
    /// Every entry of a workload.
    fn all(workload: &Workload) -> impl Iterator<Item = Self> + '_ {
        let id = |side, index| Self { workload: workload.name.clone(), side, index };
        let serves = (0..workload.serves.len()).map(move |index| id(Side::Serves, index));
        serves.chain((0..workload.calls.len()).map(move |index| id(Side::Calls, index)))
    }

    /// The entry in this form of the mesh.
    fn entry<'a>(&self, mesh: &'a Mesh) -> Option<(&'a Workload, Entry<'a>)> {
        let workload = mesh.workloads.get(&self.workload)?;
        Some((workload, self.of(workload)?))
    }

    /// The entry in this form of its workload.
    fn of<'a>(&self, workload: &'a Workload) -> Option<Entry<'a>> {
        match self.side {
            Side::Serves => workload.serves.get(self.index).map(Entry::Serve),
            Side::Calls => workload.calls.get(self.index).map(Entry::Call),
        }
    }
}

/// `work` done for each of `items`, in their order, on all cores where there are many.
fn each<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Send + Sync) -> Vec<R> {
    if items.len() < MANY { items.into_iter().map(work).collect() } else { items.into_par_iter().map(work).collect() }
}

/// Changes the value at `key`, and removes it if `change` says that nothing is left.
fn remove_from<T>(map: &mut HashMap<QualifiedName, T>, key: &QualifiedName, change: impl FnOnce(&mut T) -> bool) {
    if map.get_mut(key).is_some_and(change) {
        map.remove(key);
    }
}
