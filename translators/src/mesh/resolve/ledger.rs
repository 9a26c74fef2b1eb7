//! The ledger: what is wrong with every object, put together from what each stage says of it.
//!
//! Owns: the order of an object's findings, and that a list that stays the same stays the same allocation. May
//! use: `finding`. Never: says anything itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::finding::{Finding, Severity};
use crate::name::ObjectKey;

/// Which stage says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// What the object says by itself, and who was first to say it.
    Own,
    /// Whether others share its identity.
    Identity,
    /// What it means where it applies.
    Effect,
}

/// What is wrong with every object.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    said: BTreeMap<(ObjectKey, Part), Vec<Finding>>,
    touched: BTreeSet<ObjectKey>,
    findings: OrdMap<ObjectKey, Arc<[Finding]>>,
    refused: OrdSet<ObjectKey>,
}

// === impl Ledger ===

impl Ledger {
    /// What a stage says of `object` from now on.
    pub(super) fn set(&mut self, object: &ObjectKey, part: Part, findings: Vec<Finding>) {
        let place = (object.clone(), part);
        if self.said.get(&place).map_or(&[][..], Vec::as_slice) == findings {
            return;
        }
        if findings.is_empty() {
            self.said.remove(&place);
        } else {
            self.said.insert(place, findings);
        }
        self.touched.insert(object.clone());
    }

    /// Whether a stage says anything of `object`.
    pub(super) fn says(&self, object: &ObjectKey, part: Part) -> bool {
        self.said.contains_key(&(object.clone(), part))
    }

    /// The findings of every object that has any, and the objects that are left out.
    pub(super) fn close(&mut self) -> (OrdMap<ObjectKey, Arc<[Finding]>>, OrdSet<ObjectKey>) {
        for object in std::mem::take(&mut self.touched) {
            let findings = self.findings_of(&object);
            // What is wrong only together with others does not take the object away.
            let mut own = self.said.get(&(object.clone(), Part::Own)).into_iter().flatten();
            if own.any(|finding| finding.severity == Severity::Error) {
                self.refused.insert(object.clone());
            } else {
                self.refused.remove(&object);
            }
            if findings.is_empty() {
                self.findings.remove(&object);
            } else if self.findings.get(&object).is_none_or(|before| **before != *findings) {
                self.findings.insert(object, findings.into());
            }
        }
        (self.findings.clone(), self.refused.clone())
    }

    fn findings_of(&self, object: &ObjectKey) -> Vec<Finding> {
        let said = |part| self.said.get(&(object.clone(), part)).into_iter().flatten().cloned();
        // A rule is read once for each port that it applies to.
        let once = |mut findings: Vec<Finding>| {
            findings.sort();
            findings.dedup();
            findings
        };
        let mut findings = once(said(Part::Own).chain(said(Part::Identity)).collect());
        findings.extend(once(said(Part::Effect).collect()));
        findings
    }
}
