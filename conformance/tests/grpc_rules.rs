//! Rules for gRPC through a real Envoy: by service, method and metadata, on ports of gRPC and of HTTP/2.

use std::time::Duration;

use anyhow::ensure;
use chancery::ports::Port;
use conformance::harness::shop::{SOON, listed, rule};
use conformance::harness::{App, Chancery, Echo, EnvoyProxy, eventually};
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

const RULES: &str = r#"for: {service: cart}
grpc:
- match: [{service: shop.v1.Cart, method: Get}]
  to: [{service: cart, version: v1}]
- match: [{service: shop.v1.Cart}]
  to: [{service: cart, version: v2}]
- match: [{method: Peek, headers: {x-tenant: {prefix: "big-"}}}]
  to: [{service: cart, version: v2}]
  headers: {request: {set: {x-by: rule}}}
- match: [{service: shop.v1.Stock}]
  to: [{service: cart, version: v1}]
  rateLimit: {requests: 2, per: 10m}"#;

async fn call(channel: &Channel, path: &'static str, tenant: &'static str) -> Result<Echo, Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let mut request = Request::new(());
    request.metadata_mut().insert("x-tenant", tenant.parse().expect("plain"));
    let codec = ProstCodec::<(), String>::default();
    let answer = client.unary(request, path.parse().expect("a path"), codec).await?;
    serde_json::from_str(answer.get_ref()).map_err(|error| Status::unknown(error.to_string()))
}

async fn rules_hold(protocol: &str) -> anyhow::Result<()> {
    let (v1, v2, port) = (App::grpc("v1").await?, App::grpc("v2").await?, Port::reserve()?);
    let list = listed(&[(v1.address(), "v1"), (v2.address(), "v2")]);
    let ports = format!("ports: [{{name: api, port: 80, protocol: {protocol}}}]\n{list}");
    let calls = format!("calls: [{{service: cart, port: api, listen: \"{}\"}}]", port.loopback());
    let rules =
        rule("MeshService", "cart", &ports) + &rule("Workload", "web", &calls) + &rule("TrafficRoute", "cart", RULES);
    let chancery = Chancery::start(&[("rules.yaml", &rules)], &[]).await?;
    let _envoy = EnvoyProxy::start(&chancery, "shop/web", &[]).await?;
    chancery.in_sync(1).await?;
    let channel = Channel::from_shared(format!("http://{}", port.loopback()))?.timeout(Duration::from_secs(5));
    let channel = channel.connect_lazy();
    eventually(SOON, "an answer", async || Ok(call(&channel, "/shop.v1.Cart/Get", "a").await?)).await?;

    for (path, tenant, version) in
        [("/shop.v1.Cart/Get", "a", "v1"), ("/shop.v1.Cart/Put", "a", "v2"), ("/other.Any/Peek", "big-one", "v2")]
    {
        for _ in 0..4 {
            let echo = call(&channel, path, tenant).await?;
            ensure!(echo.version == version && echo.path.ends_with(path), "{path}: {echo:?}");
            ensure!(echo.headers.contains_key("x-by") == (tenant == "big-one"), "{:?}", echo.headers);
        }
    }
    for (path, tenant) in [("/other.Any/Peek", "small"), ("/shop.v1.CartX/Get", "a"), ("/shop.v1.Cart.Get/x", "a")] {
        let refused = call(&channel, path, tenant).await.expect_err("no rule takes it");
        assert_eq!(refused.code(), Code::Unimplemented, "{path}");
    }
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(call(&channel, "/shop.v1.Stock/List", "a").await.map_or_else(|status| status.code(), |_| Code::Ok));
    }
    assert_eq!(codes, [Code::Ok, Code::Ok, Code::ResourceExhausted, Code::ResourceExhausted]);
    Ok(())
}

#[tokio::test]
async fn calls_are_routed_by_service_method_and_metadata() -> anyhow::Result<()> {
    rules_hold("grpc").await
}

#[tokio::test]
async fn so_they_are_on_a_port_of_http_2() -> anyhow::Result<()> {
    rules_hold("http2").await
}
