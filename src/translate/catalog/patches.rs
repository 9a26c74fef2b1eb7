//! Patches: what they concern, and what becomes of resources by them, each made once for all groups.
//!
//! Owns: the way from patches that change to the resources that are put anew. May use: the catalog's indexes,
//! `translators::xds`. Never: changes a resource that no patch is for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use translators::mesh::{EnvoyPatch, Mesh, PatchTarget};
use translators::name::QualifiedName;
use translators::resource::Resource;
use translators::xds::{self, Patching, Step};

use super::change::Concerned;
use super::edits::Additions;
use super::{Catalog, EntryId, each};

/// What tells changes of a resource apart: where the resource is, and each change.
type Change = (usize, Vec<(usize, usize)>);

/// What has to be made.
#[derive(Debug, Default)]
pub(super) struct Patched {
    changed: BTreeMap<Change, (Arc<Resource>, Vec<Step>)>,
    added: BTreeMap<(usize, usize), Step>,
}

/// What was made of it.
#[derive(Debug, Default)]
pub(super) struct Made {
    changed: BTreeMap<Change, Option<Arc<Resource>>>,
    added: BTreeMap<(usize, usize), Arc<Resource>>,
}

// === impl Patched ===

impl Patched {
    /// `resource` is needed after `steps`.
    pub(super) fn need(&mut self, resource: &Arc<Resource>, steps: Vec<Step>) {
        if !steps.is_empty() {
            self.changed.entry(change(resource, &steps)).or_insert_with(|| (Arc::clone(resource), steps));
        }
    }

    /// What `step` adds is needed.
    pub(super) fn need_added(&mut self, step: Step) {
        self.added.entry(place(&step)).or_insert(step);
    }

    /// Makes all of it.
    pub(super) fn made(self) -> Made {
        let one = |(change, (resource, steps)): (Change, (Arc<Resource>, Vec<Step>))| {
            (change, Step::apply(&steps, &resource).resource.map(Arc::new))
        };
        let changed = each(self.changed.into_iter().collect(), one).into_iter().collect();
        let added = self.added.iter().filter_map(|(place, step)| Some((*place, Arc::new(step.added()?)))).collect();
        Made { changed, added }
    }
}

// === impl Made ===

impl Made {
    /// `resource` after `steps`; `None` where they take it away.
    pub(super) fn resource(&self, resource: &Arc<Resource>, steps: &[Step]) -> Option<Arc<Resource>> {
        if steps.is_empty() {
            return Some(Arc::clone(resource));
        }
        self.changed.get(&change(resource, steps))?.clone()
    }

    /// What `step` adds.
    pub(super) fn added(&self, step: &Step) -> Option<Arc<Resource>> {
        self.added.get(&place(step)).map(Arc::clone)
    }
}

fn change(resource: &Arc<Resource>, steps: &[Step]) -> Change {
    (Arc::as_ptr(resource).addr(), steps.iter().map(place).collect())
}

fn place(step: &Step) -> (usize, usize) {
    (Arc::as_ptr(&step.patch).addr(), step.edit)
}

// === impl Concerned ===

impl Concerned {
    /// What is to be put anew because patches are others than `former_patching`, or are for other workloads or versions.
    pub(super) fn add_patches(
        &mut self,
        catalog: &Catalog,
        (former, former_patching): (&Mesh, Option<&Patching>),
        mesh: &Mesh,
        other_features: bool,
    ) {
        let before = former_patching.unwrap_or(&catalog.patching);
        if before.is_empty() && catalog.patching.is_empty() {
            return;
        }
        let mut workloads: BTreeSet<&QualifiedName> = BTreeSet::new();
        if other_features {
            workloads.extend(mesh.workloads.keys());
        }
        let both = former.patches.diff(&mesh.patches).flat_map(|change| match change {
            DiffItem::Add(_, patch) | DiffItem::Remove(_, patch) => [Some(patch), None],
            DiffItem::Update { old: (_, old), new: (_, new) } => [Some(old), Some(new)],
        });
        for patch in both.flatten() {
            workloads.extend(reached(catalog, mesh, patch));
        }
        let mut adding: BTreeSet<&QualifiedName> = workloads.clone();
        for change in former.workloads.diff(&mesh.workloads) {
            match change {
                DiffItem::Add(name, _) => drop(adding.insert(name)),
                DiffItem::Remove(..) => {}
                DiffItem::Update { old: (_, old), new: (name, new) } => {
                    adding.insert(name);
                    if old.labels != new.labels {
                        workloads.insert(name);
                    }
                }
            }
        }
        for workload in workloads.into_iter().filter_map(|name| mesh.workloads.get(name)) {
            let old = former.workloads.get(&workload.name).unwrap_or(workload);
            let is_changed = |key: &xds::ResourceKey| {
                !before.steps(old, key).is_empty() || !catalog.patching.steps(workload, key).is_empty()
            };
            for id in EntryId::all(workload) {
                let Some(entry) = id.of(workload) else { continue };
                let slots = self.slots(catalog, &workload.name);
                let added = xds::contribution(mesh, workload, entry, slots, &catalog.features);
                let own = added.own.into_iter().filter(is_changed);
                self.own.extend(own.map(|key| (id.clone(), key)));
                let shared = added.shared.into_iter().filter(is_changed);
                self.patched.extend(shared.map(|key| (key, workload.name.clone())));
            }
        }
        for name in adding {
            let of = |mesh: &Mesh, patching: &Patching| {
                mesh.workloads.get(name).map(|workload| patching.additions(workload)).unwrap_or_default()
            };
            let additions = Additions { before: of(former, before), now: of(mesh, &catalog.patching) };
            if !additions.before.is_empty() || !additions.now.is_empty() {
                self.additions.insert(name.clone(), additions);
            }
        }
    }
}

/// The workloads whose proxies may get something of `patch`.
fn reached<'a>(catalog: &'a Catalog, mesh: &'a Mesh, patch: &EnvoyPatch) -> Vec<&'a QualifiedName> {
    match &patch.target {
        PatchTarget::Mesh => mesh.workloads.keys().collect(),
        PatchTarget::Namespace(namespace) | PatchTarget::Labels(namespace, _) => {
            let within = mesh.workloads.range(QualifiedName::first_of(namespace)..);
            within.map(|(name, _)| name).take_while(|name| name.namespace == *namespace).collect()
        }
        PatchTarget::Service { service, .. } => catalog.followers(service).map(|id| &id.workload).collect(),
    }
}
