//! Policies at gateways through a real Envoy: who gets in, what is taken, and a service that admits what comes by a gateway.

use anyhow::ensure;
use chancery::ports::Port;
use conformance::harness::gateway::Gateway;
use conformance::harness::shop::{SOON, rule};
use conformance::harness::{App, eventually, greeting};
use reqwest::Client;

fn listener(name: &str, port: &Port, protocol: &str) -> String {
    format!("- {{name: {name}, address: 127.0.0.1, port: {}, protocol: {protocol}}}\n", port.number())
}

/// The status of a request from this address.
async fn status(from: &str, port: &Port, method: &str, host: &str, path: &str) -> anyhow::Result<u16> {
    let client = Client::builder().no_proxy().local_address(Some(from.parse()?)).build()?;
    let url = format!("http://{}{path}", port.loopback());
    Ok(client.request(method.parse()?, url).header("host", host).send().await?.status().as_u16())
}

#[tokio::test]
async fn who_gets_in_is_decided_at_the_gateway_and_at_each_of_its_listeners() -> anyhow::Result<()> {
    let ports: Vec<Port> = (0..4).map(|_| Port::reserve()).collect::<Result<_, _>>()?;
    let [open, closed, raw, shut] = &ports[..] else { anyhow::bail!("four ports") };
    let listeners = listener("open", open, "http")
        + &listener("closed", closed, "http")
        + &listener("raw", raw, "tcp")
        + &listener("shut", shut, "tcp");
    let line = App::server_first("line").await?;
    let endpoint = format!("{{address: 127.0.0.1, port: {}}}", line.address().port());
    let at = "[{name: line, port: 70, protocol: tcp, serverFirst: true}]";
    let policies = rule("MeshService", "line", &format!("ports: {at}\nendpoints: {{static: [{endpoint}]}}"))
        + &rule(
            "TrafficRoute",
            "all",
            "for: {gateway: edge}\nhttp: [{to: [{service: cart}]}]\n\
             tcp: [{match: [{cidr: 127.0.0.8}], to: [{service: line}]}, {to: [{service: line}]}]",
        )
        + &rule(
            "AccessPolicy",
            "edge",
            "target: {gateway: edge}\ndeny: [{from: [{ip: 127.0.0.3}]}, {to: [{methods: [DELETE]}, {paths: [\"/secret/*\"]}]}]",
        )
        + &rule(
            "AccessPolicy",
            "closed",
            "target: {gateway: edge, listener: closed}\ndefault: deny\n\
             allow: [{from: [{ip: 127.0.0.2}], to: [{hosts: [shop.test]}]}]",
        )
        + &rule(
            "AccessPolicy",
            "raw",
            "target: {gateway: edge, listener: raw}\ndefault: deny\nallow: [{from: [{ip: 127.0.0.2/31}]}]",
        )
        + &rule("AccessPolicy", "shut", "target: {gateway: edge, listener: shut}\ndefault: deny")
        + &rule("AccessPolicy", "cart", "target: {service: cart}\ndefault: deny\nallow: [{from: [{gateway: edge}]}]");
    let gateway = Gateway::start(&listeners, &policies).await?;
    gateway.ready(open).await?;
    eventually(SOON, "connections are passed on", async || {
        ensure!(greeting(raw.loopback(), "127.0.0.2").await? == "line");
        Ok(())
    })
    .await?;
    for (from, port, method, host, path, wanted) in [
        ("127.0.0.1", open, "GET", "shop.test", "/", 200),
        ("127.0.0.3", open, "GET", "shop.test", "/", 403),
        ("127.0.0.1", open, "DELETE", "shop.test", "/", 403),
        ("127.0.0.1", open, "GET", "shop.test", "/a/..//secret/%61", 403),
        ("127.0.0.2", closed, "GET", "shop.test", "/", 200),
        ("127.0.0.2", closed, "GET", "other.test", "/", 403),
        ("127.0.0.1", closed, "GET", "shop.test", "/", 403),
        ("127.0.0.2", closed, "DELETE", "shop.test", "/", 403),
    ] {
        assert_eq!(status(from, port, method, host, path).await?, wanted, "{from} {method} {host}{path}");
    }
    // Whom nothing admits learns nothing of an application that speaks first.
    for (port, from, said) in [
        (raw, "127.0.0.2", "line"),
        (raw, "127.0.0.3", ""),
        (raw, "127.0.0.1", ""),
        (raw, "127.0.0.8", ""),
        (shut, "127.0.0.2", ""),
    ] {
        assert_eq!(greeting(port.loopback(), from).await?, said, "{from}");
    }
    // The service admits nobody but the gateway.
    let answer = gateway.shop.get("/").await?;
    assert_eq!(answer.status, 403, "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn a_gateway_takes_as_much_as_a_policy_says() -> anyhow::Result<()> {
    let ports: Vec<Port> = (0..3).map(|_| Port::reserve()).collect::<Result<_, _>>()?;
    let [limited, failing, open] = &ports[..] else { anyhow::bail!("three ports") };
    let listeners =
        listener("limited", limited, "http") + &listener("failing", failing, "http") + &listener("open", open, "http");
    let policies = rule(
        "TrafficRoute",
        "all",
        "for: {gateway: edge}\nhttp: [{to: [{service: cart}], rateLimit: {requests: 1000, per: 1s}}]",
    ) + &rule(
        "TrafficPolicy",
        "limited",
        "target: {gateway: edge, listener: limited}\ninbound: {rateLimit: {requests: 3, per: 1h, key: ip}}",
    ) + &rule(
        "TrafficPolicy",
        "failing",
        "target: {gateway: edge, listener: failing}\ninbound: {fault: {abort: {status: 418}}}",
    ) + &rule("TrafficPolicy", "edge", "target: {gateway: edge}\ninbound: {maxConnections: 2}");
    let gateway = Gateway::start(&listeners, &policies).await?;
    gateway.ready(open).await?;
    for from in ["127.0.0.1", "127.0.0.2"] {
        let mut statuses = Vec::new();
        for _ in 0..5 {
            statuses.push(status(from, limited, "GET", "shop.test", "/").await?);
        }
        assert_eq!(statuses, [200, 200, 200, 429, 429], "{from}");
    }
    assert_eq!(status("127.0.0.1", failing, "GET", "shop.test", "/").await?, 418);
    // Of connections that stay open there are two.
    let held = [Client::builder().no_proxy().build()?, Client::builder().no_proxy().build()?];
    let ask = |client: &Client| client.get(format!("http://{}/", failing.loopback())).send();
    eventually(SOON, "two are taken", async || {
        ensure!(ask(&held[0]).await?.status() == 418 && ask(&held[1]).await?.status() == 418);
        Ok(())
    })
    .await?;
    let third = Client::builder().no_proxy().build()?;
    ensure!(ask(&third).await.is_err(), "a third one is one too many");
    Ok(())
}
