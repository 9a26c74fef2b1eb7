//! The same smoke on every release and by every way of asking.

use std::time::Duration;

use anyhow::{Context, ensure};
use chancery::ports::Port;
use conformance::harness::shop::SOON;
use conformance::harness::{App, ClientIdentity, Credential, Echo, Load, TlsConnection, eventually};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fixture::{NODE, Pair, Way, cluster, endpoints, listener, route};

/// What the smoke changes.
struct State<'a> {
    way: Way,
    /// Where virtual hosts on demand come from: 1.36 knows no other than a stream of their own.
    on_demand: Value,
    ports: &'a [Port; 2],
    /// The application behind each cluster.
    clusters: Vec<(&'a str, &'a App)>,
    to: &'a str,
    header: &'a str,
    flag: u32,
    certificate: &'a ClientIdentity,
    prefix: &'a str,
}

impl State<'_> {
    fn resources(&self) -> anyhow::Result<Vec<Value>> {
        let Self { way, ports: [plain, tls], .. } = *self;
        let mut all = Vec::new();
        for (name, app) in &self.clusters {
            all.extend([cluster(way, name), endpoints(name, app.address())]);
        }
        // One route configuration for each listener. In delta, hosts of the first that it does not know are asked for.
        let domain = format!("127.0.0.1:{}", plain.number());
        let mut main = route("main", &[&domain], &[(self.to, 1)]);
        let mut first = listener(way, "plain", self.prefix, plain, "main");
        let filters = first.pointer_mut("/filter_chains/0/filters/0/typed_config/http_filters");
        let filters = filters.and_then(Value::as_array_mut).context("filters")?;
        filters.insert(
            0,
            json!({"name": "stamp", "config_discovery": {"config_source": way.source(), "type_urls":
                ["type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"]}}),
        );
        filters.insert(
            0,
            json!({"name": "on-demand", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand"}}),
        );
        main["vhds"] = json!({"config_source": self.on_demand});
        all.push(json!({"@type": "type.googleapis.com/envoy.config.route.v3.VirtualHost",
            "name": "main/shop", "domains": ["shop.example"], "routes":
            [{"match": {"prefix": "/"}, "route": {"cluster": self.to}}]}));
        let mut second = listener(way, "tls", self.prefix, tls, "other");
        second["filter_chains"][0]["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {"tls_certificate_sds_secret_configs":
                [{"name": "certificate", "sds_config": way.source()}]}}});
        let ClientIdentity::Certificate { chain_pem, key_pem } = self.certificate else {
            anyhow::bail!("a certificate")
        };
        all.extend([
            first,
            second,
            main,
            route("other", &["*"], &[(self.to, 1)]),
            json!({"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                "name": "certificate", "tls_certificate": {
                "certificate_chain": {"inline_string": chain_pem}, "private_key": {"inline_string": key_pem}}}),
            json!({"@type": "type.googleapis.com/envoy.service.runtime.v3.Runtime", "name": "flags",
                "layer": {"smoke.flag": self.flag}}),
            json!({"@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", "name": "stamp",
                "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
                "mutations": {"request_mutations": [{"append": {
                    "header": {"key": "x-stamp", "value": self.header}}}]}}}),
        ]);
        Ok(all)
    }
}

/// Requests by TLS until told to stop: how many were answered, or why one was not.
async fn by_tls(port: &Port, stop: CancellationToken) -> anyhow::Result<u64> {
    let mut answered = 0;
    while !stop.is_cancelled() {
        let connection = TlsConnection::open(port.loopback(), ClientIdentity::None, &[]).await?;
        let (status, body) = connection.request("GET", "/").await?;
        ensure!(status == 200, "{status}: {body}");
        answered += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(answered)
}

/// Waits until both listeners show the state.
async fn shows(pair: &Pair, state: &State<'_>, version: &str) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
    let [plain, tls] = state.ports;
    eventually(SOON, &format!("{version}, {} and {}", state.header, state.flag), async || {
        let url = format!("http://{}/", plain.loopback());
        let echo = client.get(&url).send().await?.error_for_status()?.text().await?;
        let echo: Echo = serde_json::from_str(&echo)?;
        ensure!(
            echo.version == version && echo.headers.get("x-stamp").is_some_and(|it| it == state.header),
            "{echo:?}"
        );
        let answer = client.get(&url).header("host", "shop.example").send().await?.error_for_status()?;
        let echo: Echo = serde_json::from_str(&answer.text().await?)?;
        ensure!(echo.version == version, "on demand: {echo:?}");
        let connection = TlsConnection::open(tls.loopback(), ClientIdentity::None, &[]).await?;
        let shown = connection.server_certificates().first().context("a certificate")?.to_vec();
        let ClientIdentity::Certificate { chain_pem, .. } = state.certificate else { anyhow::bail!("a certificate") };
        use rustls_pki_types::pem::PemObject;
        let leaf = rustls_pki_types::CertificateDer::from_pem_slice(chain_pem.as_bytes())?;
        ensure!(shown == leaf.to_vec(), "another certificate");
        let (_, body) = connection.request("GET", "/").await?;
        ensure!(body.contains(&format!("\"version\":\"{version}\"")), "{body}");
        let runtime: Value = serde_json::from_str(&pair.envoy.text("/runtime").await?)?;
        let flag = state.flag.to_string();
        ensure!(runtime["entries"]["smoke.flag"]["final_value"] == *flag, "{runtime}");
        Ok(())
    })
    .await
}

async fn smoke(version: &str, way: Way) -> anyhow::Result<()> {
    let apps = [App::http("v1").await?, App::http("v2").await?];
    let ports = [Port::reserve()?, Port::reserve()?];
    // Certificates of any authority will do.
    let other = conformance::harness::Chancery::prepare(&[], &[])?;
    let certificates = [
        Credential::issue_to_node(&other, NODE).await?.identity(),
        Credential::issue_to_node(&other, NODE).await?.identity(),
    ];
    let mut state = State {
        way,
        // Virtual hosts are incremental only, whatever the others are; 1.36 has none on an aggregated stream.
        on_demand: match way {
            Way::Delta | Way::DeltaStreams if !version.starts_with("1.36.") => way.source(),
            _ => Way::DeltaStreams.source(),
        },
        ports: &ports,
        clusters: vec![("a", &apps[0])],
        to: "a",
        header: "one",
        flag: 1,
        certificate: &certificates[0],
        prefix: "first",
    };
    let pair = Pair::start(version, way, &state.resources()?).await?;
    shows(&pair, &state, "v1").await.with_context(|| pair.envoy.log())?;

    let load = Load::start(format!("http://{}/", ports[0].loopback()), 50)?;
    let stop = CancellationToken::new();
    // What follows a change is asked for too.
    let goes_on = async || {
        let before = load.counts().requests();
        eventually(SOON, "requests", async || {
            ensure!(load.counts().requests() >= before + 20);
            Ok(())
        })
        .await
    };
    let changes = async {
        let _stop = stop.clone().drop_guard();
        // Endpoints, the extension and the runtime.
        state.clusters = vec![("a", &apps[1])];
        (state.header, state.flag) = ("two", 2);
        pair.write(&state.resources()?)?;
        shows(&pair, &state, "v2").await?;
        goes_on().await?;
        // Another cluster and the routes to it, another certificate. Polls of different types know nothing of each
        // other: for them the cluster comes first.
        state.clusters = vec![("a", &apps[1]), ("b", &apps[0])];
        state.certificate = &certificates[1];
        if way == Way::Rest {
            pair.write(&state.resources()?)?;
            pair.has("b::default_priority", true).await?;
        }
        state.to = "b";
        pair.write(&state.resources()?)?;
        shows(&pair, &state, "v1").await?;
        goes_on().await?;
        // Other listeners, and one cluster less.
        state.clusters = vec![("b", &apps[0])];
        (state.prefix, state.header, state.flag) = ("second", "three", 3);
        pair.write(&state.resources()?)?;
        pair.has("a::default_priority", false).await?;
        pair.has("\"first\"", false).await?;
        shows(&pair, &state, "v1").await?;
        goes_on().await
    };
    let (changed, answered) = tokio::join!(changes, by_tls(&ports[1], stop.clone()));
    changed.with_context(|| pair.envoy.log())?;
    let counts = load.stop().await?;
    ensure!(counts.failed == 0 && counts.ok >= 60, "{counts:?}");
    ensure!(answered.context("a request by TLS failed")? > 5, "hardly any request by TLS");
    pair.took_everything().await
}

macro_rules! smokes {
    ($($name:ident: $version:literal $way:ident;)*) => {$(
        #[tokio::test]
        async fn $name() -> anyhow::Result<()> {
            smoke($version, Way::$way).await
        }
    )*};
}

smokes! {
    envoy_1_36_by_sotw: "1.36.4" Sotw;
    envoy_1_36_by_delta: "1.36.4" Delta;
    envoy_1_36_by_rest: "1.36.4" Rest;
    envoy_1_38_by_sotw: "1.38.3" Sotw;
    envoy_1_38_by_delta: "1.38.3" Delta;
    envoy_1_38_by_rest: "1.38.3" Rest;
    envoy_1_40_by_sotw: "1.40.0" Sotw;
    envoy_1_40_by_delta: "1.40.0" Delta;
    envoy_1_40_by_rest: "1.40.0" Rest;
}
