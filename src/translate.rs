//! 3. Translate: drives the pure translators, as much of them as a change needs, and keeps the last good form.
//!
//! Owns: the last good form of every object, and which resources are rebuilt. May use: `translators`,
//! `fold`. Never: knows who is connected otherwise than as an instance. A change of endpoints rebuilds load
//! assignments alone and does not pass through the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use translators::finding::{Finding, Location, Severity};
use translators::mesh::{Backing, Destination, Instances, Mesh};
use translators::name::{QualifiedName, RuleRef};
use translators::resource::{Name, Resource};
use translators::rules::Objects;
use translators::xds::{self, Features, ResourceKey};

use crate::fold::Inputs;
use crate::sources::files::FileState;

mod ladder;
mod last_good;

use ladder::Ladder;
use last_good::{Accepted, LastGood};

/// How long a step of the mTLS ladder waits for proxies that do not accept what they are sent.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Proxies that receive the same: those of one workload whose Envoys know the same features.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// The workload.
    pub workload: QualifiedName,
    /// What their Envoys know.
    pub features: Features,
}

/// What one group is to hold, apart from certificates.
#[derive(Debug, Clone, Default)]
pub struct GroupPlan {
    /// Everything but endpoints, by kind and name.
    pub resources: BTreeMap<ResourceKey, Arc<Resource>>,
    /// The names of its load assignments.
    pub endpoints: BTreeSet<Name>,
}

/// What follows from the rules.
#[derive(Debug)]
pub struct RulesPart {
    /// Counts translations of rules.
    pub number: u64,
    /// The mesh.
    pub mesh: Mesh,
    /// The groups.
    pub groups: BTreeMap<GroupKey, GroupPlan>,
    /// Every finding, of the files and of the resolution.
    pub findings: Vec<Finding>,
    /// The objects in force.
    pub objects: Objects,
}

/// The result of a translation. Parts that did not change are the same allocation as before.
#[derive(Debug, Clone)]
pub struct Translation {
    /// What follows from the rules.
    pub rules: Arc<RulesPart>,
    /// The load assignments of all groups, by name.
    pub endpoints: OrdMap<Name, Arc<Resource>>,
}

/// Translates `inputs` into `translation` until stopped.
pub async fn run(
    mut translator: Translator,
    mut inputs: watch::Receiver<Option<Inputs>>,
    mut features: watch::Receiver<BTreeSet<Features>>,
    mut settled: watch::Receiver<u64>,
    translation: watch::Sender<Option<Translation>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut waited = false;
    loop {
        let current = inputs.borrow_and_update().clone();
        let known = features.borrow_and_update().clone();
        let last_settled = if waited { u64::MAX } else { *settled.borrow_and_update() };
        if let Some(current) = current {
            let (kept, result) = tokio::task::spawn_blocking(move || {
                let result = translator.translate(&current, &known, last_settled);
                (translator, result)
            })
            .await?;
            translator = kept;
            if let Some(result) = result {
                translation.send_replace(Some(result));
            }
        }
        waited = false;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = inputs.changed() => if changed.is_err() { return Ok(()) },
            changed = features.changed() => if changed.is_err() { return Ok(()) },
            changed = settled.changed(), if translator.climbing => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(STEP_TIMEOUT), if translator.climbing => {
                warn!("not every proxy has accepted the last step of a change of mTLS mode, going on");
                waited = true;
            }
        }
    }
}

/// The state of the translation: what was last put in, and what came out.
#[derive(Debug)]
pub struct Translator {
    last_good: LastGood,
    files: Option<Arc<FileState>>,
    instances: Instances,
    features: BTreeSet<Features>,
    ladder: Ladder,
    climbing: bool,
    number: u64,
    shown: BTreeSet<String>,
    current: Option<Translation>,
}

// === impl Translator ===

impl Translator {
    /// A translator that keeps what must survive a restart in the data directory `data_dir`, or nowhere.
    pub fn new(data_dir: Option<&Path>) -> Self {
        let file = |name: &str| data_dir.map(|dir| dir.join(name));
        Self {
            last_good: LastGood::load(file("last-good.json")),
            files: None,
            instances: Instances::new(),
            features: BTreeSet::new(),
            ladder: Ladder::load(file("mtls-modes.json")),
            climbing: false,
            // Nothing has settled yet: proxies of a former run are still to come back.
            number: 1,
            shown: BTreeSet::new(),
            current: None,
        }
    }

    /// Translates what has changed; `None` when nothing that a proxy or a reader of the status sees has.
    /// `settled` is the number of the last publication of rules that all connected proxies have accepted.
    pub fn translate(&mut self, inputs: &Inputs, features: &BTreeSet<Features>, settled: u64) -> Option<Translation> {
        let settled = settled >= self.number;
        let same_rules =
            self.files.as_ref().is_some_and(|files| Arc::ptr_eq(files, &inputs.files)) && self.features == *features;
        if !same_rules || self.current.is_none() || (self.climbing && settled) {
            return Some(self.rules(inputs, features, settled));
        }
        let changed = changed_workloads(&self.instances, &inputs.instances);
        self.instances.clone_from(&inputs.instances);
        let current = self.current.as_mut()?;
        let mut moved = false;
        for (destination, name) in destinations(&current.rules) {
            if serves_any(&current.rules.mesh, &destination, &changed) {
                moved |= put(
                    &mut current.endpoints,
                    name,
                    xds::endpoints(&current.rules.mesh, &destination, &self.instances),
                );
            }
        }
        moved.then(|| current.clone())
    }

    fn rules(&mut self, inputs: &Inputs, features: &BTreeSet<Features>, settled: bool) -> Translation {
        self.files = Some(Arc::clone(&inputs.files));
        self.instances.clone_from(&inputs.instances);
        self.features.clone_from(features);

        let Accepted { resolution, objects, findings } = self.last_good.accept(&inputs.files);
        self.show(&findings);
        let mut mesh = resolution.mesh;
        self.climbing = self.ladder.climb(&mut mesh, settled);
        self.number += 1;

        let former = self.current.take();
        let mut built = BTreeMap::new();
        let mut groups = BTreeMap::new();
        for (name, workload) in &mesh.workloads {
            for features in features {
                let group = GroupKey { workload: name.clone(), features: *features };
                let former = former.as_ref().and_then(|former| former.rules.groups.get(&group));
                let plan = group_plan(&mesh, xds::plan(&mesh, workload, *features), former, &mut built);
                groups.insert(group, plan);
            }
        }
        let rules = Arc::new(RulesPart { number: self.number, mesh, groups, findings, objects });
        let mut endpoints = former.map(|former| former.endpoints).unwrap_or_default();
        let wanted: BTreeMap<_, _> = destinations(&rules).into_iter().map(|(d, name)| (name, d)).collect();
        let gone: Vec<_> = endpoints.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in gone {
            endpoints.remove(&name);
        }
        for (name, destination) in wanted {
            put(&mut endpoints, name, xds::endpoints(&rules.mesh, &destination, &self.instances));
        }
        let translation = Translation { rules, endpoints };
        self.current = Some(translation.clone());
        translation
    }

    /// Says new findings in the log, one line each, and those that are over.
    fn show(&mut self, findings: &[Finding]) {
        let now: BTreeSet<String> = findings.iter().map(ToString::to_string).collect();
        for finding in findings {
            let line = finding.to_string();
            if !self.shown.contains(&line) {
                match finding.severity {
                    Severity::Error => tracing::error!("{line}"),
                    Severity::Warning => warn!("{line}"),
                }
            }
        }
        for line in self.shown.difference(&now) {
            info!("no longer: {line}");
        }
        self.shown = now;
    }
}

/// The resources of one group: built once for all groups that share them, and kept where nothing changed.
fn group_plan(
    mesh: &Mesh,
    keys: BTreeSet<ResourceKey>,
    former: Option<&GroupPlan>,
    built: &mut BTreeMap<ResourceKey, Arc<Resource>>,
) -> GroupPlan {
    let mut plan = GroupPlan::default();
    for key in keys {
        if let ResourceKey::Endpoints(_) = key {
            plan.endpoints.insert(key.name());
            continue;
        }
        let resource = built.entry(key.clone()).or_insert_with(|| {
            let resource = xds::build(mesh, &key);
            match former.and_then(|former| former.resources.get(&key)) {
                Some(held) if **held == resource => Arc::clone(held),
                Some(_) | None => Arc::new(resource),
            }
        });
        plan.resources.insert(key, Arc::clone(resource));
    }
    plan
}

/// Every destination that some group sends to, and the name of its load assignment.
fn destinations(rules: &RulesPart) -> BTreeMap<Destination, Name> {
    let mut found = BTreeMap::new();
    for plan in rules.groups.values() {
        for key in plan.resources.keys() {
            if let ResourceKey::Cluster(destination) = key
                && !found.contains_key(destination)
            {
                found.insert(destination.clone(), ResourceKey::Endpoints(destination.clone()).name());
            }
        }
    }
    found
}

fn put(endpoints: &mut OrdMap<Name, Arc<Resource>>, name: Name, resource: Resource) -> bool {
    if endpoints.get(&name).is_some_and(|held| **held == resource) {
        return false;
    }
    endpoints.insert(name, Arc::new(resource));
    true
}

/// The workloads of the instances that the two differ in.
fn changed_workloads(old: &Instances, new: &Instances) -> BTreeSet<QualifiedName> {
    old.diff(new)
        .map(|change| match change {
            DiffItem::Add((workload, _), _) | DiffItem::Remove((workload, _), _) => workload.clone(),
            DiffItem::Update { new: ((workload, _), _), .. } => workload.clone(),
        })
        .collect()
}

fn serves_any(mesh: &Mesh, destination: &Destination, workloads: &BTreeSet<QualifiedName>) -> bool {
    mesh.services.get(&destination.service).is_some_and(|service| match &service.backing {
        Backing::Static(_) => false,
        Backing::Workloads(serving) => serving.iter().any(|serving| workloads.contains(&serving.workload)),
    })
}

// === impl RulesPart ===

impl RulesPart {
    /// Where a rule stands.
    pub fn locate(&self, rule: &RuleRef) -> Option<Location> {
        self.objects.get(&rule.object)?.location(&rule.pointer)
    }
}

#[cfg(test)]
mod tests;
