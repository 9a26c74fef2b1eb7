//! Replicas: what a proxy costs as a line through some fleets, and several control planes held against that line.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::cold;
use crate::bench::fanout::{ARRIVES, Station};
use crate::bench::lab::{ENDPOINTS_EACH, Lab, of, progress};
use crate::bench::outcome::{Outcome, Samples};
use crate::bench::server::{Contender, Start, World};
use crate::bench::statistics::{Line, percentile};
use crate::bench::wire::Protocol;

/// How many control planes there are.
const REPLICAS: usize = 4;
/// The fleet that the model is asked about.
const ASKED: f64 = 100_000.0;
const KIB: f64 = 1024.0;
const MIB: f64 = KIB * KIB;

/// What a proxy costs: by the number of clients of a control plane.
struct Model {
    /// Resident bytes above those without clients.
    memory: Line,
    /// CPU seconds of a change.
    change: Line,
    /// CPU seconds of a cold start.
    cold: Line,
    /// Resident bytes without clients.
    idle: f64,
    /// Bytes that a change puts on the wire for each client.
    change_bytes: f64,
    /// Bytes that a cold start puts on the wire for each client.
    cold_bytes: f64,
}

/// A cost model from single control planes, then several of them under a fleet that is larger than any of those.
pub async fn replicas(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let Lab { scale, .. } = *lab;
    let services = scale.services / 10;
    let world = lab.world(services, ENDPOINTS_EACH).await?;
    let sizes = [1, 2, 4].map(|times| times * scale.clients / 2);
    // More than the line was drawn through. Each of the others is a connection of its own, and a handshake.
    let each = |contender| if contender == Contender::Chancery { 5 * scale.clients } else { 3 * scale.clients };

    let (mut samples, mut notes, mut outcome) = (Samples::default(), Vec::new(), Outcome::default());
    for contender in [Contender::Chancery, Contender::ChanceryTls] {
        let model = model(lab, contender, &world, &sizes).await?;
        let clients = each(contender);
        simulate(lab, contender, &world, clients, &model, &mut samples).await?;
        let kind = if contender == Contender::Chancery { "plain" } else { "mTLS" };
        outcome.number(format!("KiB a proxy, {kind}"), model.memory.slope / KIB);
        outcome.number(format!("us a push, {kind}"), model.change.slope * 1e6);
        outcome.number(format!("us a cold start, {kind}"), model.cold.slope * 1e6);
        outcome.number(format!("bytes a push, {kind}"), model.change_bytes);
        outcome.number(format!("KB a cold start, {kind}"), model.cold_bytes / 1e3);
        notes.push(format!("{kind}: {REPLICAS} replicas of {clients} clients were held against the model"));
        for count in [4.0, 10.0, 20.0] {
            let share = ASKED / count;
            notes.push(format!(
                "{kind}: {ASKED} proxies on {count} replicas: {:.0} MiB each; a change that concerns all takes {:.2} CPU-s \
                 of each, their cold start {:.1} CPU-s",
                (model.idle + model.memory.at(share)) / MIB,
                model.change.at(share),
                model.cold.at(share)
            ));
        }
    }
    let values = std::mem::take(&mut outcome.values);
    outcome = samples.outcome(format!(
        "{services} services x {ENDPOINTS_EACH} endpoints for each proxy; lines through {sizes:?} clients of one control \
         plane, then {REPLICAS} control planes with more; then one of them ends and its clients go to the others"
    ));
    outcome.values = values;
    outcome.notes = notes;
    let worst = |measure| {
        let spreads = [Contender::Chancery, Contender::ChanceryTls].map(|contender| samples.spread(contender, measure));
        spreads.into_iter().flatten().max_by(|one, other| one.median.total_cmp(&other.median))
    };
    outcome.value("memory/model", worst("memory/model"));
    outcome.value("cpu/model", worst("cpu/model"));
    outcome.value("bytes/cold", samples.spread(Contender::Chancery, "bytes/cold"));
    Ok(outcome)
}

/// One control plane with its clients.
struct Replica {
    station: Station,
    cold: f64,
    cold_bytes: f64,
    resident: f64,
}

async fn replica(lab: &Lab, contender: Contender, world: &World, clients: usize) -> anyhow::Result<Replica> {
    let start = Start { protocol: Protocol::Delta, clients, arguments: &[] };
    let server = lab.server_with(contender, world, start).await?;
    let spec = lab.fleet_spec(&server, world, Protocol::Delta, clients);
    let before = server.cpu()?;
    let station = Station::with(lab, server, spec).await?;
    tokio::time::sleep(cold::settle(lab)).await;
    let cold = station.server.cpu()?.saturating_sub(before).as_secs_f64();
    let cold_bytes = station.fleet.board().totals().bytes as f64 / clients as f64;
    let resident = station.server.memory()?.resident as f64;
    Ok(Replica { station, cold, cold_bytes, resident })
}

async fn model(lab: &Lab, contender: Contender, world: &World, sizes: &[usize]) -> anyhow::Result<Model> {
    let (mut memory, mut change, mut cold) = (Vec::new(), Vec::new(), Vec::new());
    let (mut idle, mut change_bytes, mut cold_bytes) = (f64::INFINITY, 0.0, 0.0);
    for clients in sizes {
        progress(&format!("replicas: a model from {clients} clients, {}", contender.name()));
        let mut measured = of(replica(lab, contender, world, *clients).await, "replicas", contender)?;
        of(measured.station.flips(2, lab.scale.round).await, "replicas", contender)?;
        let flips = of(measured.station.flips(lab.scale.flips, lab.scale.round).await, "replicas", contender)?;
        let without = measured.station.server.idle.resident as f64;
        let size = *clients as f64;
        memory.push((size, measured.resident - without));
        change.push((size, flips.cpu / flips.changes as f64));
        cold.push((size, measured.cold));
        (change_bytes, cold_bytes) = (flips.bytes, measured.cold_bytes);
        idle = idle.min(without);
    }
    let line = |points: &[(f64, f64)]| Line::through(points).context("two sizes make a line");
    Ok(Model { memory: line(&memory)?, change: line(&change)?, cold: line(&cold)?, idle, change_bytes, cold_bytes })
}

/// Runs all replicas at once, changes what they serve, and ends one of them.
async fn simulate(
    lab: &Lab,
    contender: Contender,
    world: &World,
    clients: usize,
    model: &Model,
    samples: &mut Samples,
) -> anyhow::Result<()> {
    let mut replicas = Vec::new();
    for number in 1..=REPLICAS {
        progress(&format!("replicas: {number} of {REPLICAS} with {clients} clients, {}", contender.name()));
        replicas.push(of(replica(lab, contender, world, clients).await, "replicas", contender)?);
    }
    for replica in &replicas {
        let above = replica.resident - replica.station.server.idle.resident as f64;
        samples.enter(contender, "memory/model", above / model.memory.at(clients as f64));
        samples.enter(contender, "stream", above / KIB / clients as f64);
    }
    // Each has a certificate authority of its own, so only a fleet without TLS can move.
    if contender == Contender::Chancery {
        let (share, seconds) = moved(lab, world, clients, &mut replicas).await?;
        samples.enter(contender, "bytes/cold", share);
        samples.enter(contender, "seconds", seconds);
    }
    // The same change enters everywhere.
    let before = replicas.iter().map(|replica| replica.station.server.cpu()).collect::<anyhow::Result<Vec<_>>>()?;
    let (mut last, mut latencies) = (0, Vec::new());
    for _ in 0..lab.scale.flips {
        for replica in &mut replicas {
            let number = replica.station.change().await?;
            ensure!(std::mem::replace(&mut last, number) <= number, "the replicas are not at the same change");
        }
        for replica in &replicas {
            latencies.extend(replica.station.fleet.board().arrived(last, clients, ARRIVES).await?);
        }
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    latencies.sort_unstable();
    for (replica, before) in replicas.iter().zip(before) {
        replica.station.fleet.board().check()?;
        let change = replica.station.server.cpu()?.saturating_sub(before).as_secs_f64() / lab.scale.flips as f64;
        samples.enter(contender, "change", change * 1e3);
        samples.enter(contender, "cpu/model", change / model.change.at(clients as f64));
    }
    for (measure, share) in [("p50", 0.5), ("p99", 0.99), ("last", 1.0)] {
        samples.enter(contender, measure, f64::from(percentile(&latencies, share)) / 1e3);
    }
    Ok(())
}

/// One replica ends; its clients go to the others with what they hold: the bytes that they get against a cold start,
/// and the seconds until all are current.
async fn moved(lab: &Lab, world: &World, clients: usize, replicas: &mut Vec<Replica>) -> anyhow::Result<(f64, f64)> {
    let gone = replicas.pop().context("there are several")?;
    let (mut held, cold_bytes) = (gone.station.fleet.versions(), gone.cold_bytes);
    drop(gone);
    // What they do not say that they hold shows when they are current.
    held.pop();
    let share = clients / replicas.len();
    let began = Instant::now();
    let fleets = replicas.iter().map(|replica| {
        let mut spec = lab.fleet_spec(&replica.station.server, world, Protocol::Delta, share);
        spec.subscriptions[0].held.clone_from(&held);
        spec.subscriptions[0].expected = 1;
        lab.connect(spec)
    });
    let fleets = futures::future::try_join_all(fleets).await?;
    let seconds = began.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut bytes = 0;
    for fleet in &fleets {
        fleet.board().check()?;
        let totals = fleet.board().totals();
        ensure!(totals.resources == share as u64, "void, {} resources came to {share} clients", totals.resources);
        bytes += totals.bytes;
    }
    Ok((bytes as f64 / (share * fleets.len()) as f64 / cold_bytes, seconds))
}
