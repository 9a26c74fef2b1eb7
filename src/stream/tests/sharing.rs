//! Streams of one group: what is the same for all of them is made once.

use std::sync::Arc;

use super::peer::{NOTHING, Peer, Received, decode};
use crate::stream::Group;
use crate::stream::session::Protocol;

/// The next response, where its bytes are, and whether they are in one piece.
fn take(peer: &mut Peer, protocol: Protocol) -> (Received, *const u8, bool) {
    let response = peer.session.poll(&peer.snapshot, peer.now).expect("a response");
    let received = decode(protocol, &response);
    peer.last.insert(received.kind, received.clone());
    (received, response.head.as_ptr(), response.entries.is_empty())
}

fn ask(peer: &mut Peer, protocol: Protocol, service: &str, names: &[&str]) -> Vec<String> {
    match protocol {
        Protocol::Sotw => peer.ask(service, names),
        Protocol::Delta => peer.change(service, names),
    }
}

fn ack(peer: &mut Peer, protocol: Protocol, service: &str, names: &[&str]) -> Vec<String> {
    match protocol {
        Protocol::Sotw => peer.ack(service, names),
        Protocol::Delta => peer.delta_ack(service),
    }
}

#[test]
fn a_response_that_is_due_to_many_is_made_once() {
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        let group = Arc::<Group>::default();
        let mut peers: Vec<Peer> = (0..4).map(|_| Peer::new(protocol, "EDS a=1, EDS b=1, EDS c=1, SDS s=1")).collect();
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.join(&group);
            let names = if number == 3 { ["b", "c"] } else { ["a", "b"] };
            ask(peer, protocol, "EDS", &names);
            ack(peer, protocol, "EDS", &names);
            peer.edit("EDS b=2");
        }
        let sent: Vec<_> = peers.iter_mut().map(|peer| take(peer, protocol)).collect();
        let wholes: Vec<bool> = sent.iter().map(|(.., whole)| *whole).collect();
        assert_eq!(wholes, [false, true, true, false], "the first and who wants something else copies nothing");
        assert_eq!(sent[1].1, sent[2].1, "the same memory");
        assert_eq!(sent[0].0, sent[1].0, "the same, nonce and all");
        let content = |received: &Received| received.resources.clone();
        assert_eq!(content(&sent[3].0), content(&sent[0].0));
        assert_ne!(sent[3].0.nonce, sent[0].0.nonce);
    }
}

#[test]
fn streams_that_saw_other_changes_in_between_share_again() {
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        let group = Arc::<Group>::default();
        let mut peers = [0, 1, 2].map(|_| Peer::new(protocol, "EDS a=1, EDS b=1, SDS s=1"));
        for peer in &mut peers {
            peer.join(&group);
            ask(peer, protocol, "EDS", &["a"]);
            ack(peer, protocol, "EDS", &["a"]);
            peer.edit("EDS b=2");
        }
        // This concerns none of them; but one of them asks for something, and is asked for what it has to say.
        ask(&mut peers[0], protocol, "SDS", &["s"]);
        for content in ["2", "3"] {
            let sent = peers.each_mut().map(|peer| {
                peer.edit(&format!("EDS a={content}"));
                take(peer, protocol)
            });
            for peer in &mut peers {
                ack(peer, protocol, "EDS", &["a"]);
            }
            let same = |one: usize, other: usize| sent[one].0.nonce == sent[other].0.nonce;
            assert!(same(1, 2), "{content}");
            assert_eq!(same(0, 1), content == "3");
        }
    }
}

#[test]
fn a_nonce_is_not_used_again_on_a_stream_that_is_due_the_same_again() {
    let group = Arc::<Group>::default();
    let [mut one, mut other] = [0, 1].map(|_| Peer::new(Protocol::Delta, "EDS a=1, SDS s=1"));
    for peer in [&mut one, &mut other] {
        peer.join(&group);
        peer.change("EDS", &["a"]);
        peer.delta_ack("EDS");
        peer.edit("EDS a=2");
    }
    let protocol = Protocol::Delta;
    let first = take(&mut one, protocol).0;
    // What the one was sent is still under way; the other was sent something since that has a higher nonce.
    assert_eq!(other.change("SDS", &["s"]), ["SDS s=1", "EDS a=2"]);
    assert!(other.last[&first.kind].nonce.parse::<u64>().expect("a number") > 0);
    assert_ne!(other.last[&first.kind].nonce, first.nonce);
}

#[test]
fn endpoints_follow_a_cluster_that_another_stream_was_sent_first() {
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        let group = Arc::<Group>::default();
        let mut peers = [0, 1, 2].map(|_| Peer::new(protocol, "CDS a=1, CDS b=1, EDS a=1, EDS b=1"));
        for peer in &mut peers {
            peer.join(&group);
            ask(peer, protocol, "CDS", &[]);
            ask(peer, protocol, "EDS", &["a", "b"]);
            ack(peer, protocol, "CDS", &[]);
            ack(peer, protocol, "EDS", &["a", "b"]);
            peer.edit("CDS b=2");
        }
        let sent = peers.each_mut().map(|peer| [take(peer, protocol), take(peer, protocol)]);
        for [clusters, endpoints] in &sent {
            assert_eq!((&clusters.0, &endpoints.0), (&sent[0][0].0, &sent[0][1].0));
            assert!(endpoints.0.resources.iter().all(|(_, content, _)| content == "b=1"));
        }
        assert_eq!(sent[1].each_ref().map(|sent| sent.1), sent[2].each_ref().map(|sent| sent.1), "the same memory");
        assert!(peers.iter_mut().all(|peer| peer.drain().is_empty()));
    }
}

#[test]
fn who_is_sent_new_clusters_after_another_waits_for_their_endpoints_too() {
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        let group = Arc::<Group>::default();
        let mut peers = [0, 1].map(|_| Peer::new(protocol, "CDS x=1, EDS x=1, LDS l=1"));
        for peer in &mut peers {
            peer.join(&group);
            for (service, names) in [("CDS", &[][..]), ("EDS", &["x"]), ("LDS", &[])] {
                ask(peer, protocol, service, names);
                ack(peer, protocol, service, names);
            }
            // As much of nothing is a load assignment without endpoints.
            peer.edit(&format!("CDS z=1, EDS z={}, LDS l=2", "-".repeat(b'='.into())));
        }
        let sent = [0, 1].map(|number: usize| take(&mut peers[number], protocol).2);
        assert_eq!(sent, [false, true], "the second is sent what was made for the first");
        for peer in &mut peers {
            assert_eq!(ack(peer, protocol, "CDS", &[]), NOTHING);
            let all = ["x", "z"];
            let asked = if protocol == Protocol::Sotw { &all[..] } else { &all[1..] };
            assert_eq!(ask(peer, protocol, "EDS", asked).len(), 1);
            assert_eq!(ack(peer, protocol, "EDS", &all), NOTHING, "there is nowhere to go yet");
            peer.edit("EDS z=1");
            assert_eq!(peer.drain(), ["EDS z=1", "LDS l=2"]);
        }
    }
}
