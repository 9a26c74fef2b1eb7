//! The scenarios of the protocol, by number, and the rules around them.

use std::time::Duration;

use proto::wire;
use translators::resource::{Kind, Version};

use super::peer::{NOTHING, Peer, Request, delta, sotw};
use crate::stream::session::{Fault, GRACE, Outcome, Protocol, Session};

#[test]
fn scenario_01_a_changed_cluster_brings_its_endpoints_once() {
    let mut peer = sotw("CDS c1=1, EDS c1=1");
    assert_eq!(peer.ask("CDS", &[]), ["CDS c1=1"]);
    assert_eq!(peer.ask("EDS", &["c1"]), ["EDS c1=1"]);
    assert_eq!(peer.ack("EDS", &["c1"]), NOTHING);
    let nonce = peer.last[&Kind::Endpoints].nonce.clone();
    assert_eq!(peer.ack("CDS", &[]), NOTHING);
    peer.edit("CDS c1=2");
    assert_eq!(peer.drain(), ["CDS c1=2", "EDS c1=1"]);
    // Envoy asks again, word for word as in its last acknowledgement.
    assert_eq!(peer.ask_with("EDS", &["c1"], &nonce), NOTHING);
    assert_eq!(peer.ack("EDS", &["c1"]), NOTHING);
    assert_eq!(peer.ack("CDS", &[]), NOTHING);
}

#[test]
fn scenario_02_and_03_endpoints_follow_their_cluster_unasked_and_without_its_ack() {
    let mut peer = delta("CDS c1=1, EDS c1=1, LDS l=1, RDS r=1");
    assert_eq!(peer.change("CDS", &[]), ["CDS c1=1"]);
    // The CDS response is not acknowledged before all of these.
    assert_eq!(peer.change("EDS", &["c1"]), ["EDS c1=1"]);
    assert_eq!(peer.change("LDS", &[]), ["LDS l=1"]);
    assert_eq!(peer.change("RDS", &["r"]), ["RDS r=1"]);
    for service in ["CDS", "EDS", "LDS", "RDS"] {
        assert_eq!(peer.delta_ack(service), NOTHING);
    }
    peer.edit("CDS c1=2");
    assert_eq!(peer.drain(), ["CDS c1=2", "EDS c1=1"]);
}

#[test]
fn scenario_04_unknown_endpoints_are_answered_and_sent_when_they_appear() {
    let mut peer = sotw("EDS a=1");
    assert_eq!(peer.ask("EDS", &["a", "b"]), ["EDS a=1 (b)"]);
    assert_eq!(peer.ack("EDS", &["a", "b"]), NOTHING);
    peer.edit("EDS b=1");
    assert_eq!(peer.drain(), ["EDS b=1"]);

    let mut peer = delta("EDS a=1");
    assert_eq!(peer.change("EDS", &["a", "b"]), ["EDS a=1 -b"]);
    assert_eq!(peer.delta_ack("EDS"), NOTHING);
    peer.edit("EDS b=1");
    assert_eq!(peer.drain(), ["EDS b=1"]);
}

#[test]
fn scenario_05_a_part_of_the_snapshot_is_answered() {
    let contents = "EDS a=1, EDS b=1, EDS c=1";
    assert_eq!(sotw(contents).ask("EDS", &["a"]), ["EDS a=1"]);
    assert_eq!(delta(contents).change("EDS", &["a"]), ["EDS a=1"]);
}

#[test]
fn scenario_06_a_request_is_answered_from_the_newest_snapshot() {
    let mut peer = sotw("CDS c=1, EDS c=1");
    assert_eq!(peer.ask("CDS", &[]), ["CDS c=1"]);
    peer.edit("EDS c=2");
    assert_eq!(peer.ask("EDS", &["c"]), ["EDS c=2"]);
}

#[test]
fn scenario_07_and_08_added_names_are_sent_though_no_version_changed() {
    let mut peer = sotw("EDS a=1, EDS b=1");
    assert_eq!(peer.ask("EDS", &["a"]), ["EDS a=1"]);
    assert_eq!(peer.ack("EDS", &["a"]), NOTHING);
    assert_eq!(peer.ask("EDS", &["a", "b"]), ["EDS b=1"]);
    assert_eq!(peer.ack("EDS", &["a", "b"]), NOTHING);
    assert_eq!(peer.ask("EDS", &[]), NOTHING);
    assert_eq!(peer.ask("EDS", &["a"]), ["EDS a=1"]);
}

#[test]
fn scenario_10_and_11_an_unsubscribed_type_is_sent_nothing() {
    let mut peer = sotw("EDS a=1, LDS l=1");
    assert_eq!(peer.ask("EDS", &["a"]), ["EDS a=1"]);
    assert_eq!(peer.ack("EDS", &[]), NOTHING);
    peer.edit("EDS a=2");
    assert_eq!(peer.drain(), NOTHING);
    assert_eq!(peer.ask("EDS", &["a"]), ["EDS a=2"]);
    // Due, but unsubscribed before it could be sent.
    assert_eq!(peer.ask("LDS", &["l"]), ["LDS l=1"]);
    assert_eq!(peer.ask_with("LDS", &["l", "m"], ""), NOTHING);
    assert_eq!(peer.ack("LDS", &[]), NOTHING);
}

#[test]
fn scenario_12_an_empty_list_is_everything_only_for_listeners_and_clusters() {
    for service in ["SDS", "CDS", "EDS", "LDS", "RDS"] {
        let contents = format!("{service} a=1");
        let expected = if ["CDS", "LDS"].contains(&service) { vec![format!("{service} a=1")] } else { vec![] };
        assert_eq!(sotw(&contents).ask(service, &[]), expected);
        assert_eq!(delta(&contents).change(service, &[]), expected);
    }
}

#[test]
fn scenario_13_the_ladder_of_wildcards() {
    let mut peer = sotw("CDS a=1, CDS b=1");
    assert_eq!(peer.ask("CDS", &[]), ["CDS a=1 b=1"]);
    assert_eq!(peer.ack("CDS", &["*", "a"]), ["CDS a=1 b=1"]);
    assert_eq!(peer.ack("CDS", &["a"]), NOTHING);
    peer.edit("CDS b=2");
    assert_eq!(peer.drain(), NOTHING);
    peer.edit("CDS a=2");
    assert_eq!(peer.drain(), ["CDS a=2"]);
    assert_eq!(peer.ack("CDS", &[]), NOTHING);
    peer.edit("CDS a=3");
    assert_eq!(peer.drain(), NOTHING);
    assert_eq!(peer.ask("CDS", &["*"]), ["CDS a=3 b=2"]);

    let mut peer = delta("CDS a=1, CDS b=1");
    assert_eq!(peer.change("CDS", &[]), ["CDS a=1 b=1"]);
    peer.delta_ack("CDS");
    assert_eq!(peer.change("CDS", &["a"]), ["CDS a=1"]);
    peer.delta_ack("CDS");
    peer.edit("CDS b=2");
    assert_eq!(peer.drain(), ["CDS b=2"]);
    peer.delta_ack("CDS");
    assert_eq!(peer.change("CDS", &["-*"]), NOTHING);
    peer.edit("CDS b=3");
    assert_eq!(peer.drain(), NOTHING);
    peer.edit("CDS a=2");
    assert_eq!(peer.drain(), ["CDS a=2"]);
    assert_eq!(delta("CDS a=1").change("CDS", &["*", "-*"]), NOTHING);
}

#[test]
fn scenario_15_what_was_refused_is_not_sent_again_until_it_changes() {
    let mut peer = sotw("CDS a=1");
    peer.ask("CDS", &[]);
    peer.ack("CDS", &[]);
    let (one, _) = (peer.version("CDS", "a"), peer.edit("CDS a=2"));
    assert_eq!(peer.drain(), ["CDS a=2"]);
    let two = peer.snapshot.of(Kind::Cluster).version();
    let (answer, sent) = peer.nack("CDS", &[], "cluster a: bad\nvalue");
    assert_eq!(sent, NOTHING);
    let answer = answer.expect("an answer");
    assert_eq!((answer.kind, answer.version), (Kind::Cluster, two));
    let Outcome::Refused { code, reason, resources, rules } = answer.outcome else { panic!("refused") };
    assert_eq!((code, reason.as_str(), resources), (13, "cluster a: bad value", vec!["a".into()]));
    assert_eq!(rules.iter().map(ToString::to_string).collect::<Vec<_>>(), ["Workload ns/w /a"]);
    peer.pass(Duration::from_secs(60));
    assert_eq!(peer.drain(), NOTHING);
    peer.edit("CDS a=1");
    assert_eq!(peer.version("CDS", "a"), one);
    assert_eq!(peer.drain(), ["CDS a=1"], "a rollback is a change");

    // Delta: the others of the response follow without the one at fault, or with the next change.
    let mut peer = delta("CDS a=1, CDS b=1");
    assert_eq!(peer.change("CDS", &[]), ["CDS a=1 b=1"]);
    assert_eq!(peer.delta_nack("CDS", "cluster b is bad").1, ["CDS a=1"]);
    assert_eq!(peer.delta_ack("CDS"), NOTHING);
    peer.edit("CDS b=2, CDS c=1");
    assert_eq!(peer.drain(), ["CDS b=2 c=1"]);
    assert_eq!(peer.delta_nack("CDS", "no").1, NOTHING);
    peer.edit("CDS d=1");
    assert_eq!(peer.drain(), ["CDS b=2 c=1 d=1"]);
}

#[test]
fn scenario_15_a_refusal_of_a_secret_shows_no_words() {
    let mut peer = sotw("SDS identity=1");
    peer.ask("SDS", &["identity"]);
    let (answer, _) = peer.nack("SDS", &["identity"], "bad key MIIEvQ");
    let Outcome::Refused { reason, .. } = answer.expect("an answer").outcome else { panic!("refused") };
    assert_eq!(reason, "the proxy refused a secret; its own log says why");
}

#[test]
fn scenario_16_the_accepted_version_outweighs_a_left_over_error() {
    let mut peer = sotw("CDS a=1");
    peer.ask("CDS", &[]);
    let version = peer.last[&Kind::Cluster].version.clone();
    peer.accepted.insert(Kind::Cluster, version);
    let (answer, sent) = peer.nack("CDS", &[], "left over");
    assert_eq!(answer.expect("an answer").outcome, Outcome::Accepted(["a".into()].into()));
    assert_eq!(sent, NOTHING);
    // The version tells nothing where an earlier response carried it too.
    let mut peer = sotw("EDS a=1, EDS b=1");
    peer.ask("EDS", &["a"]);
    peer.ack("EDS", &["a"]);
    assert_eq!(peer.ask("EDS", &["a", "b"]), ["EDS b=1"]);
    let (answer, _) = peer.nack("EDS", &["a", "b"], "b");
    assert!(matches!(answer.expect("an answer").outcome, Outcome::Refused { .. }));
}

#[test]
fn scenario_17_and_18_every_name_asked_for_is_answered() {
    let mut peer = delta("EDS a=1");
    assert_eq!(peer.change("EDS", &["a"]), ["EDS a=1"]);
    peer.delta_ack("EDS");
    assert_eq!(peer.change("EDS", &["a", "x"]), ["EDS a=1 -x"]);
    // A stale nonce takes nothing from the subscription.
    let (_, sent) = peer.delta("EDS", &["y"], &[], "999".into(), None);
    assert_eq!(sent, NOTHING);
    assert_eq!(peer.delta_ack("EDS"), ["EDS -y"]);
    peer.delta_ack("EDS");
    peer.edit("EDS x=1, EDS y=1");
    assert_eq!(peer.drain(), ["EDS x=1 y=1"]);
}

#[test]
fn what_is_on_its_way_is_not_said_to_be_absent() {
    let mut peer = delta("CDS a=1");
    peer.snapshot.of_mut(Kind::Secret).expect("own".into());
    assert_eq!(peer.change("SDS", &["own", "other"]), ["SDS -other"]);
    assert_eq!(peer.delta_ack("SDS"), NOTHING);
    peer.edit("SDS own=1");
    assert_eq!(peer.drain(), ["SDS own=1"]);
    assert_eq!(peer.delta_ack("SDS"), NOTHING);
    // Once it was there it can go.
    peer.edit("SDS -own");
    assert_eq!(peer.drain(), ["SDS -own"]);
}

#[test]
fn scenario_19_under_a_wildcard_an_unsubscribed_name_is_answered() {
    let mut peer = delta("CDS a=1");
    assert_eq!(peer.change("CDS", &["*", "a", "x"]), ["CDS a=1 -x"]);
    peer.delta_ack("CDS");
    assert_eq!(peer.change("CDS", &["-a"]), ["CDS a=1"]);
    peer.delta_ack("CDS");
    assert_eq!(peer.change("CDS", &["-x"]), ["CDS -x"]);
    peer.delta_ack("CDS");
    assert_eq!(peer.change("CDS", &["-phantom"]), NOTHING);
}

#[test]
fn scenario_22_only_what_is_gone_is_removed() {
    let mut peer = delta("EDS a=1, EDS b=1, LDS l=1, LDS m=1, SDS s=1, SDS t=1");
    peer.change("EDS", &["a", "b"]);
    peer.change("LDS", &[]);
    peer.change("SDS", &["s", "t"]);
    let _ = ["EDS", "LDS", "SDS"].map(|service| peer.delta_ack(service));
    peer.edit("EDS a=2, SDS s=2, LDS -m");
    assert_eq!(peer.drain(), ["SDS s=2", "EDS a=2", "LDS -m"]);
}

#[test]
fn scenario_25_a_wildcard_resumes_where_it_was() {
    let mut peer = delta("LDS a=1, LDS c=1");
    let (a, old) = (peer.version("LDS", "a"), Version::of(b"old").to_string());
    let initial = [("a", a.clone()), ("b", old.clone()), ("c", old)];
    let (answer, sent) = peer.delta("LDS", &[], &initial, String::new(), None);
    assert_eq!(answer.expect("what it holds counts as accepted").outcome, Outcome::Accepted(["a".into()].into()));
    assert_eq!(sent, ["LDS c=1 -b"]);
    // A removed cluster waits for the listeners.
    let mut peer = delta("CDS c=1, LDS l=1");
    let initial = [("c", peer.version("CDS", "c")), ("gone", "1".to_owned())];
    assert_eq!(peer.delta("CDS", &[], &initial, String::new(), None).1, ["CDS"]);
    peer.delta_ack("CDS");
    assert_eq!(peer.change("LDS", &[]), ["LDS l=1"]);
    assert_eq!(peer.delta_ack("LDS"), ["CDS -gone"]);
}

#[test]
fn scenario_26_and_27_names_are_answered_on_a_new_stream_though_nothing_changed() {
    for service in ["SDS", "EDS", "RDS"] {
        let mut peer = sotw(&format!("{service} a=1"));
        let first = peer.ask(service, &["a"]);
        assert_eq!(peer.ack(service, &["a"]), NOTHING);
        peer.reconnect();
        assert_eq!(peer.ask(service, &["a"]), first);

        let mut peer = delta(&format!("{service} a=1"));
        let held = [("a", peer.version(service, "a"))];
        let (_, sent) = peer.delta(service, &["a"], &held, String::new(), None);
        // Endpoints come with their cluster, if that is sent again.
        assert_eq!(sent, if service == "EDS" { vec![] } else { first });
    }
}

/// A delta client that held clusters and endpoints `a` and `b` comes back; what it holds of each is current or not.
fn comes_back(peer: &mut Peer, service: &str, subscribe: &[&str]) -> (Option<Outcome>, Vec<String>) {
    let held = ["a", "b"].map(|name| (name, peer.version(service, name)));
    let held = held.each_ref().map(|(name, version)| (*name, version.clone()));
    let (answer, sent) = peer.delta(service, subscribe, &held, String::new(), None);
    (answer.map(|answer| answer.outcome), sent)
}

#[test]
fn scenario_26_endpoints_that_a_client_holds_are_not_sent_on_a_new_stream() {
    let accepted = || Some(Outcome::Accepted(["a".into(), "b".into()].into()));
    let mut peer = delta("CDS a=1, CDS b=1, EDS a=1, EDS b=1");
    assert_eq!(comes_back(&mut peer, "CDS", &[]), (accepted(), vec!["CDS".into()]));
    assert_eq!(comes_back(&mut peer, "EDS", &["a", "b"]), (accepted(), vec![]));
    peer.delta_ack("CDS");
    // From here on it is like any other stream.
    peer.edit("EDS a=2");
    assert_eq!(peer.drain(), ["EDS a=2"]);
    peer.delta_ack("EDS");
    peer.edit("CDS a=2, CDS b=2");
    assert_eq!(peer.drain(), ["CDS a=2 b=2", "EDS a=2 b=1"], "endpoints follow their cluster");

    // Another version, one that is gone, one that was not held, and one that is not subscribed to any more.
    let mut peer = delta("EDS a=1, EDS b=1, EDS c=1, EDS e=1");
    let held = [("a", peer.version("EDS", "a")), ("b", "1".into()), ("d", "1".into()), ("e", "1".into())];
    let (answer, sent) = peer.delta("EDS", &["a", "b", "c", "d"], &held, String::new(), None);
    assert_eq!(answer.expect("an answer").outcome, Outcome::Accepted(["a".into()].into()));
    assert_eq!(sent, ["EDS b=1 c=1 -d"]);
    // Only the first request of a stream says what is held.
    peer.delta_ack("EDS");
    let held = [("e", peer.version("EDS", "e"))];
    assert_eq!(peer.delta("EDS", &["e"], &held, String::new(), None).1, ["EDS e=1"]);
}

#[test]
fn scenario_27_endpoints_follow_a_cluster_that_changed_meanwhile_whatever_is_asked_for_first() {
    for clusters_first in [true, false] {
        let mut peer = delta("CDS a=1, CDS b=1, EDS a=1, EDS b=1");
        let held = ["a", "b"].map(|name| (name, peer.version("CDS", name)));
        peer.edit("CDS a=2");
        let clusters = |peer: &mut Peer| peer.delta("CDS", &[], &held, String::new(), None).1;
        if clusters_first {
            assert_eq!(clusters(&mut peer), ["CDS a=2"]);
            assert_eq!(comes_back(&mut peer, "EDS", &["a", "b"]).1, ["EDS a=1"]);
        } else {
            assert_eq!(comes_back(&mut peer, "EDS", &["a", "b"]).1, NOTHING);
            assert_eq!(clusters(&mut peer), ["CDS a=2", "EDS a=1"]);
        }
        let _ = ["CDS", "EDS"].map(|service| peer.delta_ack(service));
        peer.edit("CDS b=2");
        assert_eq!(peer.drain(), ["CDS b=2", "EDS b=1"]);
    }
}

#[test]
fn scenario_28_each_type_is_served_by_itself() {
    let mut peer = sotw("EDS c=1, LDS l=1");
    assert_eq!(peer.ask("EDS", &["c"]), ["EDS c=1"]);
    assert_eq!(peer.ask("LDS", &[]), ["LDS l=1"]);
}

#[test]
fn scenario_32_and_33_make_before_break() {
    let contents = "CDS x=1, EDS x=1, LDS l=1, RDS r=x";
    let change = "CDS y=1, EDS y=1, RDS r=y, CDS -x, EDS -x";
    let mut peer = sotw(contents);
    peer.ask("CDS", &[]);
    peer.ask("EDS", &["x"]);
    peer.ask("LDS", &[]);
    peer.ask("RDS", &["r"]);
    for (service, names) in [("CDS", &[][..]), ("EDS", &["x"]), ("LDS", &[]), ("RDS", &["r"])] {
        assert_eq!(peer.ack(service, names), NOTHING);
    }
    peer.edit(change);
    assert_eq!(peer.drain(), ["CDS y=1 x=1"]);
    // The route waits for its cluster, whose acceptance waits for its endpoints.
    assert_eq!(peer.ask("EDS", &["x", "y"]), ["EDS y=1"]);
    assert_eq!(peer.ack("EDS", &["x", "y"]), NOTHING);
    assert_eq!(peer.ack("CDS", &[]), ["RDS r=y"]);
    assert_eq!(peer.ack("RDS", &["r"]), ["CDS y=1"]);
    assert_eq!(peer.ask("EDS", &["y"]), NOTHING);
    assert_eq!(peer.ack("CDS", &[]), NOTHING);

    let mut peer = delta(contents);
    peer.change("CDS", &[]);
    peer.change("EDS", &["x"]);
    peer.change("LDS", &[]);
    peer.change("RDS", &["r"]);
    let _ = ["CDS", "EDS", "LDS", "RDS"].map(|service| peer.delta_ack(service));
    peer.edit(change);
    assert_eq!(peer.drain(), ["CDS y=1"]);
    // Not accepted: after the grace the route follows, and what nothing is to refer to any more goes, clusters first.
    peer.pass(GRACE - Duration::from_millis(1));
    assert_eq!(peer.drain(), NOTHING);
    assert_eq!(peer.session.wake_at(), Some(peer.now + Duration::from_millis(1)));
    peer.pass(Duration::from_millis(1));
    assert_eq!(peer.drain(), ["RDS r=y"]);
    assert_eq!(peer.delta_ack("CDS"), ["CDS -x", "EDS -x"]);
    assert_eq!(peer.delta_ack("CDS"), NOTHING);
    assert_eq!(peer.session.wake_at(), None);
}

#[test]
fn a_cluster_that_is_not_answered_is_waited_for_once() {
    let mut peer = delta("CDS x=1, RDS r=x");
    assert_eq!(peer.change("CDS", &[]), ["CDS x=1"]);
    assert_eq!(peer.session.wake_at(), Some(peer.now + GRACE));
    peer.pass(GRACE);
    assert_eq!(peer.drain(), NOTHING);
    assert_eq!(peer.session.wake_at(), None, "it spins");
}

#[test]
fn scenario_39_the_same_content_again_sends_nothing() {
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        let mut peer = Peer::new(protocol, "CDS a=1, CDS b=1");
        if protocol == Protocol::Sotw {
            peer.ask("CDS", &[])
        } else {
            peer.change("CDS", &[])
        };
        if protocol == Protocol::Sotw {
            peer.ack("CDS", &[])
        } else {
            peer.delta_ack("CDS")
        };
        for _ in 0..100 {
            peer.snapshot = Default::default();
            peer.edit("CDS b=1, CDS a=1");
            assert_eq!(peer.drain(), NOTHING);
        }
    }
}

#[test]
fn an_empty_full_state_is_an_answer_and_an_empty_part_is_none() {
    for service in ["CDS", "LDS"] {
        assert_eq!(sotw("").ask(service, &[]), [service]);
        assert_eq!(sotw("").ask(service, &["a"]), [service]);
        assert_eq!(delta("").change(service, &[]), [service]);
    }
    for service in ["SDS", "RDS"] {
        let mut peer = sotw("");
        assert_eq!(peer.ask(service, &["a"]), NOTHING);
        peer.edit(&format!("{service} a=1"));
        assert_eq!(peer.drain(), [format!("{service} a=1")]);
    }
}

#[test]
fn one_response_of_a_type_is_outstanding_and_the_next_skips_what_was_between() {
    let mut peer = delta("CDS a=1");
    peer.change("CDS", &[]);
    for content in 2..9 {
        peer.edit(&format!("CDS a={content}"));
        assert_eq!(peer.drain(), NOTHING);
    }
    assert_eq!(peer.delta_ack("CDS"), ["CDS a=8"]);
}

#[test]
fn faults_and_types_that_are_not_served() {
    let empty = Request::Sotw(wire::DiscoveryRequest::default());
    assert_eq!(sotw("").request(empty.clone()), Err(Fault::NoType));
    assert_eq!(delta("").request(empty), Err(Fault::OtherProtocol));
    let other = wire::DiscoveryRequest { type_url: "type.googleapis.com/other".into(), ..Default::default() };
    let mut peer = sotw("CDS a=1");
    assert_eq!(peer.request(Request::Sotw(other)), Ok(None));
    assert_eq!(peer.drain(), NOTHING);
}

#[test]
fn a_route_waits_for_the_answer_to_a_new_cluster() {
    for refused in [false, true] {
        let mut peer = delta("CDS x=1, RDS r=x, RDS s=x");
        peer.change("CDS", &[]);
        peer.change("RDS", &["r"]);
        let _ = ["CDS", "RDS"].map(|service| peer.delta_ack(service));
        peer.edit("CDS x=2, RDS r=x2");
        assert_eq!(peer.drain(), ["CDS x=2", "RDS r=x2"], "a changed cluster holds nothing back");
        let _ = ["CDS", "RDS"].map(|service| peer.delta_ack(service));
        peer.edit("CDS y=1, RDS r=y");
        assert_eq!(peer.drain(), ["CDS y=1"]);
        assert_eq!(peer.change("RDS", &["s"]), ["RDS s=x"], "what is asked for does not wait");
        assert_eq!(peer.delta_ack("RDS"), NOTHING);
        let sent = if refused { peer.delta_nack("CDS", "no").1 } else { peer.delta_ack("CDS") };
        assert_eq!(sent, ["RDS r=y"]);

        let mut peer = sotw("CDS x=1, RDS r=x, RDS s=x");
        peer.ask("CDS", &[]);
        peer.ask("RDS", &["r"]);
        let _ = [("CDS", &[][..]), ("RDS", &["r"])].map(|(service, names)| peer.ack(service, names));
        peer.edit("CDS y=1, RDS r=y");
        assert_eq!(peer.drain(), ["CDS x=1 y=1"]);
        assert_eq!(peer.ask("RDS", &["r", "s"]), ["RDS s=x"]);
        assert_eq!(peer.ack("RDS", &["r", "s"]), NOTHING);
        let sent = if refused { peer.nack("CDS", &[], "no").1 } else { peer.ack("CDS", &[]) };
        assert_eq!(sent, ["RDS r=y"]);
    }
}

#[test]
fn a_version_that_is_said_stands_in_every_response_and_the_content_decides_what_is_sent() {
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        let mut peer = Peer::new(protocol, "CDS a=1, LDS l=1");
        peer.snapshot.say_version(Some("v7".into()));
        let ask = |peer: &mut Peer, service: &str| match protocol {
            Protocol::Sotw => peer.ask(service, &[]),
            Protocol::Delta => peer.change(service, &[]),
        };
        let ack = |peer: &mut Peer, service: &str| match protocol {
            Protocol::Sotw => peer.ack(service, &[]),
            Protocol::Delta => peer.delta_ack(service),
        };
        assert_eq!([ask(&mut peer, "CDS"), ask(&mut peer, "LDS")], [["CDS a=1"], ["LDS l=1"]]);
        assert!(peer.last.values().all(|last| last.version == "v7"), "{:?}", peer.last);
        assert_eq!([ack(&mut peer, "CDS"), ack(&mut peer, "LDS")], [NOTHING, NOTHING]);
        // Another word for the same content is another snapshot, but nothing to be sent.
        let mut renamed = peer.snapshot.clone();
        renamed.say_version(Some("v8".into()));
        assert!(!renamed.says_the_same(&peer.snapshot) && renamed != peer.snapshot);
        peer.snapshot = renamed;
        assert_eq!(peer.drain(), NOTHING);
        // Other content under the same word is sent, and refused by its name.
        peer.edit("CDS a=2");
        assert_eq!(peer.drain(), ["CDS a=2"]);
        assert_eq!(peer.last[&Kind::Cluster].version, "v8");
        ack(&mut peer, "CDS");
        peer.edit("CDS a=3");
        assert_eq!(peer.drain(), ["CDS a=3"]);
        let answer = match protocol {
            Protocol::Sotw => peer.nack("CDS", &[], "no").0,
            Protocol::Delta => peer.delta_nack("CDS", "no").0,
        };
        assert!(matches!(answer.expect("an answer").outcome, Outcome::Refused { .. }));
    }
}

#[test]
fn a_service_of_one_type_implies_it_and_serves_no_other() {
    for (protocol, kind) in [(Protocol::Sotw, Kind::Cluster), (Protocol::Delta, Kind::Cluster)] {
        let request = |type_url: &str| match protocol {
            Protocol::Sotw => Request::Sotw(wire::DiscoveryRequest { type_url: type_url.into(), ..Default::default() }),
            Protocol::Delta => {
                Request::Delta(wire::DeltaDiscoveryRequest { type_url: type_url.into(), ..Default::default() })
            }
        };
        for type_url in ["", kind.type_url()] {
            let mut peer = Peer::new(protocol, "CDS a=1, LDS l=1");
            peer.session = Session::new(protocol).of_type(kind);
            assert_eq!(peer.request(request(type_url)), Ok(None));
            assert_eq!(peer.drain(), ["CDS a=1"]);
            for other in [Kind::Listener.type_url(), "type.googleapis.com/other"] {
                assert_eq!(peer.request(request(other)), Err(Fault::OtherType));
            }
        }
    }
}

#[test]
fn scenario_12_an_empty_first_list_of_any_type() {
    for kind in Kind::ALL {
        let service = kind.service();
        let contents = format!("{service} a=1");
        let expected = if kind.is_full_state() { vec![contents.clone()] } else { vec![] };
        assert_eq!(sotw(&contents).ask(service, &[]), expected);
        assert_eq!(delta(&contents).change(service, &[]), expected);
    }
    // A client that comes back and watches no endpoints says so with an empty list and its last version.
    let mut peer = sotw("EDS a=1");
    peer.accepted.insert(Kind::Endpoints, "1".into());
    assert_eq!(peer.ask("EDS", &[]), NOTHING);
    assert_eq!(peer.ask("EDS", &["a"]), ["EDS a=1"]);
}

#[test]
fn scenario_35_what_a_stream_held_goes_with_it() {
    let group = std::sync::Arc::default();
    let mut first = delta("CDS a=1, EDS a=1, RTDS r@3=1");
    first.join(&group);
    let snapshot = first.snapshot.clone();
    let held = std::sync::Arc::downgrade(snapshot.of(Kind::Endpoints).get("a").expect("exists"));
    for _ in 0..100 {
        let mut peer = delta("");
        peer.snapshot = snapshot.clone();
        peer.join(&group);
        peer.change("CDS", &[]);
        peer.change("EDS", &["a"]);
        peer.change("RTDS", &["r"]);
        peer.delta_ack("EDS");
    }
    drop((first, snapshot));
    assert_eq!(held.strong_count(), 0, "a stream that was dropped leaves nothing behind");
}

#[test]
fn scenario_42_an_answer_to_what_superseded_a_version_settles_both() {
    let mut peer = delta("LDS l=1");
    peer.change("LDS", &[]);
    peer.edit("LDS l=2");
    let between = peer.snapshot.of(Kind::Listener).version();
    peer.edit("LDS l=3");
    assert_eq!(peer.delta_ack("LDS"), ["LDS l=3"]);
    assert_eq!(peer.delta_ack("LDS"), NOTHING);
    let accepted = peer.session.status()[&Kind::Listener].acked;
    assert!(accepted == Some(peer.snapshot.of(Kind::Listener).version()) && accepted != Some(between));
}
