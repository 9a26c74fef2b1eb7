//! EnvoySnapshots: what somebody wrote for Envoy itself, read once for each resource that changes.
//!
//! Owns: the resources that came of each text, and which snapshots mean nodes that are a workload's. May use: `raw`,
//! `stage`, `ledger`. Never: takes a snapshot away because of a workload: who is connected keeps what it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use super::claims::Claim;
use super::ledger::Part;
use super::raw;
use super::report::Report;
use super::stage::{Change, Common, Stage};
use super::workloads::node_match;
use crate::finding::Code;
use crate::mesh::{EnvoySnapshot, NodeMatch, Workload};
use crate::name::{ObjectKey, ObjectKind, QualifiedName};
use crate::resource::{Kind, Resource, Version};
use crate::rules::Spec;
use crate::rules::snapshot::SnapshotSpec;

/// The snapshots that are kept, and what is remembered of them.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    stage: Stage<EnvoySnapshot, NodeMatch>,
    /// Of each snapshot, what came of every text without mistakes.
    read: BTreeMap<QualifiedName, Read>,
    kept: OrdMap<QualifiedName, Arc<EnvoySnapshot>>,
    /// Those whose nodes are, or were, also those of a workload that has changed.
    marked: BTreeSet<QualifiedName>,
}

/// Resources by the content of their text.
type Read = BTreeMap<Version, Arc<Resource>>;

// === impl NodeMatch ===

impl Claim for NodeMatch {
    const POINTER: &'static str = "/spec/match";
    const WHY: &'static str = "matches the same nodes";
}

// === impl Snapshots ===

impl Snapshots {
    /// What the mesh holds.
    pub(super) fn kept(&self) -> &OrdMap<QualifiedName, Arc<EnvoySnapshot>> {
        &self.kept
    }

    /// Takes note of workloads that have changed.
    pub(super) fn mark(&mut self, changes: &[Change<Workload>]) {
        let matches = |workload: &Workload| workload.matches.clone();
        let moved = changes.iter().filter(|change| {
            let of = |kept: &Option<super::stage::Kept<Workload>>| kept.as_ref().and_then(|kept| matches(&kept.value));
            of(&change.before) != of(&change.after)
        });
        for concerned in moved.flat_map(Change::values).filter_map(matches) {
            let meant = self.kept.iter().filter(|(_, snapshot)| share_nodes(&snapshot.matches, &concerned));
            self.marked.extend(meant.map(|(name, _)| name.clone()));
        }
    }

    /// Reads the snapshots `names` again, and holds them and those that are marked against the workloads.
    pub(super) fn update(
        &mut self,
        names: impl IntoIterator<Item = QualifiedName>,
        workloads: &OrdMap<QualifiedName, Arc<Workload>>,
        common: &mut Common,
    ) {
        let names = names.into_iter().collect();
        let (mut evaluated, read) = (0, &mut self.read);
        let evaluate = |report: &mut Report<'_>| match &report.object.spec {
            Spec::EnvoySnapshot(spec) => {
                let former = read.remove(&report.object.key.name).unwrap_or_default();
                let (snapshot, now, anew) = snapshot(spec, &former, report);
                read.insert(snapshot.name.clone(), now);
                evaluated += anew;
                let claim = snapshot.matches.clone();
                Some((snapshot, Some(claim)))
            }
            _ => None,
        };
        let changes = self.stage.update(ObjectKind::EnvoySnapshot, names, common, evaluate);
        common.evaluated += evaluated;
        let mut concerned = std::mem::take(&mut self.marked);
        for change in changes {
            match &change.after {
                Some(kept) if change.is_new() => drop(self.kept.insert(change.name.clone(), Arc::clone(&kept.value))),
                Some(_) => {}
                None => drop(self.kept.remove(&change.name)),
            }
            concerned.insert(change.name);
        }
        for name in concerned {
            let key = ObjectKey::new(ObjectKind::EnvoySnapshot, name);
            let findings = match (self.kept.get(&key.name), common.objects.get(&key)) {
                (Some(snapshot), Some(object)) => {
                    let mut report = Report::of(object);
                    disputed(snapshot, workloads, &mut report);
                    report.findings
                }
                (None, object) => {
                    if object.is_none() {
                        self.read.remove(&key.name);
                    }
                    Vec::new()
                }
                (Some(_), None) => Vec::new(),
            };
            common.ledger.set(&key, Part::Effect, findings);
        }
    }
}

/// The snapshot that `spec` describes, its resources by their texts, and how many of them had to be read.
fn snapshot(spec: &SnapshotSpec, former: &Read, report: &mut Report<'_>) -> (EnvoySnapshot, Read, usize) {
    let (mut resources, mut read, mut anew) = (Vec::with_capacity(spec.resources.len()), Read::new(), 0);
    let mut names = raw::Names::default();
    for (index, written) in spec.resources.iter().enumerate() {
        let text = Version::of(written.0.to_string().as_bytes());
        let at = format!("/spec/resources/{index}");
        let resource = former.get(&text).cloned().or_else(|| {
            anew += 1;
            raw::resource(&written.0, &at, report).map(Arc::new)
        });
        let Some(resource) = resource else { continue };
        let resource = raw::moved(resource, report.origin(at.as_str()));
        if resource.holds_key() && resource.kind() != Kind::Secret {
            let message =
                "a private key or another secret stands in it: it is served over TLS alone, and no status shows it";
            report.warning(Code::ExposedKey, &at, message).hint =
                Some("name its file instead, or a Secret that is served by SDS".to_owned());
        }
        if names.enter(&resource, &at, report) {
            read.insert(text, Arc::clone(&resource));
            resources.push(resource);
        }
    }
    let snapshot = EnvoySnapshot {
        name: report.object.key.name.clone(),
        origin: report.origin(""),
        matches: node_match(&spec.matches, report),
        version: spec.version.as_deref().map(Arc::from),
        resources,
    };
    (snapshot, read, anew)
}

/// Whether one of the two surely takes the nodes of the other.
fn share_nodes(one: &NodeMatch, other: &NodeMatch) -> bool {
    one.covers(other) || other.covers(one)
}

/// Nodes that are a workload's too are served by neither.
fn disputed(snapshot: &EnvoySnapshot, workloads: &OrdMap<QualifiedName, Arc<Workload>>, report: &mut Report<'_>) {
    let mut others = workloads
        .values()
        .filter(|workload| workload.matches.as_ref().is_some_and(|matches| share_nodes(&snapshot.matches, matches)));
    if let Some(first) = others.next() {
        let more = match others.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!("Workload {}{more} matches the same nodes, which neither serves", first.name);
        report.error(Code::Conflict, "/spec/match", message).hint = Some("let each node be matched once".to_owned());
    }
}
