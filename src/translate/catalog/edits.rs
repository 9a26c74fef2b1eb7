//! Edits: what is to be put into the groups of each workload and taken out of them.
//!
//! Owns: that a group is rewritten once for all its edits. May use: `snapshot`. Never: touches a group without any.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use translators::name::QualifiedName;
use translators::resource::{Kind, Name, Resource};
use translators::xds::{Audience, Features, ResourceKey, Step};

use super::super::GroupKey;
use super::each;
use super::patches::{Made, Patched};
use crate::snapshot::Snapshot;

/// The edits by workload.
#[derive(Debug, Default)]
pub(super) struct Edits {
    of: BTreeMap<QualifiedName, Edit>,
}

/// The edits of one workload's groups. What is put stays, also if what it replaces is removed.
#[derive(Debug, Default)]
struct Edit {
    removed: BTreeSet<(Audience, Kind, Name)>,
    put: Vec<Put>,
    additions: Additions,
}

/// A resource, and the changes that are made to it for some versions.
#[derive(Debug)]
struct Put {
    audience: Audience,
    resource: Arc<Resource>,
    steps: Vec<Step>,
}

/// What patches added to the groups of a workload, and add now, for some versions.
#[derive(Debug, Default)]
pub(super) struct Additions {
    pub(super) before: Vec<Step>,
    pub(super) now: Vec<Step>,
}

// === impl Edits ===

impl Edits {
    /// Puts a resource into the groups of `workload` that it is for.
    pub(super) fn put(
        &mut self,
        workload: &QualifiedName,
        audience: Audience,
        resource: Arc<Resource>,
        steps: Vec<Step>,
    ) {
        self.edit(workload).put.push(Put { audience, resource, steps });
    }

    /// Puts what patches add into the groups of `workload`, in place of what they added before.
    pub(super) fn add(&mut self, workload: &QualifiedName, additions: Additions) {
        self.edit(workload).additions = additions;
    }

    /// Takes a resource out of the groups of `workload` that it was for.
    pub(super) fn remove(&mut self, workload: &QualifiedName, key: &ResourceKey) {
        self.edit(workload).removed.insert((key.audience(), key.kind(), key.name()));
    }

    /// Rewrites the groups that have edits. Those of features that were not among the `former` began with what another
    /// group of their workload held.
    pub(super) fn apply(
        self,
        groups: &mut OrdMap<GroupKey, Arc<Snapshot>>,
        features: &BTreeSet<Features>,
        former: &BTreeSet<Features>,
    ) {
        let edited: Vec<(GroupKey, Features, &Edit, Arc<Snapshot>)> = self
            .of
            .iter()
            .flat_map(|(workload, edit)| features.iter().map(move |of| (workload, *of, edit)))
            .filter_map(|(workload, of, edit)| {
                let group = GroupKey::Workload { name: workload.clone(), features: of };
                groups.get(&group).map(|held| (group.clone(), of, edit, Arc::clone(held)))
            })
            .collect();
        let mut patched = Patched::default();
        for (_, of, edit, _) in &edited {
            edit.patch(*of, &mut patched);
        }
        let patched = patched.made();
        let written = each(edited, |(group, of, edit, held)| {
            let mut next = Snapshot::clone(&held);
            edit.apply(of, !former.contains(&of), &patched, &mut next).then_some((group, Arc::new(next)))
        });
        groups.extend(written.into_iter().flatten());
    }

    fn edit(&mut self, workload: &QualifiedName) -> &mut Edit {
        if !self.of.contains_key(workload) {
            self.of.insert(workload.clone(), Edit::default());
        }
        self.of.get_mut(workload).expect("it was just put there")
    }
}

// === impl Edit ===

impl Edit {
    /// Enters what groups of these features need that is not as it was built.
    fn patch(&self, features: Features, patched: &mut Patched) {
        for put in self.put.iter().filter(|put| !put.steps.is_empty() && put.audience.takes(features)) {
            patched.need(&put.resource, Step::of_features(&put.steps, features));
        }
        Step::of_features(&self.additions.now, features).into_iter().for_each(|step| patched.need_added(step));
    }

    /// Says whether that changed anything.
    fn apply(&self, features: Features, is_new: bool, patched: &Made, snapshot: &mut Snapshot) -> bool {
        let changed = |put: &Put| match put.steps.is_empty() {
            true => Some(Arc::clone(&put.resource)),
            false => patched.resource(&put.resource, &Step::of_features(&put.steps, features)),
        };
        let meant = || self.put.iter().filter(|put| put.audience.takes(features));
        let added = Step::of_features(&self.additions.now, features);
        let added = added.iter().filter_map(|step| patched.added(step));
        let put: Vec<Arc<Resource>> = meant().filter_map(changed).chain(added).collect();
        let nothing_goes = self.removed.is_empty() && self.additions.before.is_empty();
        let stays: BTreeSet<(Kind, &Name)> = match nothing_goes && meant().all(|put| put.steps.is_empty()) {
            true => BTreeSet::new(),
            false => put.iter().map(|resource| (resource.kind(), resource.name())).collect(),
        };
        let held = |audience: Audience| match audience {
            Audience::Taking(_) if is_new => !features.client.is_proxyless(),
            Audience::Grpc { .. } if is_new => features.client.is_proxyless(),
            _ => audience.takes(features),
        };
        let removed = self.removed.iter().filter(|(audience, ..)| held(*audience));
        let gone = removed.filter(|(_, kind, name)| !stays.contains(&(*kind, name)));
        let removed = gone.fold(false, |any, (_, kind, name)| snapshot.of_mut(*kind).remove(name) | any);
        // What patches take away, and added before.
        let taken = meant().filter(|put| !put.steps.is_empty());
        let taken = taken.map(|put| (put.resource.kind(), Name::clone(put.resource.name())));
        let taken = taken.chain(self.additions.before.iter().filter_map(Step::adds));
        let taken = taken.filter(|(kind, name)| !stays.contains(&(*kind, name)));
        let removed = taken.fold(removed, |any, (kind, name)| snapshot.of_mut(kind).remove(&name) | any);
        put.iter().fold(removed, |any, resource| snapshot.of_mut(resource.kind()).put(Arc::clone(resource)) | any)
    }
}
