//! Wanted: which identities are to have certificates, by the rules in force.
//!
//! Owns: that one step from a translation to the issuer. May use: `translate` and `ca`, their types. Never: issues.

use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use translators::mesh::Workload;
use translators::name::{QualifiedName, SpiffeId};

use crate::ca::Wanted;
use crate::translate::Translation;

type Workloads = OrdMap<QualifiedName, Arc<Workload>>;

/// Keeps `wanted` at the identities of the workloads in force until stopped; `leaf_ttl` goes before what the Mesh says.
pub async fn run(
    mut translation: watch::Receiver<Option<Translation>>,
    wanted: watch::Sender<Arc<Wanted>>,
    leaf_ttl: Option<Duration>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut former = OrdMap::new();
    loop {
        let rules = translation.borrow_and_update().as_ref().map(|translation| Arc::clone(&translation.rules));
        if let Some(rules) = rules {
            wanted.send_if_modified(|held| {
                let leaf_ttl = leaf_ttl.unwrap_or(rules.mesh.leaf_ttl.value);
                let mut next = Wanted { leaf_ttl, identities: held.identities.clone() };
                let moved = follow(&mut next.identities, &former, &rules.mesh.workloads);
                let changed = moved || next.leaf_ttl != held.leaf_ttl;
                if changed {
                    *held = Arc::new(next);
                }
                changed
            });
            former = rules.mesh.workloads.clone();
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = translation.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// Changes `identities` as the workloads have changed; says whether that made a difference.
fn follow(identities: &mut OrdMap<QualifiedName, SpiffeId>, former: &Workloads, next: &Workloads) -> bool {
    former.diff(next).fold(false, |changed, change| {
        changed
            | match change {
                DiffItem::Add(name, workload) | DiffItem::Update { new: (name, workload), .. } => {
                    let held = identities.insert(name.clone(), workload.identity.clone());
                    held.is_none_or(|held| held != workload.identity)
                }
                DiffItem::Remove(name, _) => identities.remove(name).is_some(),
            }
    })
}
