//! The service over real gRPC, with the generated client.

use std::time::Duration;

use proto::envoy::service::metrics::v3::metrics_service_client::MetricsServiceClient;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::Code;
use tonic::transport::Server;

use super::super::edges::{Edge, Losses, Totals};
use super::*;

const WEB: &str = "spiffe://cluster.local/ns/front/sa/web";

/// Everybody is this reporter, or nobody.
struct Everybody(Option<Reporter>);

impl Authenticator for Everybody {
    fn authenticate(&self, _extensions: &http::Extensions) -> Result<Reporter, Status> {
        self.0.clone().ok_or_else(|| Status::unauthenticated("a client certificate is required"))
    }
}

fn reporter(workload: Option<&str>) -> Reporter {
    let workload = workload.map(|workload| workload.parse().expect("valid"));
    Reporter { workload, node: "cart-a".to_owned() }
}

fn serves() -> Serves {
    Arc::new(|workload, service, port| match (workload.to_string().as_str(), service.to_string().as_str(), port) {
        ("shop/cart-v1", "shop/cart", "http") => Some(Protocol::Http),
        ("shop/cart-v1", "shop/store", "tcp") => Some(Protocol::Tcp),
        _ => None,
    })
}

fn counter(tags: [&str; 7], value: f64) -> prometheus_pb::MetricFamily {
    let tag_names =
        [names::CALLER, names::SERVICE, names::VERSION, names::PORT, names::CODE, names::FLAGS, names::MTLS];
    let absent = |(name, value): &(&&str, &str)| **name == names::VERSION && value.is_empty();
    let present = tag_names.iter().zip(tags).filter(|tag| !absent(tag));
    let label = present.map(|(name, value)| prometheus_pb::LabelPair {
        name: Some((*name).to_owned()),
        value: Some(value.to_owned()),
    });
    let counter = prometheus_pb::Counter { value: Some(value), ..Default::default() };
    prometheus_pb::MetricFamily {
        name: Some(names::REQUESTS_FAMILY.to_owned()),
        metric: vec![prometheus_pb::Metric { label: label.collect(), counter: Some(counter), ..Default::default() }],
        ..Default::default()
    }
}

fn uptime(seconds: f64) -> prometheus_pb::MetricFamily {
    let gauge = prometheus_pb::Gauge { value: Some(seconds) };
    prometheus_pb::MetricFamily {
        name: Some(names::UPTIME_FAMILY.to_owned()),
        metric: vec![prometheus_pb::Metric { gauge: Some(gauge), ..Default::default() }],
        ..Default::default()
    }
}

fn sample_of(caller: Option<&str>, mtls: bool, flags: &str, value: u64) -> Sample {
    Sample {
        series: Series {
            edge: EdgeKey {
                caller: caller.map(|caller| caller.parse().expect("valid")),
                service: "shop/cart".parse().expect("valid"),
                version: "v1".into(),
                port: "http".into(),
                protocol: Protocol::Http,
            },
            mtls,
            code: 200,
            flags: flags.into(),
            policy: None,
            labels: Arc::default(),
        },
        value,
    }
}

#[test]
fn a_message_is_read_as_far_as_it_is_the_reporters_own() {
    let tags = |caller, service, port, code, mtls| [caller, service, "v1", port, code, "-", mtls];
    let families = [
        uptime(7.0),
        counter(tags(WEB, "shop/cart", "http", "200", "true"), 3.0),
        // An identity that nothing proves is none.
        counter(tags(WEB, "shop/cart", "http", "200", "false"), 4.0),
        counter(tags("", "shop/cart", "http", "200", "true"), 5.0),
        // Another's service, another port, words instead of numbers, counts that are none.
        counter(tags(WEB, "shop/pay", "http", "200", "true"), 6.0),
        counter(tags(WEB, "shop/cart", "grpc", "200", "true"), 6.0),
        counter(tags(WEB, "shop/cart", "http", "ok", "true"), 6.0),
        counter(tags(WEB, "shop/cart", "http", "200", "yes"), 6.0),
        counter(tags(WEB, "shop/cart", "http", "200", "true"), f64::NAN),
        counter(tags(WEB, "shop/cart", "http", "200", "true"), -1.0),
        counter(tags(WEB, "shop/cart", "http", "200", "true"), f64::INFINITY),
        counter([WEB, "shop/cart", &"v".repeat(254), "http", "200", "-", "true"], 6.0),
    ];
    let samples =
        vec![sample_of(Some(WEB), true, "-", 3), sample_of(None, false, "-", 4), sample_of(None, true, "-", 5)];
    let expected = Report { uptime: Some(7), samples, refused: 8 };
    assert_eq!(read(&families, &reporter(Some("shop/cart-v1")), &serves()), expected);
    let nothing = Report { uptime: Some(7), samples: Vec::new(), refused: 11 };
    assert_eq!(read(&families, &reporter(Some("shop/other")), &serves()), nothing);
    assert_eq!(read(&families, &reporter(None), &serves()), nothing);
}

struct Peer {
    client: MetricsServiceClient<tonic::transport::Channel>,
    telemetry: Telemetry,
    stop: CancellationToken,
}

#[expect(clippy::disallowed_methods, reason = "a test's server ends with the test")]
async fn start(reporter: Option<Reporter>) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (telemetry, stop) = (Telemetry::default(), CancellationToken::new());
    let service = MetricsService::new(Arc::new(Everybody(reporter)), telemetry.clone(), serves(), stop.clone());
    let server = Server::builder().add_service(service.into_server());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let client = MetricsServiceClient::connect(format!("http://{address}")).await.expect("it listens");
    Peer { client, telemetry, stop }
}

fn message(families: Vec<prometheus_pb::MetricFamily>) -> metrics_pb::StreamMetricsMessage {
    metrics_pb::StreamMetricsMessage { identifier: None, envoy_metrics: families }
}

#[tokio::test]
async fn what_a_proxy_streams_is_seen_as_edges() {
    let mut peer = start(Some(reporter(Some("shop/cart-v1")))).await;
    let cart = |value| counter([WEB, "shop/cart", "v1", "http", "200", "-", "true"], value);
    let failed = |value| counter([WEB, "shop/cart", "v1", "http", "503", "UH", "true"], value);
    let store = |value| counter(["-", "shop/store", "", "tcp", "0", "-", "false"], value);
    let first = vec![message(vec![uptime(1.0), cart(10.0)]), message(vec![cart(12.0), failed(1.0), store(4.0)])];
    peer.client.stream_metrics(tokio_stream::iter(first)).await.expect("accepted");
    // The same counters again on a second stream, then a restart.
    let second = vec![message(vec![uptime(5.0), cart(15.0), store(4.0)]), message(vec![uptime(0.0), cart(2.0)])];
    peer.client.stream_metrics(tokio_stream::iter(second)).await.expect("accepted");

    let totals: Vec<_> = peer.telemetry.edges().into_iter().map(shown).collect();
    assert_eq!(
        totals,
        [("- shop/store  tcp Tcp".to_owned(), [0, 0, 4, 0]), (format!("{WEB} shop/cart v1 http Http"), [17, 1, 0, 0]),]
    );
    assert_eq!(peer.telemetry.losses(), Losses::default());
}

#[tokio::test]
async fn labels_that_policies_add_or_drop_change_no_edge() {
    let mut peer = start(Some(reporter(Some("shop/cart-v1")))).await;
    let cart = |names: &[(&str, &str)], value| {
        let mut family = counter([WEB, "shop/cart", "v1", "http", "200", "-", "true"], value);
        let labels = &mut family.metric[0].label;
        labels.retain(|label| label.name() != names::FLAGS);
        labels.extend(names.iter().map(|(name, value)| prometheus_pb::LabelPair {
            name: Some((*name).to_owned()),
            value: Some((*value).to_owned()),
        }));
        family
    };
    let families = vec![
        cart(&[("tenant", "a"), ("zone", "x")], 3.0),
        cart(&[("tenant", "b"), ("zone", "-")], 4.0),
        cart(&[("ten\"ant", "b")], 100.0),
        cart(&[], 5.0),
    ];
    peer.client.stream_metrics(tokio_stream::iter(vec![message(families)])).await.expect("accepted");
    let totals: Vec<_> = peer.telemetry.edges().into_iter().map(shown).collect();
    assert_eq!(totals, [(format!("{WEB} shop/cart v1 http Http"), [12, 0, 0, 0])]);
    let labelled = peer.telemetry.labelled().into_iter().map(|of| (format!("{:?}", of.labels), of.requests));
    let expected = [(r#"{"tenant": "a", "zone": "x"}"#, 3), (r#"{"tenant": "b", "zone": "-"}"#, 4)];
    assert_eq!(labelled.collect::<Vec<_>>(), expected.map(|(labels, requests)| (labels.to_owned(), requests)));
    assert_eq!(peer.telemetry.losses(), Losses { refused: 1, overflowed: 0 });
}

fn shown(Edge { key, totals }: Edge) -> (String, [u64; 4]) {
    let Totals { mtls_successes, mtls_failures, plain_successes, plain_failures, last_seen: _ } = totals;
    let caller = key.caller.map_or_else(|| "-".to_owned(), |caller| caller.to_string());
    let edge = format!("{caller} {} {} {} {:?}", key.service, key.version, key.port, key.protocol);
    (edge, [mtls_successes, mtls_failures, plain_successes, plain_failures])
}

#[tokio::test]
async fn a_stream_without_a_credential_reports_nothing() {
    let mut peer = start(None).await;
    let cart = counter([WEB, "shop/cart", "v1", "http", "200", "-", "true"], 3.0);
    let refused = peer.client.stream_metrics(tokio_stream::iter(vec![message(vec![cart])])).await;
    assert_eq!(refused.map_err(|status| status.code()).err(), Some(Code::Unauthenticated));
    assert_eq!(peer.telemetry.edges(), []);
}

#[tokio::test]
async fn streams_end_when_the_process_stops() {
    let mut peer = start(Some(reporter(Some("shop/cart-v1")))).await;
    let (_open, messages) = mpsc::channel(1);
    let stop = peer.stop.clone();
    let stream = peer.client.stream_metrics(ReceiverStream::new(messages));
    let (ended, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(10), stream), async { stop.cancel() });
    let ended = ended.expect("it ends in time");
    assert_eq!(ended.map_err(|status| status.code()).err(), Some(Code::Unavailable));
}
