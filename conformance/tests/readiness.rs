//! Before every source is synced nothing is served, and nothing is taken away.

use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use conformance::harness::{Chancery, Credential, chancery_binary, eventually};
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::service::discovery::v3 as discovery_pb;
use tokio_stream::StreamExt;

const RULES: &str =
    "apiVersion: chancery.dev/v1alpha1\nkind: Workload\nmetadata: {name: web, namespace: shop}\nspec: {}\n";

#[tokio::test]
async fn scenario_38_a_control_plane_whose_rules_are_not_there_refuses_streams_and_begins_when_they_are()
-> anyhow::Result<()> {
    let chancery = Chancery::prepare(&[], &[])?;
    let credential = Credential::issue(&chancery, "shop/web").await?;
    std::fs::remove_dir(chancery.rules_directory())?;
    let mut serve = tokio::process::Command::new(chancery_binary().await?);
    serve.arg("serve").arg("--rules").arg(chancery.rules_directory()).arg("--data-dir").arg(chancery.data_directory());
    serve.args(["--xds-address", &chancery.xds_address().to_string()]);
    serve.args(["--admin-address", &chancery.admin_address().to_string()]);
    let _serve = serve.stderr(Stdio::null()).kill_on_drop(true).spawn()?;

    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let ready = format!("http://{}/readyz", chancery.admin_address());
    let status = eventually(Duration::from_secs(20), "an answer", async || {
        let answer = client.get(&ready).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    })
    .await?;
    ensure!(status.0 == 503 && status.1.contains("rules"), "{status:?}");

    let channel = credential.connect(&chancery).await?;
    let node = credential.node;
    let ask = async || {
        let first = discovery_pb::DiscoveryRequest {
            node: Some(core_pb::Node { id: node.clone(), ..Default::default() }),
            type_url: "type.googleapis.com/envoy.config.listener.v3.Listener".to_owned(),
            ..Default::default()
        };
        use discovery_pb::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
        let requests = tokio_stream::iter([first]).chain(tokio_stream::pending());
        let stream =
            AggregatedDiscoveryServiceClient::new(channel.clone()).stream_aggregated_resources(requests).await?;
        stream.into_inner().message().await
    };
    let refused = ask().await.expect_err("nothing is known yet");
    assert_eq!(refused.code(), tonic::Code::Unavailable, "{refused:?}");

    std::fs::create_dir(chancery.rules_directory())?;
    chancery.write_rules("rules.yaml", RULES)?;
    let served = eventually(Duration::from_secs(20), "a served stream", async || Ok(ask().await?)).await?;
    ensure!(served.is_some_and(|response| response.resources.is_empty()), "an empty workload is served as it is");
    assert_eq!(client.get(&ready).send().await?.status().as_u16(), 200);
    Ok(())
}

/// Streams are fanned out over all cores: there is a worker for each, and all of them serve at the same moment, as
/// `as_many_connections_are_served_at_the_same_moment_as_there_are_workers` of the server shows.
#[tokio::test]
async fn every_core_has_a_worker() -> anyhow::Result<()> {
    let chancery = Chancery::start(&[("rules.yaml", "")], &[]).await?;
    let metrics = chancery.text("/metrics").await?;
    let workers = metrics.lines().filter(|line| line.starts_with("chancery_worker_busy_seconds_total{")).count();
    assert_eq!(workers, std::thread::available_parallelism()?.get(), "{metrics}");
    Ok(())
}
