//! Rules become the mesh: names resolved, defaults filled in, mistakes as findings.
//!
//! Owns: the order of resolution (settings, services, workloads, policies, routes), and which object stays
//! when two claim the same. May use: `rules`, `finding`. Never: fails, or lets a bad object change what does
//! not refer to it.

use std::collections::{BTreeMap, BTreeSet};

use crate::finding::{self, Finding};
use crate::mesh::Mesh;
use crate::name::ObjectKey;
use crate::rules::{Object, Objects, Spec};

use report::Report;
use settings::Settings;

mod report;
mod retry;
mod settings;

/// The mesh, and what is wrong with the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The mesh that the objects without errors describe.
    pub mesh: Mesh,
    /// What is wrong, in the order of files and lines.
    pub findings: Vec<Finding>,
    /// The objects that were left out.
    pub refused: BTreeSet<ObjectKey>,
}

/// Resolves a whole configuration.
pub fn resolve(objects: &Objects) -> Resolution {
    let mut ledger = Ledger::default();
    let mut order: Vec<&Object> = objects.values().map(AsRef::as_ref).collect();
    order.sort_by_key(|object| object.home());

    let settings = ledger.settings(&order);
    let Ledger { mut findings, refused } = ledger;
    findings.sort_by(finding::by_place);
    let mesh = Mesh {
        trust_domain: settings.trust_domain,
        leaf_ttl: settings.leaf_ttl,
        connect_timeout: settings.connect_timeout,
        services: BTreeMap::new(),
        workloads: BTreeMap::new(),
    };
    Resolution { mesh, findings, refused }
}

/// What was found so far.
#[derive(Default)]
struct Ledger {
    findings: Vec<Finding>,
    refused: BTreeSet<ObjectKey>,
}

// === impl Ledger ===

impl Ledger {
    /// Takes the findings of one object; whether the object may stay.
    fn close(&mut self, report: Report<'_>) -> bool {
        let refused = report.is_refused();
        if refused {
            self.refused.insert(report.object.key.clone());
        }
        self.findings.extend(report.findings);
        !refused
    }

    fn settings(&mut self, objects: &[&Object]) -> Settings {
        let mut settings = Settings::built_in();
        for object in objects {
            if let Spec::Mesh(spec) = &object.spec {
                let mut report = Report::of(object);
                let written = Settings::of(spec, &mut report);
                if self.close(report) {
                    settings = written;
                }
            }
        }
        settings
    }
}
