//! Make before break under traffic (scenario 32): no request fails while what it needs is replaced.

use anyhow::ensure;
use chancery::ports::Port;
use conformance::harness::shop::SOON;
use conformance::harness::{App, Load, eventually};
use serde_json::Value;

use crate::fixture::{Pair, Way, cluster, endpoints, listener, route};

const ENVOY: &str = "1.40.0";

async fn moves(way: Way) -> anyhow::Result<()> {
    let (v1, v2) = (App::http("v1").await?, App::http("v2").await?);
    let port = Port::reserve()?;
    let service = |name: &str, app: &App| [cluster(way, name), endpoints(name, app.address())];
    let shape = |listener_prefix: &str, services: &[(&str, &App)], to: &[(&str, u32)]| -> Vec<Value> {
        let mut all = vec![listener(way, "in", listener_prefix, &port, "main"), route("main", &["*"], to)];
        all.extend(services.iter().flat_map(|(name, app)| service(name, app)));
        all
    };
    let pair = Pair::start(ENVOY, way, &shape("one", &[("x", &v1)], &[("x", 1)])).await?;
    pair.has("x::default_priority", true).await?;
    pair.has("127.0.0.1", true).await?;
    let load = Load::start(format!("http://{}/", port.loopback()), 100)?;
    let fine = async |step: &str| {
        let before = load.counts().requests();
        eventually(SOON, "requests", async || {
            ensure!(load.counts().requests() >= before + 20);
            Ok(())
        })
        .await?;
        let counts = load.counts();
        ensure!(counts.failed == 0, "{step}: {counts:?}");
        anyhow::Ok(())
    };
    // A route moves from one cluster to another, and the first goes in the same breath; and back, more than once.
    for _ in 0..2 {
        for (from, to, app) in [("x", "y", &v2), ("y", "x", &v1)] {
            pair.write(&shape("one", &[(to, app)], &[(to, 1)]))?;
            pair.has(&format!("{from}::default_priority"), false).await?;
            pair.has(&format!("{to}::default_priority"), true).await?;
            fine("a route moves").await?;
        }
    }
    // A listener is replaced by another at the same address.
    for prefix in ["two", "three"] {
        pair.write(&shape(prefix, &[("x", &v1)], &[("x", 1)]))?;
        pair.has(&format!("\"{prefix}\""), true).await?;
        fine("a listener is replaced").await?;
    }
    // A service is renamed: its application stays.
    pair.write(&shape("three", &[("renamed", &v1)], &[("renamed", 1)]))?;
    pair.has("renamed::default_priority", true).await?;
    pair.has("x::default_priority", false).await?;
    fine("a service is renamed").await?;
    // A version comes, and goes.
    pair.write(&shape("three", &[("renamed", &v1), ("v2", &v2)], &[("renamed", 1), ("v2", 1)]))?;
    pair.has("v2::default_priority", true).await?;
    fine("a version comes").await?;
    pair.write(&shape("three", &[("v2", &v2)], &[("v2", 1)]))?;
    pair.has("renamed::default_priority", false).await?;
    fine("a version goes").await?;
    let counts = load.stop().await?;
    ensure!(counts.failed == 0 && counts.by_version.len() == 2, "a version goes: {counts:?}");
    pair.took_everything().await
}

#[tokio::test]
async fn scenario_32_no_request_fails_while_things_move_by_sotw() -> anyhow::Result<()> {
    moves(Way::Sotw).await
}

#[tokio::test]
async fn scenario_32_no_request_fails_while_things_move_by_delta() -> anyhow::Result<()> {
    moves(Way::Delta).await
}

#[tokio::test]
async fn scenario_32_no_request_fails_while_things_move_on_sotw_streams() -> anyhow::Result<()> {
    moves(Way::SotwStreams).await
}

#[tokio::test]
async fn scenario_32_no_request_fails_while_things_move_on_delta_streams() -> anyhow::Result<()> {
    moves(Way::DeltaStreams).await
}
