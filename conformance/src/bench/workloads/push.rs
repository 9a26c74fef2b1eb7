//! W1, W1s, W13: one load assignment changes, every client has it.

use crate::bench::fanout::{Comparison, compare};
use crate::bench::lab::{ENDPOINTS_EACH, Lab};
use crate::bench::outcome::Outcome;
use crate::bench::rules::Rules;
use crate::bench::server::{Contender, World};
use crate::bench::wire::Protocol;

const DELTA: &[Contender] = &[
    Contender::Floor,
    Contender::FloorOfConnections,
    Contender::Chancery,
    Contender::GoLinear,
    Contender::GoSnapshot,
    Contender::Naive,
    Contender::ChanceryTls,
];

/// Many load assignments, delta.
pub async fn w1(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let world = lab.world(lab.scale.services, ENDPOINTS_EACH).await?;
    run(lab, "W1", &world, lab.scale.clients, Protocol::Delta, DELTA).await
}

/// Many load assignments, state of the world.
pub async fn w1s(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let world = lab.world(lab.scale.services, ENDPOINTS_EACH).await?;
    run(lab, "W1s", &world, lab.scale.clients, Protocol::Sotw, Contender::ALL_BUT_NAIVE).await
}

/// One load assignment, delta: a small one, whose endpoints are reached in plaintext.
pub async fn w13(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let world = lab.world_of(Rules::one_group(1, ENDPOINTS_EACH)).await?;
    let clients = lab.scale.clients * if lab.scale.quick { 1 } else { 5 };
    run(lab, "W13", &world, clients, Protocol::Delta, DELTA).await
}

async fn run(
    lab: &Lab,
    id: &str,
    world: &World,
    clients: usize,
    protocol: Protocol,
    contenders: &[Contender],
) -> anyhow::Result<Outcome> {
    let services = world.catalogue.len();
    let comparison = Comparison { id, contenders, protocol, clients };
    let samples = compare(lab, &comparison, world).await?;
    let size = world.catalogue.bytes() / services;
    let spoken = match protocol {
        Protocol::Sotw => "state of the world",
        Protocol::Delta => "delta",
    };
    let mut outcome = samples.outcome(format!(
        "{clients} clients x {services} services x {ENDPOINTS_EACH} endpoints ({size} B each), one changes, {spoken}; \
         CPU for 1,000 pushes"
    ));
    outcome.compare(&samples, &["cpu", "p50", "p99"]);
    for measure in ["p99", "resources"] {
        outcome.value(measure, samples.spread(Contender::Chancery, measure));
    }
    for measure in ["cpu", "p99"] {
        outcome.value(
            format!("{measure} mTLS/plain"),
            samples.ratio(measure, Contender::ChanceryTls, Contender::Chancery),
        );
    }
    Ok(outcome)
}
