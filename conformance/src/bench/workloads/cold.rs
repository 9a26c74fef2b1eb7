//! W2: everybody connects at once and is given everything.

use std::time::Duration;

use crate::bench::fleet::{Fleet, FleetSpec};
use crate::bench::lab::{ENDPOINTS_EACH, Lab, of, progress};
use crate::bench::outcome::{Outcome, Samples};
use crate::bench::server::{Contender, Server, World};
use crate::bench::statistics::percentile;
use crate::bench::wire::Protocol;

const MIB: f64 = 1024.0 * 1024.0;
/// How long a server has to read what was accepted before its CPU is read.
const SETTLE: Duration = Duration::from_millis(200);

/// What a cold start was.
pub(super) struct Cold {
    /// CPU of the server, in seconds.
    pub cpu: f64,
    /// Memory before the first client, in bytes.
    pub idle: f64,
    /// The most memory, in bytes.
    pub peak: f64,
    /// The server.
    pub server: Server,
    /// Its clients.
    pub fleet: Fleet,
}

/// Starts a server afresh and connects clients, as `change` has them.
pub(super) async fn start(
    lab: &Lab,
    contender: Contender,
    world: &World,
    change: impl FnOnce(&mut FleetSpec),
) -> anyhow::Result<Cold> {
    let server = lab.server(contender, world, Protocol::Delta).await?;
    let mut spec = lab.fleet_spec(&server, world, Protocol::Delta, lab.scale.clients);
    change(&mut spec);
    let before = server.cpu()?;
    let fleet = lab.connect(spec).await?;
    tokio::time::sleep(SETTLE).await;
    fleet.board().check()?;
    let cpu = server.cpu()?.saturating_sub(before).as_secs_f64();
    let (idle, peak) = (server.idle.resident as f64, server.memory()?.peak as f64);
    Ok(Cold { cpu, idle, peak, server, fleet })
}

/// How long a server has to give back what it needed for the start.
pub(super) fn settle(lab: &Lab) -> Duration {
    Duration::from_secs(if lab.scale.quick { 1 } else { 3 })
}

/// What the cold starts of every server come to, and their memory once they have settled; measured once in a bench.
pub(super) async fn samples(lab: &mut Lab) -> anyhow::Result<Samples> {
    if let Some(samples) = &lab.cold {
        return Ok(samples.clone());
    }
    let scale = lab.scale;
    let world = lab.world(scale.services, ENDPOINTS_EACH).await?;
    let mut samples = Samples::default();
    for round in 1..=scale.rounds {
        progress(&format!("cold starts: round {round} of {}", scale.rounds));
        let mut started = Vec::new();
        for contender in Contender::ALL_BUT_NAIVE {
            let cold = of(start(lab, *contender, &world, |_| ()).await, "cold starts", *contender)?;
            samples.enter(*contender, "cpu", cold.cpu);
            samples.enter(*contender, "idle", cold.idle / MIB);
            samples.enter(*contender, "peak", cold.peak / MIB);
            let milliseconds = |share| f64::from(percentile(cold.fleet.cold(), share)) / 1_000.0;
            samples.enter(*contender, "p50", milliseconds(0.5));
            samples.enter(*contender, "last", milliseconds(1.0));
            samples.enter(*contender, "bytes", cold.fleet.board().totals().bytes as f64 / scale.clients as f64);
            let plan = cold.idle + 65_536.0 * scale.clients as f64 + 2.0 * world.catalogue.bytes() as f64;
            samples.enter(*contender, "peak / plan", cold.peak / plan);
            started.push(cold);
        }
        tokio::time::sleep(settle(lab)).await;
        for cold in started {
            let resident = cold.server.memory()?.resident as f64;
            samples.enter(cold.server.contender, "stream", (resident - cold.idle) / 1024.0 / scale.clients as f64);
        }
    }
    lab.cold = Some(samples.clone());
    Ok(samples)
}

/// Cold connects.
pub async fn w2(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let Lab { scale, .. } = *lab;
    let world = lab.world(scale.services, ENDPOINTS_EACH).await?;
    let samples = samples(lab).await?;
    let mut outcome = samples.outcome(format!(
        "{} clients connect at once, {:.2} MB for each; the columns are for all of them together",
        scale.clients,
        world.catalogue.bytes() as f64 / 1e6
    ));
    outcome = outcome.only(&["cpu", "p50", "last", "bytes", "idle", "peak"]);
    outcome.compare(&samples, &["cpu", "peak", "last"]);
    outcome.value("peak above plan", samples.spread(Contender::Chancery, "peak / plan"));
    for measure in ["cpu", "peak", "last"] {
        outcome.value(
            format!("{measure} mTLS/plain"),
            samples.ratio(measure, Contender::ChanceryTls, Contender::Chancery),
        );
    }
    Ok(outcome)
}
