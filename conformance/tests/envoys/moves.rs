//! Make before break under traffic (scenario 32): no request fails while what it needs is replaced.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::SOON;
use conformance::harness::{App, Load, Resolver, eventually};
use serde_json::Value;

use crate::fixture::{Pair, Way, cluster, endpoints, listener, listener_to, resolved_cluster, route};

/// How long a cluster warms that is slow.
const SLOW: Duration = Duration::from_secs(2);
/// How long it is looked whether a listener that drains still leads somewhere: longer than any other grace.
const DRAINING: Duration = Duration::from_secs(10);
/// How long clusters may stay that are gone: the harness lets an Envoy drain for half a minute.
const GONE: Duration = Duration::from_secs(60);
/// All that there ever are.
const CLUSTERS: [&str; 6] = ["x", "y", "renamed", "v2", "slow", "anew"];

/// What the Envoy is to hold.
#[derive(Debug, Clone, Copy)]
struct State {
    /// The name and the prefix of its listener, and the name of its route.
    listener: (&'static str, &'static str, &'static str),
    /// Its clusters, and which application is behind them; what is called slow has to be asked of the name server.
    clusters: &'static [(&'static str, Version)],
    /// Where the route leads.
    to: &'static [(&'static str, u32)],
}

/// An application.
#[derive(Debug, Clone, Copy)]
enum Version {
    One,
    Two,
}

use Version::{One, Two};

const FIRST: State = State { listener: ("in", "one", "main"), clusters: &[("x", One)], to: &[("x", 1)] };
const SECOND: State = State { clusters: &[("y", Two)], to: &[("y", 1)], ..FIRST };
const REPLACED: State = State { listener: ("in", "two", "main"), ..FIRST };
const REPLACED_AGAIN: State = State { listener: ("in", "three", "main"), ..FIRST };
const RENAMED_LISTENER: State = State { listener: ("other", "four", "main"), ..FIRST };
const RENAMED: State = State { clusters: &[("renamed", One)], to: &[("renamed", 1)], ..FIRST };
const BOTH: State = State { clusters: &[("renamed", One), ("v2", Two)], to: &[("renamed", 1), ("v2", 1)], ..RENAMED };
const LAST: State = State { clusters: &[("v2", Two)], to: &[("v2", 1)], ..RENAMED };
const SLOWLY: State = State { clusters: &[("slow", One)], to: &[("slow", 1)], ..FIRST };

/// What moves, one after another; what is not in the next state goes in the same breath.
const MOVES: [(&str, State); 14] = [
    ("a route moves to another cluster", SECOND),
    ("a route moves back", FIRST),
    ("a route moves once more", SECOND),
    ("a route moves back once more", FIRST),
    ("a listener is replaced", REPLACED),
    ("a listener is replaced again", REPLACED_AGAIN),
    ("another listener takes the address", RENAMED_LISTENER),
    ("the first listener takes it back", FIRST),
    ("a service is renamed", RENAMED),
    ("a version comes", BOTH),
    ("a version goes", LAST),
    ("a route moves to a cluster that warms slowly", SLOWLY),
    ("a route moves back from it", FIRST),
    ("a listener and its cluster are replaced", State { listener: ("in", "five", "main"), ..SECOND }),
];

/// A service goes by another name, and with it all that has its name: its cluster, its route, its listener.
const ANEW: State = State { listener: ("anew", "six", "anew"), clusters: &[("anew", One)], to: &[("anew", 1)] };

/// The applications, and where the Envoy listens.
struct Shop {
    way: Way,
    port: Port,
    one: App,
    two: App,
    resolver: Resolver,
}

impl Shop {
    fn resources(&self, state: &State) -> Vec<Value> {
        let (name, prefix, to) = state.listener;
        let mut all = vec![listener(self.way, name, prefix, &self.port, to), route(to, &["*"], state.to)];
        for (name, version) in state.clusters {
            let app = match version {
                One => self.one.address(),
                Two => self.two.address(),
            };
            match *name {
                "slow" => all.push(resolved_cluster(name, self.resolver.address(), app.port())),
                _ => all.extend([cluster(self.way, name), endpoints(name, app)]),
            }
        }
        all
    }
}

/// Waits until the Envoy holds the state.
async fn holds(pair: &Pair, state: &State) -> anyhow::Result<()> {
    let (listener, prefix, _) = state.listener;
    pair.has(&format!("{listener}::127.0.0.1"), true).await?;
    pair.has(&format!("\"{prefix}\""), true).await?;
    for (cluster, _) in state.clusters {
        pair.has(&format!("{cluster}::default_priority"), true).await?;
    }
    Ok(())
}

/// Waits until the Envoy has no other clusters.
async fn holds_nothing_else(pair: &Pair, state: &State) -> anyhow::Result<()> {
    let others = CLUSTERS.iter().filter(|name| !state.clusters.iter().any(|(cluster, _)| cluster == *name));
    eventually(GONE, &format!("no cluster but {:?}", state.clusters), async || {
        let clusters = pair.envoy.text("/clusters").await?;
        for other in others.clone() {
            ensure!(!clusters.contains(&format!("{other}::default_priority")), "{other}");
        }
        Ok(())
    })
    .await
}

/// No request has failed, and there were some since.
async fn all_is_well(loads: &[Load]) -> anyhow::Result<()> {
    for load in loads {
        let before = load.counts().requests();
        eventually(SOON, "requests", async || {
            ensure!(load.counts().requests() >= before + 20);
            Ok(())
        })
        .await?;
        let counts = load.counts();
        ensure!(counts.failed == 0, "{counts:?}");
    }
    Ok(())
}

async fn moves(release: &str, way: Way) -> anyhow::Result<()> {
    let (one, two) = (App::http("v1").await?, App::http("v2").await?);
    let shop = Shop { way, port: Port::reserve()?, one, two, resolver: Resolver::after(SLOW).await? };
    let pair = Pair::start(release, way, &shop.resources(&FIRST)).await?;
    holds(&pair, &FIRST).await?;
    let url = format!("http://{}/", shop.port.loopback());
    let loads = [Load::start(&url, 100)?, Load::connecting(&url, 50)?];
    for (what, state) in &MOVES {
        pair.write(&shop.resources(state))?;
        holds(&pair, state).await.context(*what)?;
        holds_nothing_else(&pair, state).await.context(*what)?;
        all_is_well(&loads).await.context(*what)?;
    }
    // What a listener leads to that was replaced stays for as long as it drains: its connections are still used.
    let what = "a service goes by another name altogether";
    pair.write(&shop.resources(&ANEW))?;
    holds(&pair, &ANEW).await.context(what)?;
    let until = Instant::now() + DRAINING;
    while Instant::now() < until {
        all_is_well(&loads).await.context(what)?;
    }
    holds_nothing_else(&pair, &ANEW).await.context(what)?;
    all_is_well(&loads).await.context(what)?;
    // The same of what it leads to by itself, of which no route that it asks for tells.
    let what = "a listener with its route in it is replaced, and its cluster goes";
    let alone =
        [listener_to("inline", "seven", &shop.port, "x"), cluster(way, "x"), endpoints("x", shop.one.address())];
    pair.write(&alone)?;
    pair.has("inline::127.0.0.1", true).await.context(what)?;
    all_is_well(&loads).await.context(what)?;
    pair.write(&shop.resources(&ANEW))?;
    holds(&pair, &ANEW).await.context(what)?;
    let until = Instant::now() + DRAINING;
    while Instant::now() < until {
        all_is_well(&loads).await.context(what)?;
    }
    for load in loads {
        let counts = load.stop().await?;
        ensure!(counts.failed == 0 && counts.by_version.len() == 2, "{counts:?}");
    }
    pair.took_everything().await
}

#[tokio::test]
async fn scenario_32_no_request_fails_while_things_move_by_sotw() -> anyhow::Result<()> {
    moves("1.40.0", Way::Sotw).await
}

#[tokio::test]
async fn scenario_32_no_request_fails_while_things_move_by_delta() -> anyhow::Result<()> {
    moves("1.40.0", Way::Delta).await
}

#[tokio::test]
async fn scenario_32_no_request_fails_while_things_move_on_sotw_streams() -> anyhow::Result<()> {
    moves("1.40.0", Way::SotwStreams).await
}

#[tokio::test]
async fn scenario_32_no_request_fails_while_things_move_on_delta_streams() -> anyhow::Result<()> {
    moves("1.40.0", Way::DeltaStreams).await
}

#[tokio::test]
async fn scenario_32_no_request_fails_while_things_move_on_envoy_1_36() -> anyhow::Result<()> {
    moves("1.36.4", Way::SotwStreams).await
}

#[tokio::test]
async fn scenario_32_no_request_fails_while_things_move_on_envoy_1_38() -> anyhow::Result<()> {
    moves("1.38.3", Way::Delta).await
}
