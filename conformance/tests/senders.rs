//! Rules that are about some senders, through real Envoys: callers by what they are, clients of a gateway by their address.

use anyhow::ensure;
use chancery::ports::Port;
use conformance::harness::gateway::Gateway;
use conformance::harness::shop::{SOON, Shop, rule};
use conformance::harness::{EnvoyProxy, eventually};

const ROUTE: &str = "for: {service: cart}
http:
- {name: web, match: [{from: [{service: web}], path: {prefix: /who}}], to: [{service: cart, version: v1}]}
- {name: robots, match: [{from: [{serviceAccount: crawler}], path: {prefix: /who}}], respond: {status: 200, body: robot}}
- {name: front, match: [{from: [{namespace: front}], path: {prefix: /who}}], respond: {status: 200, body: front}}
- {name: rest, to: [{service: cart, version: v2}]}";

#[tokio::test]
async fn a_caller_follows_the_rules_that_are_about_it() -> anyhow::Result<()> {
    let [robot, front, other] = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let call = |port: &Port| format!("calls: [{{service: shop/cart, listen: \"{}\"}}]", port.loopback());
    let policies = rule("TrafficRoute", "cart", ROUTE)
        + &rule("Workload", "robot", &format!("identity: spiffe://cluster.local/ns/shop/sa/crawler\n{}", call(&robot)))
        + &rule("Workload", "desk", &call(&front)).replace("namespace: shop", "namespace: front")
        + &rule("Workload", "desk", &call(&other)).replace("namespace: shop", "namespace: back");
    let shop = Shop::start(&policies, &[]).await?;
    let mut running = Vec::new();
    for workload in ["shop/robot", "front/desk", "back/desk"] {
        running.push(EnvoyProxy::start(&shop.chancery, workload, &[]).await?);
    }
    shop.chancery.in_sync(7).await?;
    let cases =
        [(shop.web_cart(), "v1"), (robot.loopback(), "robot"), (front.loopback(), "front"), (other.loopback(), "v2")];
    for (address, expected) in cases {
        eventually(SOON, "the rule of this caller", async || {
            let answer = shop.ask(address, "/who", &[]).await?;
            let who = answer.echo().map_or(answer.body, |echo| echo.version);
            ensure!(who == expected, "{expected}: {who}");
            Ok(())
        })
        .await?;
        assert_eq!(shop.ask(address, "/else", &[]).await?.echo()?.version, "v2", "{expected}");
    }
    // Nobody is told of the rules of others.
    let held = running[2].config_dump().await?.to_string();
    ensure!(!held.contains("robot") && held.contains("rest"), "{held}");

    // What rules tell callers apart by changes under them.
    shop.write_policies(
        &policies.replace("service: web}", "service: store}").replace("namespace: front}]", "namespace: shop}]"),
    )?;
    for (address, expected) in [(shop.web_cart(), "front"), (robot.loopback(), "robot"), (front.loopback(), "v2")] {
        eventually(SOON, "the other rule of this caller", async || {
            let answer = shop.ask(address, "/who", &[]).await?;
            let who = answer.echo().map_or(answer.body, |echo| echo.version);
            ensure!(who == expected, "{expected}: {who}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_gateway_tells_its_clients_apart_by_their_addresses() -> anyhow::Result<()> {
    let port = Port::reserve()?;
    let listeners = format!("- {{name: main, address: 127.0.0.1, port: {}, protocol: http}}", port.number());
    let route = rule(
        "TrafficRoute",
        "edge",
        "for: {gateway: edge}\nhttp:\n\
         - {name: lan, match: [{path: {prefix: /who}, from: [{ip: 10.0.0.0/8}, {ip: 127.0.0.2}]}], respond: {status: 200, body: lan}}\n\
         - {name: home, match: [{path: {prefix: /who}, from: [{ip: 127.0.0.0/8}]}], respond: {status: 200, body: home}}\n\
         - {name: rest, to: [{service: cart, version: v1}]}",
    );
    let gateway = Gateway::start(&listeners, &route).await?;
    gateway.ready(&port).await?;
    for (address, expected) in [([127, 0, 0, 1], "home"), ([127, 0, 0, 2], "lan"), ([127, 0, 0, 3], "home")] {
        let client = reqwest::Client::builder().no_proxy().local_address(std::net::IpAddr::from(address)).build()?;
        // What a client says of itself changes nothing.
        let asked = client.get(format!("http://{}/who", port.loopback())).header("x-forwarded-for", "10.1.2.3");
        assert_eq!(asked.send().await?.text().await?, expected, "{address:?}");
    }
    assert_eq!(gateway.ask(&port, "shop.test", "/").send().await?.status(), 200);
    Ok(())
}
