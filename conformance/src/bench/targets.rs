//! Targets: what Chancery has to reach and what it tries to.
//!
//! Owns: the table. May use: outcomes. Never: fails anybody: a missed target is a line in the report.

use std::collections::BTreeMap;

use serde::Serialize;

use super::outcome::Outcome;

/// A bound on a value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// One line of the table.
#[derive(Debug, Clone, Copy)]
struct Target {
    workload: &'static str,
    what: &'static str,
    /// The value of the workload's outcome.
    value: &'static str,
    must: Option<Bound>,
    ambition: Option<Bound>,
}

/// A target with what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The workload.
    pub id: &'static str,
    /// What is bounded.
    pub what: &'static str,
    /// What has to be reached, if anything.
    pub must: Option<String>,
    /// What is tried.
    pub ambition: Option<String>,
    /// What was measured; `None` if that could not be had, and the target is not met.
    pub measured: Option<f64>,
    /// Whether it reaches what it has to.
    pub met_must: Option<bool>,
    /// Whether it reaches what is tried.
    pub met_ambition: Option<bool>,
}

/// How many targets are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Met {
    /// Of those that have to be.
    pub must: usize,
    /// How many have to be.
    pub musts: usize,
    /// Of those that are tried.
    pub ambition: usize,
    /// How many are tried.
    pub ambitions: usize,
}

const fn target(
    workload: &'static str,
    what: &'static str,
    value: &'static str,
    must: Option<Bound>,
    ambition: Option<Bound>,
) -> Target {
    Target { workload, what, value, must, ambition }
}

use Bound::{AtLeast, AtMost};

const TARGETS: &[Target] = &[
    target("W1", "CPU against the floor", "cpu/floor", Some(AtMost(2.5)), Some(AtMost(1.5))),
    target("W1", "CPU against the floor of connections", "cpu/floor-conn", None, None),
    target("W1", "CPU against the best Go", "cpu/go-best", Some(AtMost(1.0 / 12.0)), Some(AtMost(1.0 / 20.0))),
    target("W1", "p99 against the floor", "p99/floor", Some(AtMost(2.0)), None),
    target("W1", "p99 against the best Go", "p99/go-best", Some(AtMost(1.0 / 6.0)), None),
    target("W1", "p99, ms", "p99", None, Some(AtMost(20.0))),
    target("W1", "resources per push", "resources", Some(AtMost(1.0)), None),
    target("W1s", "CPU against Go linear", "cpu/go-linear", Some(AtMost(1.0 / 15.0)), None),
    target("W1s", "CPU against Go snapshot", "cpu/go-snapshot", Some(AtMost(1.0 / 200.0)), None),
    target("W1s", "CPU against the floor", "cpu/floor", None, Some(AtMost(1.3))),
    target("W1s", "CPU against the floor of connections", "cpu/floor-conn", None, None),
    target("W2", "CPU against the floor", "cpu/floor", Some(AtMost(1.5)), None),
    target("W2", "CPU against the floor of connections", "cpu/floor-conn", None, None),
    target("W2", "peak memory against the best Go", "peak/go-best", Some(AtMost(1.0 / 8.0)), None),
    target("W2", "time against Go linear", "last/go-linear", Some(AtMost(1.0)), None),
    target(
        "W2",
        "peak memory above idle, 64 KiB a proxy and twice the configuration",
        "peak above plan",
        None,
        Some(AtMost(1.0)),
    ),
    target("W3", "resources per change", "resources", Some(AtMost(1.0)), None),
    target("W3", "cheaper than a full translation, times", "cheaper", Some(AtLeast(20.0)), Some(AtLeast(100.0))),
    target("W4", "proxies of 10 services a second", "proxies/s", Some(AtLeast(2_000.0)), Some(AtLeast(5_000.0))),
    target(
        "W5",
        "certificates a second and core, of clients of 20 services",
        "certificates/s",
        Some(AtLeast(3_000.0)),
        Some(AtLeast(8_000.0)),
    ),
    target("W5", "p99 of W1 meanwhile, times", "p99/alone", Some(AtMost(1.5)), Some(AtMost(1.2))),
    target("W6", "KiB a stream, plaintext", "KiB plain", Some(AtMost(64.0)), Some(AtMost(48.0))),
    target("W6", "KiB a stream, mTLS", "KiB mTLS", Some(AtMost(96.0)), Some(AtMost(80.0))),
    target("W6", "memory of a stream against the best Go", "KiB/go-best", Some(AtMost(1.0 / 8.0)), None),
    target(
        "W6",
        "memory after a push of everything, times that after one of one",
        "after all/one",
        Some(AtMost(1.25)),
        None,
    ),
    target("W7", "services a second and core", "services/s", Some(AtLeast(60_000.0)), Some(AtLeast(250_000.0))),
    target("W7", "one change at the largest size, us", "change us", Some(AtMost(100.0)), Some(AtMost(30.0))),
    target("W8", "CPU against clients, exponent", "clients", Some(AtMost(1.05)), Some(AtMost(1.0))),
    target(
        "W8",
        "CPU of a change against subscriptions, exponent",
        "subscriptions",
        Some(AtMost(0.15)),
        Some(AtMost(0.08)),
    ),
    target("W8", "CPU of a change against services, exponent", "services", Some(AtMost(0.15)), Some(AtMost(0.08))),
    target("W8", "CPU of a start against services, exponent", "start", Some(AtMost(1.1)), Some(AtMost(1.05))),
    target("W9", "p99 staleness, ms", "p99", Some(AtMost(100.0)), Some(AtMost(50.0))),
    target("W9", "CPU against the best Go", "cpu/go-best", Some(AtMost(1.0 / 5.0)), None),
    target("W10", "p99 of the others, times", "p99/alone", Some(AtMost(1.25)), Some(AtMost(1.1))),
    target("W10", "memory, times", "memory/before", Some(AtMost(1.1)), None),
    target("W11", "bytes against a cold start", "bytes/cold", Some(AtMost(0.01)), Some(AtMost(0.005))),
    target("W11", "seconds with mTLS", "seconds mTLS", Some(AtMost(1.0)), None),
    target("W12", "pushes", "pushes", Some(AtMost(0.0)), None),
    target("W13", "CPU against the floor", "cpu/floor", Some(AtMost(1.5)), Some(AtMost(1.2))),
    target("W13", "CPU against the floor of connections", "cpu/floor-conn", None, None),
    target("W13", "CPU against the best Go", "cpu/go-best", Some(AtMost(1.0 / 2.0)), None),
    target("W13", "p99 against the best Go", "p99/go-best", Some(AtMost(1.25)), None),
    target("replicas", "memory of a replica against the model", "memory/model", Some(AtMost(1.25)), None),
    target("replicas", "CPU of a change against the model", "cpu/model", Some(AtMost(1.5)), None),
    target(
        "replicas",
        "bytes to those who change replicas against a cold start",
        "bytes/cold",
        Some(AtMost(0.05)),
        None,
    ),
];

/// The verdicts on the workloads that ran, void ones included, and the values that are missing from them.
pub fn judge(outcomes: &BTreeMap<&'static str, Outcome>) -> (Vec<Verdict>, Vec<String>) {
    let (mut verdicts, mut missing) = (Vec::new(), Vec::new());
    for target in TARGETS {
        let Some(outcome) = outcomes.get(target.workload) else { continue };
        let measured = outcome.values.get(target.value).map(|measured| measured.median);
        if measured.is_none() {
            missing.push(format!("{}: no value {:?}", target.workload, target.value));
        }
        verdicts.push(target.judge(measured));
    }
    (verdicts, missing)
}

/// How many of them are met.
pub fn met(verdicts: &[Verdict]) -> Met {
    let musts = || verdicts.iter().filter_map(|verdict| verdict.met_must);
    let ambitions = || verdicts.iter().filter_map(|verdict| verdict.met_ambition);
    Met {
        must: musts().filter(|met| *met).count(),
        musts: musts().count(),
        ambition: ambitions().filter(|met| *met).count(),
        ambitions: ambitions().count(),
    }
}

// === impl Target ===

impl Target {
    fn judge(&self, measured: Option<f64>) -> Verdict {
        let holds = |bound: Bound| measured.is_some_and(|measured| bound.holds(measured));
        Verdict {
            id: self.workload,
            what: self.what,
            must: self.must.map(|bound| bound.to_string()),
            ambition: self.ambition.map(|bound| bound.to_string()),
            measured,
            met_must: self.must.map(holds),
            met_ambition: self.ambition.map(holds),
        }
    }
}

// === impl Bound ===

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(bound) => write!(f, "<= {}", super::report::figure(*bound)),
            Self::AtLeast(bound) => write!(f, ">= {}", super::report::figure(*bound)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_at_its_bound() {
        let mut outcome = Outcome::default();
        for (value, measured) in [("resources", 1.0), ("cheaper", 20.0)] {
            outcome.number(value, measured);
        }
        let (verdicts, missing) = judge(&[("W3", outcome.clone())].into());
        assert!(missing.is_empty() && verdicts.iter().all(|verdict| verdict.met_must == Some(true)), "{verdicts:?}");
        assert_eq!(met(&verdicts), Met { must: 2, musts: 2, ambition: 0, ambitions: 1 });
        outcome.number("resources", 1.1);
        let (verdicts, _) = judge(&[("W3", outcome)].into());
        assert_eq!(met(&verdicts), Met { must: 1, musts: 2, ambition: 0, ambitions: 1 });
    }

    #[test]
    fn a_value_that_cannot_be_had_is_named_and_meets_nothing() {
        let (verdicts, missing) = judge(&[("W12", Outcome::default())].into());
        assert_eq!(missing, ["W12: no value \"pushes\""]);
        assert_eq!(met(&verdicts), Met { must: 0, musts: 1, ambition: 0, ambitions: 0 });
        assert_eq!(verdicts[0].measured, None);
    }

    #[test]
    fn every_workload_has_a_target() {
        for (id, _) in crate::bench::workloads::ALL.iter().filter(|(id, _)| *id != "size") {
            assert!(TARGETS.iter().any(|target| target.workload == *id), "{id}");
        }
    }
}
