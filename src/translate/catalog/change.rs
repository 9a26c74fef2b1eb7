//! What a change concerns: the entries to plan anew and the resources to build anew.
//!
//! Owns: the way from the difference of two meshes to them. May use: the catalog's indexes. Never: changes the
//! catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use translators::mesh::{Backing, Instances, Mesh, Service, Workload};
use translators::name::QualifiedName;
use translators::xds::{self, Entry, Features, Part, ResourceKey, Slots};

use super::edits::Additions;
use super::{Catalog, EntryId, Side};

/// What a change concerns.
#[derive(Debug, Default)]
pub(super) struct Concerned {
    /// The entries that may add something else to their workload's plan.
    pub(super) replan: Vec<EntryId>,
    /// The entries' own resources that read what has changed.
    pub(super) own: BTreeSet<(EntryId, ResourceKey)>,
    /// The shared resources that read what has changed.
    pub(super) shared: BTreeSet<ResourceKey>,
    /// Shared resources that patches change otherwise for a workload.
    pub(super) patched: BTreeSet<(ResourceKey, QualifiedName)>,
    /// What patches added before, and add now.
    pub(super) additions: BTreeMap<QualifiedName, Additions>,
    /// The slots of the workloads that have changed.
    pub(super) slots: BTreeMap<QualifiedName, Slots>,
}

// === impl Concerned ===

impl Concerned {
    pub(super) fn add_workloads(&mut self, catalog: &Catalog, former: &Mesh, mesh: &Mesh) {
        for change in former.workloads.diff(&mesh.workloads) {
            match change {
                DiffItem::Add(name, workload) => {
                    self.slots.insert(name.clone(), Slots::of(workload));
                    self.replan.extend(EntryId::all(workload));
                }
                DiffItem::Remove(name, workload) => {
                    self.slots.insert(name.clone(), Slots::default());
                    self.replan.extend(EntryId::all(workload));
                }
                DiffItem::Update { old: (_, old), new: (name, new) } => {
                    let (old_slots, new_slots) = (catalog.slots(name), Slots::of(new));
                    let ids: BTreeSet<EntryId> = EntryId::all(old).chain(EntryId::all(new)).collect();
                    let moved = ids.into_iter().filter(|id| !is_same(id, (old, old_slots), (new, &new_slots)));
                    let moved: Vec<EntryId> = moved.collect();
                    self.slots.insert(name.clone(), new_slots);
                    for id in moved {
                        self.add_own(catalog, mesh, &id, &ENTRY_PARTS);
                        self.replan.push(id);
                    }
                }
            }
        }
    }

    /// Every entry adds other resources where the features are others.
    pub(super) fn add_features(&mut self, former: &BTreeSet<Features>, features: &BTreeSet<Features>, mesh: &Mesh) {
        if former != features {
            self.replan.extend(mesh.workloads.values().flat_map(|workload| EntryId::all(workload)));
        }
    }

    pub(super) fn add_services(&mut self, catalog: &Catalog, former: &Mesh, mesh: &Mesh) {
        for change in former.services.diff(&mesh.services) {
            match change {
                DiffItem::Add(name, _) | DiffItem::Remove(name, _) => self.replan_followers(catalog, name),
                DiffItem::Update { old: (_, old), new: (name, new) } => {
                    if !xds::plans_alike(old, new) {
                        self.replan_followers(catalog, name);
                    }
                    let shared = catalog.shared_of(name);
                    self.shared.extend(shared.filter(|key| !xds::reads_alike(key, old, new)).cloned());
                    self.add_own_of_service(catalog, mesh, old, new);
                }
            }
        }
    }

    /// The endpoints behind workloads whose proxies came, went or changed.
    pub(super) fn add_instances(&mut self, catalog: &Catalog, mesh: &Mesh, former: &Instances) {
        let moved: BTreeSet<&QualifiedName> = former
            .diff(&catalog.instances)
            .map(|change| match change {
                DiffItem::Add((workload, _), _) | DiffItem::Remove((workload, _), _) => workload,
                DiffItem::Update { new: ((workload, _), _), .. } => workload,
            })
            .collect();
        for workload in moved.into_iter().filter_map(|name| mesh.workloads.get(name)) {
            for serve in &workload.serves {
                let by_list =
                    mesh.services.get(&serve.service).is_some_and(|of| !matches!(of.backing, Backing::Workloads(_)));
                let shared = catalog.shared_of(&serve.service);
                let behind = |key: &&ResourceKey| {
                    let Some(to) = key.endpoints_of() else { return false };
                    to.port == serve.port && to.labels.iter().all(|(k, v)| workload.labels.get(k) == Some(v))
                };
                self.shared.extend(shared.filter(|_| !by_list).filter(behind).cloned());
            }
        }
    }

    /// The entries of whose requests something else is said, and the providers that are elsewhere.
    pub(super) fn add_observed(&mut self, catalog: &Catalog, former: &Mesh, mesh: &Mesh) {
        for change in former.observed.diff(&mesh.observed) {
            let (DiffItem::Add(name, _) | DiffItem::Remove(name, _) | DiffItem::Update { new: (name, _), .. }) = change;
            let Some(workload) = mesh.workloads.get(name) else { continue };
            let said = |mesh: &Mesh, id: &EntryId| match id.side {
                Side::Serves => mesh.observed.get(name)?.serves.get(id.index).cloned(),
                Side::Calls => Some(Arc::clone(&mesh.observed.get(name)?.calls)),
                Side::Edges => None,
            };
            let other = EntryId::all(workload).filter(|id| said(former, id) != said(mesh, id));
            for id in other.collect::<Vec<_>>() {
                self.add_own(catalog, mesh, &id, &[Part::Inbound, Part::Outbound]);
                self.replan.push(id);
            }
        }
        if former.telemetry_providers != mesh.telemetry_providers {
            self.add_providers(catalog, mesh);
        }
    }

    fn add_providers(&mut self, catalog: &Catalog, mesh: &Mesh) {
        let keys = mesh.telemetry_providers.values().filter_map(|provider| xds::collector_key(provider));
        self.shared.extend(keys.filter(|key| catalog.shared(key).is_some()));
    }

    /// What holds for the whole mesh is read by everything.
    pub(super) fn add_settings(&mut self, catalog: &Catalog, former: &Mesh, mesh: &Mesh) {
        if (&former.trust_domain, &former.connect_timeout) == (&mesh.trust_domain, &mesh.connect_timeout) {
            return;
        }
        self.shared.extend(mesh.services.keys().flat_map(|service| catalog.shared_of(service)).cloned());
        self.add_providers(catalog, mesh);
        for workload in mesh.workloads.values() {
            for id in EntryId::all(workload) {
                self.add_own(catalog, mesh, &id, &ENTRY_PARTS);
            }
        }
    }

    /// The slots of a workload in the mesh that is followed.
    pub(super) fn slots<'a>(&'a self, catalog: &'a Catalog, workload: &QualifiedName) -> &'a Slots {
        self.slots.get(workload).unwrap_or_else(|| catalog.slots(workload))
    }

    fn replan_followers(&mut self, catalog: &Catalog, service: &QualifiedName) {
        self.replan.extend(catalog.followers(service).cloned());
    }

    /// The own resources of the entries that serve or call `new`, as far as they read what has changed.
    fn add_own_of_service(&mut self, catalog: &Catalog, mesh: &Mesh, old: &Service, new: &Service) {
        let changed = |port: &str| -> Vec<Part> {
            ENTRY_PARTS.into_iter().filter(|part| !xds::parts_alike(*part, port, old, new)).collect()
        };
        let changed: BTreeMap<&str, Vec<Part>> =
            new.ports.iter().map(|port| (port.name.as_str(), changed(&port.name))).collect();
        if changed.values().all(Vec::is_empty) {
            return;
        }
        for id in catalog.followers(&new.name) {
            let Some((_, entry)) = id.entry(mesh) else { continue };
            if let Some((service, port)) = entry.port()
                && *service == new.name
                && let Some(parts) = changed.get(port)
            {
                self.add_own(catalog, mesh, id, parts);
            }
        }
    }

    /// The own resources of one entry that are there for one of `parts`.
    fn add_own(&mut self, catalog: &Catalog, mesh: &Mesh, id: &EntryId, parts: &[Part]) {
        let Some((workload, entry)) = id.entry(mesh) else { return };
        if !parts.iter().any(|part| is_part_of(*part, entry)) {
            return;
        }
        let added = xds::contribution(mesh, workload, entry, self.slots(catalog, &workload.name), &catalog.features);
        let read = added.own.into_iter().filter(|key| parts.contains(&key.part()));
        self.own.extend(read.map(|key| (id.clone(), key)));
    }
}

/// What entries have of their own.
const ENTRY_PARTS: [Part; 5] = [Part::LocalCluster, Part::Jwks, Part::Inbound, Part::Outbound, Part::Edge];

fn is_part_of(part: Part, entry: Entry<'_>) -> bool {
    match part {
        Part::LocalCluster | Part::Jwks | Part::Inbound => matches!(entry, Entry::Serve(_)),
        Part::Outbound => matches!(entry, Entry::Call(_)),
        Part::Edge => matches!(entry, Entry::Edge(_)),
        Part::Cluster | Part::Collector | Part::Endpoints | Part::Route => false,
    }
}

/// Whether an entry is the same in both forms of its workload, as far as resources read it.
fn is_same(id: &EntryId, old: (&Workload, &Slots), new: (&Workload, &Slots)) -> bool {
    let (Some(a), Some(b)) = (id.of(old.0), id.of(new.0)) else { return false };
    let same_labels = || match a {
        Entry::Serve(_) => old.0.labels == new.0.labels,
        Entry::Call(_) | Entry::Edge(_) => true,
    };
    let told_apart = |slots: &Slots, entry: Entry<'_>| {
        (slots.listen(entry), entry.port().map(|(service, _)| slots.is_only_port(service)))
    };
    // What rules may tell callers apart by.
    let served =
        |of: &Workload| -> BTreeSet<QualifiedName> { of.serves.iter().map(|serve| serve.service.clone()).collect() };
    let same_sender = || match a {
        Entry::Call(_) => {
            old.0.identity == new.0.identity && (old.0.serves == new.0.serves || served(old.0) == served(new.0))
        }
        Entry::Serve(_) | Entry::Edge(_) => true,
    };
    a == b
        && same_sender()
        && told_apart(old.1, a) == told_apart(new.1, b)
        && same_labels()
        && old.0.locality == new.0.locality
}
