//! Findings: what is wrong with the rules, put together when somebody asks.
//!
//! Owns: the findings of one translation, and what the log says of those that are new or over. May use: `translators`,
//! `sources::files` (what could not be read). Never: goes through the findings that a change leaves alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use tracing::{error, info, warn};
use translators::finding::{Finding, Severity};
use translators::name::ObjectKey;

use crate::sources::files::FileState;

/// Every finding, of the files and of the resolution.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// The files, whose findings are those of what could not be read.
    pub(super) files: Arc<FileState>,
    /// Of objects whose last good form is in force.
    pub(super) refused: Vec<Finding>,
    /// Of the objects in force.
    pub(super) resolved: OrdMap<ObjectKey, Arc<[Finding]>>,
}

// === impl Findings ===

impl Findings {
    /// All of them, sorted, each once.
    pub fn all(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.resolved.values().flat_map(|of_object| of_object.iter().cloned()).collect();
        all.extend(self.outside().cloned());
        all.sort();
        all.dedup();
        all
    }

    /// Says in the log what is new since `former`, one line each, and what is over.
    pub(super) fn log_since(&self, former: &Self) {
        let (mut old, mut new): (Vec<&Finding>, Vec<&Finding>) = (former.outside().collect(), self.outside().collect());
        for change in former.resolved.diff(&self.resolved) {
            match change {
                DiffItem::Add(_, now) => new.extend(now.iter()),
                DiffItem::Remove(_, then) => old.extend(then.iter()),
                DiffItem::Update { old: (_, then), new: (_, now) } => {
                    old.extend(then.iter());
                    new.extend(now.iter());
                }
            }
        }
        let lines = |findings: &[&Finding]| -> BTreeSet<(Severity, String)> {
            findings.iter().map(|finding| (finding.severity, finding.to_string())).collect()
        };
        let (old, new) = (lines(&old), lines(&new));
        for (severity, line) in new.difference(&old) {
            match severity {
                Severity::Error => error!("{line}"),
                Severity::Warning => warn!("{line}"),
            }
        }
        for (_, line) in old.difference(&new) {
            info!("no longer: {line}");
        }
    }

    /// Those that no object in force has.
    fn outside(&self) -> impl Iterator<Item = &Finding> {
        self.files.findings.iter().chain(&self.refused)
    }
}
