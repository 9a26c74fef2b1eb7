//! W8: how costs grow.

use std::time::Duration;

use crate::bench::fanout::Station;
use crate::bench::fleet::Subscription;
use crate::bench::lab::{ENDPOINTS_EACH, Lab, of, progress};
use crate::bench::outcome::Outcome;
use crate::bench::rules::Rules;
use crate::bench::server::{Contender, World};
use crate::bench::statistics::{Spread, exponent};
use crate::bench::wire::Protocol;

/// Services that clients subscribe to where the number of services grows.
const FEW: usize = 10;

/// Points of a curve: a size, and by round a cost.
type Curve = Vec<(f64, Vec<f64>)>;

/// Exponents of growth.
pub async fn w8(lab: &mut Lab) -> anyhow::Result<Outcome> {
    let Lab { scale, .. } = *lab;
    let world = lab.world(scale.services, ENDPOINTS_EACH).await?;
    let few = lab.world(FEW, ENDPOINTS_EACH).await?;

    let mut clients = Vec::new();
    for part in [4, 2, 1] {
        clients.push((scale.clients / part, scale.services));
    }
    let mut subscriptions = Vec::new();
    for part in [16, 4, 1] {
        subscriptions.push((scale.clients / 2, scale.services / part));
    }
    let by_clients = curve(lab, &world, &clients, |(clients, _)| clients).await?;
    let by_subscriptions = curve(lab, &world, &subscriptions, |(_, subscriptions)| subscriptions).await?;

    let (mut by_services, mut start) = (Curve::new(), Curve::new());
    for services in [1, 3, 10].map(|times| times * scale.services) {
        progress(&format!("W8: {services} services"));
        let world = World { rules: Rules { services, ..few.rules }, ..few.clone() };
        let mut server = lab.server(Contender::Chancery, &world, Protocol::Delta).await?;
        let mut starts = vec![server.cpu()?.as_secs_f64()];
        while starts.len() < scale.rounds {
            drop(server);
            server = lab.server(Contender::Chancery, &world, Protocol::Delta).await?;
            starts.push(server.cpu()?.as_secs_f64());
        }
        start.push((services as f64, starts));
        let spec = lab.fleet_spec(&server, &world, Protocol::Delta, scale.clients / 2);
        let station = Station::with(lab, server, spec).await?;
        by_services.push((services as f64, costs(lab, station).await?));
    }
    let mut outcome = Outcome {
        what: format!(
            "exponents: CPU of a change over {:?} clients; over {:?} subscriptions of {} clients; over 1, 3 and 10 times {} \
             services, {FEW} of which {} clients subscribe to; CPU from start to ready over the same",
            clients.iter().map(|(clients, _)| clients).collect::<Vec<_>>(),
            subscriptions.iter().map(|(_, subscriptions)| subscriptions).collect::<Vec<_>>(),
            scale.clients / 2,
            scale.services,
            scale.clients / 2
        ),
        ..Outcome::default()
    };
    let curves =
        [("clients", &by_clients), ("subscriptions", &by_subscriptions), ("services", &by_services), ("start", &start)];
    for (name, curve) in curves {
        outcome.value(name, slopes(curve));
        let costs = curve.iter().filter_map(|(size, costs)| Some((size, Spread::of(costs)?.median)));
        let points: Vec<String> = costs.map(|(size, cost)| format!("{size}: {:.2} ms", cost * 1e3)).collect();
        outcome.notes.push(format!("{name}: {}", points.join(", ")));
    }
    Ok(outcome)
}

async fn curve(
    lab: &Lab,
    world: &World,
    sizes: &[(usize, usize)],
    size: fn((usize, usize)) -> usize,
) -> anyhow::Result<Curve> {
    let mut curve = Curve::new();
    for (clients, subscribed) in sizes {
        progress(&format!("W8: {clients} clients, {subscribed} subscriptions"));
        let server = lab.server(Contender::Chancery, world, Protocol::Delta).await?;
        let mut spec = lab.fleet_spec(&server, world, Protocol::Delta, *clients);
        let mut names = world.catalogue.names();
        names.truncate(*subscribed);
        let expected = names.len();
        spec.subscriptions = vec![Subscription { names, expected, ..spec.subscriptions[0].clone() }];
        let station = Station::with(lab, server, spec).await?;
        curve.push((size((*clients, *subscribed)) as f64, costs(lab, station).await?));
    }
    Ok(curve)
}

/// CPU seconds of a change, by round; only what everybody subscribes to is changed.
async fn costs(lab: &Lab, mut station: Station) -> anyhow::Result<Vec<f64>> {
    of(station.flips(2, Duration::from_secs(5)).await, "W8", Contender::Chancery)?;
    let mut costs = Vec::new();
    for _round in 0..lab.scale.rounds {
        let flips = of(station.flips(lab.scale.flips.min(6), lab.scale.round).await, "W8", Contender::Chancery)?;
        costs.push(flips.cpu / flips.changes as f64);
    }
    Ok(costs)
}

/// The exponent round by round.
fn slopes(curve: &Curve) -> Option<Spread> {
    let rounds = curve.iter().map(|(_, costs)| costs.len()).min()?;
    let slope = |round: usize| exponent(&curve.iter().map(|(size, costs)| (*size, costs[round])).collect::<Vec<_>>());
    Spread::of(&(0..rounds).map(slope).collect::<Option<Vec<f64>>>()?)
}
