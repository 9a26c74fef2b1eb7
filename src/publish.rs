//! 4. Publish: the resource table, groups of proxies, and who is woken when something changes.
//!
//! Owns: the current [`Snapshot`] of every group. May use: `translate`, `ca`, `materials` (their results). Never:
//! translates, encodes or knows a protocol. One task writes; readers take an `Arc` and never lock.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use translators::mesh::Mesh;
use translators::name::QualifiedName;
use translators::resource::Kind;
use translators::xds::Features;
use translators::xds::secret::IDENTITY;

use crate::ca::Issued;
use crate::materials::Materials;
use crate::translate::{GroupKey, RulesPart, Translation};

mod feed;

pub use feed::{Feed, Followed, Interest, Reader};

pub use crate::snapshot::{self, Change, ResourceSet, Snapshot, Topic, Touched};

/// The groups, each with what it holds and those who wait for more.
type Groups = OrdMap<GroupKey, Arc<Feed<Snapshot>>>;

/// What is published. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Table {
    current: Arc<ArcSwap<Published>>,
    /// Wakes when nodes may be matched by something else than before.
    matches: watch::Sender<()>,
    /// Wakes when there is another publication.
    news: watch::Sender<()>,
}

/// One publication: the rules that it follows from, and its groups.
#[derive(Debug, Default)]
pub struct Published {
    /// What follows from the rules; `None` until every source is synced.
    pub rules: Option<Arc<RulesPart>>,
    groups: Groups,
}

/// The writer's side: what was published last.
#[derive(Debug, Default)]
struct Writer {
    translation: Option<Translation>,
    issued: Option<Arc<Issued>>,
    materials: Arc<Materials>,
    groups: Groups,
}

/// Publishes translations and certificates into `table` until stopped; `published` is the number of the last
/// translation of rules for whose acceptance somebody waits.
pub async fn run(
    table: Table,
    mut translations: watch::Receiver<Option<Translation>>,
    mut issued: watch::Receiver<Arc<Issued>>,
    mut materials: watch::Receiver<Arc<Materials>>,
    published: watch::Sender<u64>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut writer = Writer::default();
    loop {
        let next_issued = issued.borrow_and_update().clone();
        let next_materials = materials.borrow_and_update().clone();
        let next = translations.borrow_and_update().clone();
        if writer.write(next, next_issued, next_materials) {
            let rules = writer.translation.as_ref().map(|translation| Arc::clone(&translation.rules));
            let awaited = rules.as_ref().filter(|rules| rules.climbing).map(|rules| rules.number);
            let former = table.current.swap(Arc::new(Published { rules, groups: writer.groups.clone() }));
            if match_otherwise(former.mesh(), table.current().mesh()) {
                table.matches.send_replace(());
            }
            table.news.send_replace(());
            if let Some(number) = awaited {
                published.send_replace(number);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = translations.changed() => if changed.is_err() { return Ok(()) },
            changed = issued.changed() => if changed.is_err() { return Ok(()) },
            changed = materials.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

// === impl Table ===

impl Table {
    /// The current publication.
    pub fn current(&self) -> Arc<Published> {
        self.current.load_full()
    }

    /// Wakes when nodes may be matched by something else than when this was called.
    pub fn matches(&self) -> watch::Receiver<()> {
        self.matches.subscribe()
    }

    /// Wakes when there is another publication than when this was called.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }
}

// === impl Published ===

impl Published {
    /// The mesh that is served.
    pub fn mesh(&self) -> Option<&Mesh> {
        self.rules.as_ref().map(|rules| &rules.mesh)
    }

    /// The snapshots of a group: the current one, and a wake-up for every later one.
    pub fn subscribe(&self, group: &GroupKey) -> Option<Reader<Snapshot>> {
        self.groups.get(group).map(|feed| feed.subscribe())
    }

    /// What the groups of a workload hold now: one for each set of features that its Envoys know.
    pub fn snapshots_of<'a>(&'a self, workload: &'a QualifiedName) -> impl Iterator<Item = Arc<Snapshot>> + 'a {
        of_workload(&self.groups, workload).map(|(_, feed)| feed.current())
    }
}

// === impl Writer ===

impl Writer {
    /// Brings the groups up to date; says whether the list of groups or the rules are others than before.
    fn write(&mut self, next: Option<Translation>, issued: Arc<Issued>, materials: Arc<Materials>) -> bool {
        let Some(next) = next else {
            self.issued = Some(issued);
            self.materials = materials;
            return false;
        };
        let former = self.translation.take();
        let same_rules = former.as_ref().is_some_and(|former| Arc::ptr_eq(&former.rules, &next.rules));
        self.put_certificates(&issued);
        self.put_materials(&materials);
        let groups = former.map(|former| former.groups).unwrap_or_default();
        self.put_groups(&groups, &next, &issued, &materials);
        self.translation = Some(next);
        self.issued = Some(issued);
        self.materials = materials;
        !same_rules
    }

    /// The groups that hold something else than before; no other is looked at.
    fn put_groups(&mut self, former: &Snapshots, next: &Translation, issued: &Issued, materials: &Materials) {
        let mesh = &next.rules.mesh;
        for change in former.diff(&next.groups) {
            match change {
                DiffItem::Add(group, snapshot) => {
                    let mut first = Snapshot::clone(snapshot);
                    put_secrets(&mut first, group, issued);
                    if let Some(names) = group.workload().and_then(|workload| materials.of.get(workload)) {
                        put_materials(&mut first, &self.materials, materials, names);
                    }
                    expect_materials(&mut first, group, mesh);
                    self.groups.insert(group.clone(), Arc::new(Feed::new(Arc::new(first))));
                }
                DiffItem::Update { new: (group, snapshot), .. } => {
                    if let Some(feed) = self.groups.get(group) {
                        change_to(feed, |held| {
                            let secrets = held.of(Kind::Secret).clone();
                            *held = Snapshot::clone(snapshot);
                            if group.workload().is_some() {
                                *held.of_mut(Kind::Secret) = secrets;
                                expect_materials(held, group, mesh);
                            }
                        });
                    }
                }
                DiffItem::Remove(group, _) => drop(self.groups.remove(group)),
            }
        }
    }

    /// The groups that get other materials than before.
    fn put_materials(&self, materials: &Arc<Materials>) {
        if Arc::ptr_eq(&self.materials, materials) {
            return;
        }
        let nothing = Arc::default();
        let changed = self.materials.secrets.diff(&materials.secrets).map(|change| match change {
            DiffItem::Add(name, _) | DiffItem::Remove(name, _) | DiffItem::Update { new: (name, _), .. } => {
                name.clone()
            }
        });
        let changed: BTreeSet<String> = changed.collect();
        for (workload, names) in &materials.of {
            let former = self.materials.of.get(workload).unwrap_or(&nothing);
            if former != names || !names.is_disjoint(&changed) {
                of_workload(&self.groups, workload).for_each(|(_, feed)| {
                    change_to(feed, |held| put_materials(held, &self.materials, materials, names));
                });
            }
        }
        for (workload, names) in self.materials.of.iter().filter(|(workload, _)| !materials.of.contains_key(*workload))
        {
            of_workload(&self.groups, workload).for_each(|(_, feed)| {
                change_to(feed, |held| names.iter().for_each(|name| _ = held.of_mut(Kind::Secret).remove(name)));
            });
        }
    }

    /// The groups that hold another certificate than before; all of them, where the roots are others.
    fn put_certificates(&self, issued: &Arc<Issued>) {
        let Some(former) = self.issued.as_ref().filter(|former| !Arc::ptr_eq(former, issued)) else { return };
        let put = |(group, feed): (&GroupKey, &Arc<Feed<Snapshot>>)| {
            change_to(feed, |held| put_secrets(held, group, issued));
        };
        if former.trust_bundle != issued.trust_bundle {
            return self.groups.iter().for_each(put);
        }
        for change in former.certificates.diff(&issued.certificates) {
            match change {
                DiffItem::Add(workload, _) | DiffItem::Update { new: (workload, _), .. } => {
                    of_workload(&self.groups, workload).for_each(put);
                }
                // What a group has been given stays valid until it ends.
                DiffItem::Remove(..) => {}
            }
        }
    }
}

/// Whether nodes may be matched otherwise than before.
fn match_otherwise(former: Option<&Mesh>, next: Option<&Mesh>) -> bool {
    let (Some(former), Some(next)) = (former, next) else { return true };
    let of_workloads = former.workloads.diff(&next.workloads).any(|change| match change {
        DiffItem::Add(_, workload) | DiffItem::Remove(_, workload) => workload.matches.is_some(),
        DiffItem::Update { old: (_, old), new: (_, new) } => old.matches != new.matches,
    });
    of_workloads
        || former.snapshots.diff(&next.snapshots).any(|change| match change {
            DiffItem::Add(..) | DiffItem::Remove(..) => true,
            DiffItem::Update { old: (_, old), new: (_, new) } => old.matches != new.matches,
        })
}

/// What has changed concerns whoever takes one of the names; another version concerns everybody.
impl Followed for Snapshot {
    type Change = Touched;
    type Topic = Topic;

    fn change_to(&self, newer: &Self) -> Option<Touched> {
        (self.said_version() == newer.said_version()).then(|| self.touched(newer))
    }

    fn size(&self) -> usize {
        self.len()
    }

    fn size_of(change: &Touched) -> usize {
        change.len()
    }

    fn topics_of(change: &Touched) -> impl Iterator<Item = Topic> {
        change.topics()
    }
}

/// What each group is to hold, apart from secrets.
type Snapshots = OrdMap<GroupKey, Arc<Snapshot>>;

/// The groups of one workload; the others are not looked at.
fn of_workload<'a, T>(
    groups: &'a OrdMap<GroupKey, T>,
    workload: &'a QualifiedName,
) -> impl Iterator<Item = (&'a GroupKey, &'a T)> {
    let first = GroupKey::Workload { name: workload.clone(), features: Features::default() };
    groups.range(first..).take_while(move |(group, _)| group.workload() == Some(workload))
}

/// Changes a group's snapshot, and wakes its streams if that gives proxies something else to hold.
fn change_to(feed: &Feed<Snapshot>, change: impl FnOnce(&mut Snapshot)) {
    let former = feed.current();
    let mut next = Snapshot::clone(&former);
    change(&mut next);
    if next.says_the_same(&former) {
        feed.replace(Arc::new(next));
    } else {
        feed.send(Arc::new(next));
    }
}

/// What the authority issues goes to workloads; an EnvoySnapshot is served as it is written.
fn put_secrets(snapshot: &mut Snapshot, group: &GroupKey, issued: &Issued) {
    let Some(workload) = group.workload() else { return };
    let set = snapshot.of_mut(Kind::Secret);
    match issued.certificates.get(workload) {
        Some(issuance) => _ = set.put(Arc::clone(&issuance.secret)),
        // Whoever is told that there is none goes on without.
        None if set.get(IDENTITY).is_none() => set.expect(IDENTITY.into()),
        None => {}
    }
    set.put(Arc::clone(&issued.trust_bundle));
}

/// What the gateways of a workload name: what is not there yet is on its way, and what it gets no longer goes.
fn put_materials(snapshot: &mut Snapshot, former: &Materials, next: &Materials, names: &BTreeSet<String>) {
    let set = snapshot.of_mut(Kind::Secret);
    let gone: Vec<String> = set
        .iter()
        .map(|resource| resource.name().to_string())
        .filter(|name| (former.secrets.contains_key(name) || next.secrets.contains_key(name)) && !names.contains(name))
        .collect();
    gone.iter().for_each(|name| _ = set.remove(name));
    for name in names {
        match next.secrets.get(name) {
            Some(resource) => _ = set.put(Arc::clone(resource)),
            None if set.get(name).is_none() => set.expect(name.as_str().into()),
            None => {}
        }
    }
}

/// What the gateways of a group's workload name is on its way, though nobody may have looked at it yet.
fn expect_materials(snapshot: &mut Snapshot, group: &GroupKey, mesh: &Mesh) {
    let workload = group.workload().and_then(|workload| mesh.workloads.get(workload));
    let set = snapshot.of_mut(Kind::Secret);
    let edges = workload.into_iter().flat_map(|workload| &workload.edges);
    for name in edges.flat_map(|edge| edge.certificates()).map(|certificate| certificate.secret()) {
        if set.get(&name).is_none() {
            set.expect(name.into());
        }
    }
}

#[cfg(test)]
mod tests;
