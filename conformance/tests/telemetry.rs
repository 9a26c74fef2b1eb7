//! Telemetry: what the Envoys report equals what was sent.

use anyhow::{Context, ensure};
use conformance::harness::shop::{SOON, Shop, rule};
use conformance::harness::{Load, eventually};
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

fn edge<'a>(edges: &'a Value, caller: &str, service: &str, version: &str) -> Option<&'a Value> {
    edges["edges"]
        .as_array()?
        .iter()
        .find(|edge| edge["caller"] == caller && edge["service"] == service && edge["version"] == version)
}

#[tokio::test]
async fn edges_count_every_request_once_and_tell_mutual_tls_from_plaintext() -> anyhow::Result<()> {
    let policies = rule("MTLSPolicy", "shop", "target: {scope: namespace}\nmode: permissive")
        + &rule("AccessPolicy", "cart", "target: {service: cart}\ndeny: [{to: [{paths: [\"/no\"]}]}]");
    let shop = Shop::start(&policies, &[]).await?;
    // What has been asked so far is counted too: begin from there.
    let baseline = shop.v1.served() + shop.v2.served();
    let load = Load::start(format!("http://{}/cart", shop.web_cart()), 100)?;
    eventually(Duration::from_secs(60), "requests", async || {
        ensure!(load.counts().ok >= 500, "{:?}", load.counts());
        Ok(())
    })
    .await?;
    let counts = load.stop().await?;
    ensure!(counts.failed == 0, "{counts:?}");
    for _ in 0..7 {
        shop.ask(shop.cart_v1(), "/cart", &[]).await?;
    }
    for _ in 0..5 {
        assert_eq!(shop.get("/no").await?.status, 403);
    }
    for _ in 0..9 {
        let mut line = String::new();
        BufReader::new(TcpStream::connect(shop.web_store()).await?).read_line(&mut line).await?;
        assert_eq!(line, "store\n");
    }
    let expected = counts.ok + baseline + 5;
    eventually(SOON, "edges that equal the load", async || {
        let edges = shop.chancery.json("/api/v1/edges").await?;
        let web = |version| edge(&edges, "shop/web", "shop/cart", version).cloned().with_context(|| edges.to_string());
        let (v1, v2) = (web("v1")?, web("v2")?);
        let requests = v1["requests"].as_u64().unwrap_or(0) + v2["requests"].as_u64().unwrap_or(0);
        ensure!(requests == expected, "{requests} of {expected}: {edges}");
        ensure!(v1["mtlsShare"] == 1.0 && v2["mtlsShare"] == 1.0, "{edges}");
        let unknown = edge(&edges, "unknown", "shop/cart", "v1").with_context(|| edges.to_string())?;
        ensure!(unknown["requests"] == 7 && unknown["mtlsShare"] == 0.0, "{unknown}");
        let store = edge(&edges, "shop/web", "shop/store", "").with_context(|| edges.to_string())?;
        ensure!(store["requests"] == 9 && store["mtlsShare"] == 1.0, "{store}");
        Ok(())
    })
    .await?;
    let admin = shop.chancery.admin_address().to_string();
    let listing = shop.chancery.run(&["edges", "--admin-address", &admin]).await?;
    let text = String::from_utf8_lossy(&listing.stdout).into_owned();
    ensure!(listing.status.success() && text.contains("shop/web") && text.contains("shop/store"), "{text}");
    let metrics = shop.chancery.text("/metrics").await?;
    ensure!(
        metrics.contains("chancery_edge_requests_total{") && metrics.contains("chancery_proxies_in_sync 4"),
        "{metrics}"
    );
    Ok(())
}
