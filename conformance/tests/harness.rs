//! The harness itself: what it says of a test's subject is so.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{bail, ensure};
use conformance::harness::{
    App, ClientIdentity, EnvoySource, Load, LoadCounts, TlsConnection, chancery_binary, eventually,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_load_counts_what_the_application_served() {
    let app = App::http("v1").await.expect("an application");
    let load = Load::start(format!("http://{}/cart?id=1", app.address()), 200).expect("a load");
    let enough = async || {
        ensure!(load.counts().requests() >= 20, "{:?}", load.counts());
        Ok(())
    };
    eventually(PATIENCE, "twenty requests", enough).await.expect("the load runs");
    let counts = load.stop().await.expect("the load ends");
    let served = app.served();
    let expected = LoadCounts {
        ok: served,
        failed: 0,
        by_status: BTreeMap::from([(200, served)]),
        by_version: BTreeMap::from([("v1".to_owned(), served)]),
        failures: Vec::new(),
    };
    assert_eq!(counts, expected);
}

#[tokio::test]
async fn a_refused_connection_is_a_failure_with_its_reason() {
    let app = App::http("v1").await.expect("an application");
    let url = format!("http://{}/", app.address());
    drop(app);
    let load = Load::start(url, 100).expect("a load");
    let failed = async || {
        ensure!(load.counts().failed > 0, "nothing has failed");
        Ok(())
    };
    eventually(PATIENCE, "a failure", failed).await.expect("nobody listens");
    let counts = load.stop().await.expect("the load ends");
    assert_eq!((counts.ok, counts.failures.is_empty()), (0, false));
}

#[tokio::test]
async fn the_tcp_application_speaks_first() {
    let app = App::server_first("store").await.expect("an application");
    let mut stream = BufReader::new(TcpStream::connect(app.address()).await.expect("it listens"));
    let mut said = String::new();
    stream.read_line(&mut said).await.expect("a banner");
    stream.write_all(b"apples\n").await.expect("it reads");
    stream.read_line(&mut said).await.expect("an answer");
    assert_eq!((said.as_str(), app.served()), ("store\nstore: apples\n", 1));
}

#[tokio::test]
async fn plaintext_is_no_tls() {
    let app = App::http("v1").await.expect("an application");
    let error = TlsConnection::open(app.address(), ClientIdentity::None, &["mesh"]).await.expect_err("it speaks http");
    assert!(error.to_string().contains("InvalidContentType"), "{error:#}");
}

#[tokio::test]
async fn what_did_not_come_about_is_said_with_its_reason() {
    let never =
        eventually(Duration::from_millis(50), "a condition", async || -> anyhow::Result<()> { bail!("not yet") });
    let error = never.await.expect_err("it never comes about");
    assert_eq!(format!("{error:#}"), "a condition: not within 50ms: not yet");
}

#[tokio::test]
async fn the_binary_is_built_and_is_there() {
    let binary = chancery_binary().await.expect("it builds");
    assert!(binary.is_file() && binary.ends_with("chancery"), "{}", binary.display());
}

#[tokio::test]
async fn envoy_itself_judges_a_configuration() {
    let source = EnvoySource::from_environment().await.expect("there is an envoy");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = directory.path().join("envoy.yaml");
    std::fs::write(&config, "node: {id: a, cluster: a}\n").expect("the directory is ours");
    assert_eq!(source.validate(&config).await.expect("envoy runs"), Ok(()));
    std::fs::write(&config, "static_resources: {clusters: [{name: ''}]}\n").expect("the directory is ours");
    let reason = source.validate(&config).await.expect("envoy runs").expect_err("a cluster needs a name");
    assert!(reason.contains("ClusterValidationError.Name"), "{reason}");
}
