//! Observing: which proxies say what, followed as policies and workloads change.
//!
//! Owns: the workloads whose telemetry is put together again, and policies that find no workload. May use: `telemetry`,
//! `stage`. Never: looks at a workload that nothing concerns.

use std::sync::Arc;

use imbl::OrdMap;

use super::ledger::Part;
use super::reach::Reach;
use super::report::Report;
use super::stage::{Change, Common, Stage};
use super::telemetry::{self, Known, Policies, Policy};
use crate::mesh::{Observed, Workload};
use crate::name::{ObjectKey, ObjectKind, QualifiedName};
use crate::rules::Spec;

/// The workloads that are kept, by name.
type Workloads = OrdMap<QualifiedName, Arc<Workload>>;

/// The telemetry policies, and what they come to for each workload.
#[derive(Debug, Default)]
pub(super) struct Observing {
    stage: Stage<Policy, Reach>,
    policies: Policies,
    observed: OrdMap<QualifiedName, Arc<Observed>>,
}

// === impl Observing ===

impl Observing {
    /// What the proxies of each workload say, where a policy says anything of that.
    pub(super) fn observed(&self) -> &OrdMap<QualifiedName, Arc<Observed>> {
        &self.observed
    }

    /// Whether a workload that changes has to be looked at.
    pub(super) fn is_needed(&self) -> bool {
        !self.policies.is_empty()
    }

    /// Evaluates the policies `names` again, and the `workloads` and those that the policies are for.
    pub(super) fn update(
        &mut self,
        names: Vec<QualifiedName>,
        mut workloads: Vec<QualifiedName>,
        known: &Known<'_>,
        kept: &Workloads,
        common: &mut Common,
    ) {
        let changes =
            self.stage.update(ObjectKind::TelemetryPolicy, names, common, |report| match &report.object.spec {
                Spec::TelemetryPolicy(spec) => {
                    let policy = Policy::of(spec, known, report)?;
                    let reach = policy.reach.clone();
                    Some((policy, Some(reach)))
                }
                _ => None,
            });
        self.policies.follow(&changes);
        for policy in changes.iter().filter(|change| change.is_new()).flat_map(Change::values) {
            let near = |workload: &&QualifiedName| policy.reach.namespace().is_none_or(|of| workload.namespace == *of);
            workloads.extend(kept.keys().filter(near).cloned());
        }
        if workloads.is_empty() && changes.is_empty() {
            return;
        }
        workloads.sort();
        workloads.dedup();
        for name in workloads {
            common.evaluated += 1;
            let workload = kept.get(&name);
            match workload.and_then(|workload| self.policies.observed(workload, known.providers)) {
                Some(observed) if self.observed.get(&name).is_some_and(|before| **before == observed) => {}
                Some(observed) => _ = self.observed.insert(name, Arc::new(observed)),
                None => _ = self.observed.remove(&name),
            }
        }
        self.warn(&changes, kept, common);
    }

    /// Holds policies that target labels against the workloads that they find.
    fn warn(&self, changes: &[Change<Policy>], kept: &Workloads, common: &mut Common) {
        let key = |name: &QualifiedName| ObjectKey::new(ObjectKind::TelemetryPolicy, name.clone());
        for change in changes {
            common.ledger.set(&key(&change.name), Part::Effect, Vec::new());
        }
        let by_labels: Vec<_> = self.stage.iter().filter(|(_, policy)| policy.reach.is_by_labels()).collect();
        for (name, policy) in &by_labels {
            let key = key(name);
            let Some(object) = common.objects.get(&key) else { continue };
            let mut report = Report::of(object);
            let rivals = by_labels.iter().filter(|(_, other)| policy.reach.rivals(&other.reach));
            let rivals: Vec<_> = rivals.map(|(name, other)| (*name, &other.reach)).collect();
            let workloads = kept.range(QualifiedName::first_of(&name.namespace)..);
            let workloads = workloads.take_while(|(workload, _)| workload.namespace == name.namespace);
            telemetry::warn(policy, &rivals, workloads.map(|(_, workload)| workload.as_ref()), &mut report);
            common.ledger.set(&key, Part::Effect, report.findings);
        }
    }
}
