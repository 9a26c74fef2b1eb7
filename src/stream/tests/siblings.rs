//! Streams of one type each, of one proxy: what waits for what is the same as on one stream of all types.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use translators::resource::Kind;

use super::peer::{NOTHING, Peer, kind};
use crate::stream::Protocol::{self, Delta, Sotw};
use crate::stream::board::Board;
use crate::stream::session::{DRAIN, GRACE};

const SERVICES: [&str; 4] = ["CDS", "EDS", "LDS", "RDS"];
const FIRST: &str = "CDS x=1, EDS x=1, LDS l=1, RDS r=x";
const MOVED: &str = "CDS y=1, EDS y=1, RDS r=y, CDS -x, EDS -x";

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// One stream, by which protocol.
struct Stream {
    service: &'static str,
    protocol: Protocol,
    peer: Peer,
}

impl Stream {
    fn new(board: &Arc<Board>, service: &'static str, protocol: Protocol, contents: &str) -> Self {
        let mut peer = Peer::new(protocol, contents);
        peer.now = *START;
        peer.sit(board, kind(service));
        Self { service, protocol, peer }
    }

    fn ask(&mut self, names: &[&str]) -> Vec<String> {
        match self.protocol {
            Sotw => self.peer.ask(self.service, names),
            Delta => self.peer.change(self.service, names),
        }
    }

    /// Accepts the last response; the names are those of its subscription.
    fn ack(&mut self, names: &[&str]) -> Vec<String> {
        match self.protocol {
            Sotw => self.peer.ack(self.service, names),
            Delta => self.peer.delta_ack(self.service),
        }
    }
}

fn names(service: &str) -> &'static [&'static str] {
    match service {
        "EDS" => &["x", "y"],
        "RDS" => &["r"],
        _ => &[],
    }
}

/// CDS, EDS, LDS and RDS, which have accepted the first contents.
fn streams(board: &Arc<Board>, protocols: [Protocol; 4]) -> [Stream; 4] {
    streams_of(board, protocols, FIRST)
}

fn streams_of(board: &Arc<Board>, protocols: [Protocol; 4], contents: &str) -> [Stream; 4] {
    let mut at = 0;
    SERVICES.map(|service| {
        let mut stream = Stream::new(board, service, protocols[at], contents);
        at += 1;
        assert_eq!(stream.ask(names(service)).len(), 1);
        assert_eq!(stream.ack(names(service)), NOTHING);
        stream
    })
}

fn combinations() -> impl Iterator<Item = [Protocol; 4]> {
    (0..16).map(|bits| [0, 1, 2, 3].map(|bit| if bits >> bit & 1 == 0 { Sotw } else { Delta }))
}

#[test]
fn scenario_32_a_route_waits_for_its_cluster_and_that_for_the_route_on_streams_of_their_own() {
    for protocols in combinations() {
        let board = Arc::default();
        let [mut clusters, mut endpoints, mut listeners, mut routes] = streams(&board, protocols);
        // Whoever sees the change first waits for who has not seen it yet.
        for stream in [&mut routes, &mut endpoints, &mut listeners, &mut clusters] {
            stream.peer.edit(MOVED);
        }
        assert_eq!(routes.peer.drain(), NOTHING);
        assert_eq!(routes.peer.session.wake_at(), Some(routes.peer.now + GRACE));
        assert_eq!(endpoints.peer.drain(), ["EDS y=1"]);
        assert_eq!(listeners.peer.drain(), NOTHING);
        assert_eq!(clusters.peer.drain(), if protocols[0] == Sotw { ["CDS y=1 x=1"] } else { ["CDS y=1"] });
        assert_eq!((routes.peer.wakes(), endpoints.peer.wakes(), listeners.peer.wakes()), (1, 1, 0));
        assert_eq!((routes.peer.drain(), endpoints.peer.drain()), (vec![], vec![]), "the cluster warms");
        assert_eq!(clusters.ack(&[]), NOTHING, "the route still leads to what is gone");
        assert_eq!((routes.peer.wakes(), endpoints.peer.wakes(), clusters.peer.wakes()), (1, 1, 0));
        assert_eq!((routes.peer.drain(), endpoints.peer.drain()), (vec![], vec![]), "it is accepted and not warm");
        assert_eq!(endpoints.ack(names("EDS")), NOTHING);
        assert_eq!((routes.peer.wakes(), clusters.peer.wakes()), (1, 0));
        assert_eq!(routes.peer.drain(), ["RDS r=y"]);
        assert_eq!(clusters.peer.wakes(), 1);
        assert_eq!(clusters.peer.drain(), NOTHING, "the route is not accepted");
        assert_eq!(routes.ack(&["r"]), NOTHING);
        assert_eq!(routes.peer.session.wake_at(), None);
        assert_eq!(clusters.peer.wakes(), 1);
        assert_eq!(clusters.peer.drain(), if protocols[0] == Sotw { ["CDS y=1"] } else { ["CDS -x"] });
        assert_eq!(endpoints.peer.drain(), NOTHING, "the removal is not accepted");
        endpoints.peer.wakes();
        assert_eq!(clusters.ack(&[]), NOTHING);
        assert_eq!(clusters.peer.session.wake_at(), None);
        assert_eq!(endpoints.peer.wakes(), 1);
        assert_eq!(endpoints.peer.drain(), if protocols[1] == Sotw { ["EDS (x)"] } else { ["EDS -x"] });
        assert_eq!((routes.peer.wakes(), listeners.peer.wakes()), (0, 0), "who does not wait is not woken");
    }
}

#[test]
fn a_change_that_leads_to_nothing_new_does_not_wait() {
    for protocols in combinations() {
        let board = Arc::default();
        let [mut clusters, _endpoints, mut listeners, mut routes] = streams(&board, protocols);
        for stream in [&mut clusters, &mut listeners, &mut routes] {
            stream.peer.edit("CDS x=2, LDS l=2, RDS r=2");
        }
        assert_eq!(routes.peer.drain(), ["RDS r=2"]);
        assert_eq!(clusters.peer.drain(), ["CDS x=2"]);
        assert_eq!(listeners.peer.drain(), ["LDS l=2"], "a changed cluster holds nothing back");
    }
}

#[test]
fn nothing_waits_for_a_type_that_nobody_asks_for() {
    for protocol in [Sotw, Delta] {
        let board = Arc::default();
        let mut routes = Stream::new(&board, "RDS", protocol, FIRST);
        assert_eq!(routes.ask(&["r"]), ["RDS r=x"]);
        assert_eq!(routes.ack(&["r"]), NOTHING);
        routes.peer.edit(MOVED);
        assert_eq!(routes.peer.drain(), ["RDS r=y"]);
        assert_eq!(routes.peer.session.wake_at(), None);
        // What refers to a cluster is not known without a stream for it: it stays for the grace.
        let mut clusters = Stream::new(&Arc::default(), "CDS", protocol, "CDS x=1");
        assert_eq!(clusters.ask(&[]), ["CDS x=1"]);
        assert_eq!(clusters.ack(&[]), NOTHING);
        clusters.peer.edit("CDS y=1, CDS -x");
        assert_eq!(clusters.peer.drain(), if protocol == Sotw { ["CDS y=1 x=1"] } else { ["CDS y=1"] });
        assert_eq!(clusters.ack(&[]), NOTHING);
        clusters.peer.pass(GRACE);
        assert_eq!(clusters.peer.drain(), if protocol == Sotw { ["CDS y=1"] } else { ["CDS -x"] });
    }
}

#[test]
fn what_is_not_accepted_is_waited_for_until_the_grace() {
    for protocols in combinations() {
        let board = Arc::default();
        let [mut clusters, _endpoints, mut listeners, mut routes] = streams(&board, protocols);
        for stream in [&mut clusters, &mut listeners, &mut routes] {
            stream.peer.edit(MOVED);
        }
        clusters.peer.drain();
        routes.peer.pass(Duration::from_secs(1));
        assert_eq!(routes.peer.drain(), NOTHING);
        let until = clusters.peer.now + GRACE;
        assert_eq!(routes.peer.session.wake_at(), Some(until), "since the cluster was sent");
        routes.peer.now = until;
        assert_eq!(routes.peer.drain(), ["RDS r=y"]);
        routes.ack(&["r"]);
        routes.peer.edit("RDS r=z");
        assert_eq!(routes.peer.drain(), ["RDS r=z"], "who does not answer is waited for once");
        // Nor does a route that is never accepted keep a cluster.
        clusters.ack(&[]);
        assert_eq!(clusters.peer.session.wake_at(), Some(until));
        clusters.peer.now = until;
        assert_eq!(clusters.peer.drain(), NOTHING, "what waited as long is only now on its way");
        assert_eq!(clusters.peer.session.wake_at(), Some(until + GRACE));
        clusters.peer.now = until + GRACE;
        assert_eq!(clusters.peer.drain().len(), 1);
    }
}

#[test]
fn every_proxy_that_goes_by_the_id_is_waited_for_and_who_leaves_is_not() {
    for protocol in [Sotw, Delta] {
        let board = Arc::default();
        let [mut clusters, _endpoints, _listeners, mut routes] = streams(&board, [protocol; 4]);
        let [mut others, ..] = streams(&board, [protocol; 4]);
        for stream in [&mut clusters, &mut others, &mut routes] {
            stream.peer.edit("CDS y=1, RDS r=y");
            stream.peer.drain();
        }
        clusters.ack(&[]);
        assert_eq!(routes.peer.drain(), NOTHING);
        assert_eq!(routes.peer.session.wake_at(), Some(others.peer.now + GRACE));
        routes.peer.wakes();
        others.peer.leave();
        assert_eq!(routes.peer.wakes(), 1);
        assert_eq!(routes.peer.drain(), ["RDS r=y"]);
        // A stream that comes anew is answered at once.
        routes.peer.edit("CDS z=1, RDS r=z");
        assert_eq!(routes.ack(&["r"]), NOTHING);
        let mut again = Stream::new(&board, "RDS", protocol, "");
        again.peer.snapshot = routes.peer.snapshot.clone();
        assert_eq!(again.ask(&["r"]), ["RDS r=z"]);
    }
}

#[test]
fn a_listener_that_drains_keeps_what_its_route_leads_to() {
    for protocols in combinations() {
        let board = Arc::default();
        let [mut clusters, mut endpoints, mut listeners, mut routes] = streams(&board, protocols);
        // The route goes by another name, which is asked for on a stream of its own.
        for stream in [&mut clusters, &mut endpoints, &mut listeners, &mut routes] {
            stream.peer.edit("LDS l=2, RDS s=y, RDS -r");
            stream.peer.edit("CDS y=1, EDS y=1, CDS -x, EDS -x");
        }
        clusters.peer.drain();
        clusters.ack(&[]);
        endpoints.peer.drain();
        endpoints.ack(names("EDS"));
        assert_eq!(listeners.peer.drain(), ["LDS l=2"]);
        listeners.ack(&[]);
        routes.peer.drain();
        if protocols[3] == Delta {
            routes.ack(&["r"]);
        }
        clusters.peer.pass(GRACE * 2);
        assert_eq!(clusters.peer.drain(), NOTHING);
        assert_eq!(clusters.peer.session.wake_at(), Some(*START + GRACE + DRAIN), "not for ever");
        clusters.peer.wakes();
        routes.peer.leave();
        assert_eq!(clusters.peer.wakes(), 1);
        assert_eq!(clusters.peer.drain(), if protocols[0] == Sotw { ["CDS y=1"] } else { ["CDS -x"] });
    }
}

/// What `z` is to say to be read as a message in which nothing is set that is looked at: a cluster that looks for no
/// endpoints, a load assignment without any.
fn nothing() -> String {
    let (_, length) = (b'z', b'=');
    "-".repeat(length.into())
}

#[test]
fn a_listener_that_drains_keeps_what_it_leads_to_by_itself() {
    for protocols in combinations() {
        let (board, z) = (Arc::default(), nothing());
        let contents = format!("CDS x=1, EDS x=1, CDS z={z}, LDS l=\n\u{1}x, RDS r=z");
        let [mut clusters, mut endpoints, mut listeners, mut routes] = streams_of(&board, protocols, &contents);
        for stream in [&mut clusters, &mut endpoints, &mut listeners, &mut routes] {
            stream.peer.edit("LDS l=\n\u{1}y, RDS r=y, CDS y=1, EDS y=1, CDS -x, EDS -x, CDS -z");
        }
        clusters.peer.drain();
        clusters.ack(&[]);
        endpoints.peer.drain();
        endpoints.ack(names("EDS"));
        assert_eq!(listeners.peer.drain(), ["LDS l=\n\u{1}y"]);
        listeners.ack(&[]);
        routes.peer.drain();
        routes.ack(&["r"]);
        // What nothing leads to goes.
        assert_eq!(clusters.peer.drain(), if protocols[0] == Sotw { ["CDS y=1 x=1"] } else { ["CDS -z"] });
        clusters.ack(&[]);
        clusters.peer.pass(GRACE * 2);
        endpoints.peer.pass(GRACE * 2);
        assert_eq!((clusters.peer.drain(), endpoints.peer.drain()), (vec![], vec![]));
        assert_eq!(clusters.peer.session.wake_at(), Some(*START + GRACE + DRAIN), "not for ever");
        clusters.peer.pass(DRAIN);
        assert_eq!(clusters.peer.drain(), if protocols[0] == Sotw { ["CDS y=1"] } else { ["CDS -x"] });
    }
}

#[test]
fn what_leads_to_a_new_cluster_waits_for_its_first_endpoint() {
    for protocols in combinations() {
        let (board, none) = (Arc::default(), nothing());
        let [mut clusters, mut endpoints, mut listeners, mut routes] = streams(&board, protocols);
        for stream in [&mut clusters, &mut endpoints, &mut listeners, &mut routes] {
            stream.peer.edit(&format!("CDS z=1, EDS z={none}, RDS r=z, LDS l=2"));
        }
        clusters.peer.drain();
        clusters.ack(&[]);
        let asked = ["x", "y", "z"];
        assert_eq!(endpoints.ask(if protocols[1] == Sotw { &asked } else { &["z"] }), [format!("EDS z={none}")]);
        endpoints.ack(&asked);
        assert_eq!((listeners.peer.drain(), routes.peer.drain()), (vec![], vec![]));
        assert_eq!(routes.peer.session.wake_at(), Some(*START + GRACE), "not for ever");
        // Who comes has nothing to go on with meanwhile.
        let mut new = Stream::new(&board, "LDS", protocols[2], "");
        new.peer.snapshot = listeners.peer.snapshot.clone();
        assert_eq!(new.ask(&[]), ["LDS l=2"]);
        // The first endpoint has come.
        listeners.peer.edit("EDS z=1");
        assert_eq!(listeners.peer.drain(), ["LDS l=2"]);
        routes.peer.pass(GRACE);
        assert_eq!(routes.peer.drain(), ["RDS r=z"]);
    }
}

/// What happens to a stream.
#[derive(Debug, Clone, Copy)]
enum Step {
    Edit(usize),
    /// It sees what there is, and is asked for what it has to say.
    Look(usize),
    Answer(usize),
    Reconnect(usize),
    Pass(u64),
}

const EDITS: [&str; 6] = ["CDS y=1, EDS y=1, RDS r=y", "CDS -y", "RDS r=x", "LDS l=2", "LDS l=3, CDS y=2", "EDS x=2"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..EDITS.len()).prop_map(Step::Edit),
        (0..4usize).prop_map(Step::Look),
        (0..4usize).prop_map(Step::Answer),
        (0..4usize).prop_map(Step::Reconnect),
        (0..3_000u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_everything_is_sent_in_the_end(bits in 0..16u8, steps in prop::collection::vec(step(), 0..60)) {
        let protocols = [0, 1, 2, 3].map(|bit| if bits >> bit & 1 == 0 { Sotw } else { Delta });
        let board = Arc::default();
        let mut streams = streams(&board, protocols);
        let mut latest = streams[0].peer.snapshot.clone();
        let mut unanswered = [false; 4];
        for step in steps {
            match step {
                Step::Edit(which) => {
                    for part in EDITS[which].split(", ") {
                        let there = part != "CDS -y" || latest.of(Kind::Cluster).get("y").is_some();
                        if there {
                            std::mem::swap(&mut streams[0].peer.snapshot, &mut latest);
                            streams[0].peer.edit(part);
                            std::mem::swap(&mut streams[0].peer.snapshot, &mut latest);
                        }
                    }
                }
                Step::Look(at) => {
                    streams[at].peer.snapshot = latest.clone();
                    unanswered[at] |= !streams[at].peer.drain().is_empty();
                }
                Step::Answer(at) if unanswered[at] => {
                    unanswered[at] = !streams[at].ack(names(SERVICES[at])).is_empty();
                }
                Step::Answer(_) => {}
                Step::Reconnect(at) => {
                    let mut stream = Stream::new(&board, SERVICES[at], protocols[at], "");
                    (stream.peer.snapshot, stream.peer.now) = (latest.clone(), streams[at].peer.now);
                    unanswered[at] = !stream.ask(names(SERVICES[at])).is_empty();
                    streams[at] = stream;
                }
                Step::Pass(time) => streams.iter_mut().for_each(|stream| stream.peer.pass(Duration::from_millis(time))),
            }
        }
        // Every stream sees what there is and is answered; the rest is a matter of wakers and alarms.
        streams.iter_mut().for_each(|stream| stream.peer.snapshot = latest.clone());
        let mut due = [true; 4];
        let begun = streams[0].peer.now;
        for _ in 0..200 {
            for at in 0..4 {
                let stream = &mut streams[at];
                if due[at] || stream.peer.wakes() > 0 {
                    unanswered[at] |= !stream.peer.drain().is_empty();
                }
                while unanswered[at] {
                    unanswered[at] = !stream.ack(names(SERVICES[at])).is_empty();
                }
                due[at] = false;
            }
            if streams.iter().any(|stream| stream.peer.is_woken()) {
                continue;
            }
            let Some(next) = streams.iter().filter_map(|stream| stream.peer.session.wake_at()).min() else { break };
            for (at, stream) in streams.iter_mut().enumerate() {
                stream.peer.now = next;
                due[at] = stream.peer.session.wake_at().is_some_and(|at| at <= next);
            }
        }
        prop_assert!(streams[0].peer.now <= begun + GRACE * 2, "it waits too long");
        for stream in &mut streams {
            prop_assert_eq!(stream.peer.session.wake_at(), None);
            prop_assert_eq!(stream.peer.drain(), NOTHING);
            // Of endpoints some are not asked for.
            if stream.service != "EDS" {
                let kind = kind(stream.service);
                prop_assert_eq!(stream.peer.session.status()[&kind].acked, Some(latest.of(kind).version()), "{}", kind);
            }
        }
    }
}
