//! Which endpoints get something, and how they are told apart, through real Envoys: health checks, hashing by caller, the
//! beginning of a connection.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::{SOON, Shop, client, listed, rule};
use conformance::harness::{App, Chancery, Echo, EnvoyProxy, eventually};
use reqwest::Client;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::Endpoint;

async fn ask(client: &Client, address: SocketAddr, path: &str) -> anyhow::Result<(u16, Option<String>)> {
    let response = client.get(format!("http://{address}{path}")).send().await?;
    let status = response.status().as_u16();
    Ok((status, response.json::<Echo>().await.ok().map(|echo| echo.version)))
}

/// Who answers 30 requests.
async fn answering(shop: &Shop, client: &Client) -> anyhow::Result<BTreeSet<(u16, Option<String>)>> {
    let mut answers = BTreeSet::new();
    for _ in 0..30 {
        answers.insert(ask(client, shop.web_cart(), "/cart").await?);
    }
    Ok(answers)
}

fn by(version: &str) -> (u16, Option<String>) {
    (200, Some(version.to_owned()))
}

fn policy(service: &str, outbound: &str) -> String {
    rule("TrafficPolicy", service, &format!("target: {{service: {service}}}\noutbound: {outbound}"))
}

#[tokio::test]
async fn an_endpoint_that_says_that_it_is_unwell_gets_nothing() -> anyhow::Result<()> {
    let check =
        "{retry: {attempts: 0}, healthCheck: {http: {path: /unwell/v1}, interval: 200ms, unhealthyThreshold: 1}}";
    let shop = Shop::start(&policy("cart", check), &[]).await?;
    let client = client()?;
    let only = |versions: &'static [&str]| {
        let (shop, client) = (&shop, &client);
        eventually(SOON, "those that are well answer", async move || {
            let answers = answering(shop, client).await?;
            ensure!(answers == versions.iter().map(|version| by(version)).collect(), "{answers:?}");
            Ok(())
        })
    };
    only(&["v2"]).await?;
    shop.write_policies(&policy("cart", &check.replace("/unwell/v1", "/unwell/v2")))?;
    only(&["v1"]).await?;
    shop.write_policies(&policy("cart", &check.replace("/unwell/v1", "/well")))?;
    only(&["v1", "v2"]).await?;
    shop.write_policies("")?;
    only(&["v1", "v2"]).await
}

#[tokio::test]
async fn access_rules_admit_what_callers_ask_by_and_nothing_else() -> anyhow::Result<()> {
    let check = "{retry: {attempts: 0}, healthCheck: {http: {path: /well}, interval: 200ms}}";
    let closed = "target: {service: cart}\ndefault: deny\n\
                  allow: [{from: [{service: web}], to: [{paths: [/cart]}]}]\n\
                  deny: [{from: [{service: web}], to: [{paths: [/well, /admin]}]}]";
    let strict = rule("MTLSPolicy", "cart", "target: {service: cart}\nmode: strict");
    let rules = policy("cart", check) + &rule("AccessPolicy", "closed", closed) + &strict;
    let shop = Shop::start(&rules, &[]).await?;
    let client = client()?;
    eventually(SOON, "both are well", async || {
        let answers = answering(&shop, &client).await?;
        ensure!(answers == [by("v1"), by("v2")].into(), "{answers:?}");
        Ok(())
    })
    .await?;
    for (path, status) in [("/well", 200), ("/well/below", 403), ("/admin", 403), ("/other", 403)] {
        assert_eq!(ask(&client, shop.web_cart(), path).await?.0, status, "{path}");
    }
    // Only what is asked by: another method is as the rules have it.
    let posted = client.post(format!("http://{}/well", shop.web_cart())).send().await?;
    assert_eq!(posted.status(), 403);
    Ok(())
}

/// A control plane and one proxy that calls the `service` on its only port.
async fn caller(port: &Port, service: &str, rules: &str) -> anyhow::Result<(Chancery, EnvoyProxy)> {
    let calls = format!("calls: [{{service: {service}, listen: \"{}\"}}]", port.loopback());
    let rules = rule("Workload", "web", &calls) + rules;
    let chancery = Chancery::start(&[("rules.yaml", &rules)], &[]).await?;
    let envoy = EnvoyProxy::start(&chancery, "shop/web", &[]).await?;
    chancery.in_sync(1).await?;
    Ok((chancery, envoy))
}

fn cart(protocol: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<(SocketAddr, &str)> = endpoints.iter().map(|at| (*at, "")).collect();
    format!("ports: [{{name: main, port: 80, protocol: {protocol}}}]\n{}", listed(&endpoints))
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_gets_nothing() -> anyhow::Result<()> {
    let (app, nobody, port) = (App::http("v1").await?, Port::reserve()?, Port::reserve()?);
    let service = rule("MeshService", "cart", &cart("http", &[app.address(), nobody.loopback()]));
    let check = "{retry: {attempts: 0}, healthCheck: {tcp: {}, interval: 200ms, unhealthyThreshold: 1}}";
    let _running = caller(&port, "cart", &(service + &policy("cart", check))).await?;
    let client = client()?;
    eventually(SOON, "nothing fails", async || {
        for _ in 0..30 {
            let (status, _) = ask(&client, port.loopback(), "/").await?;
            ensure!(status == 200, "{status}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_endpoint_is_asked_by_the_health_service_of_grpc() -> anyhow::Result<()> {
    // The one has such a service and no other; the other has every service but that.
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop.Cart", tonic_health::ServingStatus::Serving).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let well = listener.local_addr()?;
    let server = tonic::transport::Server::builder().add_service(health);
    let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
    tokio::select! {
        ended = serving => Ok(ended?),
        asked = asked_by_grpc(well) => asked,
    }
}

async fn asked_by_grpc(well: SocketAddr) -> anyhow::Result<()> {
    let (unwell, port) = (App::grpc("v1").await?, Port::reserve()?);
    let service = rule("MeshService", "cart", &cart("grpc", &[well, unwell.address()]));
    let check =
        "{retry: {attempts: 0}, healthCheck: {grpc: {service: shop.Cart}, interval: 200ms, unhealthyThreshold: 1}}";
    let (_chancery, envoy) = caller(&port, "cart", &(service + &policy("cart", check))).await?;
    let channel = Endpoint::from_shared(format!("http://{}", port.loopback()))?.connect_lazy();
    eventually(SOON, "only the one that is well is called", async || {
        for _ in 0..20 {
            let mut client = tonic::client::Grpc::new(channel.clone());
            client.ready().await?;
            let call = tonic::Request::new(String::new());
            let path = http::uri::PathAndQuery::from_static("/shop.Cart/Get");
            let codec = tonic_prost::ProstCodec::<String, String>::default();
            let answer = client.unary(call, path, codec).await;
            let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
            ensure!(code == Code::Unimplemented, "{code:?}");
        }
        Ok(())
    })
    .await?;
    let clusters = envoy.text("/clusters").await?;
    let flags = clusters.lines().filter(|line| line.contains("health_flags"));
    let failed = flags.filter(|line| line.contains("failed_active_hc")).count();
    assert_eq!(failed, 1, "{clusters}");
    Ok(())
}

#[tokio::test]
async fn an_endpoint_without_a_proxy_is_told_whose_a_connection_is() -> anyhow::Result<()> {
    let (app, port) = (App::server_first("store").await?, Port::reserve()?);
    let service = rule("MeshService", "store", &cart("tcp", &[app.address()]));
    let _running = caller(&port, "store", &(service + &policy("store", "{proxyProtocol: v1}"))).await?;
    let mut stream = BufReader::new(TcpStream::connect(port.loopback()).await?);
    stream.get_mut().write_all(b"hello\n").await?;
    let mut lines = Vec::new();
    for _ in 0..3 {
        let mut line = String::new();
        let read = tokio::time::timeout(SOON, stream.read_line(&mut line)).await.context("it answers")??;
        ensure!(read > 0, "{lines:?}");
        lines.push(line.trim().to_owned());
    }
    let from = stream.get_ref().local_addr()?;
    let expected = format!("store: PROXY TCP4 127.0.0.1 127.0.0.1 {} {}", from.port(), port.loopback().port());
    assert_eq!(lines, ["store".to_owned(), expected, "store: hello".to_owned()]);
    Ok(())
}

#[tokio::test]
async fn whatever_a_caller_asks_goes_to_one_endpoint() -> anyhow::Result<()> {
    let shop = Shop::start("", &[]).await?;
    let client = client()?;
    assert_eq!(answering(&shop, &client).await?.len(), 2);
    shop.write_policies(&policy("cart", "{loadBalancing: {policy: maglev, hashOn: caller}}"))?;
    eventually(SOON, "one endpoint answers", async || {
        let answers = answering(&shop, &client).await?;
        ensure!(answers.len() == 1, "{answers:?}");
        Ok(())
    })
    .await
}
