//! Who may have what: streams without a credential, under another's name, with a rotated or revoked one.

use anyhow::{Context, ensure};
use conformance::harness::shop::{SOON, cart_alone, rule};
use conformance::harness::{Chancery, Credential, EnvoyProxy, eventually};
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::service::discovery::v3 as discovery_pb;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic::transport::Channel;
use translators::resource::Kind;

/// A workload that serves, and one that has nothing to do with it. Nobody listens.
fn rules() -> String {
    cart_alone("cart", ([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()) + &rule("Workload", "other", "{}")
}

fn request(node: &str, kind: Kind, names: &[&str]) -> discovery_pb::DeltaDiscoveryRequest {
    discovery_pb::DeltaDiscoveryRequest {
        node: Some(core_pb::Node { id: node.to_owned(), ..Default::default() }),
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

/// The first response on a delta stream that begins with this request.
async fn ask(
    channel: Channel,
    first: discovery_pb::DeltaDiscoveryRequest,
) -> Result<discovery_pb::DeltaDiscoveryResponse, tonic::Status> {
    let requests = tokio_stream::iter([first]).chain(tokio_stream::pending());
    let stream = AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(requests).await?;
    stream.into_inner().message().await?.ok_or_else(|| tonic::Status::unknown("the stream ended"))
}

#[tokio::test]
async fn nobody_gets_what_is_not_theirs() -> anyhow::Result<()> {
    let chancery = Chancery::start(&[("rules.yaml", &rules())], &[]).await?;
    let cart = Credential::issue(&chancery, "shop/cart").await?;
    let other = Credential::issue(&chancery, "shop/other").await?;

    let anonymous = ask(cart.connect_without(&chancery).await?, request(&cart.node, Kind::Listener, &[])).await;
    assert_eq!(anonymous.expect_err("no credential").code(), Code::Unauthenticated);
    let imposter = ask(other.connect(&chancery).await?, request(&cart.node, Kind::Listener, &[])).await;
    assert_eq!(imposter.expect_err("another's node id").code(), Code::PermissionDenied);
    let nameless = ask(cart.connect(&chancery).await?, request("", Kind::Listener, &[])).await;
    assert_eq!(nameless.expect_err("no node id").code(), Code::InvalidArgument);

    // Each workload has a secret of that name, and gets its own.
    for (credential, own) in [(&cart, "shop/sa/cart"), (&other, "shop/sa/other")] {
        let answer = eventually(SOON, "a certificate", async || {
            let answer =
                ask(credential.connect(&chancery).await?, request(&credential.node, Kind::Secret, &["identity"]))
                    .await?;
            ensure!(answer.resources.len() == 1, "{answer:?}");
            Ok(answer)
        })
        .await?;
        let any = answer.resources[0].resource.clone().context("a body")?;
        let text = String::from_utf8_lossy(&any.value).into_owned();
        let pem = text.split("-----BEGIN CERTIFICATE-----").nth(1).context("a certificate")?;
        let pem = format!("-----BEGIN CERTIFICATE-----{}", pem.split("-----END").next().context("an end")?);
        let (_, pem) = x509_parser::pem::parse_x509_pem(format!("{pem}-----END CERTIFICATE-----\n").as_bytes())?;
        let leaf = pem.parse_x509()?;
        let names = leaf.subject_alternative_name()?.context("a subject alternative name")?;
        ensure!(format!("{:?}", names.value.general_names).contains(own), "{names:?}");
        assert_eq!(names.value.general_names.len(), 1);
    }
    // What another has and what nobody has look the same.
    for name in ["in/shop/cart/http", "in/shop/nothing/http"] {
        let answer = ask(other.connect(&chancery).await?, request(&other.node, Kind::Listener, &[name])).await?;
        assert_eq!((answer.resources.len(), answer.removed_resources), (0, vec![name.to_owned()]));
    }
    Ok(())
}

#[tokio::test]
async fn a_node_without_a_workload_is_known_by_the_one_that_matches_it() -> anyhow::Result<()> {
    let matching = |name: &str, pattern: &str| rule("Workload", name, &format!("match: {{nodeId: \"{pattern}\"}}"));
    let rules = rules() + &matching("one", "one-*") + &matching("pair", "pair-*") + &matching("twin", "*-twin");
    let chancery = Chancery::start(&[("rules.yaml", &rules)], &[]).await?;
    for (node, code) in
        [("one-a", None), ("pair-twin", Some(Code::PermissionDenied)), ("none", Some(Code::Unavailable))]
    {
        let credential = Credential::issue_to_node(&chancery, node).await?;
        // The first of its release to come may be asked to come again.
        eventually(SOON, node, async || {
            let answer = ask(credential.connect(&chancery).await?, request(node, Kind::Cluster, &[])).await;
            let said = answer.err().map(|status| status.code());
            ensure!(said == code, "{said:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_credential_rotates_under_a_running_envoy_and_the_old_one_ends() -> anyhow::Result<()> {
    let mut chancery = Chancery::start(&[("rules.yaml", &rules())], &[]).await?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("credential.yaml");
    let file = file.to_str().context("UTF-8")?;
    let arguments = ["--node-id", "other-a", "--credential-file", file];
    let _envoy = EnvoyProxy::start(&chancery, "shop/other", &arguments).await?;
    let stream = async |chancery: &Chancery| -> anyhow::Result<String> {
        let proxies = chancery.in_sync(1).await?;
        Ok(proxies["proxies"][0]["connected"].as_str().context("a time")?.to_owned())
    };
    let first = stream(&chancery).await?;
    let before = std::fs::read(file)?;
    // Another credential takes its place, and what was issued before is revoked: the stream ends, and the Envoy
    // comes back with what it now finds in the file.
    chancery.bootstrap("shop/other", &[&arguments[..], &["--revoke-previous"]].concat()).await?;
    ensure!(std::fs::read(file)? != before, "the credential is another one");
    eventually(SOON, "a new stream", async || {
        ensure!(stream(&chancery).await? != first, "still the first stream");
        Ok(())
    })
    .await?;
    // It is not only the open connection that works: after a restart the Envoy connects anew.
    chancery.restart().await?;
    chancery.in_sync(1).await?;
    Ok(())
}
