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

#[tokio::test]
async fn load_reports_say_what_was_sent() -> anyhow::Result<()> {
    let shop = Shop::start("", &["--load-report-interval", "1s"]).await?;
    eventually(SOON, "proxies that report", async || {
        let loads = shop.chancery.json("/api/v1/loads").await?;
        ensure!(loads["reporters"].as_u64() >= Some(3), "{loads}");
        Ok(())
    })
    .await?;
    // The bootstrap of each says where to report: nobody is silent.
    let admin = shop.chancery.admin_address().to_string();
    let load = Load::start(format!("http://{}/cart", shop.web_cart()), 100)?;
    let of_cart = |loads: &Value| -> Vec<Value> {
        let loads = loads["loads"].as_array().into_iter().flatten();
        let from_web = loads.filter(|load| load["workload"] == "shop/web");
        from_web.filter(|load| load["cluster"].as_str().is_some_and(|name| name.contains("cart"))).cloned().collect()
    };
    // 100 requests a second, in reports of a second each.
    eventually(SOON, "counts", async || {
        let loads = of_cart(&shop.chancery.json("/api/v1/loads").await?);
        let sum = |field: &str| -> u64 {
            let localities = loads.iter().flat_map(|load| load["localities"].as_array()).flatten();
            localities.filter_map(|locality| locality[field].as_u64()).sum()
        };
        let seconds = loads.iter().filter_map(|load| load["seconds"].as_f64()).fold(0.0, f64::max);
        ensure!((0.5..5.0).contains(&seconds), "{loads:?}");
        let (requests, successes, errors) = (sum("requests"), sum("successes"), sum("errors"));
        ensure!(requests >= 20 && successes >= 20 && errors == 0, "{requests} {successes} {errors}: {loads:?}");
        Ok(())
    })
    .await?;
    let counts = load.stop().await?;
    ensure!(counts.failed == 0, "{counts:?}");
    let listing = shop.chancery.run(&["loads", "--output", "wide", "--admin-address", &admin]).await?;
    let text = String::from_utf8_lossy(&listing.stdout).into_owned();
    ensure!(listing.status.success() && text.contains("shop/web") && text.contains("cart"), "{text}");
    let metrics = shop.chancery.text("/metrics").await?;
    ensure!(metrics.contains("chancery_load_reporters 4"), "{metrics}");
    Ok(())
}
