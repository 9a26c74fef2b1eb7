//! Interests: who is asked only when a change concerns it is sent what it would be sent if it were asked each time.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::peer::{Peer, kind, seconds};
use crate::publish::Interest as _;
use crate::stream::interest::Interest;
use crate::stream::session::Protocol;

/// Full states, named types, and one whose resources are asked for by their other names.
const SERVICES: [&str; 5] = ["CDS", "EDS", "RDS", "ECDS", "VHDS"];
/// What resources are called,
const NAMES: [&str; 4] = ["a", "b", "xdstp://x/T/g/1", "xdstp://x/T/g/2"];
/// and what else they go by.
const ALIASES: [&str; 3] = ["p", "q", "xdstp://x/T/h/1"];
/// What is asked for beside these.
const GLOBS: [&str; 3] = ["*", "xdstp://x/T/g/*", "xdstp://x/T/h/*"];

#[derive(Debug, Clone)]
enum Step {
    /// A bit for each alias; content 0 is one that is refused.
    Put(&'static str, &'static str, usize, u8),
    Remove(&'static str, &'static str),
    Ask(&'static str, &'static str, bool),
}

fn step(services: &'static [&'static str]) -> impl Strategy<Value = Step> {
    let service = move || prop::sample::select(services);
    let name = || prop::sample::select(NAMES.as_slice());
    let asked = prop::sample::select([&NAMES[..], &ALIASES, &GLOBS].concat());
    prop_oneof![
        4 => (service(), name(), 0..8usize, 0..4u8).prop_map(|(service, name, aliases, content)| {
            Step::Put(service, name, aliases, content)
        }),
        2 => (service(), name()).prop_map(|(service, name)| Step::Remove(service, name)),
        2 => (service(), asked, any::<bool>()).prop_map(|(service, name, yes)| Step::Ask(service, name, yes)),
    ]
}

/// A client that answers whatever it is sent.
struct Client {
    protocol: Protocol,
    peer: Peer,
    lists: BTreeMap<&'static str, Vec<&'static str>>,
    interest: Option<Arc<Interest>>,
}

impl Client {
    fn new(protocol: Protocol) -> Self {
        Self { protocol, peer: Peer::new(protocol, ""), lists: BTreeMap::new(), interest: None }
    }

    /// Makes the change; says whether it concerns the client.
    fn change(&mut self, step: &Step) -> bool {
        let before = self.peer.snapshot.clone();
        match step {
            Step::Put(service, name, aliases, content) => {
                let aliases = (0..3).filter(|alias| aliases & (1 << alias) != 0).map(|alias| ALIASES[alias]);
                let names = [*name].into_iter().chain(aliases).collect::<Vec<_>>().join("|");
                let content = if *content == 0 { "bad".to_owned() } else { content.to_string() };
                self.peer.edit(&format!("{service} {names}={content}"));
            }
            Step::Remove(service, name) => _ = self.peer.snapshot.of_mut(kind(service)).remove(name),
            Step::Ask(..) => {}
        }
        let touched = before.touched(&self.peer.snapshot);
        let follows = |topic| self.interest.iter().any(|interest| interest.topics().any(|followed| followed == topic));
        self.interest.is_none() || touched.topics().any(follows)
    }

    /// What it is sent when it asks, and after that.
    fn ask(&mut self, step: &Step) -> Vec<String> {
        let Step::Ask(service, name, yes) = step else { return self.settle() };
        let list = self.lists.entry(service).or_default();
        let had = list.contains(name);
        list.retain(|listed| listed != name);
        if *yes {
            list.push(name);
        }
        let list = list.clone();
        let mut lines = match (self.protocol, yes) {
            (Protocol::Sotw, _) => self.peer.ask(service, &list),
            (Protocol::Delta, true) => self.peer.change(service, &[name]),
            (Protocol::Delta, false) if had => self.peer.change(service, &[&format!("-{name}")]),
            (Protocol::Delta, false) => Vec::new(),
        };
        if let Some(interest) = self.peer.session.next_interest() {
            self.interest = Some(interest);
        }
        lines.extend(self.answer(lines.clone()));
        lines.extend(self.settle());
        lines
    }

    /// What it is sent until nothing more comes.
    fn settle(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..5 {
            let lines = self.peer.drain();
            all.extend(lines.clone());
            all.extend(self.answer(lines));
            self.peer.pass(seconds(10));
        }
        all
    }

    /// Answers these responses, and those that follow.
    fn answer(&mut self, mut lines: Vec<String>) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..20 {
            let Some(line) = lines.pop() else { return all };
            let service = SERVICES.into_iter().find(|service| line.starts_with(service)).expect("one of them");
            let bad: Vec<&str> = line.split(' ').filter_map(|part| part.strip_suffix("=bad")).collect();
            let list = self.lists.get(service).cloned().unwrap_or_default();
            let next = match (self.protocol, bad.is_empty()) {
                (Protocol::Sotw, true) => self.peer.ack(service, &list),
                (Protocol::Sotw, false) => self.peer.nack(service, &list, &bad.join(", ")).1,
                (Protocol::Delta, true) => self.peer.delta_ack(service),
                (Protocol::Delta, false) => self.peer.delta_nack(service, &bad.join(", ")).1,
            };
            all.extend(next.clone());
            lines.extend(next);
        }
        panic!("it does not end: {all:?}");
    }
}

fn run(protocol: Protocol, steps: &[Step]) {
    let (mut eager, mut sleeper) = (Client::new(protocol), Client::new(protocol));
    sleeper.peer.now = eager.peer.now;
    for step in steps {
        eager.change(step);
        let concerned = sleeper.change(step);
        let asks = matches!(step, Step::Ask(..));
        let sent = eager.ask(step);
        // It asks when it said that it would, too: a removal may wait for a drain.
        let due = sleeper.peer.session.wake_at().is_some_and(|at| at <= eager.peer.now);
        if concerned || asks || due {
            assert_eq!(sleeper.ask(step), sent, "{step:?}");
            let versions = |client: &Client| -> Vec<String> {
                client.peer.last.values().map(|last| last.version.clone()).collect()
            };
            assert_eq!(versions(&sleeper), versions(&eager), "{step:?}");
        } else {
            assert_eq!(sent, Vec::<String>::new(), "{step:?} does not concern it");
        }
        sleeper.peer.now = eager.peer.now;
        // Whoever looks sees no difference.
        sleeper.peer.session.pass_over(&sleeper.peer.snapshot);
        assert_eq!(sleeper.peer.session.status(), eager.peer.session.status(), "{step:?}");
        let resources = |client: &Client| client.peer.session.resources(&client.peer.snapshot);
        assert_eq!(resources(&sleeper), resources(&eager), "{step:?}");
    }
}

#[test]
fn what_is_not_taken_any_more_is_not_refused_any_more() {
    let steps = [
        Step::Ask("EDS", ALIASES[2], true),
        Step::Put("EDS", NAMES[2], 4, 0),
        Step::Put("EDS", "b", 4, 1),
        Step::Put("EDS", "b", 4, 0),
        Step::Put("EDS", NAMES[2], 0, 1),
        Step::Put("EDS", "b", 0, 0),
        Step::Remove("EDS", "b"),
    ];
    run(Protocol::Sotw, &steps);
}

#[test]
fn two_that_go_by_one_name_are_not_refused_in_turns() {
    let steps = [
        Step::Put("ECDS", "b", 0, 1),
        Step::Ask("ECDS", ALIASES[2], true),
        Step::Put("ECDS", NAMES[3], 0, 1),
        Step::Put("ECDS", NAMES[3], 4, 0),
        Step::Put("ECDS", "b", 4, 0),
    ];
    run(Protocol::Sotw, &steps);
    run(Protocol::Delta, &steps);
}

#[test]
fn what_is_gone_and_drains_is_told_by_the_clock() {
    let mut steps = vec![
        Step::Put("CDS", "b", 0, 1),
        Step::Ask("CDS", "a", false),
        Step::Ask("RDS", "a", true),
        Step::Remove("CDS", "b"),
    ];
    steps.extend(vec![Step::Put("EDS", "a", 0, 0); 15]);
    run(Protocol::Sotw, &steps);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn who_is_not_concerned_has_nothing_to_say(steps in prop::collection::vec(step(&SERVICES), 1..40)) {
        run(Protocol::Delta, &steps);
    }

    #[test]
    fn nor_has_who_is_told_the_state_of_the_world(steps in prop::collection::vec(step(&SERVICES[..4]), 1..40)) {
        run(Protocol::Sotw, &steps);
    }
}
