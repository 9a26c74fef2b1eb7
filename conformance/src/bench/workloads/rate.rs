//! W9: many changes a second, for a while.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::bench::fanout::{ARRIVES, Station};
use crate::bench::lab::{ENDPOINTS_EACH, Lab, of, progress};
use crate::bench::outcome::{Outcome, Samples};
use crate::bench::server::Contender;
use crate::bench::statistics::percentile;
use crate::bench::wire::Protocol;

const CONTENDERS: &[Contender] =
    &[Contender::Floor, Contender::Chancery, Contender::GoLinear, Contender::GoSnapshot, Contender::ChanceryTls];
/// How long in all.
const LASTING: Duration = Duration::from_secs(60);
/// Changes a second.
const RATE: u32 = 200;

/// Staleness under a steady rate.
pub async fn w9(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let Lab { scale, .. } = *lab;
    let world = lab.world(scale.services, ENDPOINTS_EACH).await?;
    let lasting = if scale.quick { Duration::from_secs(3) } else { LASTING };
    let pass = lasting / u32::try_from(scale.rounds)?;
    let mut stations = Vec::new();
    for contender in CONTENDERS {
        progress(&format!("W9: {} with {} clients", contender.name(), scale.clients));
        let station = Station::start(lab, *contender, &world, Protocol::Delta, scale.clients).await;
        let mut station = of(station, "W9", *contender)?;
        of(station.flips(2, Duration::from_secs(5)).await, "W9", *contender)?;
        stations.push(station);
    }
    let mut samples = Samples::default();
    for round in 1..=scale.rounds {
        progress(&format!("W9: round {round} of {}, {pass:?} each", scale.rounds));
        for station in &mut stations {
            let contender = station.server.contender;
            of(measure(station, pass, &mut samples).await, "W9", contender)?;
        }
    }
    let mut outcome = samples.outcome(format!(
        "{} clients x {} services, {RATE} changes a second for {lasting:?} in {} passes that alternate; staleness of each change at each client; \
         CPU until everybody has the last one, for 1,000 changes at a client and in all",
        scale.clients, scale.services, scale.rounds
    ));
    outcome.compare(&samples, &["cpu", "p99"]);
    outcome.value("p99", samples.spread(Contender::Chancery, "p99"));
    Ok(outcome)
}

/// One pass.
async fn measure(station: &mut Station, lasting: Duration, samples: &mut Samples) -> anyhow::Result<()> {
    let (contender, clients) = (station.server.contender, station.fleet.clients());
    let (cpu, before) = (station.server.cpu()?, station.fleet.board().totals());
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let wanted = (lasting.as_secs_f64() * f64::from(RATE)) as u32;
    let (began, mut numbers) = (Instant::now(), Vec::new());
    // A server that does not take them so fast gets fewer, in the same time.
    while (numbers.len() as u32) < wanted && began.elapsed() < lasting + Duration::from_secs(1) {
        ticks.tick().await;
        numbers.push(station.change().await?);
    }
    let rate = numbers.len() as f64 / began.elapsed().as_secs_f64();
    // One that was overtaken arrives with what overtook it.
    for number in numbers.iter().rev() {
        station.fleet.board().arrived(*number, clients, ARRIVES).await?;
    }
    let cpu = station.server.cpu()?.saturating_sub(cpu).as_secs_f64();
    let totals = station.fleet.board().totals();
    let latencies = station.fleet.board().latencies(numbers[0]);
    samples.enter(contender, "cpu", cpu / latencies.len() as f64 * 1_000.0);
    samples.enter(contender, "cpu total", cpu);
    samples.enter(contender, "changes/s", rate);
    samples.enter(contender, "p50", f64::from(percentile(&latencies, 0.5)) / 1_000.0);
    samples.enter(contender, "p99", f64::from(percentile(&latencies, 0.99)) / 1_000.0);
    samples.enter(contender, "responses/client", (totals.responses - before.responses) as f64 / clients as f64);
    Ok(())
}
