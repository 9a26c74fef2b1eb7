//! The arithmetic of totals: restarts, reconnects, bounds, and the two laws.

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn series(version: &str, mtls: bool, code: u16) -> Series {
    Series {
        edge: EdgeKey {
            caller: mtls.then(|| "spiffe://cluster.local/ns/front/sa/web".parse().expect("valid")),
            service: "shop/cart".parse().expect("valid"),
            version: version.into(),
            port: "http".into(),
            protocol: Protocol::Http,
        },
        mtls,
        code,
        flags: NONE.into(),
        policy: None,
        labels: Arc::default(),
    }
}

fn sample(version: &str, value: u64) -> Sample {
    Sample { series: series(version, true, 200), value }
}

fn total(edges: &Edges) -> u64 {
    edges.edges().iter().map(|edge| edge.totals.requests()).sum()
}

#[test]
fn counters_of_one_edge_add_up_by_outcome_and_transport() {
    let mut edges = Edges::new(Limits::default());
    let stream = edges.open("cart-a", at(0));
    let samples = [(true, 200, 10), (true, 404, 2), (true, 503, 3), (true, 0, 1), (false, 200, 4), (false, 500, 5)];
    for now in [1, 2] {
        let samples = samples.map(|(mtls, code, value)| Sample { series: series("v1", mtls, code), value });
        edges.record(&stream, Some(now), samples.to_vec(), at(now)).expect("the only stream");
    }
    let plain = series("v1", false, 200).edge;
    let over_mtls = series("v1", true, 200).edge;
    let none = Totals::new(at(1));
    assert_eq!(
        edges.edges(),
        [
            Edge { key: plain, totals: Totals { plain_successes: 4, plain_failures: 5, ..none } },
            Edge { key: over_mtls, totals: Totals { mtls_successes: 12, mtls_failures: 4, ..none } },
        ]
    );
}

#[test]
fn labels_tell_the_requests_of_one_edge_apart() {
    let mut edges = Edges::new(Limits { edges: 2, ..Limits::default() });
    let stream = edges.open("cart-a", at(0));
    let labels = |tenant: &str| Arc::new(Labels::from([("tenant".into(), tenant.into())]));
    let of =
        |tenant: &str, value| Sample { series: Series { labels: labels(tenant), ..series("v1", true, 200) }, value };
    for now in [1, 2] {
        let samples = vec![sample("v1", 1), of("a", 10 * now), of("b", 5), of("c", 7)];
        edges.record(&stream, Some(now), samples, at(now)).expect("the only stream");
    }
    let edge = series("v1", true, 200).edge;
    let labelled = |tenant, requests| Labelled { edge: edge.clone(), labels: labels(tenant), requests };
    assert_eq!(edges.labelled(), [labelled("a", 20), labelled("b", 5)]);
    assert_eq!((total(&edges), edges.losses().overflowed), (26, 2));
}

#[test]
fn what_an_audit_would_refuse_is_counted_apart_and_said_once() {
    let mut edges = Edges::new(Limits { edges: 1, ..Limits::default() });
    let stream = edges.open("cart-a", at(0));
    let audited = |policy: &str| Series { policy: Some(policy.into()), ..series("v1", true, 0) };
    let key = AuditKey { edge: series("v1", true, 0).edge, policy: "a".into() };
    for (value, grown) in [(3, 3), (3, 0), (5, 2)] {
        let samples = vec![sample("v1", 9), Sample { series: audited("a"), value }];
        let news = edges.record(&stream, Some(1), samples, at(value)).expect("the only stream");
        let one = Audited { key: key.clone(), requests: grown, last_seen: at(value) };
        assert_eq!(news, if grown == 0 { vec![] } else { vec![one] });
    }
    let beyond = vec![Sample { series: audited("b"), value: 1 }];
    assert_eq!(edges.record(&stream, Some(1), beyond, at(9)), Ok(vec![]));
    assert_eq!(edges.audited(), [Audited { key, requests: 5, last_seen: at(5) }]);
    assert_eq!((total(&edges), edges.losses().overflowed), (9, 1));
}

#[test]
fn a_tcp_connection_is_a_success_unless_it_has_a_flag() {
    let mut tcp = series("v1", true, 0);
    tcp.edge.protocol = Protocol::Tcp;
    assert!(tcp.is_success());
    tcp.flags = "UF,URX".into();
    assert!(!tcp.is_success());
}

#[test]
fn a_counter_that_falls_has_started_anew() {
    let mut edges = Edges::new(Limits::default());
    let stream = edges.open("cart-a", at(0));
    for (value, expected) in [(10, 10), (12, 12), (3, 15), (4, 16)] {
        edges.record(&stream, None, vec![sample("v1", value)], at(1)).expect("the only stream");
        assert_eq!(total(&edges), expected);
    }
}

#[test]
fn an_uptime_that_falls_shows_a_restart_that_the_counter_hides() {
    let mut edges = Edges::new(Limits::default());
    let stream = edges.open("cart-a", at(0));
    edges.record(&stream, Some(100), vec![sample("v1", 10)], at(1)).expect("the only stream");
    edges.record(&stream, Some(2), vec![sample("v1", 11)], at(2)).expect("the only stream");
    assert_eq!(total(&edges), 21);
}

#[test]
fn a_stream_that_reconnects_counts_nothing_twice() {
    let mut edges = Edges::new(Limits::default());
    let first = edges.open("cart-a", at(0));
    edges.record(&first, None, vec![sample("v1", 10)], at(1)).expect("current");
    let second = edges.open("cart-a", at(2));
    edges.record(&second, None, vec![sample("v1", 14)], at(3)).expect("current");
    // What the first stream still says is older, and would look like a restart.
    assert_eq!(edges.record(&first, None, vec![sample("v1", 12)], at(4)), Err(Superseded));
    edges.close(&first, at(4));
    edges.record(&second, None, vec![sample("v1", 15)], at(5)).expect("the end of the first changes nothing");
    assert_eq!(total(&edges), 15);
}

#[test]
fn what_does_not_fit_is_counted_as_lost() {
    let mut edges = Edges::new(Limits { series_per_node: 2, series: 3, edges: 10 });
    let a = edges.open("a", at(0));
    edges.record(&a, None, vec![sample("v1", 1), sample("v2", 1), sample("v3", 1)], at(1)).expect("current");
    let b = edges.open("b", at(0));
    edges.record(&b, None, vec![sample("v1", 1), sample("v2", 1)], at(1)).expect("current");
    edges.record(&b, None, vec![sample("v1", 5)], at(2)).expect("what is known still fits");
    assert_eq!((total(&edges), edges.losses()), (7, Losses { refused: 0, overflowed: 2 }));

    let mut edges = Edges::new(Limits { edges: 1, ..Limits::default() });
    let a = edges.open("a", at(0));
    edges.record(&a, None, vec![sample("v1", 1), sample("v2", 1)], at(1)).expect("current");
    assert_eq!((total(&edges), edges.losses()), (1, Losses { refused: 0, overflowed: 1 }));
}

#[test]
fn room_is_made_of_nodes_that_are_long_gone() {
    let mut edges = Edges::new(Limits { series_per_node: 2, series: 2, edges: 10 });
    let gone = edges.open("gone", at(0));
    edges.record(&gone, None, vec![sample("v1", 1), sample("v2", 1)], at(1)).expect("current");
    edges.close(&gone, at(1));
    let soon = edges.open("new", at(3600));
    edges.record(&soon, None, vec![sample("v1", 1)], at(3600)).expect("current");
    assert_eq!((total(&edges), edges.losses().overflowed), (2, 1));
    let later = edges.open("new", at(3602));
    edges.record(&later, None, vec![sample("v1", 1)], at(3602)).expect("current");
    assert_eq!((total(&edges), edges.losses().overflowed), (3, 1));
}

/// What happens to a proxy.
#[derive(Debug, Clone)]
enum Event {
    Count { version: usize, requests: u64 },
    Report,
    Reconnect,
    Restart,
}

fn event() -> impl Strategy<Value = (usize, Event)> {
    let event = prop_oneof![
        4 => (0..3usize, 0..50u64).prop_map(|(version, requests)| Event::Count { version, requests }),
        4 => Just(Event::Report),
        1 => Just(Event::Reconnect),
        1 => Just(Event::Restart),
    ];
    (0..3usize, event)
}

proptest! {
    /// Totals never fall, and equal the sum of all increments that were reported.
    #[test]
    fn totals_rise_by_exactly_what_was_reported(events in prop::collection::vec(event(), 0..200)) {
        let mut edges = Edges::new(Limits::default());
        let nodes = ["a", "b", "c"];
        let versions = ["v1", "v2", "v3"];
        let mut streams = nodes.map(|node| edges.open(node, at(0)));
        let mut counters = [[0u64; 3]; 3];
        let mut reported = [[0u64; 3]; 3];
        let mut uptimes = [0u64; 3];
        let (mut expected, mut before) = (0, 0);
        for (now, (node, event)) in events.into_iter().enumerate() {
            let now = at(now as u64);
            uptimes[node] += 1;
            match event {
                Event::Count { version, requests } => counters[node][version] += requests,
                Event::Report => {
                    let samples = (0..3).map(|v| sample(versions[v], counters[node][v])).collect();
                    edges.record(&streams[node], Some(uptimes[node]), samples, now).expect("current");
                    expected += (0..3).map(|v| counters[node][v] - reported[node][v]).sum::<u64>();
                    reported[node] = counters[node];
                }
                Event::Reconnect => {
                    edges.close(&streams[node], now);
                    streams[node] = edges.open(nodes[node], now);
                }
                // Envoy reports once as it starts, before it has served anything.
                Event::Restart => {
                    (counters[node], reported[node], uptimes[node]) = ([0; 3], [0; 3], 0);
                    edges.record(&streams[node], Some(0), Vec::new(), now).expect("current");
                }
            }
            let total = total(&edges);
            prop_assert!(total >= before, "{total} after {before}");
            prop_assert_eq!(total, expected);
            before = total;
        }
    }
}
