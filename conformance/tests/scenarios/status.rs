//! What a client holds, shown by every way of asking: gRPC and plain HTTP, to operators and to the client itself.

use anyhow::ensure;
use conformance::harness::World;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::service::status::v3 as status_pb;
use proto::envoy::service::status::v3::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
use proto::envoy::r#type::matcher::v3 as matcher_pb;
use serde_json::{Value, json};
use tonic::Code;

type Client = ClientStatusDiscoveryServiceClient<tonic::transport::Channel>;

/// Of every client in the answer but the harness's own, which watches a fence: its resources with their states.
fn shown(answer: &status_pb::ClientStatusResponse) -> Vec<(String, Vec<String>)> {
    let state = |config: &status_pb::client_config::GenericXdsConfig| {
        let error = config.error_state.as_ref().map(|error| format!(": {}", error.details)).unwrap_or_default();
        format!("{} {}{error}", config.name, config.config_status().as_str_name())
    };
    let of = |client: &status_pb::ClientConfig| {
        let node = client.node.as_ref().map(|node| node.id.clone()).unwrap_or_default();
        (node, client.generic_xds_configs.iter().map(state).collect())
    };
    let fence = |client: &&status_pb::ClientConfig| client.generic_xds_configs.iter().any(|of| of.name == "fence");
    answer.config.iter().filter(|client| !fence(client)).map(of).collect()
}

#[tokio::test]
async fn a_client_is_shown_to_operators_and_to_itself() -> anyhow::Result<()> {
    let mut world = World::start("status", "CDS a=1, CDS b=1").await?;
    let mut client = world.delta().await?;
    client.takes("CDS", &["*", "x"], "CDS a=1 b=1 -x").await?;
    world.edit("CDS a=2").await?;
    client.hears(&["CDS a=2"]).await?;
    client.nack("CDS", &[], "a is bad").await?;
    // It goes back with the next response; the state is about what it is to hold.
    client.hears(&[]).await?;
    let node = world.node().to_owned();
    let expected = vec![(node.clone(), vec!["a ERROR: a is bad".into(), "b SYNCED".into(), "x NOT_SENT".into()])];

    let matcher = matcher_pb::NodeMatcher {
        node_id: Some(matcher_pb::StringMatcher {
            match_pattern: Some(matcher_pb::string_matcher::MatchPattern::Exact(node.clone())),
            ..Default::default()
        }),
        ..Default::default()
    };
    let of_one = status_pb::ClientStatusRequest { node_matchers: vec![matcher], ..Default::default() };
    let mut operator = Client::connect(format!("http://{}", world.chancery().admin_address())).await?;
    assert_eq!(shown(operator.fetch_client_status(of_one.clone()).await?.get_ref()), expected);
    let questions = tokio_stream::iter([of_one.clone(), of_one.clone()]);
    let mut answers = operator.stream_client_status(questions).await?.into_inner();
    for _ in 0..2 {
        assert_eq!(answers.message().await?.as_ref().map(shown), Some(expected.clone()));
    }

    // At the address of the proxies each is shown itself, whatever it asks for.
    let mut itself = Client::connect(format!("http://{}", world.address())).await?;
    let asking = core_pb::Node { id: node.clone(), ..Default::default() };
    let request = status_pb::ClientStatusRequest { node: Some(asking), ..Default::default() };
    assert_eq!(shown(itself.fetch_client_status(request).await?.get_ref()), expected);
    let nobody = itself.fetch_client_status(of_one).await.expect_err("nobody asks");
    assert_eq!(nobody.code(), Code::InvalidArgument);

    let http = reqwest::Client::builder().no_proxy().build()?;
    for (address, question) in [
        (world.chancery().admin_address(), json!({"node_matchers": [{"node_id": {"exact": node}}]})),
        (world.address(), json!({"node": {"id": node}})),
    ] {
        let url = format!("http://{address}/v3/discovery:client_status");
        let answer = http.post(&url).body(question.to_string()).send().await?;
        ensure!(answer.status().is_success(), "{url}: {}", answer.status());
        let answer: Value = serde_json::from_str(&answer.text().await?)?;
        let clients = answer["config"].as_array().map(Vec::as_slice).unwrap_or_default();
        ensure!(clients.len() == 2 && clients.iter().all(|client| client["node"]["id"] == node), "{answer}");
        let shown = clients.iter().map(|client| &client["generic_xds_configs"][0]).find(|first| first["name"] == "a");
        let shown = shown.map(|a| (&a["config_status"], &a["xds_config"]["name"]));
        assert_eq!(shown, Some((&json!("ERROR"), &json!("a"))), "{answer}");
    }
    Ok(())
}
