//! W5: certificates rotate while load assignments change.

use std::time::{Duration, Instant};

use anyhow::ensure;
use translators::xds::secret::IDENTITY;

use crate::bench::fanout::{Station, enter};
use crate::bench::fleet::Subscription;
use crate::bench::lab::{ENDPOINTS_EACH, Lab, of, progress};
use crate::bench::outcome::{Outcome, Samples};
use crate::bench::rules::{Rules, Workloads};
use crate::bench::server::{Contender, Start, World};
use crate::bench::statistics::Spread;
use crate::bench::wire::{Protocol, SECRETS};

/// Services that each workload calls.
const CALLS: usize = 20;
/// Changes in a round.
const CHANGES: usize = 50;
/// The shortest life of a certificate; each is renewed at about half of it.
const SHORT: &str = "10s";
/// How long certificates are counted in a round.
const WINDOW: Duration = Duration::from_secs(6);
/// A life in which none is renewed.
const LONG: &str = "24h";

/// Certificates of as many workloads as there are clients rotate.
pub async fn w5(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let Lab { scale, .. } = *lab;
    let served = lab.world(CALLS, ENDPOINTS_EACH).await?;
    let workloads = Workloads::Each { count: scale.clients, calls: CALLS };
    let rules = Rules { services: CALLS, endpoints: ENDPOINTS_EACH, workloads, mtls: "strict" };
    let world = World { rules, ..served };
    let (mut alone, mut rotating) = (station(lab, &world, LONG).await?, station(lab, &world, SHORT).await?);
    let (mut samples, mut slower, mut rates) = (Samples::default(), Vec::new(), Vec::new());
    let mut rotated = 0.0;
    for round in 1..=scale.rounds {
        progress(&format!("W5: round {round} of {}", scale.rounds));
        let quiet = of(alone.flips(CHANGES, scale.round).await, "W5", Contender::ChanceryTls)?;
        let busy = of(rotating.flips(CHANGES, scale.round).await, "W5", Contender::ChanceryTls)?;
        slower.push(busy.milliseconds(0.99) / quiet.milliseconds(0.99));
        enter(&mut samples, Contender::ChanceryTls, &busy);
        // Each has its own CPU time, so both are watched at once.
        let ((_, idle), (count, cpu)) = tokio::try_join!(idle(&alone, WINDOW), idle(&rotating, WINDOW))?;
        ensure!(count > 0.0, "W5: void, no certificate came within {WINDOW:?}");
        rotated += count;
        rates.push(count / (cpu - idle).max(1e-9));
    }
    let mut outcome = samples.outcome(format!(
        "{} clients over mTLS, each with an identity of its own whose certificate lives {SHORT}, {CALLS} services each; the \
         columns are while they rotate; {rotated:.0} certificates counted at the clients, against the CPU of a server \
         whose certificates live {LONG}",
        scale.clients
    ));
    outcome.value("certificates/s", Spread::of(&rates));
    outcome.value("p99/alone", Spread::of(&slower));
    Ok(outcome)
}

async fn station(lab: &Lab, world: &World, ttl: &str) -> anyhow::Result<Station> {
    let start = Start { protocol: Protocol::Delta, clients: lab.scale.clients, arguments: &["--leaf-ttl", ttl] };
    let server = lab.server_with(Contender::ChanceryTls, world, start).await?;
    let mut spec = lab.fleet_spec(&server, world, Protocol::Delta, lab.scale.clients);
    let identity = Subscription { type_url: SECRETS, names: vec![IDENTITY.to_owned()], expected: 1, held: Vec::new() };
    spec.subscriptions.push(identity);
    let mut station = Station::with(lab, server, spec).await?;
    station.flips(2, lab.scale.round).await?;
    Ok(station)
}

/// Resources that came while nothing was changed, and the CPU that they cost, in seconds.
async fn idle(station: &Station, window: Duration) -> anyhow::Result<(f64, f64)> {
    let (began, cpu, before) = (Instant::now(), station.server.cpu()?, station.fleet.board().totals());
    tokio::time::sleep(window).await;
    station.fleet.board().check()?;
    let cpu = station.server.cpu()?.saturating_sub(cpu).as_secs_f64();
    let scale = window.as_secs_f64() / began.elapsed().as_secs_f64();
    let resources = (station.fleet.board().totals().resources - before.resources) as f64;
    Ok((resources * scale, cpu * scale))
}
