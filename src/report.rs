//! Report: what proxies say back, as data. Connected proxies, what each was sent, has accepted and refused.
//!
//! Owns: the list of streams, and what others act on of each. May use: `translators` names. Never: keeps what a stream
//! knows itself, which is asked for when somebody wants to see it; or steers anything: whoever wants to act on a fact
//! watches it here, as a source watches its origin. What nobody acts on wakes nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use serde::Serialize;
use tokio::sync::watch;
use translators::name::{Owner, RuleRef};
use translators::resource::{Kind, Name, Resource, Version};

/// One connected proxy: one stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// Its node id.
    pub node: String,
    /// Whose configuration it receives.
    pub owner: Owner,
    /// The address that it is reached at: its own word (`chancery.address`), or the stream's peer.
    pub address: IpAddr,
    /// Whether it has shown a certificate; else it is who it is by its own word alone.
    pub proven: bool,
    /// The version of its Envoy, `1.40.0`; empty if it did not say.
    pub envoy: String,
    /// `delta` or `sotw`.
    pub protocol: &'static str,
    /// When the stream began.
    pub connected: SystemTime,
    /// Per type: what was sent and what came back.
    pub types: BTreeMap<Kind, TypeStatus>,
    /// The listeners that it has accepted on this stream.
    pub listeners: BTreeSet<Name>,
    /// Whether it has accepted a certificate on this stream.
    pub has_certificate: bool,
}

/// One type on one stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeStatus {
    /// How many resources it subscribes to by name; `None` for all.
    pub subscribed: Option<usize>,
    /// The version of the last response.
    pub sent: Option<Version>,
    /// The version last accepted.
    pub acked: Option<Version>,
    /// What it refuses, oldest first: each until its resource is accepted, has other content or is gone.
    pub rejections: Vec<Rejection>,
    /// Responses sent on this stream.
    pub responses: u64,
    /// Those of them that were larger than the 4 MiB that a gRPC client takes unless it is told otherwise.
    pub large: u64,
    /// When the last one was sent, while it is not answered.
    #[serde(skip)]
    pub unanswered: Option<Instant>,
}

/// How many responses of a type were sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Responses {
    /// All of them.
    pub sent: u64,
    /// Those that were larger than the 4 MiB that a gRPC client takes unless it is told otherwise.
    pub large: u64,
}

/// One refusal.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// The version that was refused.
    pub version: Version,
    /// What the proxy said.
    pub reason: String,
    /// The resources that it refused, as far as its words tell.
    pub resources: Vec<Name>,
    /// The rules that made them.
    pub rules: Vec<RuleRef>,
    /// Since when.
    pub since: SystemTime,
}

/// What others act on of a connected proxy; see [`Proxy`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of Proxy")]
pub struct Connected {
    pub node: String,
    pub owner: Owner,
    pub address: IpAddr,
    pub listeners: BTreeSet<Name>,
    pub has_certificate: bool,
}

/// The connected proxies, by stream, in the order in which the streams began: a persistent map, so that what has
/// changed is found in the size of the change.
pub type Connections = imbl::OrdMap<u64, Arc<Connected>>;

/// The connected proxies. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Report {
    shared: Arc<Shared>,
}

/// One resource that a stream subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceStatus {
    /// Its type.
    pub kind: Kind,
    /// Its name; the name that was asked for if there is no such resource.
    pub name: Name,
    /// As it is now; `None` if there is no such resource.
    pub resource: Option<Arc<Resource>>,
    /// How far the proxy is.
    pub state: ResourceState,
}

/// How far a proxy is with a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceState {
    /// It was not sent.
    NotSent,
    /// It has accepted it as it is now.
    Synced,
    /// It was sent, and has not been answered; or there is newer content than it was sent.
    Stale,
    /// It refuses it as it is now.
    Error {
        /// Why, in words fit to be shown.
        reason: Arc<str>,
        /// Since when.
        since: Instant,
    },
}

/// A stream as the report sees it.
pub trait Observed: Send + Sync {
    /// What there is to be said of it now.
    fn proxy(&self) -> Proxy;

    /// Every resource that it subscribes to.
    fn resources(&self) -> Vec<ResourceStatus> {
        Vec::new()
    }
}

#[derive(Debug)]
struct Shared {
    streams: Mutex<Streams>,
    connections: watch::Sender<Connections>,
}

#[derive(Default)]
struct Streams {
    next: u64,
    open: BTreeMap<u64, Arc<dyn Observed>>,
    /// The responses that were sent on streams that have ended.
    ended: BTreeMap<Kind, Responses>,
}

/// One stream's entry; dropping it takes the proxy off the list.
pub struct StreamReport {
    report: Report,
    id: u64,
    stream: Arc<dyn Observed>,
}

// === impl Proxy ===

impl Proxy {
    /// Whether everything that it was sent was accepted.
    pub fn in_sync(&self) -> bool {
        self.types.values().all(|status| status.rejections.is_empty() && status.sent == status.acked)
    }

    /// What others act on.
    pub fn connected(&self) -> Connected {
        Connected {
            node: self.node.clone(),
            owner: self.owner.clone(),
            address: self.address,
            listeners: self.listeners.clone(),
            has_certificate: self.has_certificate,
        }
    }
}

// === impl Streams ===

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("open", &self.open.len()).finish_non_exhaustive()
    }
}

// === impl Report ===

impl Default for Report {
    fn default() -> Self {
        let shared = Shared { streams: Mutex::default(), connections: watch::Sender::default() };
        Self { shared: Arc::new(shared) }
    }
}

impl Report {
    /// Enters a stream. It must not be asked for its report while it waits for this.
    pub fn connect(&self, stream: Arc<dyn Observed>) -> StreamReport {
        let connected = Arc::new(stream.proxy().connected());
        let mut streams = lock(&self.shared.streams);
        let id = streams.next;
        streams.next += 1;
        streams.open.insert(id, Arc::clone(&stream));
        drop(streams);
        self.shared.connections.send_modify(|connections| {
            connections.insert(id, connected);
        });
        StreamReport { report: self.clone(), id, stream }
    }

    /// Every connected proxy, in the order in which the streams began.
    pub fn proxies(&self) -> Vec<Proxy> {
        self.open().iter().map(|stream| stream.proxy()).collect()
    }

    /// The connected proxies that are `wanted`, with every resource that they subscribe to.
    pub fn resources(&self, wanted: impl Fn(&Proxy) -> bool) -> Vec<(Proxy, Vec<ResourceStatus>)> {
        let open = self.open();
        let wanted = open.iter().map(|stream| (stream.proxy(), stream)).filter(|(proxy, _)| wanted(proxy));
        wanted.map(|(proxy, stream)| (proxy, stream.resources())).collect()
    }

    /// How many responses were sent since the process began, on every stream, by type.
    pub fn responses(&self) -> BTreeMap<Kind, Responses> {
        let streams = lock(&self.shared.streams);
        let mut responses = streams.ended.clone();
        for stream in streams.open.values() {
            add_responses(&mut responses, &stream.proxy());
        }
        responses
    }

    /// The connected proxies as far as others act on them; wakes whenever one comes or goes, accepts a further listener
    /// or its first certificate.
    pub fn watch(&self) -> watch::Receiver<Connections> {
        self.shared.connections.subscribe()
    }

    fn open(&self) -> Vec<Arc<dyn Observed>> {
        lock(&self.shared.streams).open.values().cloned().collect()
    }
}

// === impl StreamReport ===

impl StreamReport {
    /// Tells those who act on it what they act on; the listeners of an entry only become more.
    pub fn tell(&self, connected: Connected) {
        self.report.shared.connections.send_modify(|connections| {
            connections.insert(self.id, Arc::new(connected));
        });
    }
}

impl Drop for StreamReport {
    fn drop(&mut self) {
        let last = self.stream.proxy();
        let shared = &self.report.shared;
        let mut streams = lock(&shared.streams);
        streams.open.remove(&self.id);
        add_responses(&mut streams.ended, &last);
        drop(streams);
        shared.connections.send_modify(|connections| {
            connections.remove(&self.id);
        });
    }
}

fn add_responses(responses: &mut BTreeMap<Kind, Responses>, proxy: &Proxy) {
    for (kind, status) in &proxy.types {
        let of = responses.entry(*kind).or_default();
        of.sent += status.responses;
        of.large += status.large;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For tests: a stream that says what it is told to say.
#[cfg(test)]
impl Observed for Mutex<Proxy> {
    fn proxy(&self) -> Proxy {
        lock(self).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(node: &str) -> Arc<Mutex<Proxy>> {
        Arc::new(Mutex::new(Proxy {
            node: node.to_owned(),
            owner: Owner::Workload("shop/cart-v1".parse().expect("valid")),
            address: [127, 0, 0, 1].into(),
            proven: true,
            envoy: String::new(),
            protocol: "delta",
            connected: SystemTime::UNIX_EPOCH,
            types: BTreeMap::new(),
            listeners: BTreeSet::new(),
            has_certificate: false,
        }))
    }

    #[test]
    fn what_is_shown_is_asked_for_and_only_what_is_acted_on_wakes() {
        let report = Report::default();
        let mut changes = report.watch();
        let mut woken = || {
            let woken = changes.has_changed().expect("open");
            changes.mark_unchanged();
            woken
        };
        let (one, other) = (proxy("a"), proxy("b"));
        let a = report.connect(one.clone());
        assert!(woken());
        let b = report.connect(other.clone());
        assert!(woken());
        *lock(&one).types.entry(Kind::Cluster).or_default() =
            TypeStatus { responses: 60, large: 1, ..Default::default() };
        lock(&other).types.entry(Kind::Cluster).or_default().responses = 40;
        assert!(!woken());
        assert_eq!(report.responses(), [(Kind::Cluster, Responses { sent: 100, large: 1 })].into());
        let former = report.watch().borrow().clone();
        lock(&other).listeners.extend(["in/shop/cart/http".into()]);
        b.tell(other.proxy().connected());
        assert!(woken());
        let now = report.watch().borrow().clone();
        assert_eq!(former.diff(&now).count(), 1, "what has changed is told, not all");
        assert_eq!(report.proxies()[1].listeners.len(), 1);
        drop(a);
        assert!(woken());
        assert_eq!(
            report.responses(),
            [(Kind::Cluster, Responses { sent: 100, large: 1 })].into(),
            "what has ended counts"
        );
        let left: Vec<_> = report.proxies().into_iter().map(|proxy| proxy.node).collect();
        let connected: Vec<_> = report.watch().borrow().values().map(|proxy| proxy.node.clone()).collect();
        assert_eq!((left, connected), (vec!["b".to_owned()], vec!["b".to_owned()]));
    }
}
