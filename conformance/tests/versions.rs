//! Older Envoys join as they are: each is sent only what its release knows.

use std::time::Duration;

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::{SOON, cart_alone};
use conformance::harness::{App, Chancery, EnvoyProxy, EnvoySource, eventually};

async fn joins(version: &str, reports: bool) -> anyhow::Result<()> {
    let app = App::http("v1").await?;
    let listen = Port::reserve()?;
    let rules = cart_alone("cart", listen.loopback(), app.address());
    let chancery = Chancery::start(&[("rules.yaml", &rules)], &[]).await?;
    let source = EnvoySource::release(version).await?;
    let mut envoy = EnvoyProxy::launch(&source, &chancery, "shop/cart", &[]).await?;
    envoy.live().await?;
    let proxies = chancery.in_sync(1).await?;
    assert_eq!(proxies["proxies"][0]["envoy"], version);
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let answer = client.get(format!("http://{}/cart", listen.loopback())).send().await?;
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(chancery.json("/api/v1/nacks").await?["total"], 0);
    if reports {
        eventually(SOON, "the edge", async || {
            let edges = chancery.json("/api/v1/edges").await?;
            let edge = edges["edges"].get(0).with_context(|| edges.to_string())?;
            ensure!(edge["service"] == "shop/cart" && edge["requests"] == 1, "{edge}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn envoy_1_36_joins() -> anyhow::Result<()> {
    joins("1.36.4", false).await
}

#[tokio::test]
async fn envoy_1_37_joins_and_reports() -> anyhow::Result<()> {
    joins("1.37.0", true).await
}

#[tokio::test]
async fn envoy_1_38_joins_and_reports() -> anyhow::Result<()> {
    joins("1.38.3", true).await
}

#[tokio::test]
async fn envoy_1_39_joins_and_reports() -> anyhow::Result<()> {
    joins("1.39.3", true).await
}
