//! Rules for connections through a real Envoy: shares by weight, another destination while the proxy runs, and which rule
//! takes a connection.

use std::collections::BTreeMap;

use anyhow::ensure;
use chancery::ports::Port;
use conformance::harness::shop::{INVENTORY, POLICIES, SOON, listed, rule};
use conformance::harness::{App, Chancery, EnvoyProxy, eventually, greeting};
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

#[tokio::test]
async fn the_first_rule_that_takes_a_connection_decides() -> anyhow::Result<()> {
    let apps = [App::server_first("v1").await?, App::server_first("v2").await?];
    let (one, two) = (&Port::reserve()?, &Port::reserve()?);
    let endpoint = |app: &App, version: &str| {
        let at = app.address().port();
        format!("{{address: 127.0.0.1, ports: {{one: {at}, two: {at}}}, labels: {{version: {version}}}}}")
    };
    let list = format!("[{}, {}]", endpoint(&apps[0], "v1"), endpoint(&apps[1], "v2"));
    let line = |name: &str, number: u16| format!("{{name: {name}, port: {number}, protocol: tcp, serverFirst: true}}");
    let spec = format!("ports: [{}, {}]\nendpoints: {{static: {list}}}", line("one", 71), line("two", 72));
    let call =
        |port: &str, listen: &Port| format!("{{service: store, port: {port}, listen: \"{}\"}}", listen.loopback());
    let calls = format!("calls: [{}, {}]", call("one", one), call("two", two));
    let elsewhere = format!(
        "ports: [{}]\nendpoints: {{static: [{{address: 127.0.0.1, port: {}}}]}}",
        line("one", 73),
        apps[0].address().port()
    );
    let inventory = rule("MeshService", "store", &spec) + &rule("MeshService", "other", &elsewhere);
    let web = rule("Workload", "web", &calls);
    let rules = rule(
        "TrafficRoute",
        "store",
        "for: {service: store}
tcp:
- {match: [{port: 71, cidr: 127.0.0.2}, {port: 72}], to: [{service: store, version: v1}]}
- {match: [{cidr: 127.0.0.0/30}], to: [{service: store, version: v2}]}
- {match: [{cidr: 127.0.0.3}, {port: 71, cidr: 127.0.0.8/29}], to: [{service: other, port: one}]}",
    );
    let chancery = Chancery::start(&[(INVENTORY, &(inventory + &web)), (POLICIES, &rules)], &[]).await?;
    let _envoy = EnvoyProxy::start(&chancery, "shop/web", &[]).await?;
    chancery.in_sync(1).await?;
    eventually(SOON, "the proxy answers", async || {
        ensure!(greeting(one.loopback(), "127.0.0.2").await? == "v1");
        Ok(())
    })
    .await?;
    for (port, from, by) in [
        (one, "127.0.0.2", "v1"),
        (one, "127.0.0.1", "v2"),
        (one, "127.0.0.3", "v2"),
        (one, "127.0.0.9", "v1"),
        (one, "127.0.0.4", ""),
        (two, "127.0.0.1", "v1"),
        (two, "127.0.0.4", "v1"),
        (two, "127.0.0.2", "v1"),
    ] {
        assert_eq!(greeting(port.loopback(), from).await?, by, "{from} to {}", port.number());
    }
    Ok(())
}
