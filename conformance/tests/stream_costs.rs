//! What a stream costs, counted in allocations and wake-ups: nothing that grows with what it subscribes to, no copy of
//! what it is sent, and nothing for what it does not subscribe to.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use chancery::publish::{Feed, Reader, Snapshot};
use chancery::report::Report;
use chancery::stream::{Admission, Directory, Protocol, Refusal, Service};
use http_body::{Body, Frame};
use prost::Message;
use proto::wire;
use tokio_util::sync::CancellationToken;
use tower::Service as _;
use translators::name::Owner;
use translators::resource::{Kind, Name, Resource};

/// Everybody is of one group.
struct Everybody(Reader<Snapshot>);

impl Directory for Everybody {
    fn admit(&self, _: &http::Extensions, _: &wire::Node) -> Result<Admission, Refusal> {
        Ok(Admission {
            proven: true,
            owner: Owner::Workload("ns/w".parse().expect("a name")),
            address: IpAddr::from([127, 0, 0, 1]),
            snapshots: self.0.clone(),
            ended: Box::pin(std::future::pending()),
        })
    }
}

/// A request's body: what was put into it.
#[derive(Clone, Default)]
struct Inbound(Arc<Mutex<VecDeque<Bytes>>>);

impl Body for Inbound {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.0.lock().expect("not poisoned").pop_front() {
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            None => Poll::Pending,
        }
    }
}

struct Control {
    service: Service<Everybody>,
    snapshots: Feed<Snapshot>,
    report: Report,
    protocol: Protocol,
    names: Arc<[String]>,
}

struct Stream {
    inbound: Inbound,
    body: tonic::body::Body,
    names: Arc<[String]>,
    wakes: Arc<Wakes>,
}

/// How often a stream was woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Control {
    fn new(protocol: Protocol, subscribed: usize) -> Self {
        let names: Arc<[String]> =
            (0..subscribed).map(|number| format!("out/namespace/service-{number:05}/http")).collect();
        let mut snapshot = Snapshot::default();
        for name in names.iter() {
            snapshot.of_mut(Kind::Endpoints).put(endpoints(name, 0));
        }
        let snapshots = Feed::new(Arc::new(snapshot));
        let receiver = snapshots.subscribe();
        let report = Report::default();
        let service = Service::new(Everybody(receiver), report.clone(), CancellationToken::new());
        Self { service, snapshots, report, protocol, names }
    }

    fn change(&self, round: u8) {
        self.put(endpoints(&self.names[0], round));
    }

    fn put(&self, changed: Arc<Resource>) {
        let mut snapshot = Snapshot::clone(&self.snapshots.current());
        snapshot.of_mut(Kind::Endpoints).put(changed);
        self.snapshots.send(Arc::new(snapshot));
    }

    /// A stream that has been answered all there is and has accepted.
    fn open(&mut self) -> Stream {
        self.open_for(Arc::clone(&self.names))
    }

    /// The same for these names.
    fn open_for(&mut self, names: Arc<[String]>) -> Stream {
        let mut stream = self.call(names);
        stream.say(self.request("n", "", &stream.names));
        let first = stream.take();
        assert!(first.iter().map(Bytes::len).sum::<usize>() > stream.names.len() * 1_000, "all that it asked for");
        stream.say(self.ack(&first, &stream.names));
        assert_eq!(stream.take(), Vec::<Bytes>::new());
        stream
    }

    /// A stream on which nothing was said.
    fn call(&mut self, names: Arc<[String]>) -> Stream {
        let method = match self.protocol {
            Protocol::Sotw => "StreamAggregatedResources",
            Protocol::Delta => "DeltaAggregatedResources",
        };
        let inbound = Inbound::default();
        let uri = format!("/envoy.service.discovery.v3.AggregatedDiscoveryService/{method}");
        let request = http::Request::post(uri).body(inbound.clone()).expect("a request");
        let response = match futures::FutureExt::now_or_never(self.service.call(request)) {
            Some(Ok(response)) => response,
            Some(Err(never)) => match never {},
            None => panic!("it answers at once"),
        };
        Stream { inbound, body: response.into_body(), names, wakes: Arc::default() }
    }

    fn request(&self, node: &str, nonce: &str, names: &[String]) -> Bytes {
        let first = nonce.is_empty();
        let node: Bytes = match first {
            true => wire::Node { id: node.into(), ..Default::default() }.encode_to_vec().into(),
            false => Bytes::new(),
        };
        let type_url = Kind::Endpoints.type_url().to_owned();
        let message = match self.protocol {
            Protocol::Sotw => wire::DiscoveryRequest {
                node,
                type_url,
                response_nonce: nonce.into(),
                resource_names: names.to_vec(),
                ..Default::default()
            }
            .encode_to_vec(),
            Protocol::Delta => wire::DeltaDiscoveryRequest {
                node,
                type_url,
                response_nonce: nonce.into(),
                resource_names_subscribe: if first { names.to_vec() } else { Vec::new() },
                ..Default::default()
            }
            .encode_to_vec(),
        };
        framed(&message)
    }

    /// The answer to a response, of which the first chunk has the head.
    fn ack(&self, response: &[Bytes], names: &[String]) -> Bytes {
        let message = &response.concat()[5..];
        let nonce = match self.protocol {
            Protocol::Sotw => wire::DiscoveryResponseHead::decode(message).expect("a response").nonce,
            Protocol::Delta => wire::DeltaDiscoveryResponseHead::decode(message).expect("a response").nonce,
        };
        self.request("", &nonce, names)
    }
}

impl Stream {
    fn say(&self, request: Bytes) {
        self.inbound.0.lock().expect("not poisoned").push_back(request);
    }

    /// What is sent now.
    fn take(&mut self) -> Vec<Bytes> {
        let mut chunks = Vec::new();
        let waker = Waker::from(Arc::clone(&self.wakes));
        while let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker)) {
            let frame = frame.expect("it does not end").expect("no error");
            chunks.push(frame.into_data().expect("no trailers"));
        }
        chunks
    }

    /// How often it was woken since this was asked last.
    fn wakes(&self) -> usize {
        self.wakes.0.swap(0, Ordering::SeqCst)
    }
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("small").to_be_bytes();
    [&[0][..], &length, message].concat().into()
}

fn endpoints(name: &str, round: u8) -> Arc<Resource> {
    Arc::new(Resource::from_bytes(Kind::Endpoints, Name::from(name), &[round; 1_600], [].into()))
}

fn counted<T>(work: impl FnOnce() -> T) -> (T, AllocationInfo) {
    let (mut work, mut done) = (Some(work), None);
    let counts = measure(|| done = work.take().map(|work| work()));
    (done.expect("it was called"), counts)
}

/// The most that any stream allocates for a push, and for its acknowledgement; the first makes the response, the
/// second joins it to one piece.
fn costs(protocol: Protocol, subscribed: usize) -> [(u64, u64); 2] {
    let mut control = Control::new(protocol, subscribed);
    let mut streams: Vec<Stream> = (0..100).map(|_| control.open()).collect();
    let (mut push, mut ack) = ((0, 0), (0, 0));
    for round in 1..4 {
        control.change(round);
        let mut frames = Vec::new();
        for (number, stream) in streams.iter_mut().enumerate() {
            let (chunks, counts) = counted(|| stream.take());
            if number > 1 {
                push = push.max((counts.count_total, counts.bytes_total));
                assert_eq!(chunks.len(), 1, "one frame");
                frames.push(chunks[0].clone());
            }
            stream.say(control.ack(&chunks, &stream.names));
        }
        assert!(frames.iter().all(|frame| frame.as_ptr() == frames[0].as_ptr()), "the same memory for all");
        for stream in &mut streams {
            let (chunks, counts) = counted(|| stream.take());
            assert_eq!(chunks, Vec::<Bytes>::new());
            ack = ack.max((counts.count_total, counts.bytes_total));
        }
    }
    [push, ack]
}

#[test]
fn a_push_and_its_acknowledgement_allocate_the_same_whatever_is_subscribed_to() {
    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let (few, many) = (costs(protocol, 10), costs(protocol, 1_000));
        for (few, many) in few.into_iter().zip(many) {
            assert_eq!(few.0, many.0, "{protocol:?}: {few:?} {many:?}");
            assert!(many.0 <= 8 && many.1 <= 1_024, "{protocol:?}: {many:?}");
        }
    }
}

#[test]
fn an_idle_stream_holds_the_same_whatever_it_subscribes_to() {
    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let held = [10, 1_000].map(|subscribed| {
            let mut control = Control::new(protocol, subscribed);
            let _first = control.open();
            let (streams, counts) = counted(|| (0..100).map(|_| control.open()).collect::<Vec<_>>());
            let held = counts.bytes_current / 100;
            drop(streams);
            held
        });
        assert!(held[1] - held[0] < 100 && held[1] < 8 * 1_024, "{protocol:?}: {held:?} bytes");
    }
}

#[test]
fn a_change_wakes_who_subscribes_to_it_and_nobody_else() {
    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let mut control = Control::new(protocol, 1_000);
        let all = Arc::clone(&control.names);
        let mut streams: Vec<Stream> = (0..20).map(|_| control.open()).collect();
        streams.extend((0..200).map(|number| control.open_for(all[number..=number].into())));
        streams.iter().for_each(|stream| _ = stream.wakes());
        for (round, number) in [(1, 7), (2, 7), (3, 300), (4, 8)] {
            control.put(endpoints(&all[number], round));
            for (place, stream) in streams.iter_mut().enumerate() {
                let concerned = place < 20 || place == 20 + number;
                assert_eq!(stream.wakes(), usize::from(concerned), "{protocol:?}: {number}, {place}");
                if concerned {
                    let chunks = stream.take();
                    assert!(chunks.iter().any(|chunk| chunk.ends_with(&[round; 1_600])), "{number}, {place}");
                    stream.say(control.ack(&chunks, &stream.names));
                    assert_eq!(stream.take(), Vec::<Bytes>::new());
                }
            }
        }
        // Who looks sees that all have accepted what there is; nobody is woken for that.
        let version = control.snapshots.current().of(Kind::Endpoints).version();
        for proxy in control.report.proxies() {
            assert_eq!(proxy.types[&Kind::Endpoints].acked, Some(version));
            assert!(proxy.in_sync());
        }
        assert!(streams.iter().all(|stream| stream.wakes() == 0));
    }
}

#[test]
fn streams_that_nothing_concerns_keep_no_more_than_one_former_copy() {
    const RESOURCES: usize = 200;
    let mut control = Control::new(Protocol::Delta, RESOURCES);
    let all = Arc::clone(&control.names);
    let mut streams: Vec<Stream> = (0..100).map(|number| control.open_for(all[number..=number].into())).collect();
    let mut put: Vec<Weak<Resource>> = Vec::new();
    let (mut woken, mut changes) = (0, 0);
    for round in 1..20 {
        for number in 0..RESOURCES {
            // Each stream is concerned now and then, and at another time than every other one.
            if number < 100 && number % 19 != usize::from(round) {
                continue;
            }
            let changed = endpoints(&all[number], round);
            put.push(Arc::downgrade(&changed));
            control.put(changed);
            changes += 1;
            for stream in streams.iter_mut().filter(|stream| stream.wakes() > 0) {
                woken += 1;
                let chunks = stream.take();
                if !chunks.is_empty() {
                    stream.say(control.ack(&chunks, &stream.names));
                    stream.take();
                }
            }
        }
        put.retain(|resource| resource.strong_count() > 0);
        assert!(put.len() <= 2 * RESOURCES, "{} resources are held in round {round}", put.len());
    }
    // Once for each change that concerns it, and once whenever as many resources have changed as there are.
    let concerned = 95;
    assert!(woken <= concerned + 100 * (changes / RESOURCES), "{woken} times for {changes} changes");
}

#[test]
fn what_changes_while_a_stream_subscribes_is_not_lost() {
    // Of a route that is not there nothing is said, so that there is no answer on which the stream would look again.
    let mut control = Control::new(Protocol::Sotw, 1);
    for round in 0..500 {
        let name = format!("route-{round}");
        let ask = |name: &str, node: &[u8]| {
            let request = wire::DiscoveryRequest {
                node: node.to_vec().into(),
                type_url: Kind::Route.type_url().to_owned(),
                resource_names: vec![name.to_owned()],
                ..Default::default()
            };
            framed(&request.encode_to_vec())
        };
        let mut stream = control.call(Arc::default());
        stream.say(ask("none", &wire::Node { id: "n".into(), ..Default::default() }.encode_to_vec()));
        assert_eq!(stream.take(), Vec::<Bytes>::new());
        let mut snapshot = Snapshot::clone(&control.snapshots.current());
        snapshot.of_mut(Kind::Route).put(Arc::new(Resource::from_bytes(
            Kind::Route,
            Name::from(&*name),
            b"x",
            [].into(),
        )));
        let ready = AtomicUsize::new(0);
        let both = || {
            ready.fetch_add(1, Ordering::SeqCst);
            while ready.load(Ordering::SeqCst) < 2 {
                std::hint::spin_loop();
            }
        };
        let mut sent = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                both();
                (0..round).for_each(|_| std::hint::spin_loop());
                control.snapshots.send(Arc::new(snapshot));
            });
            stream.say(ask(&name, &[]));
            stream.wakes();
            both();
            sent = stream.take();
        });
        if stream.wakes() > 0 {
            sent.extend(stream.take());
        }
        assert!(!sent.is_empty(), "the stream does not hear of {name}");
    }
}
