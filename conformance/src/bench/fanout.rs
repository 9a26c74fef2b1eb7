//! Fan-out: one load assignment changes, every client has it.
//!
//! Owns: the interleaved measurement of that. May use: `lab`. Never: makes a change before the last one has arrived.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::fleet::{Fleet, FleetSpec};
use super::lab::{Lab, of, progress};
use super::orders::Order;
use super::outcome::Samples;
use super::server::{Contender, Server, Start, World};
use super::statistics::percentile;
use super::wire::{ENDPOINTS, Protocol};

/// How long a change may take to reach every client.
pub const ARRIVES: Duration = Duration::from_secs(120);
/// How long it is quiet before a change.
const APART: Duration = Duration::from_millis(30);
/// How long a server has for what follows a change, such as reading that it was accepted, before its CPU is read.
const SETTLE: Duration = Duration::from_millis(50);

/// A server with its clients.
pub struct Station {
    /// The server.
    pub server: Server,
    /// Its clients.
    pub fleet: Fleet,
    subject: Subject,
}

/// What is changed.
#[derive(Debug, Clone, Copy)]
enum Subject {
    /// One load assignment that clients subscribe to after the other.
    Assignments { next: usize, services: usize },
    /// A rule file, whose text carries the number.
    File { name: &'static str, text: fn(u32) -> String },
}

/// What some changes were.
#[derive(Debug, Clone)]
pub struct Flips {
    /// How many.
    pub changes: usize,
    /// CPU time of the server, in seconds.
    pub cpu: f64,
    /// How long each took to each client, in microseconds, sorted.
    pub latencies: Vec<u32>,
    /// How long each took to the last client, in microseconds, sorted.
    pub last: Vec<u32>,
    /// Resources that a client received for each change.
    pub resources: f64,
    /// Bytes that a client received for each change.
    pub bytes: f64,
}

// === impl Station ===

impl Station {
    /// Starts a server and connects clients that subscribe to every load assignment.
    pub async fn start(
        lab: &Lab,
        contender: Contender,
        world: &World,
        protocol: Protocol,
        clients: usize,
    ) -> anyhow::Result<Self> {
        let server = lab.server_with(contender, world, Start { protocol, clients, arguments: &[] }).await?;
        let spec = lab.fleet_spec(&server, world, protocol, clients);
        Self::with(lab, server, spec).await
    }

    /// The same with clients of one's own.
    pub async fn with(lab: &Lab, server: Server, spec: FleetSpec) -> anyhow::Result<Self> {
        let subscribed = spec.subscriptions.iter().find(|subscription| subscription.type_url == ENDPOINTS);
        let services = subscribed.map_or(0, |subscription| subscription.names.len());
        let fleet = lab.connect(spec).await?;
        Ok(Self { server, fleet, subject: Subject::Assignments { next: 0, services } })
    }

    /// The same, but what changes is a rule file of this name: `text` is its content with a number.
    #[must_use]
    pub fn changing(self, name: &'static str, text: fn(u32) -> String) -> Self {
        Self { subject: Subject::File { name, text }, ..self }
    }

    /// Makes one change, of the next service or of the rule file, and does not wait.
    pub async fn change(&mut self) -> anyhow::Result<u32> {
        match &mut self.subject {
            Subject::Assignments { next, services } => {
                let index = *next % *services;
                *next += 1;
                let number = self.fleet.board().change(Some(index));
                self.server.change(Order { index, number }).await?;
                Ok(number)
            }
            Subject::File { name, text } => {
                let number = self.fleet.board().change(None);
                self.server.write_rules(name, &text(number))?;
                Ok(number)
            }
        }
    }

    /// Makes up to `flips` changes one after another, for so long at most, but at least one.
    pub async fn flips(&mut self, flips: usize, at_most: Duration) -> anyhow::Result<Flips> {
        let waiting = self.fleet.clients();
        self.flips_to(flips, at_most, waiting).await
    }

    /// The same when only so many clients read.
    pub async fn flips_to(&mut self, flips: usize, at_most: Duration, waiting: usize) -> anyhow::Result<Flips> {
        let clients = waiting as f64;
        let (began, cpu, before) = (Instant::now(), self.server.cpu()?, self.fleet.board().totals());
        let (mut last, mut latencies) = (Vec::new(), Vec::new());
        while last.is_empty() || (last.len() < flips && began.elapsed() < at_most) {
            // Each change is one by itself: what comes right behind another one is gathered, which is another workload.
            tokio::time::sleep(APART).await;
            let number = self.change().await?;
            let taken = self.fleet.board().arrived(number, waiting, ARRIVES).await?;
            last.extend(taken.last());
            latencies.extend(taken);
        }
        tokio::time::sleep(SETTLE).await;
        self.fleet.board().check()?;
        let (cpu, after) = (self.server.cpu()?.saturating_sub(cpu), self.fleet.board().totals());
        latencies.sort_unstable();
        last.sort_unstable();
        let changes = last.len();
        let pushes = changes as f64 * clients;
        Ok(Flips {
            changes,
            cpu: cpu.as_secs_f64(),
            latencies,
            last,
            resources: (after.resources - before.resources) as f64 / pushes,
            bytes: (after.bytes - before.bytes) as f64 / pushes,
        })
    }
}

// === impl Flips ===

impl Flips {
    /// CPU seconds for 1,000 pushes to one client each.
    pub fn cpu_per_thousand(&self) -> f64 {
        self.cpu * 1_000.0 / self.latencies.len() as f64
    }

    /// A percentile of the time to a client, in milliseconds.
    pub fn milliseconds(&self, share: f64) -> f64 {
        f64::from(percentile(&self.latencies, share)) / 1_000.0
    }
}

/// An interleaved comparison.
pub struct Comparison<'a> {
    /// Its id in the report.
    pub id: &'a str,
    /// Who takes part.
    pub contenders: &'a [Contender],
    /// What is spoken.
    pub protocol: Protocol,
    /// How many clients.
    pub clients: usize,
}

/// Runs it: every server has its clients connected all the time, and in each round each has some changes.
pub async fn compare(lab: &Lab, comparison: &Comparison<'_>, world: &World) -> anyhow::Result<Samples> {
    let Comparison { id, contenders, protocol, clients } = *comparison;
    let mut stations = Vec::new();
    for contender in contenders {
        progress(&format!("{id}: {} with {clients} clients", contender.name()));
        let mut station = of(Station::start(lab, *contender, world, protocol, clients).await, id, *contender)?;
        of(station.flips(2, Duration::from_secs(5)).await, id, *contender)?;
        stations.push(station);
    }
    let mut samples = Samples::default();
    for round in 1..=lab.scale.rounds {
        progress(&format!("{id}: round {round} of {}", lab.scale.rounds));
        for station in &mut stations {
            let contender = station.server.contender;
            let flips = of(station.flips(lab.scale.flips, lab.scale.round).await, id, contender)?;
            enter(&mut samples, contender, &flips);
            let whole_type = (contender, protocol) == (Contender::GoSnapshot, Protocol::Sotw);
            let expected = if whole_type { world.catalogue.len() as f64 } else { 1.0 };
            ensure!(
                flips.resources == expected,
                "{id}, {}: void, {} resources for each push instead of {expected}",
                contender.name(),
                flips.resources
            );
        }
    }
    for station in &stations {
        of(station.fleet.board().check(), id, station.server.contender)?;
    }
    Ok(samples)
}

/// Enters what every comparison of pushes reports.
pub fn enter(samples: &mut Samples, contender: Contender, flips: &Flips) {
    samples.enter(contender, "cpu", flips.cpu_per_thousand());
    samples.enter(contender, "p50", flips.milliseconds(0.5));
    samples.enter(contender, "p99", flips.milliseconds(0.99));
    samples.enter(contender, "last", f64::from(percentile(&flips.last, 0.5)) / 1_000.0);
    samples.enter(contender, "resources", flips.resources);
    samples.enter(contender, "bytes", flips.bytes);
}
