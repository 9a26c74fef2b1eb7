//! Rules for connections through a real Envoy: shares by weight, and another destination while the proxy runs.

use std::collections::BTreeMap;

use anyhow::ensure;
use chancery::ports::Port;
use conformance::harness::shop::{INVENTORY, POLICIES, SOON, listed, rule};
use conformance::harness::{App, Chancery, EnvoyProxy, eventually};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

/// Who speaks first over so many new connections.
async fn greeted(port: &Port, connections: usize) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    for _ in 0..connections {
        let mut stream = BufReader::new(TcpStream::connect(port.loopback()).await?);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        *counts.entry(line.trim().to_owned()).or_default() += 1;
    }
    Ok(counts)
}

fn route(to: &str) -> String {
    rule("TrafficRoute", "store", &format!("for: {{service: store}}\ntcp: [{{to: [{to}]}}]"))
}

#[tokio::test]
async fn connections_are_shared_out_by_weight() -> anyhow::Result<()> {
    let (one, two, port) = (App::server_first("one").await?, App::server_first("two").await?, Port::reserve()?);
    let list = listed(&[(one.address(), "v1"), (two.address(), "v2")]);
    let spec = format!("ports: [{{name: line, port: 70, protocol: tcp, serverFirst: true}}]\n{list}");
    let calls = format!("calls: [{{service: store, port: line, listen: \"{}\"}}]", port.loopback());
    let inventory = rule("MeshService", "store", &spec) + &rule("Workload", "web", &calls);
    let only = route("{service: store, version: v2}");
    let chancery = Chancery::start(&[(INVENTORY, &inventory), (POLICIES, &only)], &[]).await?;
    let _envoy = EnvoyProxy::start(&chancery, "shop/web", &[]).await?;
    chancery.in_sync(1).await?;
    eventually(SOON, "v2 alone", async || {
        let counts = greeted(&port, 10).await?;
        ensure!(counts == [("two".to_owned(), 10)].into(), "{counts:?}");
        Ok(())
    })
    .await?;
    let shares = "{service: store, version: v1, weight: 3}, {service: store, version: v2}, {service: store, weight: 0}";
    chancery.write_rules(POLICIES, &route(shares))?;
    eventually(SOON, "three of four to v1", async || {
        let counts = greeted(&port, 200).await?;
        // 200 draws at three quarters: five standard deviations are 31.
        let of_one = counts.get("one").copied().unwrap_or_default();
        ensure!((119..=181).contains(&of_one), "{counts:?}");
        Ok(())
    })
    .await
}
