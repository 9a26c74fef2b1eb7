//! What comes of EnvoyPatches, as findings.
//!
//! Owns: holding every change against everything that it may be for. May use: `patching`, the plans of workloads, `finding`.
//! Never: changes what a proxy gets.

use std::collections::{BTreeMap, BTreeSet};

use super::patched::Effect;
use super::patching::{Patching, Step};
use super::{Features, build, plan};
use crate::finding::{Code, Finding};
use crate::json::Clash;
use crate::mesh::{Instances, Mesh};
use crate::name::QualifiedName;
use crate::rules::Objects;
use crate::version::EnvoyVersion;

/// So many names are told of what is there.
const MOST_NAMES: usize = 12;

/// What came of one change, everywhere.
#[derive(Debug, Default)]
struct Sum {
    matched: usize,
    seen: BTreeSet<String>,
    clash: Option<(String, Clash)>,
    unguarded: BTreeSet<String>,
}

/// A change: its patch, and its place in that.
type Change = (QualifiedName, usize);

/// What is to be said of the patches of `mesh`, which `objects` come to: those that change nothing, that do not fit, or that
/// change what protects. Every patch is held against the newest of the supported versions that it is for.
pub fn patch_findings(mesh: &Mesh, objects: &Objects) -> Vec<Finding> {
    let patching = Patching::of(mesh);
    let mut sums: BTreeMap<Change, Sum> = BTreeMap::new();
    let newest = |step: &Step| EnvoyVersion::supported().rev().find(|version| step.patch.envoy.takes(*version));
    let mut versions: BTreeMap<EnvoyVersion, Vec<&QualifiedName>> = BTreeMap::new();
    for patch in patching.patches() {
        let step = Step { patch: patch.clone(), edit: 0 };
        if let Some(version) = newest(&step) {
            versions.entry(version).or_default().push(&patch.name);
        }
    }
    for (version, of_version) in versions {
        let mut known = BTreeSet::new();
        for workload in mesh.workloads.values() {
            let own = patching.additions(workload).into_iter().chain(patching.bootstrap_steps(workload, Some(version)));
            for step in own.filter(|step| of_version.contains(&&step.patch.name)) {
                sums.entry((step.patch.name.clone(), step.edit)).or_default().matched += 1;
            }
            let features = Features::of_version(version);
            for key in plan(mesh, workload, features) {
                let steps = Step::of_features(&patching.steps(workload, &key), features);
                let said: Vec<Change> = steps.iter().map(|step| (step.patch.name.clone(), step.edit)).collect();
                if !steps.iter().any(|step| of_version.contains(&&step.patch.name))
                    || !known.insert((key.clone(), said))
                {
                    continue;
                }
                let base = build(mesh, &key, &Instances::new());
                let effects = Step::apply(&steps, &base).effects;
                for (step, effect) in steps.iter().zip(effects) {
                    if of_version.contains(&&step.patch.name) {
                        sums.entry((step.patch.name.clone(), step.edit)).or_default().add(effect);
                    }
                }
            }
        }
    }
    let mut findings = Vec::new();
    for patch in patching.patches() {
        if !EnvoyVersion::supported().any(|version| patch.envoy.takes(version)) {
            let (oldest, newest) = (EnvoyVersion::OLDEST, EnvoyVersion::NEWEST);
            let message = format!("no Envoy from {oldest} to {newest} is one of {}", patch.envoy);
            findings.push(Finding::warning(Code::PatchVersions, &patch.origin.object, "/spec/envoy", message));
            continue;
        }
        for place in 0..patch.edits.len() {
            let step = Step { patch: patch.clone(), edit: place };
            let sum = sums.remove(&(patch.name.clone(), place)).unwrap_or_default();
            findings.extend(sum.findings(&step));
        }
    }
    let located = |finding: Finding| {
        let object = finding.object.as_ref().and_then(|key| objects.get(key));
        let location = object.and_then(|object| object.location(&finding.pointer));
        finding.at(location)
    };
    findings.into_iter().map(located).collect()
}

// === impl Sum ===

impl Sum {
    fn add(&mut self, effect: Effect) {
        self.matched += effect.matched;
        if self.seen.len() < MOST_NAMES {
            self.seen.extend(effect.seen);
        }
        if self.clash.is_none() {
            self.clash = effect.clash;
        }
        self.unguarded.extend(effect.unguarded);
    }

    fn findings(self, step: &Step) -> Vec<Finding> {
        let edit = step.edit();
        let at = |rest: &str| format!("{}{rest}", edit.origin.pointer);
        let object = &edit.origin.object;
        let mut findings = Vec::new();
        if let Some((name, clash)) = self.clash {
            let message = format!("{name:?} has a {} there, which this does not go into", clash.there);
            let finding = Finding::error(Code::PatchUnfit, object, at(&format!("/value{}", clash.pointer)), message);
            findings.push(finding.hint("take it away or replace it"));
        } else if self.matched == 0 {
            let pointer = if edit.name.is_some() { at("/match/name") } else { at("") };
            let mut finding = Finding::warning(
                Code::NothingPatched,
                object,
                pointer,
                "nothing of the target is matched: nothing changes",
            );
            finding.choices = self.seen.into_iter().take(MOST_NAMES).collect();
            findings.push(finding);
        }
        if !self.unguarded.is_empty() {
            let what = self.unguarded.into_iter().collect::<Vec<_>>().join(", ");
            let message = format!("this takes away, changes or goes past what protects: {what}");
            findings.push(Finding::warning(Code::PatchUnguards, object, at(""), message));
        }
        findings
    }
}
