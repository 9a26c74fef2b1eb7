//! An Envoy as it is: neither TLS nor a credential in its bootstrap, known by its node id alone.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::{SOON, rule};
use conformance::harness::{App, Chancery, Credential, Delta, EnvoyProxy, EnvoySource, Peer, bootstrap, eventually};
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::service::discovery::v3 as discovery_pb;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::Endpoint;
use translators::resource::Kind;

/// The service `cart` without mTLS, on the proxies whose node id begins with `vm-`.
fn rules(listen: SocketAddr, app: SocketAddr) -> String {
    let workload = format!(
        "match: {{nodeId: \"vm-*\"}}\n\
         serves: [{{service: cart, port: http, listen: \"{listen}\", app: \"{app}\"}}]"
    );
    rule("MeshService", "cart", "ports: [{name: http, port: 80, protocol: http}]")
        + &rule("Workload", "cart", &workload)
        + &rule("MTLSPolicy", "open", "{target: {scope: namespace}, mode: disabled}")
}

async fn ask(address: SocketAddr, node: &str, kinds: &[(Kind, &str)]) -> Result<Vec<String>, tonic::Status> {
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    let requests: Vec<_> = kinds
        .iter()
        .map(|(kind, name)| discovery_pb::DeltaDiscoveryRequest {
            node: Some(core_pb::Node { id: node.to_owned(), ..Default::default() }),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: vec![(*name).to_owned()],
            ..Default::default()
        })
        .collect();
    let requests = tokio_stream::iter(requests).chain(tokio_stream::pending());
    let stream = AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(requests).await?;
    let mut stream = stream.into_inner();
    let mut answered = Vec::new();
    while let Ok(message) = tokio::time::timeout(Duration::from_secs(2), stream.message()).await {
        let message = message?.ok_or_else(|| tonic::Status::unknown("the stream ended"))?;
        answered.push(message.type_url);
    }
    Ok(answered)
}

#[tokio::test]
async fn an_envoy_without_a_credential_is_served_by_its_node_id() -> anyhow::Result<()> {
    let app = App::http("v1").await?;
    let (listen, plaintext) = (Port::reserve()?, Port::reserve()?);
    let rules = rules(listen.loopback(), app.address());
    let address = plaintext.loopback().to_string();
    let chancery = Chancery::start(&[("rules.yaml", &rules)], &["--xds-plaintext-address", &address]).await?;

    let admin = Port::reserve()?;
    let source = EnvoySource::from_environment().await?;
    let bootstrap = bootstrap::aggregated("vm-1", &admin, plaintext.loopback(), "GRPC");
    let mut envoy = EnvoyProxy::run(&source, admin, &bootstrap)?;
    envoy.live().await?;
    let proxies = chancery.in_sync(1).await?;
    assert_eq!(
        (&proxies["proxies"][0]["node"], &proxies["proxies"][0]["workload"]),
        (&"vm-1".into(), &"shop/cart".into())
    );
    // That nobody has shown who it is, is said wherever one looks.
    assert_eq!(proxies["proxies"][0]["knownBy"], "nodeId");
    let ask = async |arguments: &[&str]| {
        let admin = chancery.admin_address().to_string();
        let output = chancery.run(&[arguments, &["--admin-address", &admin]].concat()).await?;
        anyhow::Ok((output.status.code(), String::from_utf8(output.stdout)?))
    };
    let (_, table) = ask(&["proxies"]).await?;
    ensure!(table.contains("plaintext: known by its node id alone"), "{table}");
    ensure!(chancery.log().contains("proxies are served without TLS"), "{}", chancery.log());
    let (code, checks) = ask(&["check", "--output", "short"]).await?;
    ensure!(
        checks.contains(&format!("{address} is open without TLS: 1 proxy on it is known by its node id")),
        "{checks}"
    );
    assert_eq!(code, Some(0), "a warning is no failure: {checks}");
    let (code, json) = ask(&["check", "--fail-on", "warning", "--output", "json"]).await?;
    let json: serde_json::Value = serde_json::from_str(&json)?;
    assert_eq!((code, &json["failures"], &json["warnings"]), (Some(1), &0.into(), &1.into()), "{json:#}");

    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let url = format!("http://{}/cart", listen.loopback());
    eventually(SOON, "an answer through the proxy", async || {
        let status = client.get(&url).send().await?.status();
        ensure!(status.is_success(), "{status}");
        Ok(())
    })
    .await?;
    // A mistake in the rules fails a check.
    chancery
        .write_rules("mistake.yaml", &rule("AccessPolicy", "mistake", "{target: {service: crat}, default: deny}"))?;
    eventually(SOON, "a check that fails", async || {
        let (code, checks) = ask(&["check"]).await?;
        ensure!(code == Some(1) && checks.contains("FAIL  errors") && checks.contains("crat"), "{code:?}: {checks}");
        Ok(())
    })
    .await?;
    chancery.remove_rules("mistake.yaml")?;
    // A change reaches it.
    let closed = rule("AccessPolicy", "closed", "{target: {service: cart}, default: deny}");
    chancery.write_rules("policy.yaml", &closed)?;
    eventually(SOON, "the door to close", async || {
        let status = client.get(&url).send().await?.status();
        ensure!(status.as_u16() == 403, "{status}");
        Ok(())
    })
    .await?;
    assert_eq!(chancery.json("/api/v1/nacks").await?["total"], 0);
    Ok(())
}

#[tokio::test]
async fn nothing_secret_leaves_without_tls_and_nobody_else_is_served() -> anyhow::Result<()> {
    let plaintext = Port::reserve()?;
    let address = plaintext.loopback();
    let rules = rules(([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
    let arguments = ["--xds-plaintext-address", &address.to_string()];
    let chancery = Chancery::start(&[("rules.yaml", &rules)], &arguments).await?;
    // The certificate of the workload exists by now, and is handed to a proxy with a credential.
    let credential = conformance::harness::Credential::issue(&chancery, "shop/cart").await?;
    credential.connect(&chancery).await?;

    let secrets =
        [(Kind::Secret, "identity"), (Kind::Secret, "trust-bundle"), (Kind::Secret, "*"), (Kind::Cluster, "*")];
    // A client that is no Envoy gets a group of its own, which has to be made first.
    let answered = eventually(SOON, "answers", async || Ok(ask(address, "vm-1", &secrets).await?)).await?;
    assert_eq!(answered, [Kind::Cluster.type_url()], "the other types are answered, secrets never");

    let stranger = ask(address, "unknown", &[(Kind::Cluster, "*")]).await.expect_err("no workload matches");
    assert_eq!(stranger.code(), Code::Unavailable);
    let nameless = ask(address, "", &[(Kind::Cluster, "*")]).await.expect_err("no node id");
    assert_eq!(nameless.code(), Code::InvalidArgument);
    Ok(())
}

/// A listener with its certificate in it, and one without.
fn listeners(key_pem: &str) -> String {
    let listener = |name: &str, port: u16, tls: serde_json::Value| {
        serde_json::json!({"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": name,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"transport_socket": tls, "filters": [{"name": "tcp", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "x", "cluster": "x"}}]}]})
    };
    let context = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [
            {"certificate_chain": {"inline_string": "public"}, "private_key": {"inline_string": key_pem}}]}});
    let resources = [
        listener("open", 10_001, serde_json::Value::Null),
        listener("keyed", 10_002, serde_json::json!({"name": "tls", "typed_config": context})),
    ];
    let snapshot = serde_json::json!({"apiVersion": "chancery.dev/v1alpha1", "kind": "EnvoySnapshot",
        "metadata": {"name": "keyed", "namespace": "edge"},
        "spec": {"match": {"nodeId": "keyed-1"}, "resources": resources}});
    snapshot.to_string()
}

#[tokio::test]
async fn a_key_in_a_listener_leaves_by_tls_alone_and_is_shown_nowhere() -> anyhow::Result<()> {
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nnobody's\n-----END PRIVATE KEY-----\n";
    let plaintext = Port::reserve()?;
    let arguments = ["--xds-plaintext-address", &plaintext.loopback().to_string()];
    let chancery = Chancery::start(&[("rules.yaml", &listeners(KEY))], &arguments).await?;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;

    let mut open = Peer::delta(plaintext.loopback(), "keyed-1").await?;
    open.say(Kind::Listener, Delta::default()).await?;
    assert_eq!(open.next_of(Kind::Listener).await?.names(), ["open"]);
    open.accept(Kind::Listener).await?;
    let url = format!("http://{}/v3/discovery:listeners", plaintext.loopback());
    let polled = client.post(url).body(r#"{"node": {"id": "keyed-1"}}"#).send().await?.text().await?;
    ensure!(polled.contains("\"open\"") && !polled.contains("keyed\"") && !polled.contains("nobody's"), "{polled}");

    let channel = Credential::issue_to_node(&chancery, "keyed-1").await?.connect(&chancery).await?;
    let mut proven = Peer::delta_over(channel, "keyed-1").await?;
    proven.say(Kind::Listener, Delta::default()).await?;
    let received = proven.next_of(Kind::Listener).await?;
    ensure!(received.says("nobody's"), "it is served as it was written");
    proven.refuse(Kind::Listener, "keyed: failed to load the key nobody's").await?;
    proven.say(Kind::Listener, Delta { subscribe: &["open"], ..Default::default() }).await?;

    for address in [chancery.admin_address(), plaintext.loopback()] {
        let url = format!("http://{address}/v3/discovery:client_status");
        let shown = client.post(url).body(r#"{"node": {"id": "keyed-1"}}"#).send().await?.text().await?;
        ensure!(shown.contains("keyed\"") && !shown.contains("BEGIN PRIVATE KEY"), "{shown}");
    }
    let findings = chancery.json("/api/v1/findings").await?.to_string();
    ensure!(findings.contains("MX0404") && findings.contains("/spec/resources/1"), "{findings}");
    Ok(())
}

#[tokio::test]
async fn another_address_than_loopback_has_to_be_asked_for_twice() -> anyhow::Result<()> {
    let chancery = Chancery::prepare(&[("rules.yaml", "")], &[])?;
    let rules = chancery.rules_directory();
    let data = chancery.data_directory();
    let serve = |address: &'static str, more: &[&'static str]| {
        let mut all =
            vec!["serve", "--rules", rules.to_str().expect("UTF-8"), "--data-dir", data.to_str().expect("UTF-8")];
        all.extend(["--xds-plaintext-address", address]);
        all.extend(more);
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let refused = serve("0.0.0.0:1", &["--xds-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0"]);
    let refused: Vec<&str> = refused.iter().map(String::as_str).collect();
    let output = tokio::time::timeout(SOON, chancery.run(&refused)).await.context("it serves all the same")??;
    let said = String::from_utf8(output.stderr).context("UTF-8")?;
    assert!(!output.status.success() && said.contains("0.0.0.0:1") && said.contains("--insecure"), "{said}");
    let alone = tokio::time::timeout(SOON, chancery.run(&["serve", "--rules", ".", "--insecure"])).await;
    let alone = alone.context("it serves all the same")??;
    assert!(!alone.status.success(), "there is nothing that could be insecure");
    Ok(())
}
