//! A client that says what it is told to and writes down what it is sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use prost::Message;
use proto::envoy::service::discovery::v3 as discovery_pb;
use proto::wire;
use translators::name::{ObjectKey, ObjectKind, RuleRef};
use translators::resource::{Kind, Name, Resource};

use crate::publish::Snapshot;
use crate::stream::Group;
#[cfg(test)]
use crate::stream::board::Board;
use crate::stream::board::Seat;
use crate::stream::session::{Answer, Fault, Protocol, Response, Session};

/// What is sent when nothing is.
#[cfg(test)]
pub(super) const NOTHING: [&str; 0] = [];

#[cfg(test)]
pub(super) fn sotw(contents: &str) -> Peer {
    Peer::new(Protocol::Sotw, contents)
}

#[cfg(test)]
pub(super) fn delta(contents: &str) -> Peer {
    Peer::new(Protocol::Delta, contents)
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A request of either protocol.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Request {
    Sotw(wire::DiscoveryRequest),
    Delta(wire::DeltaDiscoveryRequest),
}

/// `CDS c1=1` puts, `CDS -c1` removes; several at once, separated by commas. `VHDS v|a|b=1` goes by `a` and `b` too,
/// `RTDS r@3=1` lives for three seconds.
pub(super) fn edit(snapshot: &mut Snapshot, text: &str) {
    for part in text.split(", ") {
        let (service, rest) = part.split_once(' ').expect("a service and a resource");
        let kind = kind(service);
        match rest.split_once('=') {
            Some((name, content)) => {
                snapshot.of_mut(kind).put(resource(kind, name, content));
            }
            None => assert!(snapshot.of_mut(kind).remove(&rest[1..]), "{part}"),
        }
    }
}

pub(super) fn kind(service: &str) -> Kind {
    Kind::ALL.into_iter().find(|kind| kind.service() == service).expect("a service")
}

pub(super) fn resource(kind: Kind, name: &str, content: &str) -> Arc<Resource> {
    let rule = RuleRef::new(ObjectKey::new(ObjectKind::Workload, "ns/w".parse().expect("a name")), format!("/{name}"));
    let (names, ttl) = name.split_once('@').map_or((name, None), |(names, ttl)| (names, Some(ttl)));
    let mut names = names.split('|').map(Name::from);
    let name = names.next().expect("there is always a part");
    let resource = Resource::from_bytes(kind, name, content.as_bytes(), [rule].into()).aliased(names);
    Arc::new(match ttl {
        Some(ttl) => resource.living(Duration::from_secs(ttl.parse().expect("seconds"))),
        None => resource,
    })
}

/// The message on the wire.
pub(super) fn bytes(response: &Response) -> Bytes {
    let mut message = BytesMut::from(&response.head[5..]);
    response.entries.iter().for_each(|entry| message.extend_from_slice(entry));
    assert_eq!(response.head[..5], [&[0][..], &(message.len() as u32).to_be_bytes()].concat());
    message.freeze()
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Received {
    pub(super) kind: Kind,
    pub(super) nonce: String,
    pub(super) version: String,
    /// Content by name, in order; and the version of the resource, in delta.
    pub(super) resources: Vec<(String, String, String)>,
    pub(super) removed: Vec<String>,
    /// Entries without a body: `~` before those of a heartbeat, `?` before names that nothing goes by; and `!` before
    /// those of errors.
    pub(super) bare: Vec<String>,
}

pub(super) fn decode(protocol: Protocol, response: &Response) -> Received {
    let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    match protocol {
        Protocol::Sotw => {
            let message = discovery_pb::DiscoveryResponse::decode(bytes(response)).expect("decodes");
            assert_eq!(message.type_url, response.kind.type_url());
            // The name is in the body: here it is taken from the encoded entry's owner, see `named`.
            let mut bare = Vec::new();
            for error in message.resource_errors {
                assert_eq!(error.error_detail.expect("why").code, 5);
                bare.push(format!("!{}", error.resource_name.expect("which").name));
            }
            let mut resources = Vec::new();
            for any in message.resources {
                if any.type_url != response.kind.type_url() {
                    let wrapper = discovery_pb::Resource::decode(&any.value[..]).expect("a wrapper");
                    assert!(wrapper.ttl.is_some());
                    match wrapper.resource {
                        Some(any) => resources.push((wrapper.name, text(any.value), String::new())),
                        None => bare.push(format!("~{}", wrapper.name)),
                    }
                } else {
                    resources.push((String::new(), text(any.value), String::new()));
                }
            }
            Received {
                kind: response.kind,
                nonce: message.nonce,
                version: message.version_info,
                resources,
                removed: Vec::new(),
                bare,
            }
        }
        Protocol::Delta => {
            let message = discovery_pb::DeltaDiscoveryResponse::decode(bytes(response)).expect("decodes");
            assert_eq!(message.type_url, response.kind.type_url());
            let mut bare = Vec::new();
            let mut resources = Vec::new();
            for resource in message.resources {
                match resource.resource {
                    Some(any) => {
                        assert_eq!(any.type_url, response.kind.type_url());
                        resources.push((resource.name, text(any.value), resource.version));
                    }
                    None if resource.ttl.is_some() => bare.push(format!("~{}", resource.name)),
                    None => {
                        assert_eq!(resource.aliases, std::slice::from_ref(&resource.name));
                        bare.push(format!("?{}", resource.name));
                    }
                }
            }
            Received {
                kind: response.kind,
                nonce: message.nonce,
                version: message.system_version_info,
                resources,
                bare,
                removed: message.removed_resources,
            }
        }
    }
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A scripted client. In its scripts the content of a resource is `name:content`, so that a body names itself.
pub(super) struct Peer {
    protocol: Protocol,
    group: Arc<Group>,
    pub(super) session: Session,
    /// Of a stream of one type beside others of its proxy.
    seat: Option<Seat>,
    /// How often others woke it.
    wakes: Arc<Wakes>,
    pub(super) snapshot: Snapshot,
    pub(super) now: Instant,
    pub(super) last: BTreeMap<Kind, Received>,
    pub(super) accepted: BTreeMap<Kind, String>,
}

impl Peer {
    pub(super) fn new(protocol: Protocol, contents: &str) -> Self {
        let group: Arc<Group> = Arc::default();
        let mut peer = Self {
            protocol,
            session: Session::within(Arc::clone(&group), protocol),
            seat: None,
            wakes: Arc::default(),
            group,
            snapshot: Snapshot::default(),
            now: Instant::now(),
            last: BTreeMap::new(),
            accepted: BTreeMap::new(),
        };
        if !contents.is_empty() {
            peer.edit(contents);
        }
        peer
    }

    pub(super) fn edit(&mut self, text: &str) {
        let named = text.split(", ").map(|part| match part.split_once('=') {
            Some((head, content)) => {
                let name = head.split_once(' ').expect("a service and a name").1;
                let name = name.split(['|', '@']).next().expect("there is always a part");
                format!("{head}={name}={content}")
            }
            None => part.to_owned(),
        });
        edit(&mut self.snapshot, &named.collect::<Vec<_>>().join(", "));
    }

    /// From the next stream on, in this group.
    pub(super) fn join(&mut self, group: &Arc<Group>) {
        self.group = Arc::clone(group);
        self.reconnect();
    }

    fn poll(&mut self) -> Option<Response> {
        match &self.seat {
            None => self.session.poll(&self.snapshot, self.now),
            Some(seat) => {
                let waker = Waker::from(Arc::clone(&self.wakes));
                seat.poll(&mut self.session, &self.snapshot, self.now, &waker)
            }
        }
    }

    pub(super) fn reconnect(&mut self) {
        self.session = Session::within(Arc::clone(&self.group), self.protocol);
        self.last.clear();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn request(&mut self, request: Request) -> Result<Option<Answer>, Fault> {
        let (protocol, message) = match request {
            Request::Sotw(request) => (Protocol::Sotw, request.encode_to_vec()),
            Request::Delta(request) => (Protocol::Delta, request.encode_to_vec()),
        };
        let request = crate::stream::Request::read(protocol, &message)?;
        self.session.on_request(&request, &self.snapshot, self.now)
    }

    /// Everything that is sent now.
    pub(super) fn drain(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(response) = self.poll() {
            assert!(lines.len() < 100, "it does not end: {lines:?}");
            let received = decode(self.protocol, &response);
            let mut line = received.kind.service().to_owned();
            for (name, content, _) in &received.resources {
                let empty = name.is_empty() && !content.contains('=');
                line += &if empty {
                    format!(" ({})", content.trim_matches(char::is_control))
                } else {
                    format!(" {content}")
                };
            }
            for name in &received.removed {
                line += &format!(" -{name}");
            }
            for name in &received.bare {
                line += &format!(" {name}");
            }
            lines.push(line);
            self.last.insert(received.kind, received);
        }
        lines
    }
}

/// What only the tests say.
#[cfg(test)]
impl Peer {
    /// From now on a stream of one type, at this board.
    pub(super) fn sit(&mut self, board: &Arc<Board>, kind: Kind) {
        self.reconnect();
        self.session = Session::within(Arc::clone(&self.group), self.protocol).of_type(kind);
        self.seat = Some(Seat::at(Arc::clone(board), kind));
    }

    /// The stream ends.
    pub(super) fn leave(&mut self) {
        self.seat = None;
    }

    /// How often others woke it since it was asked last.
    pub(super) fn wakes(&self) -> usize {
        self.wakes.0.swap(0, Ordering::Relaxed)
    }

    /// Whether others woke it since then.
    pub(super) fn is_woken(&self) -> bool {
        self.wakes.0.load(Ordering::Relaxed) > 0
    }

    fn nonce(&self, kind: Kind) -> String {
        self.last.get(&kind).map(|last| last.nonce.clone()).unwrap_or_default()
    }

    /// SotW: the whole list, with the last nonce.
    pub(super) fn ask(&mut self, service: &str, names: &[&str]) -> Vec<String> {
        let kind = kind(service);
        let nonce = self.nonce(kind);
        self.ask_with(service, names, &nonce)
    }

    pub(super) fn ask_with(&mut self, service: &str, names: &[&str], nonce: &str) -> Vec<String> {
        let kind = kind(service);
        let request = wire::DiscoveryRequest {
            version_info: self.accepted.get(&kind).cloned().unwrap_or_default(),
            resource_names: names.iter().map(ToString::to_string).collect(),
            type_url: kind.type_url().to_owned(),
            response_nonce: nonce.to_owned(),
            ..Default::default()
        };
        self.request(Request::Sotw(request)).expect("no fault");
        self.drain()
    }

    /// SotW: accepts the last response, with the list.
    pub(super) fn ack(&mut self, service: &str, names: &[&str]) -> Vec<String> {
        let kind = kind(service);
        let version = self.last[&kind].version.clone();
        self.accepted.insert(kind, version);
        self.ask(service, names)
    }

    /// SotW: refuses the last response.
    pub(super) fn nack(&mut self, service: &str, names: &[&str], text: &str) -> (Option<Answer>, Vec<String>) {
        let kind = kind(service);
        let request = wire::DiscoveryRequest {
            version_info: self.accepted.get(&kind).cloned().unwrap_or_default(),
            resource_names: names.iter().map(ToString::to_string).collect(),
            type_url: kind.type_url().to_owned(),
            response_nonce: self.nonce(kind),
            error_detail: Some(wire::Status { code: 13, message: text.to_owned() }),
            ..Default::default()
        };
        let answer = self.request(Request::Sotw(request)).expect("no fault");
        (answer, self.drain())
    }

    /// Delta: a change of subscription: `a`, `-a`.
    pub(super) fn change(&mut self, service: &str, names: &[&str]) -> Vec<String> {
        self.delta(service, names, &[], String::new(), None).1
    }

    /// Delta: accepts the last response.
    pub(super) fn delta_ack(&mut self, service: &str) -> Vec<String> {
        let nonce = self.nonce(kind(service));
        self.delta(service, &[], &[], nonce, None).1
    }

    /// Delta: refuses the last response.
    pub(super) fn delta_nack(&mut self, service: &str, text: &str) -> (Option<Answer>, Vec<String>) {
        let nonce = self.nonce(kind(service));
        self.delta(service, &[], &[], nonce, Some(text))
    }

    pub(super) fn delta(
        &mut self,
        service: &str,
        names: &[&str],
        initial: &[(&str, String)],
        nonce: String,
        error: Option<&str>,
    ) -> (Option<Answer>, Vec<String>) {
        let strip = |name: &&str| name.strip_prefix('-').map(str::to_owned);
        let request = wire::DeltaDiscoveryRequest {
            type_url: kind(service).type_url().to_owned(),
            resource_names_subscribe: names.iter().filter(|n| !n.starts_with('-')).map(ToString::to_string).collect(),
            resource_names_unsubscribe: names.iter().filter_map(strip).collect(),
            initial_resource_versions: initial.iter().map(|(n, v)| (n.to_string(), v.clone())).collect(),
            response_nonce: nonce,
            error_detail: error.map(|text| wire::Status { code: 13, message: text.to_owned() }),
            ..Default::default()
        };
        let answer = self.request(Request::Delta(request)).expect("no fault");
        (answer, self.drain())
    }

    pub(super) fn version(&self, service: &str, name: &str) -> String {
        self.snapshot.of(kind(service)).get(name).expect("exists").version().to_string()
    }
}
