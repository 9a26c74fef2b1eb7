//! The service over a socket, with the stock generated client; and its body without one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use prost::Message;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::service::discovery::v3 as discovery_pb;
use proto::wire;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};
use tower::Service as _;
use translators::name::Owner;
use translators::resource::{Kind, Resource};

use super::peer::{edit, resource};
use crate::publish::{Feed, Reader, Snapshot};
use crate::report::Report;
use crate::stream::{Admission, Directory, Refusal, Service};

type Client =
    discovery_pb::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient<tonic::transport::Channel>;

/// Admits everybody but a few, to one group.
pub(super) struct Fake {
    pub(super) snapshots: Reader<Snapshot>,
    /// Whether there is what `late` is to be served.
    pub(super) made: watch::Sender<bool>,
}

impl Directory for Fake {
    fn admit(&self, _: &http::Extensions, node: &wire::Node) -> Result<Admission, Refusal> {
        match node.id.as_str() {
            "nobody" => return Err(Refusal::Unauthenticated("who".into())),
            "other" => return Err(Refusal::Denied("not you".into())),
            "early" => return Err(Refusal::NotReady("not yet".into())),
            "late" if !*self.made.borrow() => return Err(Refusal::BeingMade("soon".into())),
            _ => {}
        }
        Ok(Admission {
            owner: Owner::Workload("ns/w".parse().expect("a name")),
            address: [10, 0, 0, 1].into(),
            proven: node.id != "unproven",
            snapshots: self.snapshots.clone(),
            ended: match node.id.as_str() {
                "brief" => Box::pin(async {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Refusal::Unauthenticated("the credential of the stream has expired".to_owned())
                }),
                _ => Box::pin(std::future::pending()),
            },
        })
    }

    fn news(&self) -> BoxFuture<'static, ()> {
        let mut made = self.made.subscribe();
        Box::pin(async move { _ = made.changed().await })
    }
}

struct Fixture {
    snapshots: Option<Feed<Snapshot>>,
    made: watch::Sender<bool>,
    report: Report,
    stop: CancellationToken,
    address: SocketAddr,
}

impl Fixture {
    async fn start(contents: &str) -> Self {
        let mut snapshot = Snapshot::default();
        edit(&mut snapshot, contents);
        let sender = Feed::new(Arc::new(snapshot));
        let snapshots = sender.subscribe();
        let (report, stop) = (Report::default(), CancellationToken::new());
        let made = watch::Sender::new(false);
        let service = Service::new(Fake { snapshots, made: made.clone() }, report.clone(), stop.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = tonic::transport::Server::builder().add_service(service);
        spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("serves");
        });
        Self { snapshots: Some(sender), made, report, stop, address }
    }

    fn edit(&self, text: &str) {
        let feed = self.snapshots.as_ref().expect("not dropped");
        let mut snapshot = Snapshot::clone(&feed.current());
        edit(&mut snapshot, text);
        feed.send(Arc::new(snapshot));
    }

    async fn client(&self) -> Client {
        let client = Client::connect(format!("http://{}", self.address)).await.expect("connects");
        client.max_decoding_message_size(64 << 20)
    }

    async fn delta(
        &self,
    ) -> (mpsc::Sender<discovery_pb::DeltaDiscoveryRequest>, Streaming<discovery_pb::DeltaDiscoveryResponse>) {
        let (requests, received) = mpsc::channel(8);
        let stream = ReceiverStream::new(received);
        let response = self.client().await.delta_aggregated_resources(stream).await.expect("opens");
        (requests, response.into_inner())
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's server ends with its runtime")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

fn delta_request(node: &str, kind: Kind, names: &[&str]) -> discovery_pb::DeltaDiscoveryRequest {
    discovery_pb::DeltaDiscoveryRequest {
        node: Some(core_pb::Node { id: node.into(), ..Default::default() }),
        type_url: kind.type_url().into(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
}

async fn end(stream: &mut Streaming<discovery_pb::DeltaDiscoveryResponse>) -> Status {
    loop {
        match soon(stream.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => return Status::new(Code::Ok, ""),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn a_delta_round_trip_is_reported() {
    let fixture = Fixture::start("LDS l=1, SDS identity=1").await;
    let (requests, mut responses) = fixture.delta().await;
    for (kind, names) in [(Kind::Listener, &[][..]), (Kind::Secret, &["identity"])] {
        requests.send(delta_request("n", kind, names)).await.expect("open");
        let response = soon(responses.message()).await.expect("no error").expect("a response");
        assert_eq!(response.type_url, kind.type_url());
        assert_eq!(response.resources.len(), 1);
        let ack = discovery_pb::DeltaDiscoveryRequest {
            type_url: kind.type_url().into(),
            response_nonce: response.nonce,
            ..Default::default()
        };
        requests.send(ack).await.expect("open");
    }
    fixture.edit("LDS m=2");
    let response = soon(responses.message()).await.expect("no error").expect("a response");
    let bodies = response.resources.iter().map(|r| (r.name.as_str(), &r.resource.as_ref().expect("a body").value[..]));
    assert_eq!(bodies.collect::<Vec<_>>(), [("m", &b"2"[..])]);

    let mut changes = fixture.report.watch();
    while !fixture.report.proxies().first().is_some_and(|proxy| proxy.has_certificate) {
        soon(changes.changed()).await.expect("the report lives");
    }
    let proxies = fixture.report.proxies();
    let [proxy] = &proxies[..] else { panic!("one proxy: {proxies:?}") };
    assert_eq!((proxy.node.as_str(), proxy.protocol), ("n", "delta"));
    assert_eq!(proxy.listeners.iter().map(|name| &**name).collect::<Vec<_>>(), ["l"]);
    assert_eq!((proxy.types[&Kind::Listener].responses, proxy.types[&Kind::Listener].subscribed), (2, None));
    assert_eq!(proxy.types[&Kind::Secret].sent, proxy.types[&Kind::Secret].acked);
    drop(requests);
    assert_eq!(end(&mut responses).await.code(), Code::Ok);
    while !fixture.report.proxies().is_empty() {
        soon(changes.changed()).await.expect("the report lives");
    }
}

#[tokio::test]
async fn what_a_client_holds_when_it_comes_back_is_reported_as_accepted() {
    let fixture = Fixture::start("EDS a=1, EDS b=1").await;
    let (requests, mut responses) = fixture.delta().await;
    let set = fixture.snapshots.as_ref().expect("not dropped").current().of(Kind::Endpoints).clone();
    let mut request = delta_request("n", Kind::Endpoints, &["a"]);
    let held = set.get("a").expect("exists").version().to_string();
    request.initial_resource_versions.insert("a".into(), held);
    requests.send(request).await.expect("open");
    let mut changes = fixture.report.watch();
    while !fixture.report.proxies().first().is_some_and(|proxy| proxy.types.contains_key(&Kind::Endpoints)) {
        soon(changes.changed()).await.expect("the report lives");
    }
    let proxies = fixture.report.proxies();
    let status = &proxies[0].types[&Kind::Endpoints];
    assert!(proxies[0].in_sync());
    assert_eq!((status.acked, status.responses), (Some(set.version()), 0));
    fixture.edit("EDS a=2");
    let response = soon(responses.message()).await.expect("no error").expect("a response");
    assert_eq!(response.resources.len(), 1);
}

#[tokio::test]
async fn a_sotw_round_trip_of_four_megabytes() {
    let fixture = Fixture::start(&format!("EDS a={}", "x".repeat(4 << 20))).await;
    let (requests, received) = mpsc::channel(8);
    let stream = ReceiverStream::new(received);
    let response = fixture.client().await.stream_aggregated_resources(stream).await.expect("opens");
    let mut responses = response.into_inner();
    let mut request = discovery_pb::DiscoveryRequest {
        node: Some(core_pb::Node { id: "n".into(), ..Default::default() }),
        type_url: Kind::Endpoints.type_url().into(),
        resource_names: vec!["a".into()],
        ..Default::default()
    };
    requests.send(request.clone()).await.expect("open");
    let response = soon(responses.message()).await.expect("no error").expect("a response");
    assert_eq!(response.resources[0].value.len(), 4 << 20);
    request.response_nonce = response.nonce;
    request.version_info = response.version_info;
    requests.send(request).await.expect("open");
    fixture.edit("EDS a=1");
    let response = soon(responses.message()).await.expect("no error").expect("a response");
    assert_eq!(&response.resources[0].value[..], b"1");
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let fixture = Fixture::start("LDS l=1").await;
    for (node, code) in [
        ("", Code::InvalidArgument),
        ("nobody", Code::Unauthenticated),
        ("other", Code::PermissionDenied),
        ("early", Code::Unavailable),
        ("brief", Code::Unauthenticated),
    ] {
        let (requests, mut responses) = fixture.delta().await;
        requests.send(delta_request(node, Kind::Listener, &[])).await.expect("open");
        assert_eq!(end(&mut responses).await.code(), code, "{node:?}");
    }
    let (requests, mut responses) = fixture.delta().await;
    requests.send(delta_request("n", Kind::Listener, &[])).await.expect("open");
    requests.send(delta_request("m", Kind::Listener, &[])).await.expect("open");
    assert_eq!(end(&mut responses).await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn stop_and_a_lost_configuration_end_streams() {
    let mut fixture = Fixture::start("LDS l=1").await;
    for lost in [true, false] {
        if !lost {
            fixture = Fixture::start("LDS l=1").await;
        }
        let (requests, mut responses) = fixture.delta().await;
        requests.send(delta_request("n", Kind::Listener, &[])).await.expect("open");
        soon(responses.message()).await.expect("no error").expect("a response");
        if lost {
            fixture.snapshots = None
        } else {
            fixture.stop.cancel()
        }
        assert_eq!(end(&mut responses).await.code(), Code::Unavailable);
    }
}

#[tokio::test]
async fn what_is_being_made_for_a_stream_is_waited_for() {
    let mut fixture = Fixture::start("EDS a=1").await;
    let (requests, mut responses) = fixture.delta().await;
    requests.send(delta_request("late", Kind::Endpoints, &["a"])).await.expect("open");
    let more = delta_request("late", Kind::Endpoints, &["b"]);
    requests.send(more).await.expect("open");
    let early = tokio::time::timeout(Duration::from_millis(200), responses.message()).await;
    assert!(early.is_err(), "{early:?}");
    // News of something else.
    fixture.made.send_replace(false);
    fixture.edit("EDS b=2");
    fixture.made.send_replace(true);
    let response = soon(responses.message()).await.expect("no error").expect("a response");
    let names: Vec<&str> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(names, ["a", "b"], "what it asked for meanwhile counts");
    assert_eq!(fixture.report.proxies().len(), 1);
    // Whoever is gone meanwhile, or is told to go, is not waited for.
    fixture.made.send_replace(false);
    let (requests, mut responses) = fixture.delta().await;
    requests.send(delta_request("late", Kind::Endpoints, &["a"])).await.expect("open");
    tokio::time::sleep(Duration::from_millis(50)).await;
    fixture.stop.cancel();
    assert_eq!(end(&mut responses).await.code(), Code::Unavailable);
    fixture.snapshots = None;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_made_in_time_is_said() {
    let feed = Feed::new(Arc::default());
    let fake = Fake { snapshots: feed.subscribe(), made: watch::Sender::default() };
    let shared = Service::new(fake, Report::default(), CancellationToken::new()).shared;
    let node = wire::Node { id: "late".to_owned(), ..Default::default() };
    let began = tokio::time::Instant::now();
    let refused = shared.admit(&http::Extensions::new(), &node).await.err();
    assert_eq!(refused, Some(Refusal::BeingMade("soon".into())));
    assert_eq!(began.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn a_slow_reader_costs_itself_only() {
    let fixture = Fixture::start(&format!("EDS a={}", "x".repeat(4 << 20))).await;
    let (slow, _unread) = fixture.delta().await;
    slow.send(delta_request("slow", Kind::Endpoints, &["a"])).await.expect("open");
    let (requests, mut responses) = fixture.delta().await;
    requests.send(delta_request("fast", Kind::Endpoints, &["a"])).await.expect("open");
    for round in 0..50 {
        let response = soon(responses.message()).await.expect("no error").expect("a response");
        fixture.edit(&format!("EDS a={round}{}", "x".repeat(1 << 20)));
        let nonce = response.nonce;
        let ack = discovery_pb::DeltaDiscoveryRequest {
            response_nonce: nonce,
            ..delta_request("fast", Kind::Endpoints, &[])
        };
        requests.send(ack).await.expect("open");
    }
    let responses: Vec<u64> = fixture.report.proxies().iter().map(|p| p.types[&Kind::Endpoints].responses).collect();
    assert_eq!(responses[0], 1, "nothing is computed for a reader that does not read");
}

/// One gRPC message as a request body.
fn body_of(message: &impl Message) -> tonic::body::Body {
    let mut bytes = vec![0];
    bytes.extend((message.encoded_len() as u32).to_be_bytes());
    bytes.extend(message.encode_to_vec());
    let open = futures::stream::once(async { Ok::<_, Status>(http_body::Frame::data(Bytes::from(bytes))) })
        .chain(futures::stream::pending());
    tonic::body::Body::new(http_body_util::StreamBody::new(open))
}

fn service(resources: &[Arc<Resource>]) -> (Feed<Snapshot>, Service<Fake>) {
    let mut snapshot = Snapshot::default();
    for resource in resources {
        snapshot.of_mut(resource.kind()).put(Arc::clone(resource));
    }
    let sender = Feed::new(Arc::new(snapshot));
    let snapshots = sender.subscribe();
    (
        sender,
        Service::new(Fake { snapshots, made: watch::Sender::default() }, Report::default(), CancellationToken::new()),
    )
}

#[tokio::test]
async fn the_chunks_of_a_body_are_the_resources_own_bytes() {
    let resources = [resource(Kind::Cluster, "a", "1"), resource(Kind::Cluster, "b", "2")];
    let (_sender, mut service) = service(&resources);
    for (method, delta) in [("StreamAggregatedResources", false), ("DeltaAggregatedResources", true)] {
        let uri = format!("/envoy.service.discovery.v3.AggregatedDiscoveryService/{method}");
        let node = wire::Node { id: "n".into(), ..Default::default() }.encode_to_vec().into();
        let type_url = Kind::Cluster.type_url().to_owned();
        let body = if delta {
            body_of(&wire::DeltaDiscoveryRequest { node, type_url, ..Default::default() })
        } else {
            body_of(&wire::DiscoveryRequest { node, type_url, ..Default::default() })
        };
        let request = http::Request::post(uri).body(body).expect("a request");
        let response = service.call(request).await.expect("infallible");
        let mut body = std::pin::pin!(response.into_body());
        let mut chunks = Vec::new();
        for _ in 0..3 {
            let frame = soon(http_body_util::BodyExt::frame(&mut body)).await.expect("a frame").expect("no error");
            chunks.push(frame.into_data().expect("data"));
        }
        let length: usize = chunks.iter().map(Bytes::len).sum::<usize>() - 5;
        assert_eq!(chunks[0][..5], [&[0][..], &(length as u32).to_be_bytes()].concat());
        for (chunk, resource) in chunks[1..].iter().zip(&resources) {
            let entry = if delta { resource.delta_entry() } else { resource.sotw_entry() };
            assert_eq!((chunk.as_ptr(), chunk.len()), (entry.as_ptr(), entry.len()));
        }
    }
}

#[tokio::test]
async fn other_methods_are_not_implemented() {
    let (_sender, mut service) = service(&[]);
    let name = "envoy.service.discovery.v3.AggregatedDiscoveryService";
    for path in [format!("/{name}/Other"), format!("//{name}/StreamAggregatedResources"), "/x".into()] {
        let request = http::Request::post(&path).body(tonic::body::Body::empty()).expect("a request");
        let response = service.call(request).await.expect("infallible");
        assert_eq!(response.headers()["grpc-status"], "12", "{path}");
    }
}
