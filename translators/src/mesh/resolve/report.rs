//! What is wrong with one object while it is resolved.
//!
//! Owns: the findings of one object, and what it read of others. May use: `finding`, `rules`. Never: looks at
//! another object.

use super::facts::Fact;
use crate::finding::{Code, Finding, Severity};
use crate::name::RuleRef;
use crate::rules::Object;

/// The findings of one object, and what it read of others.
pub(super) struct Report<'a> {
    pub object: &'a Object,
    pub findings: Vec<Finding>,
    pub reads: Vec<Fact>,
}

// === impl Report ===

impl<'a> Report<'a> {
    pub(super) fn of(object: &'a Object) -> Self {
        Self { object, findings: Vec::new(), reads: Vec::new() }
    }

    /// An error at `pointer`; choices and hints are added to what is returned.
    pub(super) fn error(&mut self, code: Code, pointer: impl Into<String>, message: impl Into<String>) -> &mut Finding {
        self.add(Finding::error(code, &self.object.key, pointer, message))
    }

    /// A warning at `pointer`.
    pub(super) fn warning(
        &mut self,
        code: Code,
        pointer: impl Into<String>,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.add(Finding::warning(code, &self.object.key, pointer, message))
    }

    fn add(&mut self, finding: Finding) -> &mut Finding {
        let location = self.object.location(&finding.pointer);
        self.findings.push(finding.at(location));
        self.findings.last_mut().expect("one was just pushed")
    }

    /// Whether the object must be left out.
    pub(super) fn is_refused(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// The place `pointer` as an origin.
    pub(super) fn origin(&self, pointer: impl Into<String>) -> RuleRef {
        RuleRef::new(self.object.key.clone(), pointer)
    }
}
