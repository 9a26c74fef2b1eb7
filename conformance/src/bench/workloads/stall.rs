//! W10: some clients stop reading.

use anyhow::Context;

use crate::bench::fanout::{ARRIVES, Station, enter};
use crate::bench::lab::{ENDPOINTS_EACH, Lab, of, progress};
use crate::bench::outcome::{Outcome, Samples};
use crate::bench::server::Contender;
use crate::bench::statistics::Spread;
use crate::bench::wire::Protocol;

/// One connection of so many stops reading, and its clients with it.
const CONNECTIONS: usize = 20;
/// Changes while they do not read.
const CHANGES: usize = 40;
/// Fewer load assignments than elsewhere, and so many times as large: what would be kept for those who do not read is
/// more than the memory may grow by.
const LARGER: usize = 20;

/// What stalled readers cost the others, and the server.
pub async fn w10(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let Lab { scale, .. } = *lab;
    let world = lab.world(scale.services / LARGER, LARGER * ENDPOINTS_EACH).await?;
    let server = lab.server(Contender::Chancery, &world, Protocol::Delta).await?;
    let mut spec = lab.fleet_spec(&server, &world, Protocol::Delta, scale.clients);
    (spec.connections, spec.stalling) = (CONNECTIONS, 1);
    let reading = scale.clients - scale.clients.div_ceil(CONNECTIONS);
    let mut station = Station::with(lab, server, spec).await?;
    of(station.flips(CHANGES, scale.round).await, "W10", Contender::Chancery)?;
    let (mut samples, mut slower, mut grown) = (Samples::default(), Vec::new(), Vec::new());
    for round in 1..=scale.rounds {
        progress(&format!("W10: round {round} of {}", scale.rounds));
        let all = of(station.flips(scale.flips, scale.round).await, "W10", Contender::Chancery)?;
        let before = station.server.memory()?.resident as f64;
        station.fleet.stall(true);
        let others = of(station.flips_to(CHANGES, scale.round, reading).await, "W10", Contender::Chancery)?;
        grown.push(station.server.memory()?.resident as f64 / before);
        station.fleet.stall(false);
        let number = station.change().await?;
        let caught_up = station.fleet.board().arrived(number, scale.clients, ARRIVES).await;
        of(caught_up.context("those that read again"), "W10", Contender::Chancery)?;
        enter(&mut samples, Contender::Chancery, &others);
        slower.push(others.milliseconds(0.99) / all.milliseconds(0.99));
    }
    let size = world.catalogue.bytes() / world.catalogue.len();
    let mut outcome = samples.outcome(format!(
        "{} of {} clients stop reading for {CHANGES} changes of {size} B, then read again and have to catch up; the columns are \
         of the others",
        scale.clients - reading,
        scale.clients
    ));
    outcome.value("p99/alone", Spread::of(&slower));
    outcome.value("memory/before", Spread::of(&grown));
    Ok(outcome)
}
