//! Sharing: workloads with one identity.
//!
//! Owns: the warning where they do not serve the same services. May use: `ledger`, `stage`. Never: refuses.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::Part;
use super::report::Report;
use super::stage::{Change, Common, Kept};
use crate::finding::Code;
use crate::mesh::Workload;
use crate::name::{QualifiedName, SpiffeId};

/// The workloads of every identity, in the order in which conflicts are decided.
#[derive(Debug, Default)]
pub(super) struct Sharing(BTreeMap<SpiffeId, Vec<Kept<Workload>>>);

// === impl Sharing ===

impl Sharing {
    /// Takes up changes of workloads, and looks again at all that share an identity with one of them.
    pub(super) fn follow(&mut self, changes: &[Change<Workload>], common: &mut Common) {
        let mut touched = BTreeSet::new();
        for kept in changes.iter().filter_map(|change| change.before.as_ref()) {
            let Some(alike) = self.0.get_mut(&kept.value.identity) else { continue };
            alike.retain(|other| other.object.key != kept.object.key);
            if alike.is_empty() {
                self.0.remove(&kept.value.identity);
            }
            common.ledger.set(&kept.object.key, Part::Identity, Vec::new());
            touched.insert(kept.value.identity.clone());
        }
        for kept in changes.iter().filter_map(|change| change.after.as_ref()) {
            let alike = self.0.entry(kept.value.identity.clone()).or_default();
            let at = alike.partition_point(|other| other.object.home() < kept.object.home());
            alike.insert(at, kept.clone());
            touched.insert(kept.value.identity.clone());
        }
        for alike in touched.iter().filter_map(|identity| self.0.get(identity)) {
            warn(alike, common);
        }
    }
}

/// Warns those that serve something else than one before them: the first, or else the first that differs from it.
fn warn(alike: &[Kept<Workload>], common: &mut Common) {
    let mut first: Option<(&Kept<Workload>, BTreeSet<&QualifiedName>)> = None;
    let mut other: Option<&Kept<Workload>> = None;
    for kept in alike {
        common.evaluated += 1;
        let serves = served(&kept.value);
        let mut report = Report::of(&kept.object);
        let different = match &first {
            None => {
                first = Some((kept, serves));
                None
            }
            Some((_, same)) if *same == serves => other,
            Some((first, _)) => {
                other.get_or_insert(kept);
                Some(*first)
            }
        };
        if let Some(different) = different {
            let name = &different.value.name;
            let message = format!("the workload {name} serves something else under the same identity");
            report.warning(Code::SharedIdentity, "/spec/identity", message).hint =
                Some("rules that name a caller cannot tell the two apart".to_owned());
        }
        common.ledger.set(&kept.object.key, Part::Identity, report.findings);
    }
}

fn served(workload: &Workload) -> BTreeSet<&QualifiedName> {
    workload.serves.iter().map(|serve| &serve.service).collect()
}
