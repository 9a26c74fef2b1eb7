//! Snapshots as somebody wrote them: for each EnvoySnapshot a group of its own, and one of the nodes that have not shown who
//! they are.
//!
//! Owns: what such a group holds. May use: `snapshot`, the mesh. Never: adds anything to what was written, secrets of
//! the mesh included, or touches a resource that stays.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use translators::mesh::{EnvoySnapshot, Mesh};
use translators::resource::{Kind, Name};

use super::GroupKey;
use crate::snapshot::Snapshot;

/// Brings the groups of EnvoySnapshots from those of `former` to those of `mesh`; says how many resources that put
/// there.
pub(super) fn follow(groups: &mut OrdMap<GroupKey, Arc<Snapshot>>, former: &Mesh, mesh: &Mesh) -> usize {
    let mut put = 0;
    for change in former.snapshots.diff(&mesh.snapshots) {
        match change {
            DiffItem::Add(name, snapshot) | DiffItem::Update { new: (name, snapshot), .. } => {
                let mut fill = |group: GroupKey, keys: bool| {
                    let held = groups.get(&group).map(|held| Snapshot::clone(held)).unwrap_or_default();
                    let (next, resources) = next(held, snapshot, keys);
                    groups.insert(group, Arc::new(next));
                    resources
                };
                put += fill(GroupKey::Snapshot(name.clone()), true);
                fill(GroupKey::Open(name.clone()), false);
            }
            DiffItem::Remove(name, _) => {
                groups.remove(&GroupKey::Snapshot(name.clone()));
                groups.remove(&GroupKey::Open(name.clone()));
            }
        }
    }
    put
}

/// What a group holds after `held`, with what holds `keys` or without it, and how many resources are new in it.
fn next(mut held: Snapshot, written: &EnvoySnapshot, keys: bool) -> (Snapshot, usize) {
    let resources = || written.resources.iter().filter(|resource| keys || !resource.holds_key());
    let stays: BTreeSet<(Kind, &Name)> = resources().map(|of| (of.kind(), of.name())).collect();
    for kind in Kind::ALL {
        let gone = held.of(kind).iter().filter(|resource| !stays.contains(&(kind, resource.name())));
        let gone: Vec<Name> = gone.map(|resource| Name::clone(resource.name())).collect();
        let set = held.of_mut(kind);
        for name in &gone {
            set.remove(name);
        }
    }
    let mut put = 0;
    for resource in resources() {
        put += usize::from(held.of_mut(resource.kind()).put(Arc::clone(resource)));
    }
    held.say_version(written.version.clone());
    (held, put)
}
