//! Edits: what is to be put into the groups of each workload and taken out of them.
//!
//! Owns: that a group is rewritten once for all its edits. May use: `snapshot`. Never: touches a group without any.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use translators::name::QualifiedName;
use translators::resource::{Kind, Name, Resource};
use translators::xds::{Audience, Features, ResourceKey};

use super::super::GroupKey;
use super::each;
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
    put: Vec<(Audience, Arc<Resource>)>,
}

// === impl Edits ===

impl Edits {
    /// Puts a resource into the groups of `workload` that it is for.
    pub(super) fn put(&mut self, workload: &QualifiedName, audience: Audience, resource: Arc<Resource>) {
        self.edit(workload).put.push((audience, resource));
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
        let written = each(edited, |(group, of, edit, held)| {
            let mut next = Snapshot::clone(&held);
            edit.apply(of, !former.contains(&of), &mut next).then_some((group, Arc::new(next)))
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
    /// Says whether that changed anything.
    fn apply(&self, features: Features, is_new: bool, snapshot: &mut Snapshot) -> bool {
        let put = || self.put.iter().filter(|(audience, _)| audience.takes(features));
        let stays: BTreeSet<(Kind, &Name)> = match self.removed.is_empty() {
            true => BTreeSet::new(),
            false => put().map(|(_, resource)| (resource.kind(), resource.name())).collect(),
        };
        let held = |audience: Audience| match audience {
            Audience::Taking(_) if is_new => !features.client.is_proxyless(),
            Audience::Grpc { .. } if is_new => features.client.is_proxyless(),
            _ => audience.takes(features),
        };
        let removed = self.removed.iter().filter(|(audience, ..)| held(*audience));
        let gone = removed.filter(|(_, kind, name)| !stays.contains(&(*kind, name)));
        let removed = gone.fold(false, |any, (_, kind, name)| snapshot.of_mut(*kind).remove(name) | any);
        put().fold(removed, |any, (_, resource)| snapshot.of_mut(resource.kind()).put(Arc::clone(resource)) | any)
    }
}
