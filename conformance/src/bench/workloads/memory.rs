//! W6: what a connected client costs in memory.

use super::cold;
use crate::bench::lab::{Lab, progress};
use crate::bench::outcome::Outcome;
use crate::bench::server::Contender;
use crate::bench::statistics::Spread;

/// Endpoints of a service when everything together is to be 2 MB for 1,000 services.
const MANY_ENDPOINTS: usize = 18;

/// Memory of a stream, and what a large push leaves behind.
pub async fn w6(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let Lab { scale, .. } = *lab;
    let settle = cold::settle(lab);
    let samples = cold::samples(lab).await?;
    let large = lab.world(scale.services, MANY_ENDPOINTS).await?;
    let mut after = Vec::new();
    for round in 1..=scale.rounds {
        progress(&format!("W6: round {round} of {}", scale.rounds));
        // The first client's versions let others say that they hold everything but one.
        let all = cold::start(lab, Contender::Chancery, &large, |_| ()).await?;
        tokio::time::sleep(settle).await;
        let after_all = all.server.memory()?.resident as f64;
        let mut held = all.fleet.versions();
        held.pop();
        drop(all);
        let one = cold::start(lab, Contender::Chancery, &large, |spec| {
            spec.subscriptions[0].expected = 1;
            spec.subscriptions[0].held = held;
        })
        .await?;
        tokio::time::sleep(settle).await;
        after.push(after_all / one.server.memory()?.resident as f64);
    }
    let mut outcome = samples.outcome(format!(
        "{} clients x {} services, {settle:?} after each start of W2; a push of everything is {:.1} MB",
        scale.clients,
        scale.services,
        large.catalogue.bytes() as f64 / 1e6
    ));
    outcome = outcome.only(&["idle", "stream"]);
    outcome.value("KiB plain", samples.spread(Contender::Chancery, "stream"));
    outcome.value("KiB mTLS", samples.spread(Contender::ChanceryTls, "stream"));
    let best = samples.go_best("stream");
    outcome.go_best = best.map(Contender::name);
    outcome.value("KiB/go-best", best.and_then(|best| samples.ratio("stream", Contender::Chancery, best)));
    outcome.value("after all/one", Spread::of(&after));
    Ok(outcome)
}
