//! What is special about a type: virtual hosts and their aliases, extensions that are never taken away, clusters on
//! demand, scopes, runtimes, and names that stand for a collection.

use translators::resource::{Kind, Version};

use super::peer::{NOTHING, Peer, delta, sotw};
use crate::stream::session::Protocol;

#[test]
fn a_virtual_host_is_asked_for_by_an_alias_and_answered_under_its_own_name() {
    let mut peer = delta("VHDS r/v1|r/a.com|r/b.com=1, VHDS r/v2|r/c.com=1");
    assert_eq!(peer.change("VHDS", &[]), NOTHING, "an empty first request is no wildcard");
    assert_eq!(peer.change("VHDS", &["r/a.com"]), ["VHDS r/v1=1"]);
    let received = &peer.last[&Kind::VirtualHost];
    assert_eq!(received.resources[0].0, "r/v1");
    peer.delta_ack("VHDS");
    // Another name of what it has is answered too, and two names of one bring it once.
    assert_eq!(peer.change("VHDS", &["r/b.com"]), ["VHDS r/v1=1"]);
    peer.delta_ack("VHDS");
    assert_eq!(peer.change("VHDS", &["r/a.com", "r/b.com", "r/v1"]), ["VHDS r/v1=1"]);
    peer.delta_ack("VHDS");
    peer.edit("VHDS r/v1|r/a.com|r/b.com=2, VHDS r/v2|r/c.com=2");
    assert_eq!(peer.drain(), ["VHDS r/v1=2"]);
    peer.delta_ack("VHDS");
    // By the last name that leads to it.
    assert_eq!(peer.change("VHDS", &["-r/a.com", "-r/v1"]), NOTHING);
    peer.edit("VHDS r/v1|r/a.com|r/b.com=3");
    assert_eq!(peer.drain(), ["VHDS r/v1=3"]);
    peer.delta_ack("VHDS");
    assert_eq!(peer.change("VHDS", &["-r/b.com"]), NOTHING);
    peer.edit("VHDS r/v1|r/a.com|r/b.com=4");
    assert_eq!(peer.drain(), NOTHING);
}

#[test]
fn what_is_asked_for_by_several_of_its_names_is_sent_once() {
    let mut peer = sotw("RDS r|a|b=1, RDS s=1");
    assert_eq!(peer.ask("RDS", &["a", "b", "r", "s"]), ["RDS r=1 s=1"]);
}

#[test]
fn an_alias_that_nothing_goes_by_is_answered_without_a_body_and_sent_when_something_does() {
    let mut peer = delta("RDS r=1");
    assert_eq!(peer.change("VHDS", &["r/a.com"]), ["VHDS ?r/a.com"]);
    peer.delta_ack("VHDS");
    peer.edit("VHDS r/v|r/a.com=1");
    assert_eq!(peer.drain(), ["VHDS r/v=1"]);
    peer.delta_ack("VHDS");
    peer.edit("VHDS -r/v");
    assert_eq!(peer.drain(), ["VHDS -r/v"], "what goes is removed by its own name");
    peer.delta_ack("VHDS");
    assert_eq!(peer.change("VHDS", &["r/a.com"]), ["VHDS ?r/a.com"]);
    peer.delta_ack("VHDS");
    // By its own name, it goes like any other resource.
    peer.edit("VHDS r/v|r/a.com=1");
    assert_eq!(peer.change("VHDS", &["-r/a.com", "r/v"]), ["VHDS r/v=1"]);
    peer.delta_ack("VHDS");
    peer.edit("VHDS -r/v");
    assert_eq!(peer.drain(), ["VHDS -r/v"]);
}

#[test]
fn a_virtual_host_that_does_not_go_by_the_alias_any_more_is_removed() {
    let mut peer = delta("VHDS r/v|r/a.com=1");
    assert_eq!(peer.change("VHDS", &["r/a.com"]), ["VHDS r/v=1"]);
    peer.delta_ack("VHDS");
    peer.edit("VHDS r/v|r/b.com=1, VHDS r/w|r/a.com=1");
    assert_eq!(peer.drain(), ["VHDS r/w=1 -r/v"]);
}

#[test]
fn the_removal_of_a_virtual_host_that_was_refused_with_another_is_still_a_removal() {
    let mut peer = delta("VHDS a=1, VHDS b=1");
    assert_eq!(peer.change("VHDS", &["a", "b"]), ["VHDS a=1 b=1"]);
    peer.delta_ack("VHDS");
    peer.edit("VHDS a=2, VHDS -b");
    assert_eq!(peer.drain(), ["VHDS a=2 -b"]);
    assert_eq!(peer.delta_nack("VHDS", "a: no").1, ["VHDS a=1 -b"]);
}

#[test]
fn scenario_25_a_client_comes_back_with_names_of_virtual_hosts_and_asks_for_aliases() {
    let mut peer = delta("VHDS r/v1|r/a.com=1, VHDS r/v2|r/b.com=1");
    let held = [("r/v1", peer.version("VHDS", "r/v1")), ("r/gone", "1".to_owned()), ("r/v2", "1".to_owned())];
    let (_, sent) = peer.delta("VHDS", &["r/a.com", "r/old.com"], &held, String::new(), None);
    assert_eq!(sent, ["VHDS r/v1=1 -r/gone -r/v2 ?r/old.com"], "it holds these by no name that it asks for");
    // Nor is one that it asks for by its own name only told to be absent.
    peer.reconnect();
    let (_, sent) = peer.delta("VHDS", &["r/gone"], &held[1..2], String::new(), None);
    assert_eq!(sent, ["VHDS -r/gone"]);
}

#[test]
fn scenario_23_an_extension_that_was_sent_is_never_removed() {
    let mut peer = delta("ECDS a=1");
    assert_eq!(peer.change("ECDS", &["a", "x"]), ["ECDS a=1 -x"], "of what was not there it is said at once");
    peer.delta_ack("ECDS");
    peer.edit("ECDS -a");
    assert_eq!(peer.drain(), NOTHING);
    assert_eq!(peer.change("ECDS", &["a"]), NOTHING);
    peer.edit("ECDS a=2");
    assert_eq!(peer.drain(), ["ECDS a=2"]);
    peer.delta_ack("ECDS");

    // Nor is one that a client brings.
    let held = [("a", peer.version("ECDS", "a")), ("b", "1".to_owned())];
    peer.reconnect();
    let (_, sent) = peer.delta("ECDS", &["a", "b", "c"], &held, String::new(), None);
    assert_eq!(sent, ["ECDS a=2 -c"]);
    peer.delta_ack("ECDS");
    peer.edit("ECDS b=1, ECDS c=1");
    assert_eq!(peer.drain(), ["ECDS b=1 c=1"]);
    for resource in &peer.last[&Kind::ExtensionConfig].resources {
        assert!(!resource.0.is_empty() && !resource.2.is_empty(), "name and version are set: {resource:?}");
    }
}

#[test]
fn scenario_18_clusters_on_demand_beside_a_wildcard() {
    let mut peer = delta("CDS a=1");
    assert_eq!(peer.change("CDS", &[]), ["CDS a=1"]);
    peer.delta_ack("CDS");
    assert_eq!(peer.change("CDS", &["nope"]), ["CDS -nope"]);
    peer.delta_ack("CDS");
    assert_eq!(peer.change("CDS", &["a"]), ["CDS a=1"]);
    peer.delta_ack("CDS");
    peer.edit("CDS nope=1");
    assert_eq!(peer.drain(), ["CDS nope=1"]);
    peer.delta_ack("CDS");
    // It comes back with both.
    let held = ["a", "nope"].map(|name| (name, peer.version("CDS", name)));
    peer.reconnect();
    let (_, sent) = peer.delta("CDS", &["*", "nope", "none"], &held, String::new(), None);
    assert_eq!(sent, ["CDS nope=1 -none"]);
}

#[test]
fn scopes_are_a_whole_and_runtimes_are_asked_for() {
    let mut peer = sotw("SRDS a=1, SRDS b=1, RTDS r=1, RTDS s=1");
    assert_eq!(peer.ask("SRDS", &[]), ["SRDS a=1 b=1"]);
    assert_eq!(peer.ack("SRDS", &[]), NOTHING);
    peer.edit("SRDS a=2");
    assert_eq!(peer.drain(), ["SRDS a=2 b=1"]);
    assert_eq!(peer.ack("SRDS", &[]), NOTHING);
    peer.edit("SRDS -b");
    assert_eq!(peer.drain(), ["SRDS a=2"]);
    assert_eq!(peer.ask("RTDS", &[]), NOTHING);
    assert_eq!(peer.ask("RTDS", &["r"]), ["RTDS r=1"]);
    peer.ack("RTDS", &["r"]);
    peer.edit("RTDS r=2, RTDS s=2");
    assert_eq!(peer.drain(), ["RTDS r=2"]);

    let mut peer = delta("SRDS a=1, SRDS b=1, RTDS r=1");
    assert_eq!(peer.change("SRDS", &[]), ["SRDS a=1 b=1"]);
    assert_eq!(peer.change("RTDS", &["r", "s"]), ["RTDS r=1 -s"]);
    let _ = ["SRDS", "RTDS"].map(|service| peer.delta_ack(service));
    peer.edit("SRDS -b, RTDS s=1");
    assert_eq!(peer.drain(), ["RTDS s=1", "SRDS -b"]);
}

#[test]
fn state_of_the_world_serves_no_type_that_is_incremental_only() {
    let mut peer = sotw("VHDS r/v|r/a=1, LEDS e=1");
    assert_eq!(peer.ask("VHDS", &["r/a"]), NOTHING);
    assert_eq!(peer.ask("LEDS", &["e"]), NOTHING);
    assert_eq!(delta("LEDS e=1").change("LEDS", &["e"]), ["LEDS e=1"]);
}

#[test]
fn the_order_of_context_parameters_does_not_matter() {
    let edit = |peer: &mut Peer| {
        peer.snapshot.of_mut(Kind::Endpoints).put(super::peer::resource(
            Kind::Endpoints,
            "xdstp://a/T/x?b=1&a=2",
            "xdstp://a/T/x?a=2&b=1=1",
        ))
    };
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        for name in ["xdstp://a/T/x?a=2&b=1", "xdstp://a/T/x?b=1&a=2"] {
            let mut peer = Peer::new(protocol, "");
            edit(&mut peer);
            let sent = match protocol {
                Protocol::Sotw => peer.ask("EDS", &[name]),
                Protocol::Delta => peer.change("EDS", &[name]),
            };
            assert_eq!(sent, ["EDS xdstp://a/T/x?a=2&b=1=1"]);
        }
    }
    let mut peer = delta("");
    edit(&mut peer);
    assert_eq!(peer.change("EDS", &["xdstp://a/T/x"]), ["EDS -xdstp://a/T/x"]);
    peer.delta_ack("EDS");
    assert_eq!(peer.change("EDS", &["xdstp://a/T/x?b=1"]), ["EDS -xdstp://a/T/x?b=1"]);
}

#[test]
fn a_glob_brings_all_that_is_below_it() {
    let under = |name: &str| format!("xdstp://a/L/{name}");
    let glob = under("x/*");
    let mut peer = delta("");
    assert_eq!(peer.change("LEDS", &[&glob]), [format!("LEDS -{glob}")]);
    peer.delta_ack("LEDS");
    let put = |peer: &mut Peer, name: &str, content: &str| {
        peer.edit(&format!("LEDS {}={content}", under(name)));
    };
    put(&mut peer, "x/1", "1");
    put(&mut peer, "x/deep/2", "1");
    put(&mut peer, "y/1", "1");
    assert_eq!(peer.drain(), ["LEDS xdstp://a/L/x/1=1 xdstp://a/L/x/deep/2=1"]);
    peer.delta_ack("LEDS");
    put(&mut peer, "x/1", "2");
    assert_eq!(peer.drain(), ["LEDS xdstp://a/L/x/1=2"]);
    peer.delta_ack("LEDS");
    // Several at once; one that is under both is sent once.
    assert_eq!(
        peer.change("LEDS", &[&under("y/*"), &under("x/deep/*")]),
        ["LEDS xdstp://a/L/x/deep/2=1 xdstp://a/L/y/1=1"]
    );
    peer.delta_ack("LEDS");
    peer.edit("LEDS -xdstp://a/L/x/1");
    assert_eq!(peer.drain(), ["LEDS -xdstp://a/L/x/1"]);
    peer.delta_ack("LEDS");
    // What another glob still brings stays.
    assert_eq!(peer.change("LEDS", &[&format!("-{glob}")]), NOTHING);
    put(&mut peer, "x/3", "1");
    put(&mut peer, "x/deep/2", "2");
    assert_eq!(peer.drain(), ["LEDS xdstp://a/L/x/deep/2=2"]);
    peer.delta_ack("LEDS");

    let held = [("xdstp://a/L/y/1", Version::of(b"old").to_string()), ("xdstp://a/L/y/gone", "1".to_owned())];
    peer.reconnect();
    let (_, sent) = peer.delta("LEDS", &[&under("y/*")], &held, String::new(), None);
    assert_eq!(sent, ["LEDS xdstp://a/L/y/1=1 -xdstp://a/L/y/gone"]);
}

#[test]
fn scenario_32_what_leads_to_a_new_cluster_waits_for_it_whatever_its_type() {
    for (service, first) in [("SRDS", &[][..]), ("VHDS", &["v"]), ("ECDS", &["v"])] {
        let mut peer = delta(&format!("CDS x=1, {service} v=1"));
        peer.change("CDS", &[]);
        assert_eq!(peer.change(service, first), [format!("{service} v=1")]);
        let _ = ["CDS", service].map(|service| peer.delta_ack(service));
        peer.edit(&format!("CDS y=1, {service} v=2"));
        assert_eq!(peer.drain(), ["CDS y=1"]);
        assert_eq!(peer.delta_ack("CDS"), [format!("{service} v=2")]);
        peer.delta_ack(service);
        // And a cluster goes when what led to it was replaced.
        peer.edit(&format!("CDS -x, {service} v=3"));
        assert_eq!(peer.drain(), [format!("{service} v=3")]);
        assert_eq!(peer.delta_ack(service), ["CDS -x"]);
    }
}

#[test]
fn scenario_34_every_type_on_one_stream_beside_types_that_are_not_served() {
    for protocol in [Protocol::Sotw, Protocol::Delta] {
        let mut peer = Peer::new(protocol, "");
        let kinds = Kind::ALL.into_iter().filter(|kind| protocol == Protocol::Delta || !kind.is_incremental());
        let kinds: Vec<Kind> = kinds.collect();
        for round in 0..40 {
            for kind in &kinds {
                peer.edit(&format!("{kind} n={round}"));
                let other = format!("type.googleapis.com/other.{round}.{kind}");
                let request = match protocol {
                    Protocol::Sotw => super::peer::Request::Sotw(proto::wire::DiscoveryRequest {
                        type_url: other,
                        ..Default::default()
                    }),
                    Protocol::Delta => super::peer::Request::Delta(proto::wire::DeltaDiscoveryRequest {
                        type_url: other,
                        ..Default::default()
                    }),
                };
                assert_eq!(peer.request(request), Ok(None));
                let service = kind.service();
                match (protocol, peer.last.contains_key(kind)) {
                    (Protocol::Sotw, false) => peer.ask(service, &["n"]),
                    (Protocol::Sotw, true) => peer.ack(service, &["n"]),
                    (Protocol::Delta, false) => peer.change(service, &["n"]),
                    (Protocol::Delta, true) => peer.delta_ack(service),
                };
            }
        }
        for _ in 0..3 {
            for kind in &kinds {
                match protocol {
                    Protocol::Sotw => peer.ack(kind.service(), &["n"]),
                    Protocol::Delta => peer.delta_ack(kind.service()),
                };
            }
        }
        for kind in &kinds {
            assert_eq!(peer.last[kind].resources[0].1, "n=39", "{kind}");
        }
        let accepted = |kind: Kind| peer.session.status()[&kind].acked;
        assert!(kinds.iter().all(|kind| accepted(*kind) == Some(peer.snapshot.of(*kind).version())));
    }
}
