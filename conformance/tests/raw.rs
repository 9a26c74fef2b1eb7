//! A fleet with a hand-written configuration: Envoy's own resources, served as they are written.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::{SOON, client, rule};
use conformance::harness::{App, Chancery, Credential, Delta, EnvoyProxy, EnvoySource, Peer, bootstrap, eventually};
use proto::envoy::service::discovery::v3 as discovery_pb;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use serde_json::Value;
use tonic::Code;
use translators::resource::Kind;

const RULES: &str = "edge.yaml";
const NODE: &str = "edge-1";

/// A listener, its route, its filter, its cluster and its endpoints, each a resource of its own.
fn snapshot(listen: SocketAddr, app: SocketAddr) -> String {
    let (port, app) = (listen.port(), app.port());
    let spec = format!(
        r#"match: {{nodeId: "edge-*"}}
resources:
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: http
  address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
  filter_chains:
  - filters:
    - name: http
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: edge
        rds: {{route_config_name: main, config_source: {{ads: {{}}, resource_api_version: V3}}}}
        http_filters:
        - name: header
          config_discovery:
            config_source: {{ads: {{}}, resource_api_version: V3}}
            type_urls: [type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation]
        - name: router
          typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: main
  virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: app}}}}]}}]
- "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
  name: header
  typedConfig:
    "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
    mutations: {{responseMutations: [{{append: {{header: {{key: x-edge, value: one}}}}}}]}}
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: app
  type: EDS
  connect_timeout: 5s
  eds_cluster_config: {{eds_config: {{ads: {{}}, resource_api_version: V3}}}}
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: app
  endpoints:
  - lb_endpoints:
    - {{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {app}}}}}}}}}"#
    );
    rule("EnvoySnapshot", "edge", &spec)
}

/// How an Envoy comes to the control plane.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// Known by its node id alone.
    Plaintext,
    /// With a credential that is bound to its node id.
    Credential,
}

async fn envoy(chancery: &Chancery, plaintext: SocketAddr, way: Way, sotw: bool) -> anyhow::Result<EnvoyProxy> {
    let admin = Port::reserve()?;
    let text = match way {
        Way::Plaintext => bootstrap::aggregated(NODE, &admin, plaintext, if sotw { "GRPC" } else { "DELTA_GRPC" }),
        Way::Credential => {
            let (data, xds, port) =
                (chancery.data_directory(), chancery.xds_address().to_string(), admin.number().to_string());
            let data = data.to_str().context("UTF-8")?;
            let mut arguments = vec!["bootstrap", "--node-id", NODE, "--data-dir", data, "--xds-address", &xds];
            arguments.extend(["--admin-port", &port]);
            arguments.extend(sotw.then_some("--sotw"));
            let output = chancery.run(&arguments).await?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout)?
        }
    };
    let mut envoy = EnvoyProxy::run(&EnvoySource::from_environment().await?, admin, &text)?;
    envoy.live().await?;
    Ok(envoy)
}

/// How many responses the only proxy was sent, by type.
fn responses(proxies: &Value) -> Vec<(String, u64)> {
    let types = proxies["proxies"][0]["types"].as_object().into_iter().flatten();
    types.map(|(kind, of)| (kind.clone(), of["responses"].as_u64().unwrap_or_default())).collect()
}

async fn a_fleet_goes_on_with_what_it_has(way: Way, sotw: bool) -> anyhow::Result<()> {
    let (one, other) = (App::http("v1").await?, App::http("v2").await?);
    let (listen, plaintext) = (Port::reserve()?, Port::reserve()?);
    let address = plaintext.loopback().to_string();
    // There is no Mesh document, and nothing else of a mesh.
    let first = snapshot(listen.loopback(), one.address());
    let chancery = Chancery::start(&[(RULES, &first)], &["--xds-plaintext-address", &address]).await?;
    let _envoy = envoy(&chancery, plaintext.loopback(), way, sotw).await?;
    let proxies = chancery.in_sync(1).await?;
    let proxy = &proxies["proxies"][0];
    assert_eq!((&proxy["node"], &proxy["workload"]), (&NODE.into(), &"EnvoySnapshot shop/edge".into()));

    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let url = format!("http://{}/", listen.loopback());
    let answers = async |version: &str, header: &str| {
        eventually(SOON, &format!("{version} and {header}"), async || {
            let answer = client.get(&url).send().await?.error_for_status()?;
            let said = answer.headers().get("x-edge").context("a header")?.to_str()?.to_owned();
            let body = answer.text().await?;
            ensure!(said == header && body.contains(&format!("\"version\":\"{version}\"")), "{said} {body}");
            Ok(())
        })
        .await
    };
    answers("v1", "one").await?;
    let before = responses(&chancery.in_sync(1).await?);

    // One resource changes, and nothing else is said.
    let (from, to) = (one.address().port().to_string(), other.address().port().to_string());
    chancery.edit_rules(RULES, &format!("port_value: {from}"), &format!("port_value: {to}"))?;
    answers("v2", "one").await?;
    let after = responses(&chancery.in_sync(1).await?);
    let more: Vec<_> = after.iter().zip(&before).filter(|(now, then)| now != then).collect();
    assert!(
        matches!(&more[..], [((kind, now), (_, then))] if kind == "EDS" && *now == then + 1),
        "{before:?} {after:?}"
    );
    chancery.edit_rules(RULES, "value: one", "value: two")?;
    answers("v2", "two").await?;

    // What Envoy does not take is refused before it is sent, with its place.
    chancery.edit_rules(RULES, "stat_prefix: edge", "stat_prefx: edge")?;
    let finding = eventually(SOON, "a finding", async || {
        let findings = chancery.json("/api/v1/findings").await?;
        Ok(findings["findings"].as_array().and_then(|all| all.first()).context("none yet")?.clone())
    })
    .await?;
    let pointer = "/spec/resources/0/filter_chains/0/filters/0/typed_config/stat_prefx";
    let line = "edge.yaml:15:11: MX0201 error EnvoySnapshot shop/edge ".to_owned() + pointer;
    let text = finding["text"].as_str().context("a text")?;
    assert!(text.ends_with(&format!("{line}: unknown field \"stat_prefx\"; did you mean \"stat_prefix\"?")), "{text}");
    assert!(chancery.log().contains(&line));
    chancery.in_sync(1).await?;
    answers("v2", "two").await?;
    chancery.edit_rules(RULES, "stat_prefx: edge", "stat_prefix: edge")?;

    // What only Envoy itself can refuse leads back to its line.
    chancery.edit_rules(RULES, "connect_timeout: 5s", "connect_timeout: -5s")?;
    let nack = eventually(SOON, "a refusal", async || {
        let nacks = chancery.json("/api/v1/nacks").await?;
        Ok(nacks["nacks"].as_array().and_then(|all| all.first()).context("none yet")?.clone())
    })
    .await?;
    let rule = &nack["rules"][0];
    assert_eq!((&nack["type"], &rule["object"]), (&"CDS".into(), &"EnvoySnapshot shop/edge".into()), "{nack:#}");
    assert_eq!((&rule["pointer"], &rule["line"]), (&"/spec/resources/3".into(), &32.into()), "{nack:#}");
    answers("v2", "two").await?;
    chancery.edit_rules(RULES, "connect_timeout: -5s", "connect_timeout: 6s")?;
    chancery.in_sync(1).await?;
    Ok(())
}

#[tokio::test]
async fn a_fleet_known_by_node_id_goes_on_in_delta() -> anyhow::Result<()> {
    a_fleet_goes_on_with_what_it_has(Way::Plaintext, false).await
}

#[tokio::test]
async fn a_fleet_known_by_node_id_goes_on_in_sotw() -> anyhow::Result<()> {
    a_fleet_goes_on_with_what_it_has(Way::Plaintext, true).await
}

#[tokio::test]
async fn a_fleet_with_credentials_of_its_nodes_goes_on_in_delta() -> anyhow::Result<()> {
    a_fleet_goes_on_with_what_it_has(Way::Credential, false).await
}

#[tokio::test]
async fn a_fleet_with_credentials_of_its_nodes_goes_on_in_sotw() -> anyhow::Result<()> {
    a_fleet_goes_on_with_what_it_has(Way::Credential, true).await
}

/// What Envoy fetches a piece at a time: a listener whose virtual hosts come on demand, one whose routes go by scope, a
/// layer of the runtime, and endpoints one by one.
fn pieces(on_demand: SocketAddr, scoped: SocketAddr, app: SocketAddr) -> String {
    let listener = |name: &str, port: u16, routes: &str, filter: &str| {
        format!(
            r#"- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: {name}
  address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
  filter_chains:
  - filters:
    - name: http
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: {name}
        {routes}
        http_filters:
{filter}        - name: router
          typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"#
        )
    };
    let filter = "        - name: on-demand\n          typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand}\n";
    let ads = "{ads: {}, resource_api_version: V3, initial_fetch_timeout: 1s}";
    let scopes = format!(
        "scoped_routes: {{name: scopes, rds_config_source: {ads}, scoped_rds: {{scoped_rds_config_source: {ads}}}, \
         scope_key_builder: {{fragments: [{{header_value_extractor: {{name: x-scope, element_separator: \",\", index: 0}}}}]}}}}"
    );
    let routes = format!("rds: {{route_config_name: lazy, config_source: {ads}}}");
    let port = app.port();
    let spec = format!(
        r#"match: {{nodeId: "edge-*"}}
resources:
{}{}- {{"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration, name: lazy, vhds: {{config_source: {ads}}}}}
- "@type": type.googleapis.com/envoy.config.route.v3.VirtualHost
  name: lazy/shop
  domains: [shop.example]
  routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: "shop of one"}}}}}}]
- "@type": type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration
  name: a
  route_configuration_name: main
  key: {{fragments: [{{string_key: a}}]}}
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: main
  virtual_hosts: [{{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: app}}}}]}}]
- "@type": type.googleapis.com/envoy.service.runtime.v3.Runtime
  name: layer
  layer: {{edge.level: 7}}
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: app
  type: EDS
  eds_cluster_config: {{eds_config: {ads}}}
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: app
  endpoints:
  - load_balancing_weight: 1
    leds_cluster_locality_config:
      leds_config: {ads}
      leds_collection_name: "xdstp://edge/envoy.config.endpoint.v3.LbEndpoint/app/*"
- "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
  name: xdstp://edge/envoy.config.endpoint.v3.LbEndpoint/app/one
  resource:
    "@type": type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint
    endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}"#,
        listener("lazy", on_demand.port(), &routes, filter),
        listener("scoped", scoped.port(), &scopes, ""),
    );
    rule("EnvoySnapshot", "edge", &spec)
}

#[tokio::test]
async fn what_envoy_fetches_a_piece_at_a_time_is_there_too() -> anyhow::Result<()> {
    let app = App::http("v1").await?;
    let (on_demand, scoped, plaintext) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
    let rules = pieces(on_demand.loopback(), scoped.loopback(), app.address());
    let address = plaintext.loopback().to_string();
    let chancery = Chancery::start(&[(RULES, &rules)], &["--xds-plaintext-address", &address]).await?;
    let admin = Port::reserve()?;
    let layers = "layered_runtime: {layers: [{name: rtds, rtds_layer: {name: layer, rtds_config: {ads: {}, resource_api_version: V3}}}]}\n";
    let text = bootstrap::aggregated(NODE, &admin, plaintext.loopback(), "DELTA_GRPC") + layers;
    let mut envoy = EnvoyProxy::run(&EnvoySource::from_environment().await?, admin, &text)?;
    envoy.live().await?;

    let runtime = async || Ok::<_, anyhow::Error>(envoy.text("/runtime").await?);
    ensure!(runtime().await?.contains("\"7\""), "{}", runtime().await?);
    chancery.edit_rules(RULES, "edge.level: 7", "edge.level: 8")?;
    eventually(SOON, "the other level", async || {
        ensure!(runtime().await?.contains("\"8\""), "{}", runtime().await?);
        Ok(())
    })
    .await?;

    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let ask = async |address: SocketAddr, header: &str, value: &str| {
        let answer = client.get(format!("http://{address}/")).header(header, value).send().await?;
        Ok::<_, anyhow::Error>((answer.status().as_u16(), answer.text().await?))
    };
    let shop = async |says: &str| {
        eventually(SOON, says, async || {
            let (status, body) = ask(on_demand.loopback(), "host", "shop.example").await?;
            ensure!(status == 200 && body == says, "{status} {body}");
            Ok(())
        })
        .await
    };
    shop("shop of one").await?;
    assert_eq!(ask(on_demand.loopback(), "host", "unknown.example").await?.0, 404);
    chancery.edit_rules(RULES, "shop of one", "shop of two")?;
    shop("shop of two").await?;

    eventually(SOON, "the scope", async || {
        let (status, body) = ask(scoped.loopback(), "x-scope", "a").await?;
        ensure!(status == 200 && body.contains("v1"), "{status} {body}");
        Ok(())
    })
    .await?;
    assert_eq!(ask(scoped.loopback(), "x-scope", "b").await?.0, 404);
    chancery.edit_rules(RULES, "string_key: a", "string_key: b")?;
    eventually(SOON, "the other scope", async || {
        let (status, _) = ask(scoped.loopback(), "x-scope", "b").await?;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await?;
    assert_eq!(chancery.json("/api/v1/nacks").await?["total"], 0);
    Ok(())
}

/// `size` clusters, of which one has this timeout, and a secret with a key.
fn clusters(size: usize, version: &str, seventh: u32) -> String {
    let cluster = |n: usize| {
        let timeout = if n == 7 { seventh } else { 1 };
        format!(
            "- {{\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: c-{n}, connect_timeout: {timeout}s}}\n"
        )
    };
    let clusters: String = (0..size).map(cluster).collect();
    let secret = "- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n  name: own\n  \
                  tls_certificate: {private_key: {inline_string: a-private-key}}\n";
    rule(
        "EnvoySnapshot",
        "edge",
        &format!("match: {{nodeId: \"edge-*\"}}\nversion: {version}\nresources:\n{clusters}{secret}"),
    )
}

#[tokio::test]
async fn one_of_a_thousand_goes_on_the_wire_alone() -> anyhow::Result<()> {
    let plaintext = Port::reserve()?;
    let address = plaintext.loopback().to_string();
    let arguments = ["--xds-plaintext-address", &address];
    let chancery = Chancery::start(&[(RULES, &clusters(1000, "first", 1))], &arguments).await?;
    let mut peer = Peer::delta(plaintext.loopback(), NODE).await?;
    peer.say(Kind::Cluster, Delta { subscribe: &["*"], ..Delta::default() }).await?;
    let first = peer.next_of(Kind::Cluster).await?;
    assert_eq!((first.resources.len(), first.version.as_str()), (1000, "first"));
    peer.accept(Kind::Cluster).await?;
    let mut sotw = Peer::sotw(plaintext.loopback(), "edge-2").await?;
    sotw.ask(Kind::Cluster, &[]).await?;
    let all = sotw.next_of(Kind::Cluster).await?;
    assert_eq!((all.resources.len(), all.version.as_str()), (1000, "first"));
    sotw.ack(Kind::Cluster, &[]).await?;

    chancery.write_rules(RULES, &clusters(1000, "second", 2))?;
    let second = peer.next_of(Kind::Cluster).await?;
    assert_eq!((second.names(), second.version.as_str()), (vec!["c-7"], "second"));
    assert_ne!(second.version_of("c-7"), first.version_of("c-7"));
    assert_eq!(sotw.next_of(Kind::Cluster).await?.version, "second");
    peer.accept(Kind::Cluster).await?;
    // The same again is nothing, wherever it stands.
    chancery.write_rules(RULES, &("# moved\n".to_owned() + &clusters(1000, "second", 2)))?;
    peer.silence().await?;
    // No secret leaves to a node that is known by its own word alone.
    peer.say(Kind::Secret, Delta { subscribe: &["own"], ..Delta::default() }).await?;
    peer.silence().await?;

    let credential = Credential::issue_to_node(&chancery, "edge-3").await?;
    let request = discovery_pb::DeltaDiscoveryRequest {
        node: Some(proto::envoy::config::core::v3::Node { id: "edge-3".into(), ..Default::default() }),
        type_url: Kind::Secret.type_url().to_owned(),
        resource_names_subscribe: vec!["own".to_owned(), "trust-bundle".to_owned()],
        ..Default::default()
    };
    let requests = tokio_stream::StreamExt::chain(tokio_stream::iter([request]), tokio_stream::pending());
    let mut client = AggregatedDiscoveryServiceClient::new(credential.connect(&chancery).await?);
    let mut answers = client.delta_aggregated_resources(requests).await?.into_inner();
    let answer = answers.message().await?.context("an answer")?;
    assert_eq!(answer.resources.iter().map(|resource| resource.name.as_str()).collect::<Vec<_>>(), ["own"]);
    assert_eq!(answer.removed_resources, ["trust-bundle"], "what is the mesh's is not a snapshot's");
    Ok(())
}

#[tokio::test]
async fn a_node_of_a_workload_and_of_a_snapshot_is_served_by_neither() -> anyhow::Result<()> {
    let plaintext = Port::reserve()?;
    let address = plaintext.loopback().to_string();
    let workload = rule("Workload", "old", "match: {nodeCluster: old}");
    let rules = clusters(1, "first", 1) + &workload;
    let chancery = Chancery::start(&[(RULES, &rules)], &["--xds-plaintext-address", &address]).await?;
    let mut free = Peer::delta(plaintext.loopback(), NODE).await?;
    free.say(Kind::Cluster, Delta::default()).await?;
    assert_eq!(free.next_of(Kind::Cluster).await?.names(), ["c-0"]);
    let mut disputed = Peer::delta(plaintext.loopback(), "edge-2").await?;
    disputed.node().cluster = "old".to_owned();
    disputed.say(Kind::Cluster, Delta::default()).await?;
    let end = disputed.end().await?;
    assert_eq!(end.code(), Code::PermissionDenied);
    assert!(
        end.message().contains("Workload shop/old") && end.message().contains("EnvoySnapshot shop/edge"),
        "{end:?}"
    );
    drop(chancery);
    Ok(())
}

#[tokio::test]
async fn a_node_moves_to_the_snapshot_that_says_most_of_it() -> anyhow::Result<()> {
    let plaintext = Port::reserve()?;
    let address = plaintext.loopback().to_string();
    let of_all = clusters(1, "all", 1);
    let chancery = Chancery::start(&[(RULES, &of_all)], &["--xds-plaintext-address", &address]).await?;
    let mut peers = Vec::new();
    for node in [NODE, "edge-2"] {
        let mut peer = Peer::delta(plaintext.loopback(), node).await?;
        peer.say(Kind::Cluster, Delta::default()).await?;
        assert_eq!(peer.next_of(Kind::Cluster).await?.version, "all");
        peer.accept(Kind::Cluster).await?;
        peers.push(peer);
    }
    // Who is matched as before keeps its stream, whatever is said of others.
    let of_one = clusters(1, "one", 1).replace("edge-*", NODE).replace("name: edge,", "name: one,");
    chancery.write_rules("one.yaml", &of_one)?;
    let [mut moved, mut stays] = <[Peer; 2]>::try_from(peers).ok().context("two")?;
    let end = moved.end().await?;
    assert_eq!(
        (end.code(), end.message()),
        (Code::Unavailable, "the node \"edge-1\" is EnvoySnapshot shop/one's now: connect again")
    );
    let mut again = Peer::delta(plaintext.loopback(), NODE).await?;
    again.say(Kind::Cluster, Delta::default()).await?;
    assert_eq!(again.next_of(Kind::Cluster).await?.version, "one");
    chancery.remove_rules("one.yaml")?;
    let mut back = eventually(SOON, "its former snapshot", async || {
        let mut back = Peer::delta(plaintext.loopback(), NODE).await?;
        back.say(Kind::Cluster, Delta::default()).await?;
        let version = back.next_of(Kind::Cluster).await?.version;
        ensure!(version == "all", "{version}");
        Ok(back)
    })
    .await?;
    // A workload that means it too does not take away what it has.
    chancery.write_rules("one.yaml", &rule("Workload", "old", &format!("match: {{nodeId: {NODE}}}")))?;
    eventually(SOON, "a finding", async || {
        let findings = chancery.json("/api/v1/findings").await?.to_string();
        ensure!(findings.contains("MX0301"), "{findings}");
        Ok(())
    })
    .await?;
    back.accept(Kind::Cluster).await?;
    back.silence().await?;
    stays.silence().await?;
    Ok(())
}

/// A listener that answers, and goes by itself two seconds after nobody has said any more that it stays.
fn mortal(listen: SocketAddr) -> String {
    let port = listen.port();
    let spec = format!(
        r#"match: {{nodeId: "edge-*"}}
resources:
- "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
  name: http
  ttl: 2s
  resource:
    "@type": type.googleapis.com/envoy.config.listener.v3.Listener
    name: http
    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200}}}}]}}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"#
    );
    rule("EnvoySnapshot", "edge", &spec)
}

#[tokio::test]
async fn what_lives_for_a_time_stays_while_it_is_served_and_goes_when_nobody_does() -> anyhow::Result<()> {
    let (plaintext, listen) = (Port::reserve()?, Port::reserve()?);
    let address = plaintext.loopback().to_string();
    let mut chancery =
        Chancery::start(&[(RULES, &mortal(listen.loopback()))], &["--xds-plaintext-address", &address]).await?;
    let envoy = envoy(&chancery, plaintext.loopback(), Way::Plaintext, false).await?;
    let url = format!("http://{}/", listen.loopback());
    // Each on a connection of its own: one that is open outlives its listener.
    let answers = async || {
        let client = client()?;
        anyhow::Ok(client.get(&url).send().await?.status().as_u16())
    };
    eventually(SOON, "an answer", async || Ok(answers().await?)).await?;
    // Longer than it lives by itself.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!(answers().await?, 200);
    }
    assert_eq!(envoy.stat("listener_manager.lds.update_rejected").await?, 0);
    assert_eq!(envoy.stat("listener_manager.listener_modified").await?, 0, "a heartbeat has no body");

    chancery.kill();
    eventually(SOON, "its end", async || {
        ensure!(answers().await.is_err(), "it answers");
        Ok(())
    })
    .await?;
    assert_eq!(envoy.stat("listener_manager.total_listeners_active").await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_node_is_known_by_its_cluster_and_its_metadata() -> anyhow::Result<()> {
    let plaintext = Port::reserve()?;
    let address = plaintext.loopback().to_string();
    let of = |version: &str, matched: &str| {
        clusters(1, version, 1)
            .replace("nodeId: \"edge-*\"", matched)
            .replace("name: edge,", &format!("name: {version},"))
    };
    let (by_cluster, by_metadata) =
        (of("by-cluster", "nodeCluster: edge"), of("by-metadata", "metadata: {tier: canary}"));
    let rules = [("cluster.yaml", &*by_cluster), ("metadata.yaml", &*by_metadata)];
    let _chancery = Chancery::start(&rules, &["--xds-plaintext-address", &address]).await?;
    let tier = |value: &str| {
        let value = proto::google::protobuf::Value {
            kind: Some(proto::google::protobuf::value::Kind::StringValue(value.to_owned())),
        };
        Some(proto::google::protobuf::Struct { fields: [("tier".to_owned(), value)].into() })
    };
    let node = async |id: &str, cluster: &str, metadata| {
        let mut peer = Peer::delta(plaintext.loopback(), id).await?;
        (peer.node().cluster, peer.node().metadata) = (cluster.to_owned(), metadata);
        peer.say(Kind::Cluster, Delta::default()).await?;
        anyhow::Ok(peer)
    };
    for (id, cluster, metadata, version) in
        [("a", "edge", None, "by-cluster"), ("b", "other", tier("canary"), "by-metadata")]
    {
        assert_eq!(node(id, cluster, metadata).await?.next_of(Kind::Cluster).await?.version, version);
    }
    for (id, cluster, metadata) in [("c", "other", None), ("d", "", tier("stable")), ("edge-1", "edge-1", None)] {
        let end = node(id, cluster, metadata).await?.end().await?;
        assert_eq!((end.code(), end.message().contains("matches the node")), (Code::Unavailable, true), "{id}: {end}");
    }
    // Two mean it, and neither says more of it than the other.
    let end = node("e", "edge", tier("canary")).await?.end().await?;
    ensure!(end.message().contains("by-cluster") && end.message().contains("by-metadata"), "{end}");
    Ok(())
}

#[tokio::test]
async fn what_is_typed_by_a_struct_is_served_as_it_is_written() -> anyhow::Result<()> {
    let (plaintext, listen) = (Port::reserve()?, Port::reserve()?);
    let address = plaintext.loopback().to_string();
    let router = "typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}";
    let typed = |of: &str, url: &str, value: &str| {
        format!(
            "typed_config: {{\"@type\": type.googleapis.com/{of}.TypedStruct, \
             type_url: type.googleapis.com/envoy.extensions.filters.http.{url}, value: {value}}}"
        )
    };
    let mutation = "{mutations: {response_mutations: [{append: {header: {key: x-struct, value: one}}}]}}";
    let filters = format!(
        "{}\n            - name: router\n              {}",
        typed("xds.type.v3", "header_mutation.v3.HeaderMutation", mutation),
        typed("udpa.type.v1", "router.v3.Router", "{suppress_envoy_headers: true}")
    );
    let rules = mortal(listen.loopback()).replace("name: router", "name: header").replace(router, &filters);
    let chancery = Chancery::start(&[(RULES, &rules)], &["--xds-plaintext-address", &address]).await?;
    let envoy = envoy(&chancery, plaintext.loopback(), Way::Plaintext, false).await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer =
        eventually(SOON, "an answer", async || Ok(client.get(format!("http://{}/", listen.loopback())).send().await?))
            .await?;
    assert_eq!((answer.status().as_u16(), answer.headers()["x-struct"].to_str()?), (200, "one"));
    assert_eq!(envoy.stat("listener_manager.lds.update_rejected").await?, 0);
    Ok(())
}
