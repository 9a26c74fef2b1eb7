//! What a refusal leads to: the resource that was refused is rolled back alone, tried again when it changes, and healed.

use std::sync::Arc;
use std::time::Duration;

use translators::resource::Kind;

use super::peer::{NOTHING, Peer, seconds};
use crate::report::{ResourceState, ResourceStatus};
use crate::stream::session::Protocol;

#[test]
fn scenario_15_a_refused_resource_is_rolled_back_alone_in_a_whole() {
    let mut peer = Peer::new(Protocol::Sotw, "CDS a=1, CDS b=1");
    assert_eq!(peer.ask("CDS", &[]), ["CDS a=1 b=1"]);
    assert_eq!(peer.ack("CDS", &[]), NOTHING);
    peer.edit("CDS a=bad, CDS b=2, CDS n=bad");
    assert_eq!(peer.drain(), ["CDS a=bad b=2 n=bad"]);
    assert_eq!(
        peer.nack("CDS", &[], "a and n are bad").1,
        ["CDS a=1 b=2"],
        "the others go on, what was new is left out"
    );
    assert_eq!(peer.ack("CDS", &[]), NOTHING);
    peer.edit("CDS b=3");
    assert_eq!(peer.drain(), ["CDS a=1 b=3"]);
    assert_eq!(peer.ack("CDS", &[]), NOTHING);
    assert!(peer.session.refuses(Kind::Cluster, &"a".into()), "that its former content is accepted mends nothing");
    peer.edit("CDS a=2");
    assert_eq!(peer.drain(), ["CDS a=2 b=3"], "healed");
    assert_eq!(peer.ack("CDS", &[]), NOTHING);
    assert!(!peer.session.refuses(Kind::Cluster, &"a".into()) && peer.session.refuses(Kind::Cluster, &"n".into()));
    peer.edit("CDS n=1");
    assert_eq!(peer.drain(), ["CDS a=2 b=3 n=1"]);
}

#[test]
fn scenario_15_a_refused_resource_is_rolled_back_once_in_delta() {
    let mut peer = Peer::new(Protocol::Delta, "CDS a=1, CDS b=1");
    assert_eq!(peer.change("CDS", &[]), ["CDS a=1 b=1"]);
    peer.delta_ack("CDS");
    peer.edit("CDS a=bad, CDS b=2");
    assert_eq!(peer.drain(), ["CDS a=bad b=2"]);
    assert_eq!(peer.delta_nack("CDS", "a is bad").1, ["CDS a=1 b=2"]);
    assert_eq!(peer.delta_ack("CDS"), NOTHING);
    peer.edit("CDS b=3");
    assert_eq!(peer.drain(), ["CDS b=3"], "once is enough");
    peer.delta_ack("CDS");
    assert!(peer.session.refuses(Kind::Cluster, &"a".into()));
    // Alone it does not make a response: the client has what it had.
    peer.edit("CDS b=bad");
    assert_eq!(peer.drain(), ["CDS b=bad"]);
    assert_eq!(peer.delta_nack("CDS", "b is bad").1, NOTHING);
    peer.edit("CDS c=1");
    assert_eq!(peer.drain(), ["CDS b=3 c=1"]);
    peer.delta_ack("CDS");
    peer.edit("CDS a=1");
    assert_eq!(peer.drain(), ["CDS a=1"], "a rollback by hand is a change");
}

#[test]
fn two_that_are_refused_one_after_the_other_are_not_said_in_turns() {
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        let mut peer = Peer::new(protocol, "RDS a=1, RDS b=1");
        let answer = |peer: &mut Peer, refused: &str| match (protocol, refused) {
            (Protocol::Sotw, "") => peer.ack("RDS", &["a", "b"]),
            (Protocol::Sotw, refused) => peer.nack("RDS", &["a", "b"], refused).1,
            (Protocol::Delta, "") => peer.delta_ack("RDS"),
            (Protocol::Delta, refused) => peer.delta_nack("RDS", refused).1,
        };
        let asked = match protocol {
            Protocol::Sotw => peer.ask("RDS", &["a", "b"]),
            Protocol::Delta => peer.change("RDS", &["a", "b"]),
        };
        assert_eq!(asked, ["RDS a=1 b=1"]);
        assert_eq!(answer(&mut peer, ""), NOTHING);
        peer.edit("RDS a=bad");
        assert_eq!(peer.drain(), ["RDS a=bad"]);
        assert_eq!(answer(&mut peer, "a is bad"), NOTHING);
        peer.edit("RDS b=bad");
        assert_eq!(peer.drain(), ["RDS a=1 b=bad"]);
        assert_eq!(answer(&mut peer, "b is bad"), NOTHING, "what stands in for a is not to blame, nor a suspect");
        peer.edit("RDS b=2");
        assert_eq!(peer.drain(), ["RDS a=1 b=2"]);
        assert_eq!(answer(&mut peer, ""), NOTHING);
        assert!(peer.session.refuses(Kind::Route, &"a".into()) && !peer.session.refuses(Kind::Route, &"b".into()));
    }
}

#[test]
fn a_former_form_that_is_refused_too_is_not_said_again() {
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        let mut peer = Peer::new(protocol, "CDS a=1, CDS b=1");
        let nack = |peer: &mut Peer| match protocol {
            Protocol::Sotw => peer.nack("CDS", &[], "a is bad").1,
            Protocol::Delta => peer.delta_nack("CDS", "a is bad").1,
        };
        match protocol {
            Protocol::Sotw => (peer.ask("CDS", &[]), peer.ack("CDS", &[])),
            Protocol::Delta => (peer.change("CDS", &[]), peer.delta_ack("CDS")),
        };
        peer.edit("CDS a=bad, CDS b=2");
        assert_eq!(peer.drain(), ["CDS a=bad b=2"]);
        assert_eq!(nack(&mut peer), ["CDS a=1 b=2"]);
        let mut rounds = 0;
        while !nack(&mut peer).is_empty() {
            rounds += 1;
            assert!(rounds < 3, "a hot loop");
        }
    }
}

#[test]
fn content_that_keeps_being_refused_is_tried_less_and_less_often() {
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        let mut peer = Peer::new(protocol, "LDS a=1, LDS b=1");
        let nack = |peer: &mut Peer| match protocol {
            Protocol::Sotw => peer.nack("LDS", &[], "a is bad").1,
            Protocol::Delta => peer.delta_nack("LDS", "a is bad").1,
        };
        let ack = |peer: &mut Peer| match protocol {
            Protocol::Sotw => peer.ack("LDS", &[]),
            Protocol::Delta => peer.delta_ack("LDS"),
        };
        match protocol {
            Protocol::Sotw => peer.ask("LDS", &[]),
            Protocol::Delta => peer.change("LDS", &[]),
        };
        ack(&mut peer);
        let sends = |peer: &mut Peer| !peer.drain().is_empty();
        let mut delays = Vec::new();
        for round in 0..9 {
            peer.edit(&format!("LDS a=bad{round}"));
            let from = peer.now;
            while !sends(&mut peer) {
                let wake = peer.session.wake_at().expect("it is tried again");
                assert!(wake > peer.now, "it spins");
                assert!(peer.session.refuses(Kind::Listener, &"a".into()), "it stands refused meanwhile");
                peer.now = wake;
            }
            delays.push((peer.now - from).as_secs());
            assert_eq!(nack(&mut peer), NOTHING);
            peer.pass(Duration::from_millis(1));
            peer.now = peer.now.checked_sub(Duration::from_millis(1)).expect("it was just added");
        }
        assert_eq!(delays, [0, 0, 1, 2, 4, 8, 16, 32, 32]);
        // The others do not wait for it.
        peer.edit("LDS a=bad9, LDS b=2");
        let sent = peer.drain();
        assert_eq!(sent.len(), 1, "{sent:?}");
        assert!(sent[0].contains("b=2") && !sent[0].contains("bad"), "{sent:?}");
        assert_eq!(ack(&mut peer), NOTHING);
        // What was accepted once does not wait either, and starts anew.
        peer.edit("LDS a=1");
        let sent = peer.drain();
        assert!(sent.len() == 1 && sent[0].contains("a=1"), "{sent:?}");
        assert_eq!(ack(&mut peer), NOTHING);
        assert!(!peer.session.refuses(Kind::Listener, &"a".into()));
        peer.edit("LDS a=2");
        assert_eq!(peer.drain().len(), 1);
        // After a delay, good content heals.
        assert_eq!(nack(&mut peer), NOTHING);
        peer.edit("LDS a=3");
        assert_eq!(peer.drain().len(), 1);
        assert_eq!(nack(&mut peer), NOTHING);
        peer.edit("LDS a=good");
        assert_eq!(peer.drain(), NOTHING);
        peer.pass(seconds(1));
        assert!(peer.drain().concat().contains("a=good"));
        assert_eq!(ack(&mut peer), NOTHING);
        assert_eq!(peer.session.wake_at(), None);
    }
}

#[test]
fn a_new_stream_rolls_back_to_what_its_group_accepted_and_deletes_nothing_that_it_does_not_know() {
    let group = Arc::default();
    let mut one = Peer::new(Protocol::Sotw, "CDS a=1, CDS b=1");
    one.join(&group);
    assert_eq!(one.ask("CDS", &[]), ["CDS a=1 b=1"]);
    assert_eq!(one.ack("CDS", &[]), NOTHING);
    // The same client on a new stream, where the configuration has changed meanwhile: it says what it holds.
    one.reconnect();
    one.edit("CDS a=bad, CDS b=2");
    assert_eq!(one.ask("CDS", &[]), ["CDS a=bad b=2"]);
    assert_eq!(one.nack("CDS", &[], "a is bad").1, ["CDS a=1 b=2"]);

    // Nobody of its group has accepted anything: what it holds of `a` is not known, and not deleted.
    let mut other = Peer::new(Protocol::Sotw, "CDS a=bad, CDS b=2");
    other.accepted.insert(Kind::Cluster, "elsewhere".into());
    assert_eq!(other.ask("CDS", &[]), ["CDS a=bad b=2"]);
    assert_eq!(other.nack("CDS", &[], "a is bad").1, NOTHING);
    // One that has nothing yet gets the rest.
    let mut new = Peer::new(Protocol::Sotw, "CDS a=bad, CDS b=2");
    assert_eq!(new.ask("CDS", &[]), ["CDS a=bad b=2"]);
    assert_eq!(new.nack("CDS", &[], "a is bad").1, ["CDS b=2"]);
}

#[test]
fn every_resource_has_a_state_to_be_seen() {
    let state = |peer: &Peer| -> Vec<String> {
        let line = |status: ResourceStatus| {
            let state = match status.state {
                ResourceState::NotSent => "not sent".to_owned(),
                ResourceState::Synced => "synced".to_owned(),
                ResourceState::Stale => "stale".to_owned(),
                ResourceState::Error { reason, since } => format!("{reason} since {:?}", peer.now - since),
            };
            let exists = if status.resource.is_some() { "" } else { " (none)" };
            format!("{} {}{exists}: {state}", status.kind, status.name)
        };
        peer.session.resources(&peer.snapshot).into_iter().map(line).collect()
    };
    let mut peer = Peer::new(Protocol::Delta, "CDS a=1, CDS b=1, EDS a=1, EDS b=1, VHDS v|x=1");
    assert_eq!(state(&peer), NOTHING);
    peer.change("CDS", &[]);
    peer.change("EDS", &["a", "nope"]);
    peer.change("VHDS", &["x"]);
    assert_eq!(
        state(&peer),
        ["CDS a: stale", "CDS b: stale", "EDS a: stale", "EDS nope (none): not sent", "VHDS v: stale"]
    );
    let _ = ["CDS", "EDS", "VHDS"].map(|service| peer.delta_ack(service));
    assert_eq!(
        state(&peer),
        ["CDS a: synced", "CDS b: synced", "EDS a: synced", "EDS nope (none): not sent", "VHDS v: synced"]
    );
    peer.edit("CDS a=2, CDS c=1");
    assert_eq!(state(&peer)[..3], ["CDS a: stale", "CDS b: synced", "CDS c: not sent"]);
    peer.drain();
    assert_eq!(state(&peer)[..3], ["CDS a: stale", "CDS b: synced", "CDS c: stale"]);
    peer.delta_nack("CDS", "a: no");
    peer.pass(seconds(7));
    assert_eq!(state(&peer)[0], "CDS a: a: no since 7s");
    peer.delta_ack("CDS");
    assert_eq!(state(&peer)[..3], ["CDS a: a: no since 7s", "CDS b: synced", "CDS c: synced"]);
}

#[test]
fn a_cluster_that_was_refused_is_kept_as_it_was_accepted_until_it_goes() {
    let mut peer = Peer::new(Protocol::Sotw, "CDS a=1, CDS b=1, LDS l=1");
    peer.ask("CDS", &[]);
    peer.ack("CDS", &[]);
    peer.ask("LDS", &[]);
    peer.ack("LDS", &[]);
    peer.edit("CDS a=bad, CDS n=bad");
    assert_eq!(peer.drain(), ["CDS a=bad b=1 n=bad"]);
    assert_eq!(peer.nack("CDS", &[], "a, n").1, NOTHING);
    peer.edit("CDS -a, CDS -n, CDS c=1, LDS l=2");
    assert_eq!(peer.drain(), ["CDS b=1 c=1 a=1"]);
    assert_eq!(peer.ack("CDS", &[]), ["LDS l=2"]);
    assert_eq!(peer.ack("LDS", &[]), ["CDS b=1 c=1"]);
}
