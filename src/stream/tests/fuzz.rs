//! What the fuzzers of `conformance/fuzz` run; and what they have found, again.
//!
//! Owns: how bytes become chunks, requests and steps, and what must hold for them. May use: the model, the scripted
//! client, prost's own reading of requests. Never: draws anything by lot.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::{DecodeError, Message};
use proto::envoy::config::endpoint::v3 as endpoint_pb;
use proto::wire;
use tonic::{Code, Status};
use translators::json;
use translators::resource::Kind;
use translators::xdstp;

use super::model::{self, KINDS, Step};
use super::peer::{Peer, Received, Request, decode, resource, seconds};
use crate::stream::frame::{Messages, PREFIX};
use crate::stream::node::Remembered;
use crate::stream::request::Wants;
use crate::stream::session::{Fault, Protocol, Session};
use crate::stream::{Client, rest};

/// The longest message.
const LIMIT: usize = 600;

/// As many steps end.
const STEPS: usize = 300;

/// Bytes that are taken one by one, for as long as there are some.
struct Tape<'a>(std::slice::Iter<'a, u8>);

impl Tape<'_> {
    fn next(&mut self) -> Option<u8> {
        self.0.next().copied()
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.next().unwrap_or_default()) % limit
    }

    fn bit(&mut self) -> bool {
        self.below(2) == 1
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

// === frames ===

/// The body of a request: four bytes say how it is cut, and the rest is it. However it is cut, it is the same messages;
/// and whatever these are, they are read as prost reads them, and a session takes them.
pub fn frame(data: &[u8]) {
    let Some((cuts, body)) = data.split_at_checked(4) else { return };
    let (messages, end) = read(Bytes::copy_from_slice(body), cuts);
    assert_eq!((&messages, end), (&whole(body).0, whole(body).1));
    let protocol = if cuts[0] % 2 == 0 { Protocol::Sotw } else { Protocol::Delta };
    let mut peer = Peer::new(protocol, "CDS a=1, EDS a=1, LDS a=1, RDS a=1, VHDS a/b|a/c=1, RTDS a@3=1");
    for message in &messages {
        for protocol in [Protocol::Sotw, Protocol::Delta] {
            alike(protocol, message);
        }
        let Ok(request) = crate::stream::Request::read(protocol, message) else { return };
        if peer.session.on_request(&request, &peer.snapshot, peer.now).is_err() {
            return;
        }
        peer.drain();
    }
}

/// What is read of a body that comes in chunks of these sizes; of none, the next is not there yet.
fn read(mut body: Bytes, cuts: &[u8]) -> (Vec<Bytes>, Result<(), Code>) {
    // Every fourth has something in it.
    let mut sizes = cuts.iter().enumerate().map(|(at, cut)| usize::from(*cut).max(at / 3)).cycle();
    let chunks = futures::stream::poll_fn(move |_| {
        let size = sizes.next().unwrap_or(1).min(body.len());
        match (body.is_empty(), size) {
            (true, _) => Poll::Ready(None),
            (false, 0) => Poll::Pending,
            (false, size) => Poll::Ready(Some(Ok::<_, Status>(Frame::data(body.split_to(size))))),
        }
    });
    let mut messages = Messages::new(StreamBody::new(chunks), LIMIT);
    let mut context = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    loop {
        match messages.poll_next(&mut context) {
            Poll::Pending => {}
            Poll::Ready(Ok(Some(message))) => all.push(message),
            Poll::Ready(Ok(None)) => return (all, Ok(())),
            Poll::Ready(Err(status)) => return (all, Err(status.code())),
        }
    }
}

/// The same of a body that is there as a whole.
fn whole(mut body: &[u8]) -> (Vec<Bytes>, Result<(), Code>) {
    let mut all = Vec::new();
    while let Some((prefix, rest)) = body.split_first_chunk::<PREFIX>() {
        let [flag, length @ ..] = *prefix;
        let length = u32::from_be_bytes(length) as usize;
        if flag != 0 {
            return (all, Err(Code::Internal));
        }
        if length > LIMIT {
            return (all, Err(Code::OutOfRange));
        }
        let Some((message, rest)) = rest.split_at_checked(length) else { return (all, Err(Code::Internal)) };
        all.push(Bytes::copy_from_slice(message));
        body = rest;
    }
    (all, if body.is_empty() { Ok(()) } else { Err(Code::Internal) })
}

/// A request is what prost reads, or a fault where it reads none; and what prost writes of it is the same request.
fn alike(protocol: Protocol, message: &[u8]) {
    let ours = ours(protocol, message);
    let Ok(mut theirs) = theirs(protocol, message) else {
        assert_eq!(ours.err(), Some(Fault::Undecodable), "prost does not read it: {message:?}");
        return;
    };
    let written = match &theirs {
        Request::Sotw(request) => request.encode_to_vec(),
        Request::Delta(request) => request.encode_to_vec(),
    };
    let normalise = |names: &mut Vec<String>| {
        names.iter_mut().for_each(|name| *name = xdstp::normalised(name).into_owned());
    };
    let node = match &mut theirs {
        Request::Sotw(request) => {
            normalise(&mut request.resource_names);
            &request.node
        }
        Request::Delta(request) => {
            normalise(&mut request.resource_names_subscribe);
            normalise(&mut request.resource_names_unsubscribe);
            &request.node
        }
    };
    if let Ok((mut remembered, _)) = Remembered::first(node) {
        assert_eq!(remembered.again(node), Ok(()));
    }
    assert_eq!(ours.as_ref(), Ok(&theirs), "{message:?}");
    assert_eq!(self::ours(protocol, &written), ours);
}

/// The entries of a map as they are encoded. As a map, prost reads them however they are: of any other field that is not
/// encoded as it should be, it makes an error.
#[derive(Clone, PartialEq, Message)]
struct Entries {
    #[prost(bytes = "vec", repeated, tag = "5")]
    initial_resource_versions: Vec<Vec<u8>>,
}

fn theirs(protocol: Protocol, message: &[u8]) -> Result<Request, DecodeError> {
    match protocol {
        Protocol::Sotw => wire::DiscoveryRequest::decode(message).map(Request::Sotw),
        Protocol::Delta => {
            Entries::decode(message)?;
            wire::DeltaDiscoveryRequest::decode(message).map(Request::Delta)
        }
    }
}

/// Whether prost reads a request of it.
#[cfg(test)]
pub(in crate::stream) fn is_request(protocol: Protocol, message: &[u8]) -> bool {
    theirs(protocol, message).is_ok()
}

/// What we read, in prost's words.
fn ours(protocol: Protocol, message: &[u8]) -> Result<Request, Fault> {
    let request = crate::stream::Request::read(protocol, message)?;
    let texts = |list: &crate::stream::request::List<'_>| -> Vec<String> {
        let names: Vec<String> = list.iter().map(str::to_owned).collect();
        assert_eq!((names.len(), names.is_empty()), (list.len(), list.is_empty()));
        names
    };
    let node = Bytes::copy_from_slice(request.node);
    let (type_url, response_nonce) = (request.type_url.to_owned(), request.nonce.to_owned());
    let error_detail = request.error.map(|error| wire::Status { code: error.code, message: error.message.to_owned() });
    Ok(match &request.wants {
        Wants::Sotw { version, names } => Request::Sotw(wire::DiscoveryRequest {
            version_info: (*version).to_owned(),
            node,
            resource_names: texts(names),
            type_url,
            response_nonce,
            error_detail,
        }),
        Wants::Delta { subscribe, unsubscribe, holds } => Request::Delta(wire::DeltaDiscoveryRequest {
            node,
            type_url,
            resource_names_subscribe: texts(subscribe),
            resource_names_unsubscribe: texts(unsubscribe),
            initial_resource_versions: holds
                .iter()
                .map(|(name, version)| (name.clone().into_owned(), (*version).to_owned()))
                .collect(),
            response_nonce,
            error_detail,
        }),
    })
}

// === sessions ===

/// The first byte says who talks: a client as it should be, three of them that share what they are sent, or one that
/// says anything; in which protocol. The rest is what happens.
pub fn session(data: &[u8]) {
    let mut tape = Tape(data.iter());
    let protocol = if tape.bit() { Protocol::Delta } else { Protocol::Sotw };
    let steps =
        |tape: &mut Tape<'_>| std::iter::from_fn(|| Some((tape.below(3), step(tape)?))).take(STEPS).collect::<Vec<_>>();
    match tape.below(4) {
        0 => model::holds(protocol, steps(&mut tape).into_iter().map(|(_, step)| step).collect()),
        1 => model::all_hold(protocol, steps(&mut tape)),
        2 => model::withholds_nothing(protocol, steps(&mut tape).into_iter().map(|(_, step)| step).collect()),
        _ => Stranger::new(protocol, &mut tape).talk(&mut tape),
    }
}

fn step(tape: &mut Tape<'_>) -> Option<Step> {
    let what = tape.next()?;
    let mut kind = || tape.below(KINDS.len());
    Some(match what % 20 {
        0..4 => Step::Put(kind(), tape.below(3), usize::from(what / 20) as u8 % 4),
        4 | 5 => Step::Remove(kind(), tape.below(3)),
        6..9 => Step::Receive,
        9..12 => Step::Answer(what >= 120),
        12 | 13 => Step::Subscribe(kind(), (what < 220).then_some(what / 20 % 8)),
        14 => Step::Stale(kind(), what / 20 % 8),
        15 | 16 => Step::Again(kind()),
        17 | 18 => Step::Pass(1 + u64::from(what / 20) % 6),
        _ => Step::Reconnect,
    })
}

/// Names as a client may write them, and what goes by them.
const NAMES: [&str; 10] = [
    "a",
    "b",
    "a/b",
    "a/c",
    "*",
    "",
    "xdstp://a/T/x?b=1&a=2",
    "xdstp://a/T/x?a=2&b=1",
    "xdstp://a/T/*",
    "xdstp://a/T/y",
];

/// Names as resources have them, some of them others too, some of them for a time only.
const RESOURCES: [&str; 8] =
    ["a", "b", "a/v|a/b|a/c", "a/w|a/b", "a@3", "xdstp://a/T/x?b=1&a=2", "xdstp://a/T/y@1", "xdstp://a/T/z|b"];

/// A client that says anything, and its subscriptions as the protocol has them.
struct Stranger {
    protocol: Protocol,
    peer: Peer,
    types: BTreeMap<Kind, Talk>,
}

#[derive(Default)]
struct Talk {
    asked: bool,
    wildcard: bool,
    named: bool,
    names: BTreeSet<String>,
    /// The last response.
    nonce: Option<String>,
    outstanding: bool,
    /// What it may have: it was sent, or it says that it has it.
    had: BTreeSet<String>,
}

impl Stranger {
    fn new(protocol: Protocol, tape: &mut Tape<'_>) -> Self {
        let mut peer = Peer::new(protocol, "");
        let client = Client { unwraps: tape.bit(), takes_errors: tape.bit() };
        peer.session = Session::new(protocol).with_client(client);
        Self { protocol, peer, types: BTreeMap::new() }
    }

    fn talk(mut self, tape: &mut Tape<'_>) {
        for _ in 0..STEPS {
            let Some(what) = tape.next() else { break };
            match what % 8 {
                0 | 1 => {
                    let (kind, names) = (KINDS[tape.below(KINDS.len())], tape.of(&RESOURCES));
                    let name = names.split(['|', '@']).next().unwrap_or_default();
                    let resource = resource(kind, names, &format!("{name} = {}", what / 8));
                    self.peer.snapshot.of_mut(kind).put(resource);
                }
                2 => {
                    let kind = KINDS[tape.below(KINDS.len())];
                    let name = tape.of(&RESOURCES).split(['|', '@']).next().unwrap_or_default();
                    self.peer.snapshot.of_mut(kind).remove(&xdstp::normalised(name));
                }
                3 => self.peer.pass(seconds(u64::from(what / 8))),
                4 => self.hears(1),
                5 => self.hears(100),
                _ => self.says(tape),
            }
        }
        self.ends();
    }

    /// Takes so many responses, if there are so many.
    fn hears(&mut self, responses: usize) {
        for _ in 0..responses {
            let Some(response) = self.peer.session.poll(&self.peer.snapshot, self.peer.now) else { return };
            let received = decode(self.protocol, &response);
            let talk = self.types.entry(response.kind).or_default();
            assert!(talk.asked && !talk.outstanding, "not asked for: {received:?}");
            talk.hears(&received);
        }
        assert!(responses < 100, "it does not end");
    }

    fn says(&mut self, tape: &mut Tape<'_>) {
        let kind = KINDS[tape.below(KINDS.len())];
        let what = tape.next().unwrap_or_default();
        let talk = self.types.entry(kind).or_default();
        let last = talk.nonce.clone().unwrap_or_default();
        let response_nonce = match what % 8 {
            0..5 => last,
            5 => String::new(),
            6 => "0".to_owned(),
            _ => "18446744073709551616".to_owned(),
        };
        let error_detail = (what / 8 % 4 == 3).then(|| {
            let message = ["no", "a: no", "'a/v' and b", "type URL  embedded"][tape.below(4)].to_owned();
            wire::Status { code: 13, message }
        });
        let mut names =
            |most: usize| -> Vec<String> { (0..tape.below(most)).map(|_| tape.of(&NAMES).to_owned()).collect() };
        let type_url = if what >= 240 { "type.googleapis.com/private.Type" } else { kind.type_url() }.to_owned();
        let (served, unserved) = (kind.is_incremental(), what >= 240);
        let request = match self.protocol {
            Protocol::Sotw => Request::Sotw(wire::DiscoveryRequest {
                version_info: self.peer.accepted.get(&kind).cloned().unwrap_or_default(),
                resource_names: names(5),
                type_url,
                response_nonce,
                error_detail,
                ..Default::default()
            }),
            Protocol::Delta => Request::Delta(wire::DeltaDiscoveryRequest {
                resource_names_subscribe: names(4),
                resource_names_unsubscribe: names(3),
                initial_resource_versions: names(4)
                    .into_iter()
                    .map(|name| {
                        let version = self.peer.snapshot.of(kind).get(&name).map(|found| found.version().to_string());
                        (name, version.unwrap_or_else(|| "1".to_owned()))
                    })
                    .collect(),
                type_url,
                response_nonce,
                error_detail,
                ..Default::default()
            }),
        };
        if unserved || (self.protocol == Protocol::Sotw && served) {
            assert_eq!(self.peer.request(request), Ok(None));
        } else {
            talk.says(kind, &request);
            let expected: usize = talk.names.len();
            self.peer.request(request).expect("no fault");
            assert_eq!(self.peer.session.of(kind).subscription.size(), expected, "{kind}");
            assert_eq!(self.peer.session.of(kind).subscription.wildcard(), talk.wildcard, "{kind}");
        }
    }

    /// It accepts all that it is sent: then there is nothing left to say but that something lives.
    fn ends(mut self) {
        let mortal = KINDS.iter().any(|kind| self.peer.snapshot.of(*kind).mortal().next().is_some());
        for round in 0.. {
            let before: Vec<_> = self.types.values().map(|talk| talk.nonce.clone()).collect();
            self.hears(100);
            let mut answered = false;
            for (kind, talk) in &mut self.types {
                if std::mem::take(&mut talk.outstanding) {
                    answered = true;
                    let nonce = talk.nonce.clone().unwrap_or_default();
                    let request = talk.accepts(self.protocol, *kind, nonce);
                    self.peer.request(request).expect("no fault");
                }
            }
            let same = self.types.values().map(|talk| talk.nonce.clone()).eq(before);
            if same && !answered {
                let Some(wake) = self.peer.session.wake_at() else { return };
                assert!(wake > self.peer.now, "it spins");
                self.peer.now = wake;
            }
            if mortal && round > 20 {
                return;
            }
            assert!(round < 200, "it does not settle");
        }
    }
}

impl Talk {
    fn says(&mut self, kind: Kind, request: &Request) {
        let first = !std::mem::replace(&mut self.asked, true);
        let normalised = |name: &String| xdstp::normalised(name).into_owned();
        match request {
            Request::Sotw(request) => {
                let nonce = &request.response_nonce;
                if !nonce.is_empty() && self.nonce.as_ref().is_some_and(|last| last != nonce) {
                    return;
                }
                self.outstanding &= nonce.is_empty();
                self.named |= !request.resource_names.is_empty();
                self.names = request.resource_names.iter().map(normalised).collect();
                self.wildcard = self.names.remove("*") || (!self.named && kind.is_full_state());
            }
            Request::Delta(request) => {
                self.outstanding &= self.nonce.as_ref() != Some(&request.response_nonce);
                let (subscribe, unsubscribe) = (&request.resource_names_subscribe, &request.resource_names_unsubscribe);
                let empty = subscribe.is_empty() && unsubscribe.is_empty();
                self.wildcard |= first && empty && kind.is_full_state();
                self.names.extend(subscribe.iter().map(normalised));
                self.wildcard |= self.names.remove("*");
                for name in unsubscribe.iter().map(normalised) {
                    self.wildcard &= name != "*";
                    self.names.remove(&name);
                }
                self.had.extend(request.initial_resource_versions.keys().map(normalised));
            }
        }
    }

    fn accepts(&self, protocol: Protocol, kind: Kind, response_nonce: String) -> Request {
        let type_url = kind.type_url().to_owned();
        match protocol {
            Protocol::Sotw => {
                let mut names: Vec<String> = self.names.iter().cloned().collect();
                names.extend((self.wildcard && self.named).then(|| "*".to_owned()));
                let resource_names = names;
                Request::Sotw(wire::DiscoveryRequest { type_url, response_nonce, resource_names, ..Default::default() })
            }
            Protocol::Delta => {
                Request::Delta(wire::DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() })
            }
        }
    }

    fn covers(&self, name: &str) -> bool {
        let glob = |glob: &String| xdstp::is_glob(glob) && xdstp::stands_for(glob, name);
        self.wildcard || self.names.contains(name) || self.names.iter().any(glob)
    }

    /// Whether it takes what is called so, or went by another name that it asks for: of that it may be told until it is
    /// gone, and that it is.
    fn takes(&self, name: &str) -> bool {
        let by_alias = |names: &&str| {
            let mut names = names.split(['|', '@']);
            names.next() == Some(name) && names.any(|alias| self.covers(alias))
        };
        self.covers(name) || RESOURCES.iter().any(by_alias)
    }

    fn hears(&mut self, received: &Received) {
        let mut said = BTreeSet::new();
        for (name, body, _) in &received.resources {
            let name = match (body.rsplit_once(" = "), name.is_empty()) {
                (Some((name, _)), _) => xdstp::normalised(name).into_owned(),
                (None, false) => name.clone(),
                // No endpoints.
                (None, true) => {
                    let message = endpoint_pb::ClusterLoadAssignment::decode(body.as_bytes()).expect("it is one");
                    message.cluster_name
                }
            };
            assert!(self.takes(&name), "{name} was not asked for: {received:?}");
            assert!(said.insert(name.clone()), "{name} twice: {received:?}");
            self.had.insert(name);
        }
        for name in received.removed.iter().chain(&received.bare) {
            let name = name.trim_start_matches(['?', '!', '~']);
            assert!(self.takes(name) || self.had.contains(name), "{name} was not asked for: {received:?}");
            assert!(said.insert(name.to_owned()), "{name} twice: {received:?}");
        }
        assert!(self.nonce.replace(received.nonce.clone()).is_none_or(|last| last != received.nonce));
        self.outstanding = true;
    }
}

// === JSON ===

/// The first byte says what the text is to be: a resource of some type, or the body of a request by REST.
pub fn json(data: &[u8]) {
    let Some((what, text)) = data.split_first() else { return };
    let Some(kind) = Kind::ALL.get(usize::from(*what) % (Kind::ALL.len() + 1)) else {
        if let Ok(message) = rest::request::read(text) {
            let request = crate::stream::Request::read(Protocol::Sotw, &message).expect("it was written just now");
            wire::Node::decode(request.node).expect("it was written just now");
        }
        return;
    };
    let Ok(value) = serde_json::from_slice(text) else { return };
    let (bytes, _) = json::from_json(kind.type_url(), &value).expect("a kind's type is known");
    let again = json::to_json(kind.type_url(), &bytes).expect("what was written can be read");
    let (same, misfits) = json::from_json(kind.type_url(), &again).expect("a kind's type is known");
    assert_eq!((&bytes, misfits.len()), (&same, 0), "{value} became {again}: {misfits:?}");
}
