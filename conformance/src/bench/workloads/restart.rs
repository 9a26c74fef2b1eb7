//! W11: the server is killed and started again, and everybody comes back with what they hold.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::bench::lab::{ENDPOINTS_EACH, Lab, of, progress};
use crate::bench::outcome::{Outcome, Samples};
use crate::bench::server::{Contender, World};
use crate::bench::statistics::percentile;
use crate::bench::wire::Protocol;

const CONTENDERS: &[Contender] = &[Contender::Chancery, Contender::ChanceryTls];

/// Reconnects after a restart.
pub async fn w11(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let Lab { scale, .. } = *lab;
    let world = lab.world(scale.services, ENDPOINTS_EACH).await?;
    let mut samples = Samples::default();
    for round in 1..=scale.rounds {
        progress(&format!("W11: round {round} of {}", scale.rounds));
        for contender in CONTENDERS {
            of(measure(lab, *contender, &world, &mut samples).await, "W11", *contender)?;
        }
    }
    let mut outcome = samples.outcome(format!(
        "{} clients come back at once to a server that was killed and started again, with the versions of all but one of {} \
         load assignments, and have that one; the time is from the first connection on",
        scale.clients, scale.services
    ));
    outcome.value("bytes/cold", samples.spread(Contender::Chancery, "bytes/cold"));
    outcome.value("seconds", samples.spread(Contender::Chancery, "seconds"));
    outcome.value("seconds mTLS", samples.spread(Contender::ChanceryTls, "seconds"));
    Ok(outcome)
}

async fn measure(lab: &Lab, contender: Contender, world: &World, samples: &mut Samples) -> anyhow::Result<()> {
    let mut server = lab.server(contender, world, Protocol::Delta).await?;
    let mut spec = lab.fleet_spec(&server, world, Protocol::Delta, lab.scale.clients);
    let cold = lab.connect(spec.clone()).await?;
    let (bytes, mut held) = (cold.board().totals().bytes, cold.versions());
    drop(cold);
    let began = Instant::now();
    server.restart().await?;
    samples.enter(contender, "restart s", began.elapsed().as_secs_f64());
    let before = server.cpu()?;
    // What it does not say that it holds shows when it is current.
    held.pop();
    (spec.subscriptions[0].held, spec.subscriptions[0].expected) = (held, 1);
    let back = lab.connect(spec).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    back.board().check()?;
    let totals = back.board().totals();
    let expected = lab.scale.clients as u64;
    ensure!(totals.resources == expected, "void, {} resources came to {expected} clients", totals.resources);
    samples.enter(contender, "cpu total", server.cpu()?.saturating_sub(before).as_secs_f64());
    samples.enter(contender, "bytes/cold", totals.bytes as f64 / bytes as f64);
    samples.enter(contender, "seconds", f64::from(percentile(back.cold(), 1.0)) / 1e6);
    Ok(())
}
