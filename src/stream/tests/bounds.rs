//! What is too much: responses that are too large for a client, and names that are too many for a stream. And what there
//! is not, for clients that are told so by an error.

use std::sync::Arc;

use proto::wire;
use translators::resource::{Kind, Name, Resource};

use super::peer::{NOTHING, Peer, Request, bytes, decode};
use crate::publish::Snapshot;
use crate::report::ResourceState;
use crate::stream::node::Client;
use crate::stream::session::{Fault, Protocol, Session};

const MEBIBYTE: usize = 1024 * 1024;

/// What a client takes by default.
const LIMIT: usize = 4 * MEBIBYTE;

fn put(snapshot: &mut Snapshot, kind: Kind, name: &str, size: usize) {
    let resource = Resource::from_bytes(kind, Name::from(name), &vec![b'x'; size], [].into());
    snapshot.of_mut(kind).put(Arc::new(resource));
}

/// What is sent of a type until nothing more comes: the names of each response, and its size.
fn parts(peer: &mut Peer, protocol: Protocol, kind: Kind, names: &[&str]) -> Vec<(Vec<String>, usize)> {
    let mut parts = Vec::new();
    while let Some(response) = peer.session.poll(&peer.snapshot, peer.now) {
        let received = decode(protocol, &response);
        assert_eq!(received.kind, kind);
        let by_name = received.resources.iter().map(|(name, ..)| name.clone()).chain(received.removed.clone());
        parts.push((by_name.collect(), bytes(&response).len()));
        assert!(peer.session.poll(&peer.snapshot, peer.now).is_none(), "one response is outstanding");
        let nonce = received.nonce.clone();
        let request = match protocol {
            Protocol::Sotw => Request::Sotw(wire::DiscoveryRequest {
                version_info: received.version,
                type_url: kind.type_url().into(),
                resource_names: names.iter().map(ToString::to_string).collect(),
                response_nonce: nonce,
                ..Default::default()
            }),
            Protocol::Delta => Request::Delta(wire::DeltaDiscoveryRequest {
                type_url: kind.type_url().into(),
                response_nonce: nonce,
                ..Default::default()
            }),
        };
        peer.request(request).expect("no fault");
    }
    parts
}

#[test]
fn parts_that_were_accepted_are_in_sync_before_the_last() {
    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let mut peer = Peer::new(protocol, "");
        let names: Vec<String> = (0..6).map(|number| format!("r{number}")).collect();
        names.iter().for_each(|name| put(&mut peer.snapshot, Kind::Route, name, MEBIBYTE));
        let asks = match protocol {
            Protocol::Delta => Request::Delta(wire::DeltaDiscoveryRequest {
                type_url: Kind::Route.type_url().into(),
                resource_names_subscribe: names.clone(),
                ..Default::default()
            }),
            Protocol::Sotw => Request::Sotw(wire::DiscoveryRequest {
                type_url: Kind::Route.type_url().into(),
                resource_names: names.clone(),
                ..Default::default()
            }),
        };
        peer.request(asks).expect("no fault");
        let synced = |peer: &Peer| {
            let all = peer.session.resources(&peer.snapshot).into_iter();
            all.filter(|resource| resource.state == ResourceState::Synced).count()
        };
        let first = peer.session.poll(&peer.snapshot, peer.now).expect("a part");
        let received = decode(protocol, &first);
        assert_eq!((received.resources.len(), synced(&peer)), (3, 0), "{protocol:?}");
        let (type_url, response_nonce) = (Kind::Route.type_url().to_owned(), received.nonce);
        let answers = match protocol {
            Protocol::Delta => {
                Request::Delta(wire::DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() })
            }
            Protocol::Sotw => Request::Sotw(wire::DiscoveryRequest {
                type_url,
                response_nonce,
                version_info: received.version,
                resource_names: names.clone(),
                ..Default::default()
            }),
        };
        peer.request(answers).expect("no fault");
        assert_eq!(synced(&peer), 3, "{protocol:?}");
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(parts(&mut peer, protocol, Kind::Route, &names).len(), 1);
        assert_eq!(synced(&peer), 6, "{protocol:?}");
    }
}

#[test]
fn scenario_37_a_large_delta_response_is_sent_in_parts() {
    let mut peer = Peer::new(Protocol::Delta, "");
    for number in 0..10 {
        put(&mut peer.snapshot, Kind::Cluster, &format!("c{number}"), MEBIBYTE);
    }
    put(&mut peer.snapshot, Kind::Cluster, "c4", 5 * MEBIBYTE);
    let request = wire::DeltaDiscoveryRequest {
        type_url: Kind::Cluster.type_url().into(),
        resource_names_subscribe: ["*", "gone"].map(str::to_owned).into(),
        ..Default::default()
    };
    peer.request(Request::Delta(request)).expect("no fault");
    let sent = parts(&mut peer, Protocol::Delta, Kind::Cluster, &[]);
    let names: Vec<String> = sent.iter().map(|(names, _)| names.join(" ")).collect();
    assert_eq!(names, ["c0 c1 c2", "c3", "c4", "c5 c6 c7", "c8 c9 gone"]);
    assert!(sent.iter().all(|(names, size)| *size < LIMIT || names.len() == 1), "{sent:?}");
    // What changes between two parts is sent as it is then, or with what comes next.
    for number in 0..9 {
        put(&mut peer.snapshot, Kind::Cluster, &format!("c{number}"), MEBIBYTE + 1);
    }
    let response = peer.session.poll(&peer.snapshot, peer.now).expect("the first part");
    let nonce = decode(Protocol::Delta, &response).nonce;
    put(&mut peer.snapshot, Kind::Cluster, "c8", 1);
    let request = wire::DeltaDiscoveryRequest {
        type_url: Kind::Cluster.type_url().into(),
        response_nonce: nonce,
        ..Default::default()
    };
    peer.request(Request::Delta(request)).expect("no fault");
    let names: Vec<String> =
        parts(&mut peer, Protocol::Delta, Kind::Cluster, &[]).iter().map(|(names, _)| names.join(" ")).collect();
    assert_eq!(names, ["c3 c4 c5", "c6 c7 c8"]);
}

#[test]
fn scenario_37_a_part_that_many_are_sent_is_followed_by_the_rest_for_each() {
    let group = Arc::default();
    let mut snapshot = Snapshot::default();
    for name in ["a", "b", "c", "d"] {
        put(&mut snapshot, Kind::Endpoints, name, 2 * MEBIBYTE);
    }
    for protocol in [Protocol::Delta, Protocol::Sotw] {
        let all = ["a", "b", "c", "d"];
        let mut peers = [0, 1, 2].map(|_| Peer::new(protocol, ""));
        for peer in &mut peers {
            peer.join(&group);
            peer.snapshot = snapshot.clone();
            let names = all.map(str::to_owned).into();
            let type_url = Kind::Endpoints.type_url().into();
            let request = match protocol {
                Protocol::Sotw => {
                    Request::Sotw(wire::DiscoveryRequest { type_url, resource_names: names, ..Default::default() })
                }
                Protocol::Delta => Request::Delta(wire::DeltaDiscoveryRequest {
                    type_url,
                    resource_names_subscribe: names,
                    ..Default::default()
                }),
            };
            peer.request(request).expect("no fault");
        }
        let first = peers.each_mut().map(|peer| peer.session.poll(&peer.snapshot, peer.now).expect("a part"));
        assert_eq!(first[1].head.as_ptr(), first[2].head.as_ptr(), "the same memory");
        for (peer, first) in peers.iter_mut().zip(first) {
            let received = decode(protocol, &first);
            let version_info = received.version.clone();
            let (nonce, type_url) = (received.nonce, Kind::Endpoints.type_url().into());
            let request = match protocol {
                Protocol::Sotw => Request::Sotw(wire::DiscoveryRequest {
                    type_url,
                    version_info,
                    resource_names: all.map(str::to_owned).into(),
                    response_nonce: nonce,
                    ..Default::default()
                }),
                Protocol::Delta => Request::Delta(wire::DeltaDiscoveryRequest {
                    type_url,
                    response_nonce: nonce,
                    ..Default::default()
                }),
            };
            peer.request(request).expect("no fault");
            assert_eq!(received.resources.len() + parts(peer, protocol, Kind::Endpoints, &all).len(), 4);
        }
    }
}

#[test]
fn scenario_32_a_route_waits_for_the_last_part_of_new_clusters() {
    let mut peer = Peer::new(Protocol::Delta, "RDS r=1");
    peer.change("CDS", &[]);
    peer.change("RDS", &["r"]);
    let _ = ["CDS", "RDS"].map(|service| peer.delta_ack(service));
    for name in ["a", "b", "c"] {
        put(&mut peer.snapshot, Kind::Cluster, name, 3 * MEBIBYTE);
    }
    peer.edit("RDS r=2");
    for _ in 0..3 {
        let response = peer.session.poll(&peer.snapshot, peer.now).expect("a part");
        let received = decode(Protocol::Delta, &response);
        assert_eq!((received.kind, received.resources.len()), (Kind::Cluster, 1));
        assert!(peer.session.poll(&peer.snapshot, peer.now).is_none(), "the route waits");
        let request = wire::DeltaDiscoveryRequest {
            type_url: Kind::Cluster.type_url().into(),
            response_nonce: received.nonce,
            ..Default::default()
        };
        peer.request(Request::Delta(request)).expect("no fault");
    }
    assert_eq!(peer.drain(), ["RDS r=2"]);
}

#[test]
fn a_stream_may_not_subscribe_to_too_many_names_over_all_types() {
    let names = |count: usize| -> Vec<String> { (0..count).map(|number| number.to_string()).collect() };
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        let mut peer = Peer::new(protocol, "");
        let mut ask = |kind: Kind, count: usize| {
            let type_url = kind.type_url().into();
            let request = match protocol {
                Protocol::Sotw => Request::Sotw(wire::DiscoveryRequest {
                    type_url,
                    resource_names: names(count),
                    ..Default::default()
                }),
                Protocol::Delta => Request::Delta(wire::DeltaDiscoveryRequest {
                    type_url,
                    resource_names_subscribe: names(count),
                    ..Default::default()
                }),
            };
            peer.request(request)
        };
        assert_eq!(ask(Kind::Endpoints, 150_000), Ok(None));
        assert_eq!(ask(Kind::Secret, 50_000), Ok(None));
        assert_eq!(ask(Kind::Route, 1), Err(Fault::TooManyNames));
        assert_eq!(Peer::new(protocol, "").session.resources(&Snapshot::default()), []);
    }
}

#[test]
fn a_client_that_uses_errors_is_told_once_what_does_not_exist() {
    let mut peer = Peer::new(Protocol::Sotw, "LDS l=1, RDS r=1");
    peer.session = Session::new(Protocol::Sotw).with_client(Client { unwraps: false, takes_errors: true });
    assert_eq!(peer.ask("LDS", &["l", "x"]), ["LDS l=1 !x"]);
    assert_eq!(peer.ack("LDS", &["l", "x"]), NOTHING);
    peer.edit("LDS l=2");
    assert_eq!(peer.drain(), ["LDS l=2"], "the client remembers");
    peer.ack("LDS", &["l", "x"]);
    peer.edit("LDS x=1");
    assert_eq!(peer.drain(), ["LDS l=2 x=1"]);
    peer.ack("LDS", &["l", "x"]);
    assert_eq!(peer.ask("RDS", &["r", "y"]), ["RDS r=1 !y"]);
    assert_eq!(peer.ack("RDS", &["r", "y"]), NOTHING);
    assert_eq!(peer.ask("RDS", &["r", "y", "z"]), ["RDS !z"]);
    assert_eq!(peer.ack("RDS", &["r", "y", "z"]), NOTHING);
    // Its parent tells that it is gone.
    peer.edit("RDS -r, RDS z=1");
    assert_eq!(peer.drain(), ["RDS z=1"]);
    assert_eq!(peer.ask("EDS", &["e"]), ["EDS (e)"], "no endpoints are an answer, and nothing is told twice");

    // A wildcard asks for nothing that could be missing.
    let mut peer = Peer::new(Protocol::Sotw, "");
    peer.session = Session::new(Protocol::Sotw).with_client(Client { unwraps: false, takes_errors: true });
    assert_eq!(peer.ask("LDS", &[]), ["LDS"]);
    // Who does not use errors is told none.
    assert_eq!(Peer::new(Protocol::Sotw, "").ask("LDS", &["x"]), ["LDS"]);
    assert_eq!(Peer::new(Protocol::Sotw, "").ask("RDS", &["x"]), NOTHING);
}
