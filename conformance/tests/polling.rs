//! A stock Envoy that polls over plain HTTP, with HTTP/1.1 and with HTTP/2.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::ensure;
use chancery::ports::Port;
use conformance::harness::shop::SOON;
use conformance::harness::{App, Chancery, EnvoyProxy, EnvoySource, bootstrap, eventually};

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
