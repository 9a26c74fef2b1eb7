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
use translators::mesh::{Instances, Mesh, Workload};
use translators::name::QualifiedName;
use translators::resource::Resource;
use translators::xds::{self, Contribution, Entry, Features, Patching, ResourceKey, Slots};

use super::{GroupKey, snapshots};
use crate::cores::each;
use crate::snapshot::Snapshot;

use change::Concerned;
use edits::Edits;
use few::Few;

mod change;
mod edits;
mod few;
mod patches;

/// The resources of a mesh, as it was last followed.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    mesh: Option<Mesh>,
    features: BTreeSet<Features>,
    instances: Instances,
    services: HashMap<QualifiedName, OfService>,
    /// The changes that are made to what is put into groups.
    patching: Patching,
    /// Of the workloads that have entries to be told apart.
    slots: BTreeMap<QualifiedName, Slots>,
    groups: OrdMap<GroupKey, Arc<Snapshot>>,
    built: usize,
    replanned: usize,
}

/// What there is because of one service, whether it exists or not.
#[derive(Debug, Default)]
struct OfService {
    /// The resources that are about it.
    shared: Few<ResourceKey, Shared>,
    /// The entries whose contribution follows from it.
    followers: Few<EntryId, ()>,
}

/// A resource that several entries may need.
#[derive(Debug, Default)]
struct Shared {
    /// `None` until it is built.
    resource: Option<Arc<Resource>>,
    /// How many entries of each workload need it.
    users: Few<QualifiedName, usize>,
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
    Edges,
}

/// What one entry added before, and what it adds now.
struct Replanned {
    id: EntryId,
    before: Contribution,
    after: Contribution,
}

/// What entering the needs of entries has found.
#[derive(Debug, Default)]
struct Counted {
    /// Resources that nobody needed before.
    new: Vec<ResourceKey>,
    /// The workloads that need a resource which others needed before them.
    joined: Vec<(ResourceKey, QualifiedName)>,
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

    /// How many entries of workloads the last change had planned again.
    pub(super) fn replanned(&self) -> usize {
        self.replanned
    }

    /// Brings the groups in line with `mesh`, the connected proxies and what their Envoys know.
    pub(super) fn follow(&mut self, mesh: &Mesh, features: &BTreeSet<Features>, instances: &Instances) {
        if self.features.is_empty() {
            *self = Self { features: features.clone(), ..Self::default() };
        }
        let nothing = || Mesh {
            services: OrdMap::new(),
            workloads: OrdMap::new(),
            snapshots: OrdMap::new(),
            patches: OrdMap::new(),
            observed: OrdMap::new(),
            ..mesh.clone()
        };
        let former = self.mesh.replace(mesh.clone()).unwrap_or_else(nothing);
        let former_instances = std::mem::replace(&mut self.instances, instances.clone());
        let former_features = self.features.clone();

        self.set_groups(&former, mesh, features);
        let former_patching = match former.patches == mesh.patches {
            true => None,
            false => Some(std::mem::replace(&mut self.patching, Patching::of(mesh))),
        };
        let mut concerned = Concerned::default();
        concerned.add_workloads(self, &former, mesh);
        concerned.add_features(&former_features, features, mesh);
        concerned.add_services(self, &former, mesh);
        concerned.add_observed(self, &former, mesh);
        concerned.add_instances(self, mesh, &former_instances);
        concerned.add_settings(self, &former, mesh);
        concerned.add_patches(self, (&former, former_patching.as_ref()), mesh, former_features != *features);

        let mut edits = Edits::default();
        let replanned = self.replan((&former, &former_features), mesh, &mut concerned);
        self.replanned = replanned.len();
        for (workload, slots) in concerned.slots {
            if slots == *Slots::NONE_TWICE {
                self.slots.remove(&workload);
            } else {
                self.slots.insert(workload, slots);
            }
        }
        let Counted { new, joined } = self.count(&replanned, &mut edits);
        let jobs = self.jobs(mesh, replanned, new, concerned.shared, concerned.own);
        let built = self.build(mesh, &jobs);
        self.built = jobs.len();
        self.enter(mesh, jobs, built, &mut edits);
        for (key, workload) in joined.into_iter().chain(concerned.patched) {
            let shared = self.shared(&key).filter(|shared| shared.users.get(&workload).is_some());
            if let Some(resource) = shared.and_then(|shared| shared.resource.as_ref()) {
                self.put(mesh, &workload, &key, Arc::clone(resource), &mut edits);
            }
        }
        for (workload, additions) in concerned.additions {
            edits.add(&workload, additions);
        }
        edits.apply(&mut self.groups, &self.features, &former_features);
        self.built += snapshots::follow(&mut self.groups, &former, mesh);
    }

    /// Groups for the workloads of `mesh` and these `features`, and for no others. A new one begins with what another
    /// group of its workload holds that is like it.
    fn set_groups(&mut self, former: &Mesh, mesh: &Mesh, features: &BTreeSet<Features>) {
        if self.features != *features {
            for workload in former.workloads.keys() {
                let group = |features: &Features| GroupKey::Workload { name: workload.clone(), features: *features };
                for new in features.difference(&self.features) {
                    // What these forms need is not put there again where others have them already.
                    let same = |held: &&Features| held.client == new.client && held.forms() == new.forms();
                    let alike = |held: &&Features| held.client.is_proxyless() == new.client.is_proxyless();
                    let another = self.features.iter().find(same).or_else(|| self.features.iter().find(alike));
                    let another = another.and_then(|held| self.groups.get(&group(held)));
                    let another = another.cloned().unwrap_or_default();
                    self.groups.insert(group(new), another);
                }
                for gone in self.features.difference(features) {
                    self.groups.remove(&group(gone));
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

    fn replan(
        &self,
        (former, former_features): (&Mesh, &BTreeSet<Features>),
        mesh: &Mesh,
        concerned: &mut Concerned,
    ) -> Vec<Replanned> {
        let mut ids = std::mem::take(&mut concerned.replan);
        ids.sort();
        ids.dedup();
        let added = |mesh: &Mesh, id: &EntryId, slots: &Slots, features: &BTreeSet<Features>| {
            let found = id.entry(mesh);
            found.map(|(workload, entry)| xds::contribution(mesh, workload, entry, slots, features))
        };
        let one = |id: EntryId| {
            let before = added(former, &id, self.slots(&id.workload), former_features).unwrap_or_default();
            let after = added(mesh, &id, concerned.slots(self, &id.workload), &self.features).unwrap_or_default();
            Replanned { id, before, after }
        };
        each(ids, one)
    }

    /// Enters what each entry needs now.
    fn count(&mut self, replanned: &[Replanned], edits: &mut Edits) -> Counted {
        let mut counted = Counted::default();
        for Replanned { id, before, after } in replanned {
            for service in lacking(&before.follows_from, &after.follows_from) {
                self.services.entry(service.clone()).or_default().followers.entry(id);
            }
            for key in lacking(&before.shared, &after.shared) {
                let Some(service) = key.service() else { continue };
                let shared = self.services.entry(service.clone()).or_default().shared.entry(key);
                if shared.users.is_empty() {
                    counted.new.push(key.clone());
                }
                let entries = shared.users.entry(&id.workload);
                *entries += 1;
                if *entries == 1 && shared.resource.is_some() {
                    counted.joined.push((key.clone(), id.workload.clone()));
                }
            }
        }
        for Replanned { id, before, after } in replanned {
            for service in lacking(&after.follows_from, &before.follows_from) {
                self.change(service, |of_service| of_service.followers.remove(id));
            }
            for key in lacking(&after.shared, &before.shared) {
                let Some(service) = key.service() else { continue };
                self.change(service, |of_service| of_service.release(key, &id.workload, edits));
            }
            for key in lacking(&after.own, &before.own) {
                edits.remove(&id.workload, key);
            }
        }
        counted
    }

    /// Takes something away from what there is because of a service.
    fn change(&mut self, service: &QualifiedName, change: impl FnOnce(&mut OfService)) {
        let Some(of_service) = self.services.get_mut(service) else { return };
        change(of_service);
        if of_service.shared.is_empty() && of_service.followers.is_empty() {
            self.services.remove(service);
        }
    }

    /// Everything to build, each once: what is `new`, and what reads something that has changed.
    fn jobs(
        &self,
        mesh: &Mesh,
        replanned: Vec<Replanned>,
        new: Vec<ResourceKey>,
        mut shared: BTreeSet<ResourceKey>,
        mut own: BTreeSet<(EntryId, ResourceKey)>,
    ) -> Vec<Job> {
        shared.retain(|key| self.shared(key).is_some());
        own.retain(|(id, _)| id.entry(mesh).is_some());
        let mut jobs: Vec<Job> = shared.into_iter().chain(new).map(Job::Shared).collect();
        for Replanned { id, before, after } in replanned {
            for key in after.own {
                if before.own.binary_search(&key).is_err() {
                    let job = (id.clone(), key);
                    own.remove(&job);
                    jobs.push(Job::Own(job.0, job.1));
                }
            }
        }
        jobs.extend(own.into_iter().map(|(id, key)| Job::Own(id, key)));
        jobs
    }

    fn build(&self, mesh: &Mesh, jobs: &[Job]) -> Vec<Resource> {
        let one = |job: &Job| match job {
            Job::Shared(key) => xds::build(mesh, key, &self.instances),
            Job::Own(id, key) => match id.entry(mesh) {
                Some((workload, entry)) => xds::build_own(mesh, workload, entry, key),
                None => xds::build(mesh, key, &self.instances),
            },
        };
        each(jobs.iter().collect(), one)
    }

    /// Enters what was built; what says the same by the same rules stays the same allocation.
    fn enter(&mut self, mesh: &Mesh, jobs: Vec<Job>, built: Vec<Resource>, edits: &mut Edits) {
        for (job, resource) in jobs.into_iter().zip(built) {
            match job {
                Job::Own(id, key) => {
                    self.put(mesh, &id.workload, &key, Arc::new(resource), edits);
                }
                Job::Shared(key) => {
                    let of_service = key.service().and_then(|service| self.services.get_mut(service));
                    let shared = of_service.and_then(|of_service| of_service.shared.get_mut(&key));
                    let Some(shared) = shared else { continue };
                    if shared.resource.as_ref().is_some_and(|held| **held == resource) {
                        continue;
                    }
                    let resource = Arc::new(resource);
                    shared.resource = Some(Arc::clone(&resource));
                    for workload in self.shared(&key).into_iter().flat_map(|shared| shared.users.keys()) {
                        self.put(mesh, workload, &key, Arc::clone(&resource), edits);
                    }
                }
            }
        }
    }

    /// Puts a resource into the groups of a workload, with the changes that are for these.
    fn put(
        &self,
        mesh: &Mesh,
        workload: &QualifiedName,
        key: &ResourceKey,
        resource: Arc<Resource>,
        edits: &mut Edits,
    ) {
        let patched = mesh.workloads.get(workload).filter(|_| !self.patching.is_empty());
        let steps = patched.map(|workload| self.patching.steps(workload, key)).unwrap_or_default();
        edits.put(workload, key.audience(), resource, steps);
    }

    fn shared(&self, key: &ResourceKey) -> Option<&Shared> {
        self.services.get(key.service()?)?.shared.get(key)
    }

    /// The keys of the resources that are about a service.
    fn shared_of(&self, service: &QualifiedName) -> impl Iterator<Item = &ResourceKey> {
        self.services.get(service).into_iter().flat_map(|of_service| of_service.shared.keys())
    }

    /// The entries whose contribution follows from a service.
    fn followers(&self, service: &QualifiedName) -> impl Iterator<Item = &EntryId> {
        self.services.get(service).into_iter().flat_map(|of_service| of_service.followers.keys())
    }

    fn slots(&self, workload: &QualifiedName) -> &Slots {
        self.slots.get(workload).unwrap_or(Slots::NONE_TWICE)
    }
}

// === impl OfService ===

impl OfService {
    /// One entry of `workload` needs the resource of `key` no longer.
    fn release(&mut self, key: &ResourceKey, workload: &QualifiedName, edits: &mut Edits) {
        let Some(shared) = self.shared.get_mut(key) else { return };
        let Some(entries) = shared.users.get_mut(workload) else { return };
        *entries -= 1;
        if *entries == 0 {
            shared.users.remove(workload);
            edits.remove(workload, key);
        }
        if shared.users.is_empty() {
            self.shared.remove(key);
        }
    }
}

// === impl EntryId ===

impl EntryId {
    /// Every entry of a workload.
    fn all(workload: &Workload) -> impl Iterator<Item = Self> + '_ {
        let id = |side, index| Self { workload: workload.name.clone(), side, index };
        let serves = (0..workload.serves.len()).map(move |index| id(Side::Serves, index));
        let calls = (0..workload.calls.len()).map(move |index| id(Side::Calls, index));
        serves.chain(calls).chain((0..workload.edges.len()).map(move |index| id(Side::Edges, index)))
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
            Side::Edges => workload.edges.get(self.index).map(|edge| Entry::Edge(edge)),
        }
    }
}

/// Those of `after` that are not in `before`; both are sorted.
fn lacking<'a, T: Ord>(before: &'a [T], after: &'a [T]) -> impl Iterator<Item = &'a T> {
    after.iter().filter(|one| before.binary_search(one).is_err())
}
