//! Listeners whose virtual hosts are discovered on demand: they serve before anybody demands one.

use std::time::Duration;

use anyhow::ensure;
use chancery::ports::Port;
use conformance::harness::shop::SOON;
use conformance::harness::{App, Echo, eventually};
use serde_json::{Value, json};

use crate::fixture::{Pair, Way, cluster, endpoints, listener, route};

/// A listener, its route configuration without a virtual host, and where these come from: without an answer the
/// listener would wait forever.
fn on_demand(version: &str, way: Way, port: &Port, name: &str) -> [Value; 2] {
    let mut listener = listener(way, name, name, port, name);
    let filters = &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    let demand = json!({"name": "on-demand", "typed_config":
        {"@type": "type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand"}});
    filters.as_array_mut().expect("a list").insert(0, demand);
    let mut route = route(name, &[], &[]);
    // 1.36 knows no other than a stream of their own.
    let mut source = if version.starts_with("1.36.") { Way::DeltaStreams.source() } else { way.source() };
    source["initial_fetch_timeout"] = "0s".into();
    route["virtual_hosts"] = json!([]);
    route["vhds"] = json!({"config_source": source});
    [listener, route]
}

fn virtual_host(route: &str, domain: &str) -> Value {
    json!({"@type": "type.googleapis.com/envoy.config.route.v3.VirtualHost", "name": format!("{route}/{domain}"),
        "domains": [domain], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]})
}

/// Waits until a request for the host is answered so; of the application's answers by its version.
async fn answers(port: &Port, host: &str, status: u16, version: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    eventually(SOON, &format!("{status} for {host}"), async || {
        let answer = client.get(format!("http://{}/", port.loopback())).header("host", host).send().await?;
        ensure!(answer.status() == status, "{}", answer.status());
        if status == 200 {
            let echo: Echo = serde_json::from_str(&answer.text().await?)?;
            ensure!(echo.version == version, "{echo:?}");
        }
        Ok(())
    })
    .await
}

async fn serves(version: &str, way: Way) -> anyhow::Result<()> {
    let (app, ports) = (App::http("v1").await?, [Port::reserve()?, Port::reserve()?]);
    let mut all = vec![cluster(way, "a"), endpoints("a", app.address())];
    // None of its hosts exists.
    all.extend(on_demand(version, way, &ports[0], "first"));
    let pair = Pair::start(version, way, &all).await?;
    answers(&ports[0], "shop.example", 404, "").await?;
    // Some do, of another that comes later.
    all.extend(on_demand(version, way, &ports[1], "second"));
    all.push(virtual_host("second", "shop.example"));
    pair.write(&all)?;
    answers(&ports[1], "shop.example", 200, "v1").await?;
    answers(&ports[1], "other.example", 404, "").await?;
    // And of the first, on demand.
    all.push(virtual_host("first", "later.example"));
    pair.write(&all)?;
    answers(&ports[0], "later.example", 200, "v1").await?;
    pair.took_everything().await
}

#[tokio::test]
async fn listeners_without_virtual_hosts_do_not_wait_in_1_36() -> anyhow::Result<()> {
    serves("1.36.4", Way::DeltaStreams).await
}

#[tokio::test]
async fn listeners_without_virtual_hosts_do_not_wait_in_1_38() -> anyhow::Result<()> {
    serves("1.38.3", Way::Delta).await
}

#[tokio::test]
async fn listeners_without_virtual_hosts_do_not_wait_in_1_40() -> anyhow::Result<()> {
    serves("1.40.0", Way::Delta).await?;
    serves("1.40.0", Way::DeltaStreams).await
}
