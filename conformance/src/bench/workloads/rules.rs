//! W3, W4: a rule changes, not an endpoint.

use anyhow::ensure;

use super::translation;
use crate::bench::fanout::{Station, enter};
use crate::bench::fleet::Subscription;
use crate::bench::lab::{CONNECTIONS, ENDPOINTS_EACH, Lab, of, progress};
use crate::bench::outcome::{Outcome, Samples};
use crate::bench::rules::{POLICY_FILE, ROUTE_FILE, Rules, Workloads, policy, route};
use crate::bench::server::Contender;
use crate::bench::statistics::Spread;
use crate::bench::wire::{LISTENERS, Protocol};

/// Services that a proxy calls when there are many workloads.
const CALLS: usize = 10;

fn first_route(number: u32) -> String {
    route(0, number)
}

/// A route rule changes.
pub async fn w3(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let Lab { scale, .. } = *lab;
    let clients = scale.clients / 10;
    let world = lab.world(scale.services, ENDPOINTS_EACH).await?;
    let server = lab.server(Contender::Chancery, &world, Protocol::Delta).await?;
    server.write_rules(ROUTE_FILE, &route(0, 0))?;
    let mut spec = lab.fleet_spec(&server, &world, Protocol::Delta, clients);
    spec.subscriptions = Subscription::whole(&world.catalogue);
    let mut station = Station::with(lab, server, spec).await?.changing(ROUTE_FILE, first_route);
    let mut samples = Samples::default();
    station.flips(1, scale.round).await?;
    for round in 1..=scale.rounds {
        progress(&format!("W3: round {round} of {}", scale.rounds));
        let flips = of(station.flips(scale.flips, scale.round).await, "W3", Contender::Chancery)?;
        ensure!(flips.resources >= 1.0, "W3: void, a change came without its route");
        enter(&mut samples, Contender::Chancery, &flips);
    }
    drop(station);
    let (services, rounds) = (scale.services, scale.rounds);
    let translated = tokio::task::spawn_blocking(move || translation::rounds_of(services, rounds)).await??;
    let cheaper: Vec<f64> =
        translated.iter().map(|round| round.full.as_secs_f64() / round.route.as_secs_f64()).collect();
    let mut outcome = samples.outcome(format!(
        "{clients} clients hold {services} services whole (clusters, load assignments, listeners, routes), one route rule \
         changes; translation alone, in the process, against all of it from nothing"
    ));
    outcome.value("resources", samples.spread(Contender::Chancery, "resources"));
    outcome.value("cheaper", Spread::of(&cheaper));
    Ok(outcome)
}

/// A policy changes the listener of every proxy, each of another workload.
pub async fn w4(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let Lab { scale, .. } = *lab;
    let workloads = Workloads::Each { count: scale.clients, calls: CALLS };
    let rules = Rules { services: CALLS, endpoints: ENDPOINTS_EACH, workloads, mtls: "disabled" };
    let world = lab.bare(rules);
    let server = lab.server(Contender::Chancery, &world, Protocol::Delta).await?;
    server.write_rules(POLICY_FILE, &policy(0))?;
    let mut spec = lab.fleet_spec(&server, &world, Protocol::Delta, scale.clients);
    spec.connections = CONNECTIONS;
    spec.subscriptions = vec![Subscription::all(LISTENERS, CALLS + 1)];
    let mut station = Station::with(lab, server, spec).await?.changing(POLICY_FILE, policy);
    station.flips(1, scale.round).await?;
    let mut samples = Samples::default();
    let mut rates = Vec::new();
    for round in 1..=scale.rounds {
        progress(&format!("W4: round {round} of {}", scale.rounds));
        let flips = of(station.flips(3, scale.round).await, "W4", Contender::Chancery)?;
        enter(&mut samples, Contender::Chancery, &flips);
        let seconds: f64 = flips.last.iter().map(|micros| f64::from(*micros) / 1e6).sum();
        rates.push(flips.latencies.len() as f64 / seconds);
    }
    let mut outcome = samples.outcome(format!(
        "{} clients, each of another workload, all of whose inbound listeners change; clients on the same cores",
        scale.clients
    ));
    outcome.value("proxies/s", Spread::of(&rates));
    outcome.value("resources", samples.spread(Contender::Chancery, "resources"));
    Ok(outcome)
}
