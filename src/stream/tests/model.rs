//! A client as it should be, which checks all that it is sent.
//!
//! Owns: what such a client wants, holds and has said; the laws that hold for whatever it is sent. May use: the
//! scripted client. Never: chooses what happens: that is up to those who play it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proto::wire;
use translators::resource::Kind;

use super::peer::{Peer, Received, Request, decode};
use crate::stream::session::Protocol;

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];

/// Every type; the last two are incremental only.
pub(super) const KINDS: [Kind; 10] = [
    Kind::Secret,
    Kind::Cluster,
    Kind::Endpoints,
    Kind::Listener,
    Kind::Route,
    Kind::Runtime,
    Kind::ExtensionConfig,
    Kind::ScopedRoute,
    Kind::VirtualHost,
    Kind::LocalityEndpoint,
];

#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Content 0 is one that the client refuses.
    Put(usize, usize, u8),
    Remove(usize, usize),
    /// The client takes the next response.
    Receive,
    /// The client says what it thinks of the oldest response; `true`: by name.
    Answer(bool),
    /// A bit set of names; `None` for everything.
    Subscribe(usize, Option<u8>),
    /// The same in a request that answers no response that was sent last: state of the world passes it over.
    Stale(usize, u8),
    /// Asks again for what it asked for before.
    Again(usize),
    Pass(u64),
    Reconnect,
}

type Said = (Vec<(String, String, String)>, Vec<String>);

struct Model {
    protocol: Protocol,
    peer: Peer,
    wanted: BTreeMap<Kind, Option<BTreeSet<String>>>,
    /// A list was sent on this stream.
    listed: BTreeSet<Kind>,
    opened: BTreeSet<Kind>,
    /// Content and version by name.
    held: BTreeMap<Kind, BTreeMap<String, (String, String)>>,
    unanswered: VecDeque<Received>,
    answered: BTreeMap<Kind, String>,
    refused: BTreeMap<Kind, Said>,
    /// Subscriptions that crossed a response: they may bring it again.
    crossed: BTreeSet<Kind>,
    /// Asked for by their names, in delta: there is to be an answer for each.
    owed: BTreeMap<Kind, BTreeSet<String>>,
    /// The last nonce of the stream.
    nonce: u64,
}

impl Model {
    fn new(protocol: Protocol) -> Self {
        let mut model = Self {
            protocol,
            peer: Peer::new(protocol, ""),
            wanted: BTreeMap::new(),
            listed: BTreeSet::new(),
            opened: BTreeSet::new(),
            held: BTreeMap::new(),
            unanswered: VecDeque::new(),
            answered: BTreeMap::new(),
            refused: BTreeMap::new(),
            crossed: BTreeSet::new(),
            owed: BTreeMap::new(),
            nonce: 0,
        };
        for kind in KINDS {
            let everything = kind.is_full_state();
            model.want(kind, if everything { None } else { Some(BTreeSet::from(["a".to_owned()])) }, "");
        }
        model
    }

    fn wants(&self, kind: Kind, name: &str) -> bool {
        self.wanted.get(&kind).is_some_and(|names| names.as_ref().is_none_or(|names| names.contains(name)))
    }

    fn put(&mut self, kind: Kind, name: &str, content: u8) {
        let before = self.peer.snapshot.of(kind).version();
        self.peer.edit(&format!("{kind} {name}={}", if content == 0 { "bad".into() } else { content.to_string() }));
        self.changed(kind, before);
    }

    fn changed(&mut self, kind: Kind, before: translators::resource::Version) {
        if self.peer.snapshot.of(kind).version() != before {
            self.refused.remove(&kind);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(kind, name, content) => self.put(KINDS[kind], NAMES[name], content),
            Step::Remove(kind, name) => {
                let kind = KINDS[kind];
                let before = self.peer.snapshot.of(kind).version();
                self.peer.snapshot.of_mut(kind).remove(NAMES[name]);
                self.changed(kind, before);
            }
            Step::Receive => _ = self.receive(),
            Step::Answer(by_name) => _ = self.answer(by_name),
            Step::Subscribe(kind, set) => {
                let kind = KINDS[kind];
                self.want(kind, set.map(chosen).or_else(|| (!kind.is_full_state()).then(BTreeSet::new)), "");
            }
            Step::Stale(kind, set) => self.stale(KINDS[kind], chosen(set)),
            Step::Again(kind) => self.again(KINDS[kind]),
            Step::Pass(seconds) => self.peer.pass(Duration::from_secs(seconds)),
            Step::Reconnect => self.reconnect(),
        }
    }

    fn list(&mut self, kind: Kind) -> Vec<String> {
        match self.wanted.get(&kind).cloned() {
            None => Vec::new(),
            Some(None) if self.listed.contains(&kind) => vec!["*".to_owned()],
            Some(None) => Vec::new(),
            Some(Some(names)) => {
                if !names.is_empty() {
                    self.listed.insert(kind);
                }
                names.into_iter().collect()
            }
        }
    }

    fn stale(&mut self, kind: Kind, names: BTreeSet<String>) {
        let sent = self.answered.contains_key(&kind) || self.unanswered.iter().any(|response| response.kind == kind);
        match self.protocol {
            Protocol::Sotw if sent => {
                let request = wire::DiscoveryRequest {
                    version_info: "0".into(),
                    resource_names: names.into_iter().collect(),
                    type_url: kind.type_url().to_owned(),
                    response_nonce: "0".into(),
                    error_detail: Some(wire::Status { code: 13, message: "a".into() }),
                    ..Default::default()
                };
                assert_eq!(self.peer.request(Request::Sotw(request)), Ok(None));
            }
            Protocol::Sotw => {}
            Protocol::Delta => self.want(kind, Some(names), "0"),
        }
    }

    fn again(&mut self, kind: Kind) {
        let Some(names) = self.wanted.get(&kind).cloned().filter(|_| self.opened.contains(&kind)) else { return };
        match self.protocol {
            Protocol::Sotw if self.unanswered.iter().any(|response| response.kind == kind) => {}
            Protocol::Sotw => {
                let nonce = self.answered.get(&kind).cloned().unwrap_or_default();
                self.send_sotw(kind, nonce, None);
            }
            Protocol::Delta => {
                let names: Vec<String> = names.into_iter().flatten().collect();
                if !names.is_empty() {
                    self.ask(kind, names, Vec::new(), "");
                }
            }
        }
    }

    fn want(&mut self, kind: Kind, names: Option<BTreeSet<String>>, nonce: &str) {
        let empty = names.as_ref().is_some_and(BTreeSet::is_empty);
        let sotw = self.protocol == Protocol::Sotw;
        if sotw && kind.is_incremental() {
            return;
        }
        // An empty first list would mean everything; and a request that crosses a response is stale.
        if (sotw && empty && !self.listed.contains(&kind))
            || (empty && !self.opened.contains(&kind))
            || (sotw && self.unanswered.iter().any(|response| response.kind == kind))
        {
            return;
        }
        let old = self.wanted.insert(kind, names.clone());
        let kept = |name: &String| names.as_ref().is_none_or(|names| names.contains(name));
        self.held.entry(kind).or_default().retain(|name, _| kept(name));
        if sotw {
            self.refused.remove(&kind);
            self.crossed.insert(kind);
            let nonce = self.answered.get(&kind).cloned().unwrap_or_default();
            self.send_sotw(kind, nonce, None);
        } else {
            let listed = |names: &Option<Option<BTreeSet<String>>>| match names {
                None => BTreeSet::new(),
                Some(None) => BTreeSet::from(["*".to_owned()]),
                Some(Some(names)) => names.clone(),
            };
            let (old, new) = (listed(&old), listed(&Some(names)));
            let subscribe = new.difference(&old).cloned().collect();
            let unsubscribe = old.difference(&new).cloned().collect();
            self.ask(kind, subscribe, unsubscribe, nonce);
        }
        self.opened.insert(kind);
    }

    /// Changes the subscription, in delta.
    fn ask(&mut self, kind: Kind, subscribe: Vec<String>, unsubscribe: Vec<String>, nonce: &str) {
        self.refused.remove(&kind);
        self.crossed.insert(kind);
        let owed = self.owed.entry(kind).or_default();
        // What the proxy has of an extension is never taken away, nor is anything said of it when it is gone.
        if kind != Kind::ExtensionConfig {
            owed.extend(subscribe.iter().filter(|name| *name != "*").cloned());
        }
        owed.retain(|name| !unsubscribe.contains(name));
        self.send_delta(kind, subscribe, unsubscribe, BTreeMap::new(), nonce.to_owned(), None);
    }

    fn send_sotw(&mut self, kind: Kind, nonce: String, error: Option<wire::Status>) {
        let request = wire::DiscoveryRequest {
            version_info: self.peer.accepted.get(&kind).cloned().unwrap_or_default(),
            resource_names: self.list(kind),
            type_url: kind.type_url().to_owned(),
            response_nonce: nonce,
            error_detail: error,
            ..Default::default()
        };
        self.peer.request(Request::Sotw(request)).expect("no fault");
    }

    fn send_delta(
        &mut self,
        kind: Kind,
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        initial: BTreeMap<String, String>,
        nonce: String,
        error: Option<wire::Status>,
    ) {
        let request = wire::DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions: initial,
            response_nonce: nonce,
            error_detail: error,
            ..Default::default()
        };
        self.peer.request(Request::Delta(request)).expect("no fault");
    }

    fn reconnect(&mut self) {
        self.peer.reconnect();
        self.unanswered.clear();
        self.answered.clear();
        self.listed.clear();
        self.opened.clear();
        self.refused.clear();
        self.owed.clear();
        self.nonce = 0;
        for (kind, names) in self.wanted.clone() {
            if names.as_ref().is_some_and(BTreeSet::is_empty) {
                self.wanted.remove(&kind);
                continue;
            }
            if self.protocol == Protocol::Sotw {
                self.send_sotw(kind, String::new(), None);
            } else {
                let versions = self.held.get(&kind).into_iter().flatten();
                let initial = versions.map(|(name, (_, version))| (name.clone(), version.clone())).collect();
                let subscribe = names.unwrap_or_default().into_iter().collect();
                self.send_delta(kind, subscribe, Vec::new(), initial, String::new(), None);
            }
            self.opened.insert(kind);
        }
    }

    fn receive(&mut self) -> bool {
        let Some(response) = self.peer.session.poll(&self.peer.snapshot, self.peer.now) else { return false };
        let mut received = decode(self.protocol, &response);
        for (name, content, _) in &mut received.resources {
            // A body is `name=content`, or a load assignment of one letter.
            match content.clone().split_once('=') {
                Some((body, value)) => (*name, *content) = (body.to_owned(), value.to_owned()),
                None => (*name, *content) = (content.trim_matches(char::is_control).to_owned(), String::new()),
            }
        }
        let nonce = received.nonce.parse().expect("a number");
        assert!(nonce > self.nonce, "nonce {nonce} after {}", self.nonce);
        self.nonce = nonce;
        let names = received.resources.iter().map(|(name, ..)| name).chain(&received.removed);
        let distinct: BTreeSet<&String> = names.clone().collect();
        assert_eq!(distinct.len(), names.clone().count(), "a name twice: {received:?}");
        for name in names.clone() {
            assert!(self.wants(received.kind, name), "{name} was not asked for: {received:?}");
        }
        let owed = self.owed.entry(received.kind).or_default();
        owed.retain(|owed| !names.clone().chain(&received.bare).any(|name| name.trim_start_matches('?') == owed));
        let said = (received.resources.clone(), received.removed.clone());
        assert_ne!(self.refused.get(&received.kind), Some(&said), "refused before");
        assert!(!self.unanswered.iter().any(|other| other.kind == received.kind), "two are outstanding");

        if !is_bad(&received) {
            let kind = received.kind;
            let mut held = self.held.remove(&kind).unwrap_or_default();
            if self.protocol == Protocol::Sotw && kind.is_full_state() {
                held.clear();
            }
            for (name, content, version) in received.resources.clone() {
                if self.wants(kind, &name) {
                    held.insert(name, (content, version));
                }
            }
            for name in &received.removed {
                held.remove(name);
            }
            self.held.insert(kind, held);
        }
        self.crossed.remove(&received.kind);
        self.unanswered.push_back(received);
        true
    }

    fn answer(&mut self, by_name: bool) -> bool {
        let Some(received) = self.unanswered.pop_front() else { return false };
        let kind = received.kind;
        let crossed = self.crossed.contains(&kind);
        let error = is_bad(&received).then(|| {
            if !crossed {
                self.refused.insert(kind, (received.resources.clone(), received.removed.clone()));
            }
            let bad = received.resources.iter().filter(|(_, content, _)| content == "bad");
            let names: Vec<&str> = bad.map(|(name, ..)| name.as_str()).collect();
            wire::Status { code: 13, message: if by_name { names.join(", ") } else { "no".into() } }
        });
        if error.is_none() {
            self.peer.accepted.insert(kind, received.version.clone());
        }
        self.answered.insert(kind, received.nonce.clone());
        match self.protocol {
            Protocol::Sotw => self.send_sotw(kind, received.nonce, error),
            Protocol::Delta => {
                self.send_delta(kind, Vec::new(), Vec::new(), BTreeMap::new(), received.nonce, error);
            }
        }
        true
    }

    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 200, "it does not settle");
            let mut busy = self.receive();
            busy |= self.answer(true);
            if !busy {
                let Some(wake) = self.peer.session.wake_at() else { return };
                assert!(wake > self.peer.now, "it spins");
                self.peer.now = wake;
            }
        }
    }

    fn check(&self) {
        for (kind, names) in &self.wanted {
            let state = self.peer.session.of(*kind);
            assert_eq!(state.subscription.size(), names.as_ref().map_or(0, BTreeSet::len), "{kind}");
            assert!(state.owed.is_empty() && state.held.is_empty(), "{kind}: {state:?}");
            let owed = self.owed.get(kind).filter(|owed| !owed.is_empty());
            assert_eq!(owed, None, "{kind}: asked for, and not answered");
            let mut expected: BTreeMap<String, String> = BTreeMap::new();
            for resource in self.peer.snapshot.of(*kind).iter().filter(|resource| self.wants(*kind, resource.name())) {
                let body = String::from_utf8_lossy(&resource.value()).into_owned();
                expected.insert(resource.name().to_string(), body.split_once('=').expect("named").1.to_owned());
            }
            let mut held: BTreeMap<String, String> = BTreeMap::new();
            for (name, (content, _)) in self.held.get(kind).into_iter().flatten() {
                held.insert(name.clone(), content.clone());
            }
            match (self.protocol, kind) {
                (Protocol::Sotw, Kind::Endpoints) => {
                    for name in names.iter().flatten() {
                        expected.entry(name.clone()).or_default();
                    }
                }
                // Absence says nothing: what is gone stays until its parent goes.
                // And of an extension's configuration no removal is ever said.
                (Protocol::Delta, Kind::ExtensionConfig) => held.retain(|name, _| expected.contains_key(name)),
                (Protocol::Sotw, kind) if !kind.is_full_state() => held.retain(|name, _| expected.contains_key(name)),
                (Protocol::Sotw | Protocol::Delta, _) => {}
            }
            assert_eq!(held, expected, "{kind}");
        }
    }
}

fn chosen(set: u8) -> BTreeSet<String> {
    NAMES.iter().enumerate().filter(|(bit, _)| set & (1 << bit) != 0).map(|(_, name)| (*name).to_owned()).collect()
}

fn is_bad(received: &Received) -> bool {
    received.resources.iter().any(|(_, content, _)| content == "bad")
}

pub(super) fn holds(protocol: Protocol, steps: Vec<Step>) {
    let mut model = Model::new(protocol);
    for step in steps {
        model.step(step);
    }
    model.ends_well();
}

/// The same for streams that share what they are sent: who does what; a change of the configuration is for all.
pub(super) fn all_hold(protocol: Protocol, steps: Vec<(usize, Step)>) {
    let group = Arc::default();
    let mut models = [0, 1, 2].map(|_| Model::new(protocol));
    for model in &mut models {
        model.peer.join(&group);
        model.reconnect();
    }
    for (who, step) in steps {
        match step {
            Step::Put(..) | Step::Remove(..) => models.iter_mut().for_each(|model| model.step(step.clone())),
            Step::Receive
            | Step::Answer(_)
            | Step::Subscribe(..)
            | Step::Stale(..)
            | Step::Again(_)
            | Step::Pass(_)
            | Step::Reconnect => models[who].step(step),
        }
    }
    // Side by side, so that they share to the end.
    let mut rounds = 0;
    while models.iter_mut().fold(false, |busy, model| busy | model.receive() | model.answer(true)) {
        rounds += 1;
        assert!(rounds < 500, "it does not end");
    }
    for mut model in models {
        model.ends_well();
    }
}

impl Model {
    /// Whatever the client does not refuse it has, though it refuses others and they stay as they are.
    fn is_withheld_nothing(&self) {
        for kind in KINDS {
            for resource in self.peer.snapshot.of(kind).iter().filter(|resource| self.wants(kind, resource.name())) {
                let body = String::from_utf8_lossy(&resource.value()).into_owned();
                let (name, content) = body.split_once('=').expect("named");
                let held = self.held.get(&kind).and_then(|held| held.get(name)).map(|(content, _)| content.as_str());
                assert!(held == Some(content) || content == "bad", "{kind} {name}: {held:?} for {content}");
            }
        }
    }

    fn ends_well(&mut self) {
        let model = self;
        model.settle();
        // The configuration is mended.
        for kind in KINDS {
            for name in NAMES {
                let bad = model.peer.snapshot.of(kind).get(name).is_some_and(|r| r.value().ends_with(b"bad"));
                if bad {
                    model.put(kind, name, 9);
                }
            }
        }
        model.settle();
        model.check();
        model.peer.pass(Duration::from_secs(3600));
        assert!(!model.receive(), "quiet");
    }
}

/// The same for a client that always says which resource it refuses.
pub(super) fn withholds_nothing(protocol: Protocol, steps: Vec<Step>) {
    let mut model = Model::new(protocol);
    for step in steps {
        model.step(match step {
            Step::Answer(_) => Step::Answer(true),
            // Of a client that comes back it is not known what it has: nothing is deleted in its place.
            Step::Reconnect if protocol == Protocol::Sotw => Step::Receive,
            other => other,
        });
    }
    model.settle();
    model.is_withheld_nothing();
    model.ends_well();
}
