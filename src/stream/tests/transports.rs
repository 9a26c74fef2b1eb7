//! The transports beside the aggregated streams: services of one type, unary fetches, polling over plain HTTP; and the
//! limits of all of them.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use prost::Message;
use proto::envoy::service::discovery::v3 as discovery_pb;
use proto::wire;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tower::Service as _;
use translators::name::Owner;
use translators::resource::{Kind, Version};

use super::grpc::Fake;
use super::peer::edit;
use crate::publish::{Feed, Snapshot};
use crate::report::{Proxy, Report};
use crate::stream::{Limits, Lobby, Pulse, Service};

/// A control plane without a socket.
struct Control {
    snapshots: Feed<Snapshot>,
    report: Report,
    service: Service<Fake>,
}

/// What was answered over plain HTTP.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    text: String,
}

impl Control {
    fn new(contents: &str, limits: Limits) -> Self {
        let mut snapshot = Snapshot::default();
        edit(&mut snapshot, contents);
        let snapshots = Feed::new(Arc::new(snapshot));
        let (directory, report) =
            (Fake { snapshots: snapshots.subscribe(), made: watch::Sender::default() }, Report::default());
        let service = Service::within(limits, directory, report.clone(), CancellationToken::new());
        Self { snapshots, report, service }
    }

    fn edit(&self, text: &str) {
        let mut snapshot = Snapshot::clone(&self.snapshots.current());
        edit(&mut snapshot, text);
        self.snapshots.send(Arc::new(snapshot));
    }

    fn say_version(&self, version: &str) {
        let mut snapshot = Snapshot::clone(&self.snapshots.current());
        snapshot.say_version(Some(version.into()));
        self.snapshots.send(Arc::new(snapshot));
    }

    async fn call(&self, method: &str, body: Body) -> Response<Body> {
        let request = http::Request::post(format!("/envoy.service.{method}")).body(body).expect("a request");
        self.service.clone().call(request).await.expect("infallible")
    }

    async fn ask(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let body = Body::new(http_body_util::Full::new(body.into()));
        let request = http::Request::builder().method(method).uri(path).body(body).expect("a request");
        let response = self.service.poll(request).await;
        let status = response.status().as_u16();
        let text = response.into_body().collect().await.expect("no error").to_bytes();
        Answer { status, text: String::from_utf8(text.to_vec()).expect("UTF-8") }
    }

    /// What a node is answered, and the version of it.
    async fn poll(&self, what: &str, names: &[&str], version: &str) -> (Vec<String>, String) {
        self.poll_with(what, names, version, None).await
    }

    async fn poll_with(&self, what: &str, names: &[&str], version: &str, error: Option<&str>) -> (Vec<String>, String) {
        let mut request = json!({"node": {"id": "n"}, "resource_names": names, "version_info": version});
        if let Some(message) = error {
            request["error_detail"] = json!({"code": 13, "message": message});
        }
        let answer = self.ask(Method::POST, &format!("/v3/discovery:{what}"), request.to_string()).await;
        if answer.status == 304 {
            assert_eq!(answer.text, "");
            return (vec!["304".to_owned()], version.to_owned());
        }
        assert_eq!(answer.status, 200, "{answer:?}");
        let response: Value = serde_json::from_str(&answer.text).expect("JSON");
        let resources = response["resources"].as_array().expect("an array").iter();
        // Bodies of tests are no messages: they stand there in base64.
        let resources = resources.map(|resource| resource["value"].as_str().expect("base64").to_owned());
        (resources.collect(), response["version_info"].as_str().expect("a version").to_owned())
    }

    fn proxy(&self) -> Proxy {
        let proxies = self.report.proxies();
        let [proxy] = &proxies[..] else { panic!("one proxy: {proxies:?}") };
        proxy.clone()
    }
}

/// Messages as a body that stays open.
fn open(messages: &[Vec<u8>]) -> Body {
    let frames: Vec<_> = messages
        .iter()
        .map(|message| {
            let length = u32::try_from(message.len()).expect("small").to_be_bytes();
            Ok::<_, Status>(Frame::data(Bytes::from([&[0][..], &length, message].concat())))
        })
        .collect();
    let frames = futures::stream::iter(frames).chain(futures::stream::pending());
    Body::new(http_body_util::StreamBody::new(frames))
}

fn request(kind: Option<Kind>, names: &[&str], nonce: &str) -> Vec<u8> {
    request_of("n", kind, names, nonce)
}

fn request_of(node: &str, kind: Option<Kind>, names: &[&str], nonce: &str) -> Vec<u8> {
    wire::DiscoveryRequest {
        node: wire::Node { id: node.into(), ..Default::default() }.encode_to_vec().into(),
        type_url: kind.map(Kind::type_url).unwrap_or_default().to_owned(),
        resource_names: names.iter().map(ToString::to_string).collect(),
        response_nonce: nonce.to_owned(),
        ..Default::default()
    }
    .encode_to_vec()
}

/// What a body has given by now: the resources in its messages, and its end.
fn take(body: &mut Body) -> (Vec<String>, Option<String>) {
    let (mut bytes, mut end) = (Vec::new(), None);
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = Pin::new(&mut *body).poll_frame(&mut context) {
        match frame.expect("no error").into_data() {
            Ok(data) => bytes.extend(data),
            Err(frame) => {
                let trailers = frame.into_trailers().expect("data or trailers");
                end = Some(trailers["grpc-status"].to_str().expect("a number").to_owned());
            }
        }
    }
    let (mut rest, mut resources) = (&bytes[..], Vec::new());
    while let Some((head, after)) = rest.split_at_checked(5) {
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let response = discovery_pb::DiscoveryResponse::decode(&after[..length]).expect("a response");
        resources.extend(response.resources.into_iter().map(|any| String::from_utf8(any.value).expect("text")));
        rest = &after[length..];
    }
    (resources, end)
}

/// What unknown streams say slowly is bounded together; those that were let in count no more.
#[tokio::test]
async fn streams_that_are_not_let_in_yet_hold_no_more_together_than_one_message() {
    let control = Control::new("SDS a=1", limits());
    let lobby = Lobby::default();
    let (whole, part) = (request(Some(Kind::Secret), &["a"], ""), [&[0, 0, 0, 0x27, 0x10][..], &[7; 6_000]].concat());
    let call = async |first: Option<&Vec<u8>>| {
        let parts = first.map(|first| {
            let length = u32::try_from(first.len()).expect("small").to_be_bytes();
            Bytes::from([&[0][..], &length, first].concat())
        });
        let frames: Vec<_> =
            parts.into_iter().chain([part.clone().into()]).map(|part| Ok::<_, Status>(Frame::data(part))).collect();
        let body =
            Body::new(http_body_util::StreamBody::new(futures::stream::iter(frames).chain(futures::stream::pending())));
        let path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
        let request = http::Request::post(path).extension(lobby.clone()).body(body).expect("a request");
        control.service.clone().call(request).await.expect("infallible").into_body()
    };
    let mut known = [call(Some(&whole)).await, call(Some(&whole)).await];
    for known in &mut known {
        assert_eq!(take(known), (vec!["1".to_owned()], None));
    }
    let (mut one, mut other) = (call(None).await, call(None).await);
    assert_eq!(take(&mut one), (vec![], None));
    let exhausted = (tonic::Code::ResourceExhausted as i32).to_string();
    assert_eq!(take(&mut other), (vec![], Some(exhausted)));
    drop((one, other));
    assert_eq!(take(&mut call(None).await), (vec![], None), "nothing is left of who has gone");
    // A poll is somebody of whom nothing is known either.
    let mut held = call(None).await;
    assert_eq!(take(&mut held).1, None);
    let body = Body::new(http_body_util::Full::new(Bytes::from(vec![b' '; 6_000])));
    let request = http::Request::post("/v3/discovery:secrets").extension(lobby.clone()).body(body).expect("a request");
    assert_eq!(control.service.poll(request).await.status().as_u16(), 429);
}

fn limits() -> Limits {
    Limits { request_bytes: 10_000, ..Limits::DEFAULT }
}

const ADS: &str = "discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const CDS: &str = "cluster.v3.ClusterDiscoveryService/StreamClusters";

#[tokio::test]
async fn a_service_of_one_type_needs_no_type_and_takes_no_other() {
    let control = Control::new("CDS a=1, LDS l=2", limits());
    for kind in [None, Some(Kind::Cluster)] {
        let mut body = control.call(CDS, open(&[request(kind, &[], "")])).await.into_body();
        assert_eq!(take(&mut body), (vec!["1".to_owned()], None));
    }
    let mut body = control.call(CDS, open(&[request(Some(Kind::Listener), &[], "")])).await.into_body();
    assert_eq!(take(&mut body), (vec![], Some("3".to_owned())));
    let mut body = control.call(ADS, open(&[request(None, &[], "")])).await.into_body();
    assert_eq!(take(&mut body), (vec![], Some("3".to_owned())));
}

#[tokio::test]
async fn a_request_of_five_megabytes_is_taken_and_one_beyond_the_limit_is_not() {
    let names: Vec<String> = (0..50_000).map(|number| format!("{number:0>100}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["a"]).collect();
    let large = request(Some(Kind::Secret), &names, "");
    assert!(large.len() > 5_000_000);
    let control = Control::new("SDS a=1", Limits::DEFAULT);
    let mut body = control.call(ADS, open(std::slice::from_ref(&large))).await.into_body();
    assert_eq!(take(&mut body), (vec!["1".to_owned()], None));
    let control = Control::new("SDS a=1", Limits { request_bytes: large.len() - 1, ..Limits::DEFAULT });
    let mut body = control.call(ADS, open(&[large])).await.into_body();
    assert_eq!(take(&mut body), (vec![], Some("11".to_owned())));
}

#[tokio::test]
async fn a_fetch_is_answered_what_there_is_and_ends() {
    let control = Control::new("CDS a=1, CDS b=2, EDS a=3, SDS s=4", limits());
    for (method, names, expected) in [
        ("cluster.v3.ClusterDiscoveryService/FetchClusters", &[][..], &["1", "2"][..]),
        ("cluster.v3.ClusterDiscoveryService/FetchClusters", &["b"], &["2"]),
        ("endpoint.v3.EndpointDiscoveryService/FetchEndpoints", &["a"], &["3"]),
        ("secret.v3.SecretDiscoveryService/FetchSecrets", &["s", "t"], &["4"]),
        ("route.v3.RouteDiscoveryService/FetchRoutes", &["r"], &[]),
    ] {
        let mut body = control.call(method, open(&[request(None, names, "")])).await.into_body();
        let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        assert_eq!(take(&mut body), (expected, Some("0".to_owned())), "{method}");
        assert!(take(&mut body).0.is_empty());
    }
    let node = |id: &str| wire::Node { id: id.into(), ..Default::default() }.encode_to_vec().into();
    for (id, code) in [("", "3"), ("nobody", "16"), ("other", "7"), ("early", "14")] {
        let message = wire::DiscoveryRequest { node: node(id), ..Default::default() }.encode_to_vec();
        let response = control.call("cluster.v3.ClusterDiscoveryService/FetchClusters", open(&[message])).await;
        assert_eq!(response.headers()["grpc-status"], code, "{id:?}");
    }
    let message = wire::DiscoveryRequest { node: node("unproven"), ..Default::default() };
    let message = wire::DiscoveryRequest { resource_names: vec!["s".into()], ..message }.encode_to_vec();
    let mut body = control.call("secret.v3.SecretDiscoveryService/FetchSecrets", open(&[message])).await.into_body();
    assert_eq!(take(&mut body), (vec![], Some("0".to_owned())), "nothing secret for a node that shows nothing");
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_answered_when_there_is_something_else() {
    let control = Control::new("CDS a=1, EDS a=2, EDS b=3", limits());
    let (clusters, first) = control.poll("clusters", &[], "").await;
    assert_eq!(clusters, ["MQ=="]);
    let start = tokio::time::Instant::now();
    assert_eq!(control.poll("clusters", &[], &first).await.0, ["304"]);
    assert_eq!(start.elapsed(), limits().poll, "it waits for a change");
    // A version of another server, or of nobody, is another one.
    assert_eq!(control.poll("clusters", &[], "x").await, (clusters, first.clone()));

    let change = async {
        tokio::time::sleep(limits().poll / 2).await;
        control.edit("EDS b=4");
        tokio::time::sleep(limits().poll / 4).await;
        control.edit("CDS a=5");
    };
    let start = tokio::time::Instant::now();
    let ((clusters, second), ()) = tokio::join!(control.poll("clusters", &[], &first), change);
    assert_eq!(clusters, ["NQ=="]);
    assert_eq!(start.elapsed(), limits().poll * 3 / 4, "as soon as there is one, of its own type");
    assert_ne!(first, second);

    // The same version for what is the same: other endpoints than those that are asked for change nothing.
    let (endpoints, version) = control.poll("endpoints", &["a"], "").await;
    assert_eq!(endpoints, ["Mg=="]);
    control.edit("EDS b=6");
    assert_eq!(control.poll("endpoints", &["a"], &version).await.0, ["304"]);
    // A name more is something else.
    let (endpoints, both) = control.poll("endpoints", &["a", "b"], &version).await;
    assert_eq!((endpoints, both == version), (vec!["Mg==".to_owned(), "Ng==".to_owned()], false));
    // What does not exist yet is waited for.
    let (none, later) = (control.poll("routes", &["r"], ""), async { control.edit("RDS r=7") });
    assert_eq!(tokio::join!(none, later).0.0, ["Nw=="]);
    assert_eq!(control.poll("routes", &["other"], "").await.0, ["304"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_said_is_the_version_of_a_poll() {
    let control = Control::new("CDS a=1", limits());
    control.say_version("v7");
    assert_eq!(control.poll("clusters", &[], "").await, (vec!["MQ==".to_owned()], "v7".to_owned()));
    assert_eq!(control.poll("clusters", &[], "v7").await.0, ["304"]);
    control.edit("CDS a=2");
    assert_eq!(control.poll("clusters", &[], "v7").await, (vec!["Mg==".to_owned()], "v7".to_owned()));
    assert_eq!(control.poll("clusters", &[], "v7").await.0, ["304"]);
    // What is refused under it is the last that was told.
    control.edit("CDS a=4");
    assert_eq!(control.poll("clusters", &[], "v7").await.0, ["NA=="]);
    control.poll_with("clusters", &[], "v7", Some("cluster a: no")).await;
    assert_eq!(control.proxy().types[&Kind::Cluster].rejections[0].reason, "cluster a: no");
    assert!(!control.proxy().in_sync());
    // A server that knows nothing of the client does not know either what it was told under this version.
    let anew = Control::new("CDS a=3", limits());
    anew.say_version("v7");
    assert_eq!(anew.poll("clusters", &[], "v7").await, (vec!["Mw==".to_owned()], "v7".to_owned()));
    assert_eq!(anew.poll("clusters", &[], "v7").await.0, ["304"]);
}

#[tokio::test(start_paused = true)]
async fn who_polls_is_reported_until_it_stops() {
    let control = Control::new("LDS l=1, SDS identity=2", limits());
    let (_, version) = control.poll("listeners", &[], "").await;
    let proxy = control.proxy();
    let status = &proxy.types[&Kind::Listener];
    assert_eq!((proxy.protocol, proxy.node.as_str(), proxy.in_sync(), status.responses), ("rest", "n", false, 1));
    assert!(proxy.listeners.is_empty());
    control.poll("listeners", &[], &version).await;
    let proxy = control.proxy();
    assert!(proxy.in_sync() && proxy.listeners.contains("l"));
    assert_eq!(control.report.watch().borrow().values().next().map(|proxy| proxy.listeners.len()), Some(1));
    let (_, version) = control.poll("secrets", &["identity"], "").await;
    control.poll("secrets", &["identity"], &version).await;
    assert!(control.proxy().has_certificate);

    control.service.tidy();
    assert_eq!(control.report.proxies().len(), 1);
    control.service.shared.pollers.tidy(Instant::now() + Duration::from_secs(61));
    assert_eq!(control.report.proxies(), []);
}

#[tokio::test(start_paused = true)]
async fn what_a_poll_refuses_is_reported_and_not_sent_again_until_it_is_other() {
    let control = Control::new("CDS a=1, CDS b=2", limits());
    let (_, accepted) = control.poll("clusters", &[], "").await;
    control.poll("clusters", &[], &accepted).await;
    control.edit("CDS a=3");
    let (clusters, refused) = control.poll("clusters", &[], &accepted).await;
    assert_eq!(clusters, ["Mw==", "Mg=="]);
    for _ in 0..2 {
        let again = control.poll_with("clusters", &[], &accepted, Some("cluster a: no")).await;
        assert_eq!(again.0, ["304"], "the same is not sent again");
        let proxy = control.proxy();
        let rejections = &proxy.types[&Kind::Cluster].rejections;
        assert_eq!((rejections.len(), rejections[0].reason.as_str()), (1, "cluster a: no"));
        assert_eq!(rejections[0].resources.iter().map(|name| &**name).collect::<Vec<_>>(), ["a"]);
        assert!(!proxy.in_sync());
    }
    // Nor is it sent to who says the error once: it holds all that there is for it, with the form that it accepted.
    assert_eq!(control.poll("clusters", &[], &accepted).await.0, ["304"]);
    assert!(!control.proxy().in_sync());
    // Who has nothing any more begins anew.
    assert_eq!(control.poll("clusters", &[], "").await.1, refused);
    control.edit("CDS a=4");
    let (clusters, mended) = control.poll_with("clusters", &[], &accepted, Some("cluster a: no")).await;
    assert_eq!(clusters, ["NA==", "Mg=="]);
    control.poll("clusters", &[], &mended).await;
    let proxy = control.proxy();
    assert!(proxy.in_sync(), "{proxy:?}");
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_brings_news_accepts_what_was_told_before() {
    let control = Control::new("CDS a=1", limits());
    let (_, first) = control.poll("clusters", &[], "").await;
    assert_eq!(control.poll("clusters", &[], &first).await.0, ["304"]);
    control.edit("CDS a=2");
    let (clusters, second) = control.poll("clusters", &[], &first).await;
    assert_eq!(clusters, ["Mg=="]);
    // This one says that it holds the second, and is told the third.
    control.edit("CDS a=3");
    assert_eq!(control.poll("clusters", &[], &second).await.0, ["Mw=="]);
    let (clusters, again) = control.poll_with("clusters", &[], &second, Some("cluster a: no")).await;
    assert!(clusters == ["304"] || (clusters == ["Mg=="] && again == second), "{clusters:?}: the second was accepted");
}

#[tokio::test(start_paused = true)]
async fn what_a_poll_refuses_by_name_is_rolled_back_alone() {
    let control = Control::new("CDS a=1, CDS b=2", limits());
    let (_, first) = control.poll("clusters", &[], "").await;
    control.poll("clusters", &[], &first).await;
    // Both change, one is refused: the other arrives, beside the former.
    control.edit("CDS a=3, CDS b=4");
    assert_eq!(control.poll("clusters", &[], &first).await.0, ["Mw==", "NA=="]);
    let (clusters, second) = control.poll_with("clusters", &[], &first, Some("cluster a: no")).await;
    assert_eq!(clusters, ["MQ==", "NA=="], "a as it was accepted, b as it is");
    assert_eq!(control.poll("clusters", &[], &second).await.0, ["304"]);
    let rejected = |control: &Control| {
        let proxy = control.proxy();
        let rejections = &proxy.types[&Kind::Cluster].rejections;
        rejections.iter().flat_map(|one| &one.resources).map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(rejected(&control), ["a"], "what is rolled back is refused as it is");
    // Something else changes: still without what is refused.
    control.edit("CDS c=5");
    let (clusters, third) = control.poll("clusters", &[], &second).await;
    assert_eq!(clusters, ["MQ==", "NA==", "NQ=="]);
    control.poll("clusters", &[], &third).await;
    // One that is new and refused is left out.
    control.edit("CDS d=6");
    assert_eq!(control.poll("clusters", &[], &third).await.0.len(), 4);
    assert_eq!(control.poll_with("clusters", &[], &third, Some("cluster d: no")).await.0, ["304"]);
    assert_eq!(rejected(&control), ["a", "d"]);
    // Healed.
    control.edit("CDS a=7, CDS d=8");
    let (clusters, last) = control.poll("clusters", &[], &third).await;
    assert_eq!(clusters, ["Nw==", "NA==", "NQ==", "OA=="]);
    assert_eq!(control.poll("clusters", &[], &last).await.0, ["304"]);
    assert!(control.proxy().in_sync(), "{:?}", control.proxy());
}

#[tokio::test]
async fn who_polls_seldom_is_kept_for_as_long_as_that_takes() {
    let (pollers, report) = (super::super::pollers::Pollers::default(), Report::default());
    let proxy = || Proxy {
        node: "n".to_owned(),
        owner: Owner::Workload("shop/cart".parse().expect("a name")),
        address: [127, 0, 0, 1].into(),
        proven: true,
        envoy: String::new(),
        protocol: "rest",
        connected: std::time::SystemTime::UNIX_EPOCH,
        types: Default::default(),
        listeners: Default::default(),
        has_certificate: false,
    };
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let ask = |seconds: u64| {
        for kind in [Kind::Cluster, Kind::Listener] {
            pollers.of(&report, proxy(), (kind, Version::EMPTY), at(seconds)).expect("let in");
        }
    };
    let there = |seconds: u64| {
        pollers.tidy(at(seconds));
        report.proxies().len()
    };
    ask(0);
    assert_eq!((there(60), there(61)), (1, 0), "how often it asks is not known");
    // Every five minutes: from the second time on it is known.
    ask(300);
    assert_eq!((there(599), there(1200)), (1, 1));
    ask(600);
    assert_eq!((there(1500), there(1501)), (1, 0));
    // A pause is nothing that lasts.
    ask(4000);
    ask(4010);
    assert_eq!((there(4070), there(4071)), (1, 0));
    // Nobody is kept for longer than an hour.
    ask(8000);
    ask(11_500);
    assert_eq!((there(15_100), there(15_101)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_poll_is_refused_with_a_reason() {
    let control = Control::new("CDS a=1, SDS s=2", limits());
    let node = |id: &str| json!({"node": {"id": id}}).to_string();
    let (post, clusters) = (Method::POST, "/v3/discovery:clusters");
    for (method, path, body, status, said) in [
        (post.clone(), clusters, "{".to_owned(), 400, "this is no DiscoveryRequest: EOF while parsing"),
        (post.clone(), clusters, "{}".to_owned(), 400, "the first request of a stream has no node id"),
        (post.clone(), clusters, "x".repeat(10_001), 413, "a request has at most 10000 bytes"),
        (post.clone(), clusters, node("nobody"), 401, "who"),
        (post.clone(), clusters, node("other"), 403, "not you"),
        (post.clone(), clusters, node("early"), 503, "not yet"),
        (Method::GET, clusters, node("n"), 405, "is a POST"),
        (post.clone(), "/v3/discovery:nothing", node("n"), 404, "nothing at this path"),
        (post.clone(), "/", node("n"), 404, "nothing at this path"),
    ] {
        let answer = control.ask(method, path, body).await;
        assert!(answer.status == status && answer.text.contains(said), "{path}: {answer:?}");
    }
    let answer = control.ask(post.clone(), clusters, json!({"node": {"id": "n"}, "type_url": "x"}).to_string()).await;
    assert!(answer.status == 200 && answer.text.contains(Kind::Cluster.type_url()), "the path decides: {answer:?}");
    let secret = json!({"node": {"id": "unproven"}, "resource_names": ["s"]}).to_string();
    let answer = control.ask(post, "/v3/discovery:secrets", secret).await;
    assert_eq!(answer.status, StatusCode::NOT_MODIFIED.as_u16(), "denied and absent look the same");
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_its_age_when_nothing_is_under_way() {
    let age = Duration::from_secs(100);
    let control = Control::new("CDS a=1", Limits { age: Some(age), ..limits() });
    let ask = async || control.call(ADS, open(&[request(Some(Kind::Cluster), &[], "")])).await.into_body();
    // Not answered: it has a while to do so.
    let mut body = ask().await;
    assert_eq!(take(&mut body).0, ["1"]);
    tokio::time::sleep(age * 9 / 10 - Duration::from_secs(1)).await;
    assert_eq!(take(&mut body), (vec![], None));
    tokio::time::sleep(age * 2 / 10 + Duration::from_secs(2)).await;
    assert_eq!(take(&mut body), (vec![], None), "a response is under way");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(take(&mut body), (vec![], Some("14".to_owned())));
    // Answered: it ends at once.
    let (answers, received) = tokio::sync::mpsc::channel(1);
    let frames = tokio_stream::wrappers::ReceiverStream::new(received);
    let first = open(&[request(Some(Kind::Cluster), &[], "")]).into_data_stream();
    let frames = frames.map(Ok::<_, Status>).map(|bytes| bytes.map(Frame::data));
    let both = first.take(1).map(|data| data.map(Frame::data)).chain(frames);
    let mut body = control.call(ADS, Body::new(http_body_util::StreamBody::new(both))).await.into_body();
    assert_eq!(take(&mut body).0, ["1"]);
    let nonce = "1";
    let ack = request(Some(Kind::Cluster), &[], nonce);
    let length = u32::try_from(ack.len()).expect("small").to_be_bytes();
    let ack = Bytes::from([&[0][..], &length, &ack].concat());
    tokio::time::sleep(age * 11 / 10 + Duration::from_secs(1)).await;
    assert_eq!(take(&mut body), (vec![], None));
    answers.send(ack).await.expect("open");
    assert_eq!(take(&mut body), (vec![], Some("14".to_owned())));
    let ages: Vec<_> = (0..100).filter_map(|_| Limits { age: Some(age), ..limits() }.stream_age()).collect();
    assert!(ages.iter().all(|one| age.mul_f64(0.9) <= *one && *one < age.mul_f64(1.1)) && ages[0] != ages[1]);
}

#[tokio::test]
async fn more_new_streams_than_are_let_in_are_told_so() {
    let control = Control::new("CDS a=1", Limits { opened: NonZeroU32::new(3), ..limits() });
    let mut ends = Vec::new();
    for node in ["nobody", "nobody", "nobody", "n", "n", "n", "n", "n"] {
        let mut body = control.call(ADS, open(&[request_of(node, Some(Kind::Cluster), &[], "")])).await.into_body();
        ends.push(take(&mut body).1);
    }
    // Who is not let in takes nobody's place.
    let (unknown, exhausted) = (Some("16".to_owned()), Some("8".to_owned()));
    assert_eq!(ends[..3], [unknown.clone(), unknown.clone(), unknown]);
    assert_eq!(ends[3..], [None, None, None, exhausted.clone(), exhausted]);
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_told_from_one_that_is_sent_nothing() {
    let control = Control::new(&format!("CDS a={}", "x".repeat(200_000)), limits());
    let pulse = Pulse::default();
    let mut request = http::Request::post(format!("/envoy.service.{ADS}"))
        .body(open(&[request(Some(Kind::Cluster), &[], "")]))
        .expect("a request");
    request.extensions_mut().insert(pulse.clone());
    let mut body = control.service.clone().call(request).await.expect("infallible").into_body();
    let mut context = Context::from_waker(Waker::noop());
    let mut given = Vec::new();
    while let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(&mut context) {
        given.push(frame.expect("no end").expect("no error").into_data().expect("data").len());
        assert!(pulse.waits().is_some(), "it was not asked for more since");
    }
    assert_eq!(pulse.waits(), None);
    assert!(given.len() > 3 && given.iter().all(|length| *length <= 64 * 1024), "{given:?}");
}
