//! W12: writes that change nothing of what a proxy gets.

use std::time::Duration;

use crate::bench::fanout::Station;
use crate::bench::fleet::Subscription;
use crate::bench::lab::{ENDPOINTS_EACH, Lab, of, progress};
use crate::bench::outcome::Outcome;
use crate::bench::rules::service_file;
use crate::bench::server::Contender;
use crate::bench::statistics::Spread;
use crate::bench::wire::Protocol;

/// How long a push that should not be has to come.
const WAIT: Duration = Duration::from_millis(500);

/// Status-only writes.
pub async fn w12(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let Lab { scale, .. } = *lab;
    let world = lab.world(scale.services, ENDPOINTS_EACH).await?;
    let server = lab.server(Contender::Chancery, &world, Protocol::Delta).await?;
    let mut spec = lab.fleet_spec(&server, &world, Protocol::Delta, scale.clients / 10);
    spec.subscriptions = Subscription::whole(&world.catalogue);
    let mut station = Station::with(lab, server, spec).await?;
    let mut pushes = Vec::new();
    for round in 1..=scale.rounds {
        progress(&format!("W12: round {round} of {}", scale.rounds));
        // After a change that does arrive, so that silence means something.
        of(station.flips(1, scale.round).await, "W12", Contender::Chancery)?;
        let before = station.fleet.board().totals().responses;
        // The last service is far from those whose endpoints change.
        let index = scale.services - 1;
        let text = world.rules.service(index, 0);
        let annotated = text.replace("namespace: bench}", "namespace: bench, annotations: {seen: \"yes\"}}");
        let labelled = text.replace("namespace: bench}", "namespace: bench, labels: {seen: \"yes\"}}");
        for text in [&text, &format!("# seen\n{text}"), &annotated, &labelled, &text] {
            station.server.write_rules(&service_file(index), text)?;
            tokio::time::sleep(WAIT).await;
        }
        of(station.fleet.board().check(), "W12", Contender::Chancery)?;
        pushes.push((station.fleet.board().totals().responses - before) as f64);
    }
    let mut outcome = Outcome {
        what: "clients hold everything of every type, and a rule file is written again as it was, with a comment, an annotation, a label, and as it was".into(),
        ..Outcome::default()
    };
    outcome.value("pushes", Spread::of(&pushes));
    Ok(outcome)
}
