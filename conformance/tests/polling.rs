//! A stock Envoy that polls over plain HTTP, with HTTP/1.1 and with HTTP/2.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::SOON;
use conformance::harness::{App, Chancery, EnvoyProxy, EnvoySource, bootstrap, eventually};
use serde_json::{Value, json};

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// A configuration of which every part is polled for.
fn rules(listen: SocketAddr, app: SocketAddr) -> String {
    let source = "{resource_api_version: V3, api_config_source: {api_type: REST, transport_api_version: V3, \
                  cluster_names: [xds], refresh_delay: 0.1s}}";
    format!(
        r#"
apiVersion: chancery.dev/v1alpha1
kind: EnvoySnapshot
metadata: {{name: edge, namespace: edge}}
spec:
  match: {{nodeId: "edge-*"}}
  resources:
  - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
    name: in
    address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          rds: {{route_config_name: main, config_source: {source}}}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  - "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
    name: main
    virtual_hosts:
    - name: all
      domains: ["*"]
      routes: [{{match: {{prefix: /}}, route: {{cluster: app, prefix_rewrite: /one}}}}]
  - "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
    name: app
    type: EDS
    connect_timeout: 1s
    eds_cluster_config: {{eds_config: {source}}}
  - "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
    cluster_name: app
    endpoints:
    - lb_endpoints:
      - endpoint: {{address: {{socket_address: {{address: {app_ip}, port_value: {app_port}}}}}}}
"#,
        ip = listen.ip(),
        port = listen.port(),
        app_ip = app.ip(),
        app_port = app.port(),
    )
}

/// Where an Envoy polls, and how often.
const SOURCE: &str = "{resource_api_version: V3, api_config_source: {api_type: REST, transport_api_version: V3, \
                      cluster_names: [xds], refresh_delay: 0.1s}}";

#[tokio::test]
async fn a_stock_envoy_that_polls_is_served_and_follows() -> anyhow::Result<()> {
    let app = App::http("v1").await?;
    let (listen, plaintext) = (Port::reserve()?, Port::reserve()?);
    let arguments = ["--xds-plaintext-address", &plaintext.loopback().to_string()];
    let rules = rules(listen.loopback(), app.address());
    let chancery = Chancery::start(&[("rules.yaml", &rules)], &arguments).await?;
    let source = EnvoySource::from_environment().await?;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let url = format!("http://{}/", listen.loopback());
    for (node, protocol) in [("edge-1", "http_protocol_options"), ("edge-2", "http2_protocol_options")] {
        chancery.write_rules("rules.yaml", &rules)?;
        let admin = Port::reserve()?;
        let bootstrap = bootstrap::polled(node, &admin, plaintext.loopback(), SOURCE, protocol);
        let mut envoy = EnvoyProxy::run(&source, admin, &bootstrap)?;
        envoy.live().await?;
        let status = async || Ok::<_, anyhow::Error>(client.get(&url).send().await?.status().as_u16());
        eventually(SOON, "an answer through the proxy", async || {
            let status = status().await?;
            ensure!(status == 200, "{status}");
            Ok(())
        })
        .await?;
        let proxies = chancery.json("/api/v1/proxies").await?;
        let proxies = proxies["proxies"].as_array().into_iter().flatten();
        let mut this = proxies.filter(|proxy| proxy["node"] == node);
        ensure!(this.next().is_some_and(|proxy| proxy["protocol"] == "rest"), "{node} is seen");
        // Whoever looks sees what it holds, as of a stream.
        let question = format!("{{\"nodeMatchers\": [{{\"nodeId\": {{\"exact\": \"{node}\"}}}}]}}");
        eventually(SOON, "everything held", async || {
            let url = format!("http://{}/v3/discovery:client_status", chancery.admin_address());
            let shown: Value = client.post(url).body(question.clone()).send().await?.json().await?;
            let configs = shown["config"][0]["generic_xds_configs"].as_array().cloned().unwrap_or_default();
            let held =
                configs.iter().filter(|config| config["config_status"] == "SYNCED" && config["xds_config"].is_object());
            let names: Vec<&str> = held.filter_map(|config| config["name"].as_str()).collect();
            ensure!(["app", "in", "main"].iter().all(|name| names.contains(name)) && names.len() == 4, "{shown}");
            Ok(())
        })
        .await?;
        // Each type in its turn: a route, then nowhere to go.
        chancery.edit_rules(
            "rules.yaml",
            "route: {cluster: app, prefix_rewrite: /one}",
            "direct_response: {status: 418}",
        )?;
        eventually(SOON, "another route", async || {
            let status = status().await?;
            ensure!(status == 418, "{status}");
            Ok(())
        })
        .await?;
        chancery.write_rules("rules.yaml", &rules.replace("connect_timeout: 1s", "connect_timeout: 2s"))?;
        eventually(SOON, "another cluster", async || {
            let clusters = envoy.config_dump().await?.to_string();
            ensure!(clusters.contains("\"connect_timeout\":\"2s\""), "{clusters}");
            ensure!(status().await? == 200, "it does not serve");
            Ok(())
        })
        .await?;
        let stats = envoy.stats().await?;
        let failed: Vec<_> = stats
            .iter()
            .filter(|(name, count)| {
                **count > 0 && (name.ends_with("update_rejected") || name.ends_with("update_failure"))
            })
            .collect();
        ensure!(failed.is_empty(), "{failed:?}\n{}", envoy.log());
        let log = envoy.log();
        ensure!(!log.contains("REST config update failed") && !log.contains("fetch failure"), "{log}");
        envoy.terminate().await?;
    }
    assert_eq!(chancery.json("/api/v1/nacks").await?["total"], 0);
    Ok(())
}

/// The clusters of an answer, as `name timeout`.
fn timeouts(answer: &Value) -> Vec<String> {
    let resources = answer["resources"].as_array().into_iter().flatten();
    resources.map(|one| format!("{} {}", one["name"], one["connect_timeout"]).replace('"', "")).collect()
}

#[tokio::test]
async fn what_a_poll_refuses_is_rolled_back_alone_and_healed() -> anyhow::Result<()> {
    let plaintext = Port::reserve()?;
    let arguments = ["--xds-plaintext-address", &plaintext.loopback().to_string(), "--poll-wait", "20ms"];
    let snapshot = |a: u32, b: u32| {
        format!(
            "apiVersion: chancery.dev/v1alpha1\nkind: EnvoySnapshot\nmetadata: {{name: edge, namespace: edge}}\nspec:\n  \
             match: {{nodeId: \"edge-*\"}}\n  resources:\n  - {{\"@type\": {CLUSTER}, name: a, connect_timeout: {a}s}}\n  \
             - {{\"@type\": {CLUSTER}, name: b, connect_timeout: {b}s}}\n"
        )
    };
    let chancery = Chancery::start(&[("rules.yaml", &snapshot(1, 1))], &arguments).await?;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let url = format!("http://{}/v3/discovery:clusters", plaintext.loopback());
    let poll = async |version: &str, error: Option<&str>| {
        let error = error.map(|message| json!({"code": 13, "message": message}));
        let request = json!({"node": {"id": "edge-1"}, "version_info": version, "error_detail": error});
        let answer = client.post(&url).json(&request).send().await?;
        let status = answer.status().as_u16();
        ensure!(status == 200 || status == 304, "{status}: {}", answer.text().await?);
        anyhow::Ok(if status == 304 { None } else { Some(answer.json::<Value>().await?) })
    };
    let version = |answer: &Value| answer["version_info"].as_str().unwrap_or_default().to_owned();
    // An answer that is other than what was accepted.
    let news = async |held: &str, what: &str, error: Option<&str>| {
        eventually(SOON, what, async || poll(held, error).await?.with_context(|| format!("{what} is not there yet")))
            .await
    };
    let first = news("", "the first answer", None).await?;
    assert_eq!(timeouts(&first), ["a 1s", "b 1s"]);
    ensure!(poll(&version(&first), None).await?.is_none(), "it holds that");
    chancery.write_rules("rules.yaml", &snapshot(2, 2))?;
    assert_eq!(timeouts(&news(&version(&first), "the change", None).await?), ["a 2s", "b 2s"]);
    // The next poll carries the error and the version before: the other cluster arrives all the same.
    let second = poll(&version(&first), Some("cluster a: no")).await?.context("the rest")?;
    assert_eq!(timeouts(&second), ["a 1s", "b 2s"]);
    ensure!(poll(&version(&second), None).await?.is_none(), "it holds that");
    let nacks = chancery.json("/api/v1/nacks").await?;
    assert_eq!((&nacks["total"], &nacks["nacks"][0]["resources"]), (&1.into(), &json!(["a"])), "{nacks:#}");
    assert_eq!(nacks["nacks"][0]["rules"][0]["object"], "EnvoySnapshot edge/edge", "{nacks:#}");
    // Healed as soon as the rule is.
    chancery.write_rules("rules.yaml", &snapshot(3, 2))?;
    let third = news(&version(&second), "other content", None).await?;
    assert_eq!(timeouts(&third), ["a 3s", "b 2s"]);
    ensure!(poll(&version(&third), None).await?.is_none(), "it holds that");
    assert_eq!(chancery.json("/api/v1/nacks").await?["total"], 0);
    assert_eq!(chancery.json("/api/v1/proxies").await?["inSync"], 1);
    Ok(())
}
