//! The group `rules`: what is wrong with them.
//!
//! Owns: those checks. May use: the facts. Never: reads a rule.

use translators::finding::Severity;

use super::{Facts, Found, Rule, none_of};

pub(super) const CHECKS: [Rule; 2] = [("rules", "errors", errors), ("rules", "warnings", warnings)];

const HINT: &str = "`chancery findings` lists them, each with its place and what would be right";

fn errors(facts: &Facts) -> Found {
    let words = ("error", "errors");
    none_of("no rule has an error", words, &of(facts, Severity::Error), |detail| Found::bad(detail, HINT))
}

fn warnings(facts: &Facts) -> Found {
    let words = ("warning", "warnings");
    none_of("no rule has a warning", words, &of(facts, Severity::Warning), |detail| Found::doubtful(detail, HINT))
}

fn of(facts: &Facts, severity: Severity) -> Vec<String> {
    let those = facts.findings.iter().filter(|finding| finding.severity == severity);
    let located = |finding: &translators::finding::Finding| {
        let look_up = || {
            let rule = translators::name::RuleRef::new(finding.object.clone()?, finding.pointer.clone());
            (facts.status.locate)(&rule)
        };
        finding.clone().at(finding.location.clone().or_else(look_up)).to_string()
    };
    those.map(located).collect()
}
