//! The ladder: a port's mTLS mode changes in steps, none of which fails a request.
//!
//! Owns: which step of the way each port is on, and how that is recorded. May use: `translators::mesh`, `journal`.
//! Never: looks at services that neither changed nor are on their way, or knows time or proxies;
//! whoever drives it says when the last step has arrived everywhere.
//!
//! From `disabled` to `strict` a port's own proxies first take both kinds of connection, then callers turn to
//! mTLS, then plaintext ends; and the other way round. Each step waits for the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde::{Deserialize, Serialize};
use translators::mesh::{Apart, Backing, Mesh, MtlsMode, Service};
use translators::name::QualifiedName;

use crate::journal::Record;

/// A step, in order: neighbours may follow each other without a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Step {
    /// Plaintext on both sides.
    Disabled,
    /// The proxies of the service take both, callers still use plaintext.
    Accepting,
    /// The proxies of the service take both, callers use mTLS.
    Permissive,
    /// mTLS alone.
    Strict,
}

/// The step of every port, by service and by the name of the port.
pub(super) type Steps = OrdMap<QualifiedName, Arc<BTreeMap<String, Step>>>;

/// Where every port stands.
#[derive(Debug, Default)]
pub(super) struct Ladder {
    steps: Steps,
    /// The services as the rules last had them.
    wanted: OrdMap<QualifiedName, Arc<Service>>,
    /// Those that are on their way.
    climbing: BTreeSet<QualifiedName>,
    /// How many services it looked at last.
    looked_at: usize,
}

/// The steps of one service, on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Recorded {
    service: QualifiedName,
    ports: BTreeMap<String, Step>,
}

// === impl Ladder ===

impl Ladder {
    /// The ladder as a former run left it.
    pub(super) fn new(steps: Steps) -> Self {
        Self { steps, ..Self::default() }
    }

    /// The step of every port.
    pub(super) fn steps(&self) -> &Steps {
        &self.steps
    }

    /// How many services the last call of [`Self::climb`] looked at.
    pub(super) fn looked_at(&self) -> usize {
        self.looked_at
    }

    /// Whether steps remain.
    pub(super) fn is_climbing(&self) -> bool {
        !self.climbing.is_empty()
    }

    /// Takes every port one step towards the mode that the rules give it, if `settled` (the last step has
    /// arrived everywhere), and puts into `mesh` the modes that hold meanwhile. Says whether steps remain.
    pub(super) fn climb(&mut self, mesh: &mut Mesh, settled: bool) -> bool {
        let mut concerned: Vec<QualifiedName> = std::mem::take(&mut self.climbing).into_iter().collect();
        if self.wanted.is_empty() {
            concerned.extend(self.steps.keys().cloned());
        }
        concerned.extend(self.wanted.diff(&mesh.services).map(|change| match change {
            DiffItem::Add(name, _) | DiffItem::Remove(name, _) | DiffItem::Update { new: (name, _), .. } => {
                name.clone()
            }
        }));
        concerned.sort();
        concerned.dedup();
        self.looked_at = concerned.len();
        self.wanted = mesh.services.clone();
        // Most services have the steps of the one before them, and share them.
        let mut alike = Arc::default();
        for name in concerned {
            let Some(service) = self.wanted.get(&name) else {
                self.steps.remove(&name);
                continue;
            };
            let former = self.steps.get(&name).map(Arc::as_ref);
            let steps = steps(service, former, settled);
            let meanwhile = on_the_way(service, &steps);
            if former != Some(&steps) {
                if *alike != steps {
                    alike = Arc::new(steps);
                }
                self.steps.insert(name.clone(), Arc::clone(&alike));
            }
            if let Some(meanwhile) = meanwhile {
                mesh.services.insert(name.clone(), Arc::new(meanwhile));
                self.climbing.insert(name);
            }
        }
        self.is_climbing()
    }
}

/// The step after `at` towards `wanted`.
fn next(at: Option<Step>, wanted: Step, settled: bool) -> Step {
    match at {
        None => wanted,
        // Taking plaintext as well disturbs nobody.
        Some(Step::Strict) if wanted == Step::Permissive => wanted,
        Some(at) if settled => at.towards(wanted),
        Some(at) => at,
    }
}

/// The next step of every port, and of the workloads of whose proxies something else holds: `http@shop/cart-v1`. Those of
/// whom nothing else holds any more come back to their port.
fn steps(service: &Service, former: Option<&BTreeMap<String, Step>>, settled: bool) -> BTreeMap<String, Step> {
    let at = |key: &str, port: &str| former.and_then(|former| former.get(key).or_else(|| former.get(port))).copied();
    let mut steps = BTreeMap::new();
    for port in &service.ports {
        let wanted = Step::of(port.mtls.value);
        let usual = next(at(&port.name, &port.name), wanted, settled);
        steps.insert(port.name.clone(), usual);
        for (workload, own) in port.apart() {
            let key = apart_key(&port.name, workload);
            let step = next(at(&key, &port.name), Step::of(own.mtls.value), settled);
            steps.insert(key, step);
        }
        for (key, workload) in former.into_iter().flat_map(|former| apart_keys(former, &port.name)) {
            if port.apart_of(&workload).is_none() && serves(service, &port.name, &workload) {
                let step = next(at(key, &port.name), wanted, settled);
                if step != usual {
                    steps.insert(key.to_owned(), step);
                }
            }
        }
    }
    steps
}

fn serves(service: &Service, port: &str, workload: &QualifiedName) -> bool {
    match &service.backing {
        Backing::Workloads(servings) => servings.iter().any(|of| of.port == port && of.workload == *workload),
        Backing::Static(_) | Backing::Dns(_) => false,
    }
}

fn apart_key(port: &str, workload: &QualifiedName) -> String {
    format!("{port}@{workload}")
}

/// The workloads that have steps of their own on a port.
fn apart_keys<'a>(
    steps: &'a BTreeMap<String, Step>,
    port: &'a str,
) -> impl Iterator<Item = (&'a str, QualifiedName)> + 'a {
    let own = steps.keys().filter_map(move |key| Some((key.as_str(), key.strip_prefix(port)?.strip_prefix('@')?)));
    own.filter_map(|(key, workload)| Some((key, workload.parse().ok()?)))
}

/// The service as it is meanwhile; `None` if every port is where it is to be.
fn on_the_way(wanted: &Service, steps: &BTreeMap<String, Step>) -> Option<Service> {
    let mut service = None;
    for (index, port) in wanted.ports.iter().enumerate() {
        for (key, workload) in apart_keys(steps, &port.name) {
            let Some(step) = steps.get(key).filter(|step| **step != Step::of(port.mode_of(&workload).0)) else {
                continue;
            };
            let meanwhile = &mut service.get_or_insert_with(|| wanted.clone()).ports[index];
            let usual = || Apart {
                mtls: port.mtls.clone(),
                callers_use_mtls: true,
                access: port.access.clone(),
                inbound: Arc::clone(&port.inbound),
            };
            let own = meanwhile.apart.get_or_insert_default().entry(workload).or_insert_with(usual);
            own.mtls.value = step.mode();
            own.callers_use_mtls = *step >= Step::Permissive;
        }
        let Some(step) = steps.get(&port.name).filter(|step| **step != Step::of(port.mtls.value)) else { continue };
        let port = &mut service.get_or_insert_with(|| wanted.clone()).ports[index];
        port.mtls.value = step.mode();
        port.callers_use_mtls = *step >= Step::Permissive;
    }
    service
}

// === impl Recorded ===

impl Record for Recorded {
    type Key = QualifiedName;
    type Value = Arc<BTreeMap<String, Step>>;

    fn of(service: &QualifiedName, ports: &Self::Value) -> Self {
        Self { service: service.clone(), ports: BTreeMap::clone(ports) }
    }

    fn entry(self) -> Option<(QualifiedName, Self::Value)> {
        Some((self.service, Arc::new(self.ports)))
    }
}

// === impl Step ===

impl Step {
    const ALL: [Self; 4] = [Self::Disabled, Self::Accepting, Self::Permissive, Self::Strict];

    fn of(mode: MtlsMode) -> Self {
        match mode {
            MtlsMode::Disabled => Self::Disabled,
            MtlsMode::Permissive => Self::Permissive,
            MtlsMode::Strict => Self::Strict,
        }
    }

    fn mode(self) -> MtlsMode {
        match self {
            Self::Disabled => MtlsMode::Disabled,
            Self::Accepting | Self::Permissive => MtlsMode::Permissive,
            Self::Strict => MtlsMode::Strict,
        }
    }

    fn towards(self, wanted: Self) -> Self {
        let next = self as i8 + (wanted as i8 - self as i8).signum();
        Self::ALL[next as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;

    /// The modes that `from -> to` goes through, as (mode, callers use mTLS).
    fn way(from: MtlsMode, to: MtlsMode) -> Vec<(MtlsMode, bool)> {
        let mut ladder = Ladder::default();
        assert!(!ladder.climb(&mut mesh(from), true), "the first mode holds at once");
        let mut seen = Vec::new();
        for _ in 0..6 {
            let mut mesh = mesh(to);
            let remaining = ladder.climb(&mut mesh, true);
            let port = mesh.services.values().next().expect("one service").ports[0].clone();
            let mode = port.mtls.value;
            seen.push((mode, mode != MtlsMode::Disabled && port.callers_use_mtls));
            if !remaining {
                return seen;
            }
        }
        panic!("never arrives: {seen:?}");
    }

    fn mesh(mode: MtlsMode) -> Mesh {
        let rules = format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: MeshService\nmetadata: {{name: cart, namespace: shop}}\n\
             spec: {{ports: [{{name: http, port: 80, protocol: http}}]}}\n---\n\
             apiVersion: chancery.dev/v1alpha1\nkind: MTLSPolicy\nmetadata: {{name: cart, namespace: shop}}\n\
             spec: {{target: {{service: cart}}, mode: {}}}\n",
            match mode {
                MtlsMode::Strict => "strict",
                MtlsMode::Permissive => "permissive",
                MtlsMode::Disabled => "disabled",
            }
        );
        let collected = translators::rules::collect([translators::rules::parse("rules.yaml", &rules)]);
        assert_eq!(collected.findings, []);
        translators::mesh::resolve::resolve(&collected.objects).mesh
    }

    #[test]
    fn both_ways_pass_through_every_step() {
        use MtlsMode::{Disabled, Permissive, Strict};
        assert_eq!(way(Disabled, Strict), [(Permissive, false), (Permissive, true), (Strict, true)]);
        assert_eq!(way(Strict, Disabled), [(Permissive, true), (Permissive, false), (Disabled, false)]);
        assert_eq!(way(Permissive, Strict), [(Strict, true)]);
        assert_eq!(way(Permissive, Disabled), [(Permissive, false), (Disabled, false)]);
        assert_eq!(way(Disabled, Permissive), [(Permissive, false), (Permissive, true)]);
    }

    #[test]
    fn a_restart_goes_on_where_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || Journal::<Recorded>::open(Some(dir.path().join("modes.jsonl")));
        let (mut journal, steps) = open();
        let mut ladder = Ladder::new(steps);
        ladder.climb(&mut mesh(MtlsMode::Strict), true);
        journal.write(ladder.steps());
        let mut ladder = Ladder::new(open().1);
        let mut mesh = mesh(MtlsMode::Disabled);
        assert!(ladder.climb(&mut mesh, false), "there is a way to go");
        assert_eq!(mesh.services.values().next().expect("one service").ports[0].mtls.value, MtlsMode::Strict);
    }

    #[test]
    fn a_step_waits_for_the_one_before_it() {
        let mut ladder = Ladder::default();
        ladder.climb(&mut mesh(MtlsMode::Disabled), true);
        let mut mesh = mesh(MtlsMode::Strict);
        let wanted = mesh.clone();
        ladder.climb(&mut mesh, true);
        let accepting = mesh.clone();
        for _ in 0..3 {
            let mut mesh = wanted.clone();
            assert!(ladder.climb(&mut mesh, false));
            assert_eq!(mesh, accepting);
        }
    }
}
