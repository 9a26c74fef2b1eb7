//! Telemetry: what proxies measure, as edges: who calls which service, how often, how well, over what; and what they log.
//!
//! Owns: the totals, and the service that proxies report to. May use: `translators` names and the words of the
//! mesh. Never: steers anything, or touches an xDS stream: its lock is its own and is held for one message.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub mod edges;
pub mod loads;
pub mod logs;
pub mod metrics;

use edges::{Audited, Edge, Edges, Labelled, Limits, Losses, Sample, StreamId, Superseded};
use logs::Logs;

/// What the proxies have reported. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Telemetry {
    edges: Arc<Mutex<Edges>>,
    logs: Logs,
}

// === impl Telemetry ===

impl Default for Telemetry {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Telemetry {
    /// No reports yet.
    pub fn new(limits: Limits) -> Self {
        Self { edges: Arc::new(Mutex::new(Edges::new(limits))), logs: Logs::default() }
    }

    /// Every edge, by caller, service, version and port.
    pub fn edges(&self) -> Vec<Edge> {
        self.lock().edges()
    }

    /// Whom audited rules would have refused, by caller, service, version, port and rule.
    pub fn audited(&self) -> Vec<Audited> {
        self.lock().audited()
    }

    /// Requests with the further labels that policies ask for, by edge and labels.
    pub fn labelled(&self) -> Vec<Labelled> {
        self.lock().labelled()
    }

    /// What they have logged.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// The node ids of the proxies that report now.
    pub fn reporters(&self) -> BTreeSet<Arc<str>> {
        self.lock().reporters()
    }

    /// What was reported and not counted.
    pub fn losses(&self) -> Losses {
        self.lock().losses()
    }

    /// Enters a stream of reports of `node`; it takes the place of an earlier one.
    fn open(&self, node: &str, now: SystemTime) -> StreamId {
        self.lock().open(node, now)
    }

    /// Enters a message; returns whom else audited rules would have refused.
    fn record(&self, stream: &StreamId, report: Report, now: SystemTime) -> Result<Vec<Audited>, Superseded> {
        let mut edges = self.lock();
        edges.refuse(report.refused);
        edges.record(stream, report.uptime, report.samples, now)
    }

    fn close(&self, stream: &StreamId, now: SystemTime) {
        self.lock().close(stream, now);
    }

    fn lock(&self) -> MutexGuard<'_, Edges> {
        self.edges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one message says.
#[derive(Debug, Default, PartialEq)]
struct Report {
    /// The seconds since the proxy started.
    uptime: Option<u64>,
    /// Its counters.
    samples: Vec<Sample>,
    /// Counters that it may not report, or that cannot be read.
    refused: u64,
}
