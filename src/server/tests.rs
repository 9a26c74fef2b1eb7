//! What a connection does with the turns and writes of its streams.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Ready, ready};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::service::discovery::v3 as discovery_pb;
use proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use proto::wire;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use translators::resource::Kind;

use self::connections::{Noting, Quiet, Shut, Stuck, counting};
use super::cork::Corked;
use super::patience::Patience;
use super::{Front, connection, serve};
use crate::csds::ClientStatus;
use crate::publish::{Feed, Followed, Reader};
use crate::report::Report;
use crate::stream::{self, Admission, Directory, Pulse, Refusal};

mod connections;

/// Whatever is said is for everybody.
impl Followed for Bytes {
    type Change = ();
    type Topic = ();

    fn change_to(&self, _: &Self) -> Option<()> {
        None
    }

    fn size(&self) -> usize {
        1
    }

    fn size_of((): &()) -> usize {
        1
    }

    fn topics_of((): &()) -> impl Iterator<Item = ()> {
        std::iter::empty()
    }
}

/// Answers each request with what a feed says.
#[derive(Clone)]
struct Echo(Reader<Bytes>);

struct Said(Reader<Bytes>);

impl tower::Service<Request<Incoming>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        assert_eq!(request.extensions().get(), Some(&"the peer"));
        ready(Ok(Response::new(Body::new(Said(self.0.clone())))))
    }
}

impl http_body::Body for Said {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        self.0.poll_next(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(Bytes::clone(&bytes)))))
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
}

/// Lets nobody in, and says so when so many ask at the same moment.
#[derive(Clone)]
struct Together {
    all: usize,
    here: Arc<(Mutex<usize>, Condvar)>,
}

const TOGETHER: &str = "all at once";

impl Directory for Together {
    fn admit(&self, _: &http::Extensions, _: &wire::Node) -> Result<Admission, Refusal> {
        let (here, come) = &*self.here;
        let mut count = here.lock().expect("no panic");
        *count += 1;
        come.notify_all();
        let wait = Duration::from_millis(500);
        let (mut count, _) = come.wait_timeout_while(count, wait, |count| *count < self.all).expect("no panic");
        // Once all have been here they stay.
        Err(if *count < self.all {
            *count -= 1;
            Refusal::Denied("not all at once".to_owned())
        } else {
            Refusal::NotReady(TOGETHER.to_owned())
        })
    }
}

/// Connections are fanned out over all workers: each of these holds one up until all of them serve.
#[test]
fn as_many_connections_are_served_at_the_same_moment_as_there_are_workers() {
    let workers = std::thread::available_parallelism().map_or(2, usize::from).max(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let (runtime, stop) = (runtime.expect("a runtime"), CancellationToken::new());
    let entered = runtime.enter();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("bound");
    let incoming = TcpIncoming::from(TcpListener::from_std(listener).expect("a listener"));
    let directory = Together { all: workers, here: Arc::default() };
    let report = Report::default();
    let front = Front {
        discovery: stream::Service::new(directory.clone(), report.clone(), stop.clone()),
        status: ClientStatus::of_oneself(report, Arc::new(directory)),
        others: Routes::default(),
    };
    let server = spawn(serve(incoming, front, Patience::DEFAULT, stop.clone()));
    drop(entered);
    let clients = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    clients.block_on(async {
        let ask = async |number: usize| {
            let first = discovery_pb::DiscoveryRequest {
                node: Some(core_pb::Node { id: number.to_string(), ..Default::default() }),
                type_url: Kind::Cluster.type_url().to_owned(),
                ..Default::default()
            };
            let requests = tokio_stream::iter([first]).chain(tokio_stream::pending());
            let mut client =
                AggregatedDiscoveryServiceClient::connect(format!("http://{address}")).await.expect("connects");
            let answer = client.stream_aggregated_resources(requests).await;
            let refused = match answer {
                Ok(stream) => stream.into_inner().message().await.expect_err("nobody is let in"),
                Err(refused) => refused,
            };
            refused.message().to_owned()
        };
        // A worker that is held up may be the one that would have heard of the next connection: it takes a few attempts.
        let mut said = Vec::new();
        for _ in 0..20 {
            said = futures::future::join_all((0..workers).map(ask)).await;
            if said.iter().all(|said| said == TOGETHER) {
                break;
            }
        }
        assert_eq!(said, vec![TOGETHER; workers]);
        stop.cancel();
        server.await.expect("no panic").expect("no error");
    });
}

#[tokio::test]
async fn a_change_for_all_streams_of_a_connection_is_written_at_once() {
    const STREAMS: usize = 60;
    let (client, server) = tokio::io::duplex(1 << 20);
    let (server, writes) = counting(server);
    let (feed, stop) = (Feed::new(Arc::new(Bytes::new())), CancellationToken::new());
    let served = spawn(connection::serve(server, Echo(feed.subscribe()), Patience::default(), stop.clone()));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client));
    let (mut sender, connection) = soon(handshake).await.expect("it speaks HTTP/2");
    let client = spawn(connection);
    let mut bodies = Vec::new();
    for _ in 0..STREAMS {
        let request = Request::get("http://localhost/").body(Empty::<Bytes>::new()).expect("a request");
        bodies.push(soon(sender.send_request(request)).await.expect("answered").into_body());
    }
    let before = writes.load(Ordering::SeqCst);
    // As large as the change of one resource.
    let said = Bytes::from(vec![7; 500]);
    feed.send(Arc::new(said.clone()));
    for body in &mut bodies {
        let frame = soon(body.frame()).await.expect("a frame").expect("no error");
        assert_eq!(frame.into_data().expect("data"), said);
    }
    let after = writes.load(Ordering::SeqCst) - before;
    assert!(after <= 3, "{after} writes for {STREAMS} frames");

    // When it stops, what is open may end, and then the connection does.
    stop.cancel();
    drop(feed);
    for body in &mut bodies {
        assert_eq!(soon(body.collect()).await.expect("no error").to_bytes(), Bytes::new());
    }
    soon(served).await.expect("no panic");
    soon(client).await.expect("no panic").expect("a proper end");
}

#[tokio::test]
async fn what_is_corked_comes_in_order_and_whole() {
    let (server, mut client) = tokio::io::duplex(1000);
    let (server, writes) = counting(server);
    let (mut io, uncork) = Corked::pair(server);
    soon(io.write_all(b"first")).await.expect("writes");
    soon(io.flush()).await.expect("flushes");
    assert_eq!(writes.load(Ordering::SeqCst), 0, "it waits to be uncorked");
    let mut expected = b"first".to_vec();
    let reader = spawn(async move {
        let mut read = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut client, &mut read).await.expect("reads");
        read
    });
    for (round, length) in [10, 300, 40_000, 1, 32_768, 100_000, 7].into_iter().enumerate() {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7 + round) as u8).collect();
        soon(io.write_all(&bytes)).await.expect("writes");
        soon(io.flush()).await.expect("flushes");
        expected.extend(bytes);
    }
    soon(std::future::poll_fn(|context| uncork.poll_uncork(context))).await.expect("writes");
    soon(io.write_all(b"end")).await.expect("writes");
    expected.extend(b"end");
    soon(io.shutdown()).await.expect("a proper end");
    assert_eq!(soon(reader).await.expect("no panic"), expected);
}

#[test]
fn a_connection_that_takes_nothing_is_given_no_more_than_there_is_room() {
    let (mut io, uncork) = Corked::pair(Stuck(Mutex::new(VecDeque::new())));
    let mut context = Context::from_waker(Waker::noop());
    let mut taken = 0;
    while let Poll::Ready(written) = Pin::new(&mut io).poll_write(&mut context, &[0; 1000]) {
        taken += written.expect("no error");
        assert!(taken <= 64 * 1024);
    }
    assert!(uncork.poll_uncork(&mut context).is_pending());
    let (_, broken) = Corked::pair(Stuck(Mutex::new([Poll::Ready(0)].into())));
    assert!(matches!(broken.poll_uncork(&mut context), Poll::Ready(Ok(()))), "nothing is to be written");
    let (mut io, broken) = Corked::pair(Stuck(Mutex::new([Poll::Ready(0)].into())));
    assert!(matches!(Pin::new(&mut io).poll_write(&mut context, b"x"), Poll::Ready(Ok(1))));
    assert!(matches!(broken.poll_uncork(&mut context), Poll::Ready(Err(_))));
}

/// Answers with as much as is taken, and counts what was.
#[derive(Clone, Default)]
struct Endless(Arc<AtomicUsize>);

struct Slices {
    pulse: Pulse,
    given: Arc<AtomicUsize>,
}

const SLICE: usize = 64 * 1024;

impl tower::Service<Request<Incoming>> for Endless {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let pulse = request.extensions().get::<Pulse>().cloned().expect("each stream has one");
        ready(Ok(Response::new(Body::new(Slices { pulse, given: Arc::clone(&self.0) }))))
    }
}

impl http_body::Body for Slices {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        self.pulse.asked();
        self.pulse.gave();
        self.given.fetch_add(SLICE, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; SLICE])))))
    }
}

#[tokio::test]
async fn a_reader_that_stops_makes_its_stream_hold_little_and_loses_it() {
    const WINDOW: u32 = 65_535;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
    let (server, _) = listener.accept().await.expect("accepts");
    let given = Arc::new(AtomicUsize::new(0));
    let patience = Patience { stalled: Duration::from_millis(500), ..Patience::default() };
    let stop = CancellationToken::new();
    spawn(connection::serve(server, Endless(Arc::clone(&given)), patience, stop.clone()));
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(WINDOW).initial_connection_window_size(16 << 20);
    let (mut sender, connection) = soon(builder.handshake(TokioIo::new(client))).await.expect("it speaks HTTP/2");
    spawn(connection);
    let request = || Request::get("http://localhost/").body(Empty::<Bytes>::new()).expect("a request");
    let mut stopped = soon(sender.send_request(request())).await.expect("answered").into_body();
    let first = soon(stopped.frame()).await.expect("a frame").expect("no error");
    let held = || given.load(Ordering::SeqCst) - WINDOW as usize;
    assert!(held() <= 256 * 1024, "{} bytes are held", held());
    drop(first);
    // Meanwhile another one takes what it likes, and goes on doing so.
    let mut other = soon(sender.send_request(request())).await.expect("answered").into_body();
    for _ in 0..500 {
        soon(other.frame()).await.expect("a frame").expect("no error");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let reset = async {
        loop {
            if let Some(Err(error)) = stopped.frame().await {
                break error;
            }
        }
    };
    let reset = soon(reset).await;
    assert!(format!("{reset:?}").contains("Reset"), "{reset:?}");
    soon(other.frame()).await.expect("a frame").expect("it goes on");
}

#[tokio::test]
async fn a_connection_that_is_not_read_holds_little_whatever_its_peer_announces_and_is_lost() {
    let (client, server) = tokio::io::duplex(1000);
    let (server, _) = counting(server);
    let (given, read) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let patience = Patience { stalled: Duration::from_millis(500), ..Patience::default() };
    let served = spawn(connection::serve(server, Endless(Arc::clone(&given)), patience, CancellationToken::new()));
    let client = Shut { connection: client, room: 1 << 20, read: Arc::clone(&read) };
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(1 << 30).initial_connection_window_size(1 << 30);
    let (mut sender, connection) = soon(builder.handshake(TokioIo::new(client))).await.expect("it speaks HTTP/2");
    spawn(connection);
    let request = Request::get("http://localhost/").body(Empty::<Bytes>::new()).expect("a request");
    let response = soon(sender.send_request(request)).await.expect("answered");
    soon(served).await.expect("no panic");
    let (given, read) = (given.load(Ordering::SeqCst), read.load(Ordering::SeqCst));
    assert!(read >= 1 << 20 && given <= read + 256 * 1024, "{} bytes are held", given - read);
    drop(response);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_opened_while_others_have_their_turn_has_its_own() {
    let begun = Arc::new(AtomicUsize::new(0));
    let says: [&'static [u8]; 2] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84",
        b"\0\0\x03\x01\x05\0\0\0\x03\x82\x86\x84",
    ];
    let quiet = Quiet { says, begun: Arc::clone(&begun) };
    let counts = Arc::clone(&begun);
    let service = tower::service_fn(move |_: Request<Incoming>| {
        counts.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Result<Response<Body>, Infallible>>()
    });
    let mut served = Box::pin(connection::serve(quiet, service, Patience::default(), CancellationToken::new()));
    // No timer is due in this time, and nothing else wakes it.
    tokio::select! {
        () = &mut served => panic!("it goes on"),
        () = tokio::time::sleep(Duration::from_millis(10)) => {}
    }
    assert_eq!(begun.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn http_1_is_spoken_too() {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let (server, _) = counting(server);
    let feed = Feed::new(Arc::new(Bytes::new()));
    spawn(connection::serve(server, Echo(feed.subscribe()), Patience::default(), CancellationToken::new()));
    soon(client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")).await.expect("writes");
    feed.send(Arc::new(Bytes::from_static(b"hello")));
    let mut read = Vec::new();
    while !read.ends_with(b"5\r\nhello\r\n") {
        assert_ne!(soon(client.read_buf(&mut read)).await.expect("reads"), 0, "{}", String::from_utf8_lossy(&read));
    }
    assert!(read.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&read));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_begin_or_takes_nothing_is_given_up() {
    let start = tokio::time::Instant::now();
    let serve = |said: &'static [u8]| async move {
        let (mut client, server) = tokio::io::duplex(1000);
        client.write_all(said).await.expect("room");
        let (server, _) = counting(server);
        connection::serve(server, Endless::default(), Patience::default(), CancellationToken::new()).await;
    };
    for silent in [&b""[..], b"PRI * HTTP"] {
        tokio::time::timeout(Duration::from_secs(30), serve(silent)).await.expect("it is given up");
    }
    let silent = start.elapsed();
    assert!(silent >= 2 * Patience::default().opening, "{silent:?}");
    let taken = tokio::time::timeout(Duration::from_secs(70), serve(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    taken.expect("it is given up");
    assert!(start.elapsed() - silent >= Patience::default().stalled);
}

#[tokio::test(start_paused = true)]
async fn a_connection_takes_no_new_streams_from_its_age_on() {
    let (client, server) = tokio::io::duplex(1 << 20);
    let (server, _) = counting(server);
    let (feed, age) = (Feed::new(Arc::new(Bytes::new())), Duration::from_secs(1000));
    let patience = Patience { age: Some(age), ..Patience::default() };
    let served = spawn(connection::serve(server, Echo(feed.subscribe()), patience, CancellationToken::new()));
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client));
    let (mut sender, connection) = soon(handshake).await.expect("it speaks HTTP/2");
    spawn(connection);
    let request = || Request::get("http://localhost/").body(Empty::<Bytes>::new()).expect("a request");
    let mut body = soon(sender.send_request(request())).await.expect("answered").into_body();
    tokio::time::sleep(age * 8 / 10).await;
    soon(sender.send_request(request())).await.expect("it is young");
    tokio::time::sleep(age * 4 / 10).await;
    assert!(soon(sender.send_request(request())).await.is_err(), "the next one is for another connection");
    feed.send(Arc::new(Bytes::from_static(b"x")));
    let frame = soon(body.frame()).await.expect("a frame").expect("what is open stays");
    assert_eq!(frame.into_data().expect("data"), "x");
    drop(feed);
    soon(served).await.expect("no panic");
}

#[test]
fn what_is_large_is_written_from_where_it_lies() {
    let noting = Noting::default();
    let writes = Arc::clone(&noting.0);
    let (mut io, _uncork) = Corked::pair(noting);
    let mut context = Context::from_waker(Waker::noop());
    let (head, body) = (vec![1; 9], vec![2; 16_384]);
    let slices = [io::IoSlice::new(&head), io::IoSlice::new(&body)];
    assert!(matches!(Pin::new(&mut io).poll_write(&mut context, b"small"), Poll::Ready(Ok(5))));
    let written = Pin::new(&mut io).poll_write_vectored(&mut context, &slices);
    assert!(matches!(written, Poll::Ready(Ok(16_393))), "{written:?}");
    let writes = writes.lock().expect("no panic");
    let [write] = &writes[..] else { panic!("one write: {writes:?}") };
    let lengths: Vec<usize> = write.iter().map(|(_, length)| *length).collect();
    assert_eq!(lengths, [5, 9, 16_384]);
    assert_eq!(write[2].0, body.as_ptr() as usize, "no copy");
}
