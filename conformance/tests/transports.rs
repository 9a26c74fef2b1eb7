//! Which transport serves which type: each cell of the table, by a stock client against the running control plane.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use chancery::ports::Port;
use conformance::harness::shop::SOON;
use conformance::harness::{Chancery, Credential, TlsConnection, eventually};
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::endpoint::v3 as endpoint_pb;
use proto::envoy::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient;
use proto::envoy::service::discovery::v3 as discovery_pb;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::envoy::service::endpoint::v3::endpoint_discovery_service_client::EndpointDiscoveryServiceClient;
use proto::envoy::service::endpoint::v3::locality_endpoint_discovery_service_client::LocalityEndpointDiscoveryServiceClient;
use proto::envoy::service::extension::v3::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient;
use proto::envoy::service::listener::v3::listener_discovery_service_client::ListenerDiscoveryServiceClient;
use proto::envoy::service::load_stats::v3 as load_pb;
use proto::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
use proto::envoy::service::route::v3::route_discovery_service_client::RouteDiscoveryServiceClient;
use proto::envoy::service::route::v3::scoped_routes_discovery_service_client::ScopedRoutesDiscoveryServiceClient;
use proto::envoy::service::route::v3::virtual_host_discovery_service_client::VirtualHostDiscoveryServiceClient;
use proto::envoy::service::runtime::v3::runtime_discovery_service_client::RuntimeDiscoveryServiceClient;
use proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use proto::google::protobuf::Any;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1 as reflection_pb;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use translators::json;
use translators::resource::Kind;

const NODE: &str = "edge-1";

/// One resource of every type, for the node `edge-1`.
const RULES: &str = r#"
apiVersion: chancery.dev/v1alpha1
kind: EnvoySnapshot
metadata: {name: edge, namespace: edge}
spec:
  match: {nodeId: edge-1}
  resources:
  - {"@type": type.googleapis.com/envoy.service.runtime.v3.Runtime, name: flags, layer: {some.flag: 7}}
  - {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret, name: token,
     generic_secret: {secret: {inline_string: open sesame}}}
  - {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: app, connect_timeout: 1s}
  - {"@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, cluster_name: app}
  - "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
    name: xdstp://edge/envoy.config.endpoint.v3.LbEndpoint/app/1
    resource: {"@type": type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint, health_status: DRAINING}
  - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
    name: in
    stat_prefix: in
    address: {socket_address: {address: 127.0.0.1, port_value: 1}}
  - "@type": type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig
    name: filter
    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, dynamic_stats: false}
  - "@type": type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration
    name: scope
    route_configuration_name: main
    key: {fragments: [{string_key: a}]}
  - {"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration, name: main, most_specific_header_mutations_wins: true}
  - {"@type": type.googleapis.com/envoy.config.route.v3.VirtualHost, name: main/shop, domains: [shop.example]}
"#;

/// What the resource of each type is called, and how it is asked for.
fn names(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Runtime => ("flags", "flags"),
        Kind::Secret => ("token", "token"),
        Kind::Cluster => ("app", "*"),
        Kind::Endpoints => ("app", "app"),
        Kind::LocalityEndpoint => {
            let name = "xdstp://edge/envoy.config.endpoint.v3.LbEndpoint/app/1";
            (name, name)
        }
        Kind::Listener => ("in", "*"),
        Kind::ExtensionConfig => ("filter", "filter"),
        Kind::ScopedRoute => ("scope", "*"),
        Kind::Route => ("main", "main"),
        // Asked for by its alias.
        Kind::VirtualHost => ("main/shop", "main/shop.example"),
    }
}

/// A member of the resource that its name does not say, as JSON.
fn mark(kind: Kind) -> Value {
    match kind {
        Kind::Runtime => json!({"layer": {"some.flag": 7.0}}),
        Kind::Secret => json!({"generic_secret": {"secret": {"inline_string": "open sesame"}}}),
        Kind::Cluster => json!({"connect_timeout": "1s"}),
        Kind::Endpoints => json!({"cluster_name": "app"}),
        Kind::LocalityEndpoint => json!({"health_status": "DRAINING"}),
        Kind::Listener => json!({"stat_prefix": "in"}),
        Kind::ExtensionConfig => json!({"name": "filter"}),
        Kind::ScopedRoute => json!({"route_configuration_name": "main"}),
        Kind::Route => json!({"most_specific_header_mutations_wins": true}),
        Kind::VirtualHost => json!({"domains": ["shop.example"]}),
    }
}

fn node() -> Option<core_pb::Node> {
    Some(core_pb::Node { id: NODE.to_owned(), ..Default::default() })
}

/// A request, which names its type only where the service does not.
fn request(kind: Kind, type_url: &str) -> discovery_pb::DiscoveryRequest {
    discovery_pb::DiscoveryRequest {
        node: node(),
        type_url: type_url.to_owned(),
        resource_names: vec![names(kind).1.to_owned()],
        ..Default::default()
    }
}

fn delta_request(kind: Kind, type_url: &str) -> discovery_pb::DeltaDiscoveryRequest {
    discovery_pb::DeltaDiscoveryRequest {
        node: node(),
        type_url: type_url.to_owned(),
        resource_names_subscribe: vec![names(kind).1.to_owned()],
        ..Default::default()
    }
}

/// The first response on a stream that begins with the request.
macro_rules! first {
    ($client:ident, $method:ident, $channel:expr, $request:expr) => {{
        let requests = tokio_stream::iter([$request]).chain(tokio_stream::pending());
        let mut responses = $client::new($channel).$method(requests).await?.into_inner();
        responses.message().await?.ok_or_else(|| Status::unknown("the stream ended"))
    }};
}

/// The stream of the type's own service, state of the world.
async fn sotw(kind: Kind, channel: Channel) -> Result<discovery_pb::DiscoveryResponse, Status> {
    let request = request(kind, "");
    match kind {
        Kind::Runtime => first!(RuntimeDiscoveryServiceClient, stream_runtime, channel, request),
        Kind::Secret => first!(SecretDiscoveryServiceClient, stream_secrets, channel, request),
        Kind::Cluster => first!(ClusterDiscoveryServiceClient, stream_clusters, channel, request),
        Kind::Endpoints => first!(EndpointDiscoveryServiceClient, stream_endpoints, channel, request),
        Kind::Listener => first!(ListenerDiscoveryServiceClient, stream_listeners, channel, request),
        Kind::ExtensionConfig => {
            first!(ExtensionConfigDiscoveryServiceClient, stream_extension_configs, channel, request)
        }
        Kind::ScopedRoute => first!(ScopedRoutesDiscoveryServiceClient, stream_scoped_routes, channel, request),
        Kind::Route => first!(RouteDiscoveryServiceClient, stream_routes, channel, request),
        Kind::LocalityEndpoint | Kind::VirtualHost => Err(Status::unimplemented("Envoy has no such method")),
    }
}

/// The stream of the type's own service, incremental.
async fn delta(kind: Kind, channel: Channel) -> Result<discovery_pb::DeltaDiscoveryResponse, Status> {
    let request = delta_request(kind, "");
    match kind {
        Kind::Runtime => first!(RuntimeDiscoveryServiceClient, delta_runtime, channel, request),
        Kind::Secret => first!(SecretDiscoveryServiceClient, delta_secrets, channel, request),
        Kind::Cluster => first!(ClusterDiscoveryServiceClient, delta_clusters, channel, request),
        Kind::Endpoints => first!(EndpointDiscoveryServiceClient, delta_endpoints, channel, request),
        Kind::LocalityEndpoint => {
            first!(LocalityEndpointDiscoveryServiceClient, delta_locality_endpoints, channel, request)
        }
        Kind::Listener => first!(ListenerDiscoveryServiceClient, delta_listeners, channel, request),
        Kind::ExtensionConfig => {
            first!(ExtensionConfigDiscoveryServiceClient, delta_extension_configs, channel, request)
        }
        Kind::ScopedRoute => first!(ScopedRoutesDiscoveryServiceClient, delta_scoped_routes, channel, request),
        Kind::Route => first!(RouteDiscoveryServiceClient, delta_routes, channel, request),
        Kind::VirtualHost => first!(VirtualHostDiscoveryServiceClient, delta_virtual_hosts, channel, request),
    }
}

/// The unary method of the type's own service.
async fn fetch(kind: Kind, channel: Channel) -> Result<discovery_pb::DiscoveryResponse, Status> {
    let request = request(kind, "");
    let response = match kind {
        Kind::Runtime => RuntimeDiscoveryServiceClient::new(channel).fetch_runtime(request).await,
        Kind::Secret => SecretDiscoveryServiceClient::new(channel).fetch_secrets(request).await,
        Kind::Cluster => ClusterDiscoveryServiceClient::new(channel).fetch_clusters(request).await,
        Kind::Endpoints => EndpointDiscoveryServiceClient::new(channel).fetch_endpoints(request).await,
        Kind::Listener => ListenerDiscoveryServiceClient::new(channel).fetch_listeners(request).await,
        Kind::ExtensionConfig => {
            ExtensionConfigDiscoveryServiceClient::new(channel).fetch_extension_configs(request).await
        }
        Kind::ScopedRoute => ScopedRoutesDiscoveryServiceClient::new(channel).fetch_scoped_routes(request).await,
        Kind::Route => RouteDiscoveryServiceClient::new(channel).fetch_routes(request).await,
        Kind::LocalityEndpoint | Kind::VirtualHost => Err(Status::unimplemented("Envoy has no such method")),
    };
    response.map(tonic::Response::into_inner)
}

/// Where the type is polled over plain HTTP.
fn path(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Runtime => Some("/v3/discovery:runtime"),
        Kind::Secret => Some("/v3/discovery:secrets"),
        Kind::Cluster => Some("/v3/discovery:clusters"),
        Kind::Endpoints => Some("/v3/discovery:endpoints"),
        Kind::Listener => Some("/v3/discovery:listeners"),
        Kind::ExtensionConfig => Some("/v3/discovery:extension_configs"),
        Kind::ScopedRoute => Some("/v3/discovery:scoped-routes"),
        Kind::Route => Some("/v3/discovery:routes"),
        Kind::LocalityEndpoint | Kind::VirtualHost => None,
    }
}

/// Checks that the resource is the one of this type.
fn check(kind: Kind, cell: &str, resource: Option<&Any>) -> anyhow::Result<()> {
    let resource = resource.with_context(|| format!("{kind} by {cell}: no resource"))?;
    ensure!(resource.type_url == kind.type_url(), "{kind} by {cell}: {}", resource.type_url);
    check_value(kind, cell, &json::to_json(&resource.type_url, &resource.value)?)
}

fn check_value(kind: Kind, cell: &str, resource: &Value) -> anyhow::Result<()> {
    let mark = mark(kind);
    for (name, value) in mark.as_object().context("an object")? {
        ensure!(resource[name] == *value, "{kind} by {cell}: {resource}");
    }
    Ok(())
}

fn check_sotw(kind: Kind, cell: &str, response: &discovery_pb::DiscoveryResponse) -> anyhow::Result<()> {
    ensure!(response.type_url == kind.type_url() && response.resources.len() == 1, "{kind} by {cell}: {response:?}");
    ensure!(!response.version_info.is_empty(), "{kind} by {cell}: no version");
    check(kind, cell, response.resources.first())
}

fn check_delta(kind: Kind, cell: &str, response: &discovery_pb::DeltaDiscoveryResponse) -> anyhow::Result<()> {
    let [resource] = &response.resources[..] else { bail!("{kind} by {cell}: {response:?}") };
    ensure!(response.type_url == kind.type_url() && resource.name == names(kind).0, "{kind} by {cell}: {response:?}");
    check(kind, cell, resource.resource.as_ref())
}

/// A client over plain HTTP, and how it is answered: status and body.
async fn poll(address: SocketAddr, path: &str, body: &Value) -> anyhow::Result<(u16, String)> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;
    let response = client.post(format!("http://{address}{path}")).json(body).send().await?;
    Ok((response.status().as_u16(), response.text().await?))
}

/// A control plane with a credential for the node, and its address without TLS.
async fn start(rules: &str, arguments: &[&str]) -> anyhow::Result<(Chancery, Credential, Port)> {
    let plaintext = Port::reserve()?;
    let address = plaintext.loopback().to_string();
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--xds-plaintext-address", &*address]).collect();
    let chancery = Chancery::start(&[("rules.yaml", rules)], &arguments).await?;
    let credential = Credential::issue_to_node(&chancery, NODE).await?;
    Ok((chancery, credential, plaintext))
}

async fn plain(address: SocketAddr) -> anyhow::Result<Channel> {
    Ok(Channel::from_shared(format!("http://{address}"))?.connect().await?)
}

#[tokio::test]
async fn every_stream_and_fetch_serves_its_type() -> anyhow::Result<()> {
    let (chancery, credential, _plaintext) = start(RULES, &[]).await?;
    let channel = credential.connect(&chancery).await?;
    for kind in Kind::ALL {
        let incremental = matches!(kind, Kind::LocalityEndpoint | Kind::VirtualHost);
        let asked = delta_request(kind, kind.type_url());
        let answer = first!(AggregatedDiscoveryServiceClient, delta_aggregated_resources, channel.clone(), asked)?;
        check_delta(kind, "delta ADS", &answer)?;
        check_delta(kind, "its own delta stream", &delta(kind, channel.clone()).await?)?;
        let (own, fetched) = (sotw(kind, channel.clone()).await, fetch(kind, channel.clone()).await);
        if incremental {
            assert_eq!((own.expect_err("none").code(), fetched.expect_err("none").code()), {
                (Code::Unimplemented, Code::Unimplemented)
            });
            continue;
        }
        let asked = request(kind, kind.type_url());
        let answer = first!(AggregatedDiscoveryServiceClient, stream_aggregated_resources, channel.clone(), asked)?;
        check_sotw(kind, "SotW ADS", &answer)?;
        check_sotw(kind, "its own SotW stream", &own?)?;
        check_sotw(kind, "a fetch", &fetched?)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_credential_opens_no_method_for_another_node() -> anyhow::Result<()> {
    let (chancery, _credential, _plaintext) = start(RULES, &[]).await?;
    // Whoever holds it says that it is NODE.
    let other = Credential::issue_to_node(&chancery, "edge-2").await?;
    let (theirs, nobodys) = (other.connect(&chancery).await?, other.connect_without(&chancery).await?);
    for (channel, expected) in [(theirs, Code::PermissionDenied), (nobodys, Code::Unauthenticated)] {
        for kind in Kind::ALL {
            let asked = delta_request(kind, kind.type_url());
            let asked =
                async { first!(AggregatedDiscoveryServiceClient, delta_aggregated_resources, channel.clone(), asked) };
            let refused: Result<_, Status> = asked.await;
            assert_eq!(refused.expect_err("refused").code(), expected, "{kind} by delta ADS");
            let refused = delta(kind, channel.clone()).await;
            assert_eq!(refused.expect_err("refused").code(), expected, "{kind} by its own delta stream");
            if matches!(kind, Kind::LocalityEndpoint | Kind::VirtualHost) {
                continue;
            }
            let asked = request(kind, kind.type_url());
            let asked =
                async { first!(AggregatedDiscoveryServiceClient, stream_aggregated_resources, channel.clone(), asked) };
            let refused: Result<_, Status> = asked.await;
            assert_eq!(refused.expect_err("refused").code(), expected, "{kind} by SotW ADS");
            let (own, fetched) = (sotw(kind, channel.clone()).await, fetch(kind, channel.clone()).await);
            assert_eq!(own.expect_err("refused").code(), expected, "{kind} by its own SotW stream");
            assert_eq!(fetched.expect_err("refused").code(), expected, "{kind} by a fetch");
        }
    }
    let body = json!({"node": {"id": NODE}}).to_string();
    for path in Kind::ALL.into_iter().filter_map(path) {
        let connection = TlsConnection::open(chancery.xds_address(), other.identity(), &["http/1.1"]);
        assert_eq!(connection.await?.send("POST", path, &body).await?.0, 403, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn every_type_that_envoy_polls_is_served_over_plain_http() -> anyhow::Result<()> {
    let (chancery, credential, plaintext) = start(RULES, &["--poll-wait", "10ms"]).await?;
    for kind in Kind::ALL {
        let Some(path) = path(kind) else { continue };
        let mut body = json!({"node": {"id": NODE}, "resource_names": [names(kind).1]});
        let tls = |body: &Value| {
            let (address, identity, body) = (chancery.xds_address(), credential.identity(), body.to_string());
            async move { TlsConnection::open(address, identity, &["http/1.1"]).await?.send("POST", path, &body).await }
        };
        let (status, text) = tls(&body).await?;
        ensure!(status == 200, "{kind}: {status} {text}");
        let answer: Value = serde_json::from_str(&text)?;
        let resource = &answer["resources"][0];
        ensure!(resource["@type"] == kind.type_url() && answer["type_url"] == kind.type_url(), "{answer}");
        check_value(kind, "REST", resource)?;
        // Without TLS: the same, but nothing secret.
        let without = poll(plaintext.loopback(), path, &body).await?;
        let expected = if kind == Kind::Secret { (304, String::new()) } else { (200, text) };
        assert_eq!(without, expected, "{kind}");
        body["versionInfo"] = answer["version_info"].clone();
        assert_eq!(tls(&body).await?, (304, String::new()), "{kind}");
    }
    let stranger =
        TlsConnection::open(chancery.xds_address(), conformance::harness::ClientIdentity::None, &["http/1.1"]);
    let body = json!({"node": {"id": NODE}}).to_string();
    let (status, _) = stranger.await?.send("POST", "/v3/discovery:clusters", &body).await?;
    assert_eq!(status, 401);
    for (path, body, status) in
        [("/v3/discovery:nothing", json!({}), 404), ("/", json!({}), 404), ("/v3/discovery:clusters", json!("x"), 400)]
    {
        assert_eq!(poll(plaintext.loopback(), path, &body).await?.0, status, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_poll_is_answered_as_soon_as_something_changes() -> anyhow::Result<()> {
    let (chancery, _credential, plaintext) = start(RULES, &["--poll-wait", "20s"]).await?;
    let mut body = json!({"node": {"id": NODE}});
    let (_, first) = poll(plaintext.loopback(), "/v3/discovery:clusters", &body).await?;
    let first: Value = serde_json::from_str(&first)?;
    body["version_info"] = first["version_info"].clone();
    let answer = poll(plaintext.loopback(), "/v3/discovery:clusters", &body);
    let change = async {
        // The poll is under way when its client is seen.
        chancery.json("/api/v1/proxies").await?;
        chancery.edit_rules("rules.yaml", "connect_timeout: 1s", "connect_timeout: 2s")
    };
    let ((status, text), ()) = tokio::try_join!(answer, change)?;
    let second: Value = serde_json::from_str(&text)?;
    assert_eq!((status, &second["resources"][0]["connect_timeout"]), (200, &json!("2s")));
    let proxies = chancery.json("/api/v1/proxies").await?;
    assert_eq!((&proxies["proxies"][0]["node"], &proxies["proxies"][0]["protocol"]), (&json!(NODE), &json!("rest")));
    Ok(())
}

#[tokio::test]
async fn load_is_asked_for_of_whom_is_known() -> anyhow::Result<()> {
    let (chancery, credential, plaintext) = start(RULES, &["--load-report-interval", "90s"]).await?;
    let ask = async |channel: Channel, id: &str, features: &[&str]| {
        let node = core_pb::Node {
            id: id.to_owned(),
            client_features: features.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let first = load_pb::LoadStatsRequest { node: Some(node), cluster_stats: Vec::new() };
        let stats = endpoint_pb::ClusterStats { cluster_name: "app".into(), ..Default::default() };
        let report = load_pb::LoadStatsRequest { node: None, cluster_stats: vec![stats] };
        let requests = tokio_stream::iter([first, report]).chain(tokio_stream::pending());
        let mut answers = LoadReportingServiceClient::new(channel).stream_load_stats(requests).await?.into_inner();
        answers.message().await?.ok_or_else(|| Status::unknown("the stream ended"))
    };
    let channels = [credential.connect(&chancery).await?, plain(plaintext.loopback()).await?];
    for channel in channels {
        let all = ask(channel.clone(), NODE, &["envoy.lrs.supports_send_all_clusters"]).await?;
        let interval = all.load_reporting_interval.context("an interval")?;
        assert_eq!((all.send_all_clusters, interval.seconds, all.report_endpoint_granularity), (true, 90, false));
        assert!(!ask(channel.clone(), NODE, &[]).await?.send_all_clusters);
        assert_eq!(ask(channel, "", &[]).await.expect_err("no node").code(), Code::InvalidArgument);
    }
    let nobody = ask(credential.connect_without(&chancery).await?, NODE, &[]).await;
    assert_eq!(nobody.expect_err("no credential").code(), Code::Unauthenticated);
    Ok(())
}

#[tokio::test]
async fn health_and_reflection_are_on_the_same_port() -> anyhow::Result<()> {
    let (chancery, credential, plaintext) = start(RULES, &[]).await?;
    for channel in [credential.connect_without(&chancery).await?, plain(plaintext.loopback()).await?] {
        let request = tonic_health::pb::HealthCheckRequest::default();
        let health = HealthClient::new(channel.clone()).check(request).await?.into_inner();
        assert_eq!(health.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
        use reflection_pb::server_reflection_request::MessageRequest;
        use reflection_pb::server_reflection_response::MessageResponse;
        let ask = async |question: MessageRequest| {
            let request =
                reflection_pb::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
            let mut answers = ServerReflectionClient::new(channel.clone())
                .server_reflection_info(tokio_stream::iter([request]))
                .await?
                .into_inner();
            let answer = answers.message().await?.context("an answer")?;
            answer.message_response.context("an answer")
        };
        let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await?
        else {
            bail!("no list");
        };
        let services: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
        for service in chancery::stream::services().chain(["grpc.health.v1.Health"]) {
            ensure!(services.iter().any(|name| name == service), "{service}: {services:?}");
        }
        let symbol = "envoy.service.cluster.v3.ClusterDiscoveryService".to_owned();
        let described = ask(MessageRequest::FileContainingSymbol(symbol)).await?;
        assert!(matches!(described, MessageResponse::FileDescriptorResponse(_)), "{described:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_peer_that_answers_no_probe_is_given_up() -> anyhow::Result<()> {
    let (_chancery, _credential, plaintext) = start(RULES, &["--keepalive", "1s"]).await?;
    let mut peer = TcpStream::connect(plaintext.loopback()).await?;
    // The preface and empty settings; from then on nothing, as if the network had gone.
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut read = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(20), peer.read_to_end(&mut read)).await;
    closed.context("it is still connected")??;
    ensure!(read.windows(9).any(|frame| frame[..5] == [0, 0, 8, 6, 0]), "it was not probed: {read:?}");
    Ok(())
}

#[tokio::test]
async fn streams_end_at_their_age_and_more_than_are_let_in_are_told_so() -> anyhow::Result<()> {
    let (_chancery, _credential, plaintext) =
        start(RULES, &["--max-stream-age", "1s", "--new-streams-per-second", "2"]).await?;
    let channel = plain(plaintext.loopback()).await?;
    let open = async || {
        let requests = tokio_stream::iter([delta_request(Kind::Cluster, "")]).chain(tokio_stream::pending());
        let stream = ClusterDiscoveryServiceClient::new(channel.clone()).delta_clusters(requests).await?;
        let mut stream = stream.into_inner();
        stream.message().await?;
        Ok::<_, Status>(stream)
    };
    let (mut streams, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        match open().await {
            Ok(stream) => streams.push(stream),
            Err(status) => refused.push(status.code()),
        }
    }
    ensure!(!streams.is_empty() && !refused.is_empty(), "{} let in, {refused:?}", streams.len());
    ensure!(refused.iter().all(|code| *code == Code::ResourceExhausted), "{refused:?}");
    // It has not answered what it was sent, and is given a while to do so.
    let mut stream = streams.pop().context("a stream")?;
    let end = tokio::time::timeout(Duration::from_secs(30), stream.message()).await?;
    let end = end.expect_err("it ends");
    assert_eq!((end.code(), end.message()), (Code::Unavailable, "the stream has reached its maximum age"));
    Ok(())
}

#[tokio::test]
async fn a_reader_that_stops_is_given_up_and_no_other() -> anyhow::Result<()> {
    let large = format!("connect_timeout: 1s, alt_stat_name: {}", "x".repeat(1 << 20));
    let rules = RULES.replace("connect_timeout: 1s", &large);
    let (_chancery, _credential, plaintext) = start(&rules, &["--stalled-after", "1s"]).await?;
    let mut builder = h2::client::Builder::new();
    // One stream that stops leaves room for the other.
    builder.initial_connection_window_size(16 << 20);
    let socket = TcpStream::connect(plaintext.loopback()).await?;
    let (client, connection) = builder.handshake::<_, bytes::Bytes>(socket).await?;
    let mut client = client.ready().await?;
    let request = || {
        let uri = "http://chancery/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters";
        http::Request::post(uri).header("content-type", "application/grpc").header("te", "trailers").body(())
    };
    let message = prost::Message::encode_to_vec(&delta_request(Kind::Cluster, ""));
    let length = u32::try_from(message.len())?.to_be_bytes();
    let message = bytes::Bytes::from([&[0][..], &length, &message].concat());
    let read = async {
        let (stopped, mut requests) = client.send_request(request()?, false)?;
        requests.send_data(message.clone(), false)?;
        let mut stopped = stopped.await?.into_body();
        // It reads once and gives no room back.
        stopped.data().await.context("data")??;
        let (other, mut requests) = client.send_request(request()?, false)?;
        requests.send_data(message.clone(), false)?;
        let mut other = other.await?.into_body();
        let (mut received, mut ended) = (0, false);
        // The other takes everything, though slowly, and stays; what is left of the one is its reset.
        while received < 1 << 20 {
            let chunk = other.data().await.context("data")??;
            other.flow_control().release_capacity(chunk.len())?;
            received += chunk.len();
        }
        while !ended {
            ended = match tokio::time::timeout(Duration::from_secs(20), stopped.data()).await? {
                Some(Ok(_)) => false,
                Some(Err(error)) => {
                    ensure!(error.is_reset(), "{error}");
                    true
                }
                None => true,
            };
        }
        // What is left of its response, and then it waits.
        while let Ok(more) = tokio::time::timeout(Duration::from_millis(200), other.data()).await {
            more.context("the other one stays")??;
        }
        Ok(())
    };
    tokio::select! {
        read = read => read,
        ended = connection => bail!("the connection ended: {ended:?}"),
    }
}

#[tokio::test]
async fn a_flood_of_resets_ends_its_connection_and_no_other() -> anyhow::Result<()> {
    let (_chancery, _credential, plaintext) = start(RULES, &[]).await?;
    let (client, connection) = h2::client::handshake(TcpStream::connect(plaintext.loopback()).await?).await?;
    let mut client = client.ready().await?;
    let flood = async {
        for number in 0..100_000_u32 {
            let uri = "http://chancery/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters";
            let request = http::Request::post(uri).header("content-type", "application/grpc").body(())?;
            let Ok((_, mut stream)) = client.send_request(request, false) else { break };
            stream.send_reset(h2::Reason::CANCEL);
            if number % 1_000 == 0 {
                tokio::task::yield_now().await;
            }
            client = client.ready().await?;
        }
        anyhow::Ok(())
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(connection, flood).0 }).await?;
    let error = ended.expect_err("it is no peer to talk to");
    // Unless the reason is lost with the connection.
    ensure!(error.is_io() || error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM), "{error}");
    eventually(SOON, "another peer is served", async || {
        let (status, _) = poll(plaintext.loopback(), "/v3/discovery:clusters", &json!({"node": {"id": NODE}})).await?;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_client_that_uses_them_is_told_the_errors_of_resources() -> anyhow::Result<()> {
    let (_chancery, _credential, plaintext) = start(RULES, &[]).await?;
    let channel = plain(plaintext.loopback()).await?;
    let mut asked = request(Kind::Cluster, Kind::Cluster.type_url());
    asked.resource_names = vec!["app".to_owned(), "nothing".to_owned()];
    let answer = first!(AggregatedDiscoveryServiceClient, stream_aggregated_resources, channel.clone(), asked.clone())?;
    assert_eq!((answer.resources.len(), answer.resource_errors.len()), (1, 0), "Envoy does not use them");
    let node = asked.node.as_mut().context("its node")?;
    node.user_agent_name = "gRPC Go".to_owned();
    let answer = first!(AggregatedDiscoveryServiceClient, stream_aggregated_resources, channel, asked)?;
    let [error] = &answer.resource_errors[..] else { bail!("{answer:?}") };
    let (name, detail) = (error.resource_name.as_ref().context("a name")?, error.error_detail.as_ref().context("why")?);
    assert_eq!((name.name.as_str(), detail.code, answer.resources.len()), ("nothing", Code::NotFound as i32, 1));
    Ok(())
}
