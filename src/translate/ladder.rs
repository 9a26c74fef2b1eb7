//! The ladder: a port's mTLS mode changes in steps, none of which fails a request.
//!
//! Owns: which step of the way each port is on, also over a restart. May use: `translators::mesh`. Never: knows time or proxies;
//! whoever drives it says when the last step has arrived everywhere.
//!
//! From `disabled` to `strict` a port's own proxies first take both kinds of connection, then callers turn to
//! mTLS, then plaintext ends; and the other way round. Each step waits for the one before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::warn;
use translators::mesh::{Mesh, MtlsMode};
use translators::name::QualifiedName;

use crate::durable;

/// A step, in order: neighbours may follow each other without a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Step {
    /// Plaintext on both sides.
    Disabled,
    /// The proxies of the service take both, callers still use plaintext.
    Accepting,
    /// The proxies of the service take both, callers use mTLS.
    Permissive,
    /// mTLS alone.
    Strict,
}

/// Where every port stands.
#[derive(Debug, Default)]
pub struct Ladder {
    path: Option<PathBuf>,
    ports: BTreeMap<(QualifiedName, String), Step>,
}

/// The step of one port, on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Recorded {
    service: QualifiedName,
    port: String,
    step: Step,
}

// === impl Ladder ===

impl Ladder {
    /// The ladder as it was left in the file `path`; a record that cannot be read counts as none.
    pub fn load(path: Option<PathBuf>) -> Self {
        let recorded = path.as_deref().map(durable::read_json::<Vec<Recorded>>).transpose();
        let recorded = recorded.map(Option::flatten).unwrap_or_else(|error| {
            warn!(%error, "record of mTLS modes cannot be read, starting without");
            None
        });
        let entry = |Recorded { service, port, step }| ((service, port), step);
        Self { path, ports: recorded.unwrap_or_default().into_iter().map(entry).collect() }
    }

    /// Takes every port one step towards the mode that the rules give it, if `settled` (the last step has
    /// arrived everywhere), and puts into `mesh` the modes that hold meanwhile. Says whether steps remain.
    pub fn climb(&mut self, mesh: &mut Mesh, settled: bool) -> bool {
        let mut remaining = false;
        let mut ports = BTreeMap::new();
        let names: Vec<QualifiedName> = mesh.services.keys().cloned().collect();
        for name in &names {
            let Some(service) = mesh.services.get_mut(name) else { continue };
            for index in 0..service.ports.len() {
                let port = &service.ports[index];
                let wanted = Step::of(port.mtls.value);
                let key = (name.clone(), port.name.clone());
                let now = match self.ports.get(&key) {
                    None => wanted,
                    // Taking plaintext as well disturbs nobody.
                    Some(Step::Strict) if wanted == Step::Permissive => wanted,
                    Some(at) if settled => at.towards(wanted),
                    Some(at) => *at,
                };
                remaining |= now != wanted;
                if now != wanted {
                    let port = &mut Arc::make_mut(service).ports[index];
                    port.mtls.value = now.mode();
                    port.callers_use_mtls = now >= Step::Permissive;
                }
                ports.insert(key, now);
            }
        }
        if self.ports != ports {
            self.ports = ports;
            self.record();
        }
        remaining
    }

    fn record(&self) {
        let Some(path) = &self.path else { return };
        let entry = |((service, port), step): (&(QualifiedName, String), &Step)| Recorded {
            service: service.clone(),
            port: port.clone(),
            step: *step,
        };
        let recorded: Vec<Recorded> = self.ports.iter().map(entry).collect();
        if let Err(error) = durable::write_json(path, &recorded) {
            warn!(path = %path.display(), %error, "record of mTLS modes cannot be written");
        }
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
        let path = Some(dir.path().join("ladder.json"));
        Ladder::load(path.clone()).climb(&mut mesh(MtlsMode::Strict), true);
        let mut ladder = Ladder::load(path);
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
