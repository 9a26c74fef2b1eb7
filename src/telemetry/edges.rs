//! Edges: cumulative counters of proxies into totals that only ever rise.
//!
//! A proxy reports what it has counted since it started, again and again. What is added to a total is what
//! its counter has grown by since the last report of the same node, whatever stream that came on: a stream
//! that reconnects counts nothing twice. A counter that falls, or an uptime that falls, means that the proxy
//! has started anew, from zero. To a control plane that has just started, everything that a proxy has counted
//! is new.
//!
//! Owns: the arithmetic and its bounds. May use: names and protocols. Never: a clock, a lock, the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use translators::mesh::Protocol;
use translators::name::{QualifiedName, SpiffeId};
use translators::telemetry_names::NONE;

/// A node that has had no stream for this long may be forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Series of one node.
    pub series_per_node: usize,
    /// Series of all nodes.
    pub series: usize,
    /// Edges.
    pub edges: usize,
}

/// Between whom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeKey {
    /// The caller, if it had an identity.
    pub caller: Option<SpiffeId>,
    /// The service that was called.
    pub service: QualifiedName,
    /// The version that answered; empty if it has none.
    pub version: Arc<str>,
    /// The name of the service's port.
    pub port: Arc<str>,
    /// What is spoken on it.
    pub protocol: Protocol,
}

/// One counter of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// Between whom.
    pub edge: EdgeKey,
    /// Whether it came over mTLS.
    pub mtls: bool,
    /// The HTTP status; 0 for none.
    pub code: u16,
    /// Envoy's response flags, `-` for none.
    pub flags: Arc<str>,
    /// The audited rule that would have refused these requests, which another series counts as well.
    pub policy: Option<Arc<str>>,
    /// The labels that policies add.
    pub labels: Arc<Labels>,
}

/// Labels that policies add, by name.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// Requests of an edge that have the same labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// Between whom.
    pub edge: EdgeKey,
    /// By which labels.
    pub labels: Arc<Labels>,
    /// How many, which the edge counts as well.
    pub requests: u64,
}

/// Whom an audited rule would have refused.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuditKey {
    /// Between whom.
    pub edge: EdgeKey,
    /// The rule: an entry of an AccessPolicy, or its default.
    pub policy: Arc<str>,
}

/// How many requests, or TCP connections, an audited rule would have refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// Whose.
    pub key: AuditKey,
    /// How many.
    pub requests: u64,
    /// When a proxy last reported a further one.
    pub last_seen: SystemTime,
}

/// What a counter stands at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The counter.
    pub series: Series,
    /// Its value since the proxy started.
    pub value: u64,
}

/// One edge, with its totals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Between whom.
    pub key: EdgeKey,
    /// What was counted.
    pub totals: Totals,
}

/// What was counted on an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Successes over mTLS.
    pub mtls_successes: u64,
    /// Failures over mTLS.
    pub mtls_failures: u64,
    /// Successes in plaintext.
    pub plain_successes: u64,
    /// Failures in plaintext.
    pub plain_failures: u64,
    /// When a proxy last reported a further request.
    pub last_seen: SystemTime,
}

/// Reports that were not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Samples of a service that the reporter does not serve, or that could not be read.
    pub refused: u64,
    /// Samples beyond the limits.
    pub overflowed: u64,
}

/// A stream of reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamId {
    node: Arc<str>,
    generation: u64,
}

/// The node has a later stream: what this one still says is older than what is already counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a later stream of the same node has taken over")]
pub struct Superseded;

/// The totals, and what they were computed from.
#[derive(Debug)]
pub struct Edges {
    limits: Limits,
    nodes: BTreeMap<Arc<str>, Node>,
    totals: BTreeMap<EdgeKey, Totals>,
    audited: BTreeMap<AuditKey, (u64, SystemTime)>,
    labelled: BTreeMap<(EdgeKey, Arc<Labels>), u64>,
    series: usize,
    next_generation: u64,
    losses: Losses,
}

#[derive(Debug)]
struct Node {
    generation: u64,
    /// When its last stream ended, if none is open.
    closed: Option<SystemTime>,
    uptime: u64,
    last: BTreeMap<Series, u64>,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self { series_per_node: 5_000, series: 200_000, edges: 20_000 }
    }
}

// === impl Series ===

impl Series {
    /// Whether these requests were answered well: HTTP with any status but a 5xx, TCP without a flag.
    pub fn is_success(&self) -> bool {
        match self.edge.protocol {
            Protocol::Http | Protocol::Http2 | Protocol::Grpc => (100..500).contains(&self.code),
            Protocol::Tcp | Protocol::Tls => matches!(&*self.flags, "" | NONE),
        }
    }
}

// === impl Totals ===

impl Totals {
    /// Nothing counted.
    pub fn new(last_seen: SystemTime) -> Self {
        Self { mtls_successes: 0, mtls_failures: 0, plain_successes: 0, plain_failures: 0, last_seen }
    }

    /// All requests.
    pub fn requests(&self) -> u64 {
        self.mtls_requests().saturating_add(self.plain_successes).saturating_add(self.plain_failures)
    }

    /// Requests that were answered well.
    pub fn successes(&self) -> u64 {
        self.mtls_successes.saturating_add(self.plain_successes)
    }

    /// Requests over mTLS.
    pub fn mtls_requests(&self) -> u64 {
        self.mtls_successes.saturating_add(self.mtls_failures)
    }

    fn add(&mut self, series: &Series, growth: u64, now: SystemTime) {
        let count = match (series.mtls, series.is_success()) {
            (true, true) => &mut self.mtls_successes,
            (true, false) => &mut self.mtls_failures,
            (false, true) => &mut self.plain_successes,
            (false, false) => &mut self.plain_failures,
        };
        *count = count.saturating_add(growth);
        self.last_seen = self.last_seen.max(now);
    }
}

// === impl Edges ===

impl Edges {
    /// No reports yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            nodes: BTreeMap::new(),
            totals: BTreeMap::new(),
            audited: BTreeMap::new(),
            labelled: BTreeMap::new(),
            series: 0,
            next_generation: 0,
            losses: Losses::default(),
        }
    }

    /// Every edge.
    pub fn edges(&self) -> Vec<Edge> {
        self.totals.iter().map(|(key, totals)| Edge { key: key.clone(), totals: *totals }).collect()
    }

    /// Whom audited rules would have refused.
    pub fn audited(&self) -> Vec<Audited> {
        let one = |(key, (requests, last_seen)): (&AuditKey, &(u64, SystemTime))| Audited {
            key: key.clone(),
            requests: *requests,
            last_seen: *last_seen,
        };
        self.audited.iter().map(one).collect()
    }

    /// Requests by the labels that policies add.
    pub fn labelled(&self) -> Vec<Labelled> {
        let one = |((edge, labels), requests): (&(EdgeKey, Arc<Labels>), &u64)| Labelled {
            edge: edge.clone(),
            labels: Arc::clone(labels),
            requests: *requests,
        };
        self.labelled.iter().map(one).collect()
    }

    /// The nodes that have a stream of reports open.
    pub fn reporters(&self) -> BTreeSet<Arc<str>> {
        self.nodes.iter().filter(|(_, of)| of.closed.is_none()).map(|(node, _)| Arc::clone(node)).collect()
    }

    /// What was not counted.
    pub fn losses(&self) -> Losses {
        self.losses
    }

    /// Enters a stream of `node`; it takes the place of an earlier one.
    pub fn open(&mut self, node: &str, now: SystemTime) -> StreamId {
        self.forget(now);
        let generation = self.next_generation;
        self.next_generation += 1;
        let node: Arc<str> = node.into();
        let entry = self.nodes.entry(Arc::clone(&node)).or_insert_with(|| Node {
            generation,
            closed: None,
            uptime: 0,
            last: BTreeMap::new(),
        });
        entry.generation = generation;
        entry.closed = None;
        StreamId { node, generation }
    }

    /// Ends a stream. What it has reported is kept, for the next one of the node.
    pub fn close(&mut self, stream: &StreamId, now: SystemTime) {
        if let Some(node) = self.nodes.get_mut(&stream.node).filter(|node| node.generation == stream.generation) {
            node.closed = Some(now);
        }
    }

    /// Notes samples that are not to be counted.
    pub fn refuse(&mut self, samples: u64) {
        self.losses.refused = self.losses.refused.saturating_add(samples);
    }

    /// Adds what the counters of one message have grown by; returns whom else audited rules would have refused.
    pub fn record(
        &mut self,
        stream: &StreamId,
        uptime: Option<u64>,
        samples: Vec<Sample>,
        now: SystemTime,
    ) -> Result<Vec<Audited>, Superseded> {
        let mut refused = Vec::new();
        let node = self.nodes.get_mut(&stream.node).filter(|node| node.generation == stream.generation);
        let node = node.ok_or(Superseded)?;
        if let Some(uptime) = uptime {
            if uptime < node.uptime {
                self.series -= node.last.len();
                node.last.clear();
            }
            node.uptime = uptime;
        }
        for Sample { series, value } in samples {
            let known = node.last.get(&series).copied();
            let full = known.is_none()
                && (node.last.len() >= self.limits.series_per_node || self.series >= self.limits.series);
            let audit = series.policy.clone().map(|policy| AuditKey { edge: series.edge.clone(), policy });
            let labelled = (!series.labels.is_empty()).then(|| (series.edge.clone(), Arc::clone(&series.labels)));
            let overflows = match &audit {
                None => {
                    let beyond = |key| self.labelled.len() >= self.limits.edges && !self.labelled.contains_key(key);
                    labelled.as_ref().is_some_and(beyond)
                        || self.totals.len() >= self.limits.edges && !self.totals.contains_key(&series.edge)
                }
                Some(key) => self.audited.len() >= self.limits.edges && !self.audited.contains_key(key),
            };
            if full || overflows {
                self.losses.overflowed = self.losses.overflowed.saturating_add(1);
                continue;
            }
            let last = known.unwrap_or(0);
            let growth = if value >= last { value - last } else { value };
            match audit {
                _ if growth == 0 => {}
                None => {
                    let totals = self.totals.entry(series.edge.clone()).or_insert_with(|| Totals::new(now));
                    totals.add(&series, growth, now);
                    if let Some(key) = labelled {
                        let requests = self.labelled.entry(key).or_insert(0);
                        *requests = requests.saturating_add(growth);
                    }
                }
                Some(key) => {
                    let (requests, last_seen) = self.audited.entry(key.clone()).or_insert((0, now));
                    *requests = requests.saturating_add(growth);
                    *last_seen = now.max(*last_seen);
                    refused.push(Audited { key, requests: growth, last_seen: now });
                }
            }
            if node.last.insert(series, value).is_none() {
                self.series += 1;
            }
        }
        Ok(refused)
    }

    /// Makes room: once half of it is taken, nodes that are long gone are forgotten. Not before, because one
    /// that does come back is then counted from zero.
    fn forget(&mut self, now: SystemTime) {
        if self.series + self.nodes.len() <= self.limits.series / 2 {
            return;
        }
        let long_gone =
            |node: &Node| node.closed.is_some_and(|at| now.duration_since(at).is_ok_and(|age| age > FORGET_AFTER));
        self.nodes.retain(|_, node| !long_gone(node));
        self.series = self.nodes.values().map(|node| node.last.len()).sum();
    }
}

#[cfg(test)]
mod tests;
