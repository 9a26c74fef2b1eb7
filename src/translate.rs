//! 3. Translate: drives the pure translators, as much of them as a change needs, and keeps the last good form.
//!
//! Owns: the order of it: what is in force, where the mTLS modes stand, which resources follow. May use: `translators`,
//! `fold`, `journal`, `snapshot`. Never: knows who is connected otherwise than as an instance, or looks at what a change
//! does not concern. A proxy that comes or goes rebuilds load assignments alone and does not pass through the rules; a
//! list of endpoints is a rule itself, and of the others nothing but its service is looked at when it changes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use translators::finding::Location;
use translators::mesh::Mesh;
use translators::name::{QualifiedName, RuleRef};
use translators::rules::Objects;
use translators::xds::Features;

use crate::fold::Inputs;
use crate::snapshot::Snapshot;
use crate::sources::files::FileState;

mod catalog;
mod findings;
mod ladder;
mod last_good;
pub mod last_known;
mod records;
mod snapshots;

use catalog::Catalog;
use ladder::Ladder;
use last_good::{Accepted, LastGood};
use records::ToRecord;

pub use findings::Findings;
pub use records::Records;

/// How long a step of the mTLS ladder waits for proxies that do not accept what they are sent.
const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// Proxies that receive the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupKey {
    /// Those of one workload whose Envoys know the same features.
    Workload {
        /// The workload.
        name: QualifiedName,
        /// What their Envoys know.
        features: Features,
    },
    /// The nodes that an EnvoySnapshot matches.
    Snapshot(QualifiedName),
    /// Those of them that are known by their own word alone: they get nothing with a key in it.
    Open(QualifiedName),
}

/// What follows from the rules, but for the groups.
#[derive(Debug)]
pub struct RulesPart {
    /// Counts translations of rules.
    pub number: u64,
    /// Whether the next step of a change of mTLS mode waits until everybody has accepted this one.
    pub climbing: bool,
    /// The mesh.
    pub mesh: Mesh,
    /// Every finding, of the files and of the resolution.
    pub findings: Findings,
    /// The objects in force.
    pub objects: Objects,
}

/// The result of a translation. Parts that did not change are the same allocation as before.
#[derive(Debug, Clone)]
pub struct Translation {
    /// What follows from the rules.
    pub rules: Arc<RulesPart>,
    /// What each group is to hold, apart from secrets.
    pub groups: OrdMap<GroupKey, Arc<Snapshot>>,
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
            changed = settled.changed(), if translator.ladder.is_climbing() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(STEP_TIMEOUT), if translator.ladder.is_climbing() => {
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
    evaluated: usize,
    files: Option<Arc<FileState>>,
    features: BTreeSet<Features>,
    ladder: Ladder,
    number: u64,
    catalog: Catalog,
    current: Option<Arc<RulesPart>>,
    to_record: ToRecord,
}

// === impl Translator ===

impl Translator {
    /// A translator that begins where the records in the data directory `data_dir` end, and those records; without
    /// a directory it begins anew.
    pub fn open(data_dir: Option<&Path>) -> (Self, Records) {
        let (records, to_record) = Records::open(data_dir);
        let (objects, steps) = (to_record.objects.borrow().clone(), to_record.steps.borrow().clone());
        let translator = Self {
            last_good: LastGood::new(objects),
            evaluated: 0,
            files: None,
            features: BTreeSet::new(),
            ladder: Ladder::new(steps),
            // Nothing has settled yet: proxies of a former run are still to come back.
            number: 1,
            catalog: Catalog::default(),
            current: None,
            to_record,
        };
        (translator, records)
    }

    /// Translates what has changed; `None` when nothing that a proxy or a reader of the status sees has.
    /// `settled` is the number of the last publication of rules that all connected proxies have accepted.
    pub fn translate(&mut self, inputs: &Inputs, features: &BTreeSet<Features>, settled: u64) -> Option<Translation> {
        let settled = settled >= self.number;
        let same_rules =
            self.files.as_ref().is_some_and(|files| Arc::ptr_eq(files, &inputs.files)) && self.features == *features;
        let current = self.current.clone().filter(|_| same_rules && !(self.ladder.is_climbing() && settled));
        self.evaluated = 0;
        let rules = current.clone().unwrap_or_else(|| self.rules(&inputs.files, settled));
        let held = self.catalog.groups().clone();
        self.features.clone_from(features);
        self.catalog.follow(&rules.mesh, features, &inputs.instances);
        self.current = Some(Arc::clone(&rules));
        let groups = self.catalog.groups().clone();
        let same = current.is_some() && held.ptr_eq(&groups);
        (!same).then_some(Translation { rules, groups })
    }

    /// How much of the rules the last translation looked at, see [`translators::mesh::resolve::Resolver::evaluated`], and
    /// the services whose modes were held against the ones before.
    pub fn evaluated(&self) -> usize {
        self.evaluated
    }

    /// How many resources the last translation had built.
    pub fn built(&self) -> usize {
        self.catalog.built()
    }

    /// How many entries of workloads the last translation planned again.
    pub fn replanned(&self) -> usize {
        self.catalog.replanned()
    }

    fn rules(&mut self, files: &Arc<FileState>, settled: bool) -> Arc<RulesPart> {
        self.files = Some(Arc::clone(files));
        let Accepted { resolution, objects, refused, evaluated } = self.last_good.accept(files);
        self.evaluated = evaluated;
        let findings = Findings { files: Arc::clone(files), refused, resolved: resolution.findings };
        match &self.current {
            Some(former) => findings.log_since(&former.findings),
            None => findings.log_since(&Findings::default()),
        }
        let mut mesh = resolution.mesh;
        let climbing = self.ladder.climb(&mut mesh, settled);
        self.evaluated += self.ladder.looked_at();
        self.number += 1;
        self.to_record.objects.send_replace(self.last_good.objects().clone());
        self.to_record.steps.send_replace(self.ladder.steps().clone());
        Arc::new(RulesPart { number: self.number, climbing, mesh, findings, objects })
    }
}

// === impl GroupKey ===

impl GroupKey {
    /// The workload that they are instances of, where it is one.
    pub fn workload(&self) -> Option<&QualifiedName> {
        match self {
            Self::Workload { name, .. } => Some(name),
            Self::Snapshot(_) | Self::Open(_) => None,
        }
    }
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
