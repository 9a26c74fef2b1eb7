//! Edits: what is to be put into the groups of each workload and taken out of them.
//!
//! Owns: that a group is rewritten once for all its edits. May use: `snapshot`. Never: touches a group without any.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use translators::name::QualifiedName;
use translators::resource::{Kind, Name, Resource};
use translators::xds::{Features, ResourceKey};

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
    removed: BTreeSet<(Kind, Name)>,
    put: Vec<(Option<Features>, Arc<Resource>)>,
}

// === impl Edits ===

impl Edits {
    /// Puts a resource into the groups of `workload`, or `only` into the one of these features.
    pub(super) fn put(&mut self, workload: &QualifiedName, only: Option<Features>, resource: Arc<Resource>) {
        self.edit(workload).put.push((only, resource));
    }

    /// Takes a resource out of the groups of `workload`.
    pub(super) fn remove(&mut self, workload: &QualifiedName, key: &ResourceKey) {
        self.edit(workload).removed.insert((key.kind(), key.name()));
    }

    /// Rewrites the groups that have edits.
    pub(super) fn apply(self, groups: &mut OrdMap<GroupKey, Arc<Snapshot>>, features: &BTreeSet<Features>) {
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
            edit.apply(of, &mut next).then_some((group, Arc::new(next)))
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
    fn apply(&self, features: Features, snapshot: &mut Snapshot) -> bool {
        let put = || self.put.iter().filter(|(only, _)| only.is_none_or(|only| only == features));
        let stays: BTreeSet<(Kind, &Name)> = match self.removed.is_empty() {
            true => BTreeSet::new(),
            false => put().map(|(_, resource)| (resource.kind(), resource.name())).collect(),
        };
        let gone = self.removed.iter().filter(|(kind, name)| !stays.contains(&(*kind, name)));
        let removed = gone.fold(false, |any, (kind, name)| snapshot.of_mut(*kind).remove(name) | any);
        put().fold(removed, |any, (_, resource)| snapshot.of_mut(resource.kind()).put(Arc::clone(resource)) | any)
    }
}
