//! 4. Publish: the resource table, groups of proxies, and who is woken when something changes.
//!
//! Owns: the current [`Snapshot`] of every group. May use: `translate`, `ca` (their results). Never:
//! translates, encodes or knows a protocol. One task writes; readers take an `Arc` and never lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use translators::mesh::Mesh;
use translators::name::QualifiedName;
use translators::resource::{Kind, Name};

use crate::ca::rotation::Issued;
use crate::translate::{GroupKey, GroupPlan, RulesPart, Translation};

pub mod snapshot;

pub use snapshot::{Change, ResourceSet, Snapshot};

/// What is published. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Table {
    current: Arc<ArcSwap<Published>>,
}

/// One publication: the rules that it follows from, and its groups.
#[derive(Debug, Default)]
pub struct Published {
    /// What follows from the rules; `None` until every source is synced.
    pub rules: Option<Arc<RulesPart>>,
    groups: BTreeMap<GroupKey, Arc<watch::Sender<Arc<Snapshot>>>>,
}

/// The writer's side: what every group holds, and which groups hold a load assignment.
#[derive(Debug, Default)]
struct Writer {
    translation: Option<Translation>,
    issued: Option<Arc<Issued>>,
    groups: BTreeMap<GroupKey, Arc<watch::Sender<Arc<Snapshot>>>>,
    users: BTreeMap<Name, BTreeSet<GroupKey>>,
}

/// Publishes translations and certificates into `table` until stopped; `published` is the number of the
/// translation of rules that was published last.
pub async fn run(
    table: Table,
    mut translations: watch::Receiver<Option<Translation>>,
    mut issued: watch::Receiver<Arc<Issued>>,
    published: watch::Sender<u64>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut writer = Writer::default();
    loop {
        let next_issued = issued.borrow_and_update().clone();
        let next = translations.borrow_and_update().clone();
        if writer.write(next, next_issued) {
            let rules = writer.translation.as_ref().map(|translation| Arc::clone(&translation.rules));
            let number = rules.as_ref().map_or(0, |rules| rules.number);
            table.current.store(Arc::new(Published { rules, groups: writer.groups.clone() }));
            published.send_replace(number);
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = translations.changed() => if changed.is_err() { return Ok(()) },
            changed = issued.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

// === impl Table ===

impl Table {
    /// The current publication.
    pub fn current(&self) -> Arc<Published> {
        self.current.load_full()
    }
}

// === impl Published ===

impl Published {
    /// The mesh that is served.
    pub fn mesh(&self) -> Option<&Mesh> {
        self.rules.as_ref().map(|rules| &rules.mesh)
    }

    /// The snapshots of a group: the current one, and a wake-up for every later one.
    pub fn subscribe(&self, group: &GroupKey) -> Option<watch::Receiver<Arc<Snapshot>>> {
        self.groups.get(group).map(|sender| sender.subscribe())
    }

    /// What the groups of a workload hold now: one for each set of features that its Envoys know.
    pub fn snapshots_of<'a>(&'a self, workload: &'a QualifiedName) -> impl Iterator<Item = Arc<Snapshot>> + 'a {
        let groups = self.groups.iter().filter(move |(group, _)| group.workload == *workload);
        groups.map(|(_, sender)| Arc::clone(&sender.borrow()))
    }
}

// === impl Writer ===

impl Writer {
    /// Brings the groups up to date; says whether the list of groups or the rules are others than before.
    fn write(&mut self, next: Option<Translation>, issued: Arc<Issued>) -> bool {
        let Some(next) = next else {
            self.issued = Some(issued);
            return false;
        };
        let same_rules = self.translation.as_ref().is_some_and(|former| Arc::ptr_eq(&former.rules, &next.rules));
        if same_rules {
            self.put_endpoints(&next);
            self.put_certificates(&issued);
        } else {
            self.put_groups(&next, &issued);
        }
        self.translation = Some(next);
        self.issued = Some(issued);
        !same_rules
    }

    /// Only endpoints moved: each changed assignment goes to the groups that hold it, and wakes no other.
    fn put_endpoints(&mut self, next: &Translation) {
        let Some(former) = &self.translation else { return };
        let mut changed: BTreeMap<&GroupKey, Vec<&Name>> = BTreeMap::new();
        for item in former.endpoints.diff(&next.endpoints) {
            let name = match item {
                imbl::ordmap::DiffItem::Add(name, _) | imbl::ordmap::DiffItem::Update { new: (name, _), .. } => name,
                imbl::ordmap::DiffItem::Remove(..) => continue,
            };
            for group in self.users.get(name).into_iter().flatten() {
                changed.entry(group).or_default().push(name);
            }
        }
        for (group, names) in changed {
            let Some(sender) = self.groups.get(group) else { continue };
            change(sender, |snapshot| {
                let set = snapshot.of_mut(Kind::Endpoints);
                names
                    .iter()
                    .filter_map(|name| next.endpoints.get(*name))
                    .fold(false, |any, r| set.put(Arc::clone(r)) | any)
            });
        }
    }

    fn put_certificates(&mut self, issued: &Arc<Issued>) {
        if self.issued.as_ref().is_some_and(|former| Arc::ptr_eq(former, issued)) {
            return;
        }
        for (group, sender) in &self.groups {
            change(sender, |snapshot| put_secrets(snapshot, group, issued));
        }
    }

    fn put_groups(&mut self, next: &Translation, issued: &Arc<Issued>) {
        self.groups.retain(|group, _| next.rules.groups.contains_key(group));
        self.users.clear();
        for (group, plan) in &next.rules.groups {
            for name in &plan.endpoints {
                self.users.entry(name.clone()).or_default().insert(group.clone());
            }
            let sender = self.groups.entry(group.clone()).or_insert_with(|| Arc::new(watch::Sender::default()));
            change(sender, |snapshot| {
                let rules = put_plan(snapshot, plan, next);
                put_secrets(snapshot, group, issued) | rules
            });
        }
    }
}

/// Changes a group's snapshot and wakes its streams, if there was anything to change.
fn change(sender: &watch::Sender<Arc<Snapshot>>, put: impl FnOnce(&mut Snapshot) -> bool) {
    sender.send_if_modified(|current| {
        let mut next = Snapshot::clone(current);
        let changed = put(&mut next);
        if changed {
            *current = Arc::new(next);
        }
        changed
    });
}

fn put_plan(snapshot: &mut Snapshot, plan: &GroupPlan, translation: &Translation) -> bool {
    let mut changed = false;
    let mut wanted: BTreeMap<Kind, BTreeSet<&Name>> = BTreeMap::new();
    let endpoints = plan.endpoints.iter().filter_map(|name| translation.endpoints.get(name));
    for resource in plan.resources.values().chain(endpoints) {
        wanted.entry(resource.kind()).or_default().insert(resource.name());
        changed |= snapshot.of_mut(resource.kind()).put(Arc::clone(resource));
    }
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Secret) {
        let set = snapshot.of_mut(kind);
        let wanted = wanted.remove(&kind).unwrap_or_default();
        let gone: Vec<Name> = set.iter().map(|r| r.name()).filter(|name| !wanted.contains(name)).cloned().collect();
        for name in gone {
            changed |= set.remove(&name);
        }
    }
    changed
}

fn put_secrets(snapshot: &mut Snapshot, group: &GroupKey, issued: &Issued) -> bool {
    let set = snapshot.of_mut(Kind::Secret);
    let own = issued.certificates.get(&group.workload).map(|issuance| &issuance.secret);
    own.into_iter()
        .chain([&issued.trust_bundle])
        .fold(false, |changed, resource| set.put(Arc::clone(resource)) | changed)
}

#[cfg(test)]
mod tests;
