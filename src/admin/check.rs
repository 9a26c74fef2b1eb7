//! Checks: what may be wrong with the running control plane and its proxies, each with what to do.
//!
//! Owns: which checks there are, when each of them warns or fails, and the words for it: a function for each, in the
//! file of its group. May use: what the process knows already. Never: asks a proxy, or makes a check of what cannot be
//! known.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use translators::finding::Finding;

use super::view::{Check, Checks, Outcome};
use super::{AdminState, Status, rfc3339};
use crate::report::Proxy;

mod control_plane;
mod identity;
mod proxies;
mod rules;

/// So many of those that a check is about are named.
const NAMED: usize = 3;

/// What the process was started with, as far as checks are about it.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Where operators look.
    pub admin: SocketAddr,
    /// Where proxies without TLS connect, if anywhere.
    pub plaintext: Option<SocketAddr>,
    /// The roots of the authorities, and until when each is valid.
    pub roots: Vec<(&'static str, SystemTime)>,
}

/// Everything that a check may look at.
pub(super) struct Facts {
    pub(super) setting: Arc<Setting>,
    pub(super) status: Arc<Status>,
    pub(super) findings: Vec<Finding>,
    pub(super) proxies: Vec<Proxy>,
    /// The nodes that report their load,
    pub(super) loads: BTreeSet<Arc<str>>,
    /// and those that report what they measure.
    pub(super) metrics: BTreeSet<Arc<str>>,
    pub(super) now: SystemTime,
    /// The same moment.
    pub(super) instant: Instant,
}

/// What a check found.
enum Found {
    Well(String),
    Doubtful { detail: String, hint: String },
    Bad { detail: String, hint: String },
}

/// A check: its group, its name, and what finds it.
type Rule = (&'static str, &'static str, fn(&Facts) -> Found);

const RULES: [&[Rule]; 4] = [&control_plane::CHECKS, &identity::CHECKS, &rules::CHECKS, &proxies::CHECKS];

/// All checks, by group.
pub(super) fn all(state: &AdminState) -> Checks {
    let status = state.status();
    run(&Facts {
        setting: Arc::clone(&state.setting),
        findings: (status.findings)(),
        status,
        proxies: state.report.proxies(),
        loads: state.loads.reporters(),
        metrics: state.telemetry.reporters(),
        now: SystemTime::now(),
        instant: Instant::now(),
    })
}

fn run(facts: &Facts) -> Checks {
    let checks: Vec<Check> = RULES.iter().copied().flatten().map(|rule| check(rule, facts)).collect();
    let count = |outcome: Outcome| checks.iter().filter(|check| check.outcome == outcome).count();
    Checks { warnings: count(Outcome::Warn), failures: count(Outcome::Fail), checks }
}

fn check((group, name, find): &Rule, facts: &Facts) -> Check {
    let (outcome, detail, hint) = match find(facts) {
        Found::Well(detail) => (Outcome::Ok, detail, None),
        Found::Doubtful { detail, hint } => (Outcome::Warn, detail, Some(hint)),
        Found::Bad { detail, hint } => (Outcome::Fail, detail, Some(hint)),
    };
    Check { group: (*group).to_owned(), name: (*name).to_owned(), outcome, detail, hint }
}

/// `well` if there are none; else how many, and the first few: `3 proxies: a; b; c and 2 more`.
fn none_of(well: &str, (one, many): (&str, &str), those: &[String], bad: impl FnOnce(String) -> Found) -> Found {
    if those.is_empty() {
        return Found::Well(well.to_owned());
    }
    let more = match those.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let named = those[..those.len().min(NAMED)].join("; ");
    let what = if those.len() == 1 { one } else { many };
    bad(format!("{} {what}: {named}{more}", those.len()))
}

// === impl Setting ===

impl Setting {
    /// One with which nothing is wrong.
    #[cfg(test)]
    pub(crate) fn of_tests() -> Arc<Self> {
        let in_ten_years = SystemTime::now() + Duration::from_secs(10 * 365 * 24 * 3600);
        let admin = SocketAddr::from(([127, 0, 0, 1], 18080));
        Arc::new(Self { admin, plaintext: None, roots: vec![("mesh", in_ten_years)] })
    }
}

// === impl Found ===

impl Found {
    fn doubtful(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Doubtful { detail: detail.into(), hint: hint.into() }
    }

    fn bad(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Bad { detail: detail.into(), hint: hint.into() }
    }
}

/// How long until then; nothing if it is past.
fn left(until: SystemTime, now: SystemTime) -> Duration {
    until.duration_since(now).unwrap_or_default()
}

fn date(instant: SystemTime) -> String {
    rfc3339::format(instant)
}

#[cfg(test)]
mod tests;
