//! Resources that live for a time only, and the heartbeats that keep them alive.

use std::time::Duration;

use translators::resource::Kind;

use super::peer::{NOTHING, Peer, seconds};
use crate::stream::node::Client;
use crate::stream::session::{Protocol, Session};

#[test]
fn what_lives_for_a_time_is_said_to_live_at_a_third_of_it() {
    let mut peer = Peer::new(Protocol::Delta, "RTDS r@30=1, RTDS s=1, RTDS t@60=1");
    assert_eq!(peer.change("RTDS", &["r", "s", "t"]), ["RTDS r=1 s=1 t=1"]);
    let sent = peer.last[&Kind::Runtime].clone();
    assert_eq!(peer.session.wake_at(), None, "not before it was accepted");
    assert_eq!(peer.delta_ack("RTDS"), NOTHING);
    assert_eq!(peer.session.wake_at(), Some(peer.now + seconds(10)));
    peer.pass(seconds(9));
    assert_eq!(peer.drain(), NOTHING);
    peer.pass(seconds(1));
    assert_eq!(peer.drain(), ["RTDS ~r"]);
    let beat = peer.last[&Kind::Runtime].clone();
    assert_ne!(beat.nonce, sent.nonce);
    assert_eq!(beat.version, sent.version);
    peer.pass(seconds(10));
    assert_eq!(peer.drain(), NOTHING, "one response is outstanding");
    assert_eq!(peer.delta_ack("RTDS"), ["RTDS ~r ~t"]);
    assert_eq!(peer.delta_ack("RTDS"), NOTHING);

    // A response that brings it says that it lives; and nothing takes the place of news.
    peer.pass(seconds(9));
    peer.edit("RTDS r@30=2");
    assert_eq!(peer.drain(), ["RTDS r=2"]);
    peer.delta_ack("RTDS");
    peer.pass(seconds(9));
    assert_eq!(peer.drain(), NOTHING);
    peer.pass(seconds(1));
    peer.edit("RTDS s=2");
    assert_eq!(peer.drain(), ["RTDS s=2"]);
    assert_eq!(peer.delta_ack("RTDS"), ["RTDS ~r"]);
    peer.delta_ack("RTDS");

    // Without a time to live, or unsubscribed, or gone, there is nothing to say.
    peer.edit("RTDS r=3");
    assert_eq!(peer.drain(), ["RTDS r=3"]);
    peer.delta_ack("RTDS");
    assert_eq!(peer.change("RTDS", &["-t"]), NOTHING);
    peer.pass(seconds(60));
    assert_eq!(peer.drain(), NOTHING);
    assert_eq!(peer.session.wake_at(), None);
}

#[test]
fn a_heartbeat_says_the_version_that_was_sent_and_none_of_what_was_refused() {
    let mut peer = Peer::new(Protocol::Delta, "LDS l@3=1, LDS m@3=1");
    assert_eq!(peer.change("LDS", &[]), ["LDS l=1 m=1"]);
    assert_eq!(peer.delta_nack("LDS", "l is bad").1, ["LDS m=1"]);
    peer.delta_ack("LDS");
    peer.pass(seconds(1));
    assert_eq!(peer.drain(), ["LDS ~m"]);
    // It does not have it after all: it is sent whole, once.
    assert_eq!(peer.delta_nack("LDS", "type URL  embedded").1, ["LDS m=1"]);
    assert_eq!(peer.delta_ack("LDS"), NOTHING);
    // A client that comes back is sent it again.
    let held = [("m", peer.version("LDS", "m"))];
    peer.reconnect();
    peer.edit("LDS -l");
    assert_eq!(peer.delta("LDS", &[], &held, String::new(), None).1, ["LDS m=1"]);
    peer.delta_ack("LDS");
    assert_eq!(peer.session.wake_at(), Some(peer.now + seconds(1)));
}

#[test]
fn the_shortest_and_the_longest_life_neither_spin_nor_overflow() {
    let mut peer = Peer::new(Protocol::Delta, &format!("RTDS r@0=1, RTDS s@{}=1", u64::MAX));
    assert_eq!(peer.change("RTDS", &["r", "s"]), ["RTDS r=1 s=1"]);
    assert_eq!(peer.delta_ack("RTDS"), NOTHING);
    assert_eq!(peer.session.wake_at(), Some(peer.now + Duration::from_millis(100)));
}

#[test]
fn state_of_the_world_wraps_for_those_who_unwrap() {
    let mut peer = Peer::new(Protocol::Sotw, "RTDS r@3=1, RTDS s=1");
    peer.session = Session::new(Protocol::Sotw).with_client(Client { unwraps: true, takes_errors: false });
    assert_eq!(peer.ask("RTDS", &["r", "s"]), ["RTDS r=1 s=1"]);
    let sent = peer.last[&Kind::Runtime].clone();
    assert_eq!(sent.resources[0].0, "r", "a wrapper has a name");
    assert_eq!(sent.resources[1].0, "", "only what lives for a time is wrapped");
    assert_eq!(peer.ack("RTDS", &["r", "s"]), NOTHING);
    peer.pass(seconds(1));
    assert_eq!(peer.drain(), ["RTDS ~r"]);
    assert_eq!(peer.last[&Kind::Runtime].version, sent.version, "else it were no heartbeat");
    assert_eq!(peer.ack("RTDS", &["r", "s"]), NOTHING);
    // Refused: the version accepted is not the last one said.
    peer.edit("RTDS s=2");
    assert_eq!(peer.drain(), ["RTDS s=2"]);
    assert_eq!(peer.nack("RTDS", &["r", "s"], "s").1, NOTHING);
    peer.pass(seconds(1));
    assert_eq!(peer.drain(), NOTHING);
    assert!(peer.session.wake_at().is_none_or(|at| at > peer.now));

    let mut peer = Peer::new(Protocol::Sotw, "RTDS r@3=1");
    assert_eq!(peer.ask("RTDS", &["r"]), ["RTDS r=1"]);
    assert_eq!(peer.last[&Kind::Runtime].resources[0].0, "", "plain");
    peer.ack("RTDS", &["r"]);
    peer.pass(seconds(3));
    assert_eq!(peer.drain(), NOTHING);
}

#[test]
fn virtual_hosts_have_no_heartbeat() {
    let mut peer = Peer::new(Protocol::Delta, "VHDS r/v|r/a@3=1");
    assert_eq!(peer.change("VHDS", &["r/a"]), ["VHDS r/v=1"]);
    peer.delta_ack("VHDS");
    peer.pass(seconds(3));
    assert_eq!(peer.drain(), NOTHING);
    assert_eq!(peer.session.wake_at(), None);
}
