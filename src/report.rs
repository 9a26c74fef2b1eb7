//! Report: what proxies say back, as data. Connected proxies, what each was sent, has accepted and refused.
//!
//! Owns: the status of every stream. May use: `translators` names. Never: steers anything; whoever wants to
//! act on a fact watches it here, as a source watches its origin.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;
use translators::name::{QualifiedName, RuleRef};
use translators::resource::{Kind, Name, Version};

/// One connected proxy: one stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// Its node id.
    pub node: String,
    /// Its workload.
    pub workload: QualifiedName,
    /// The address that it is reached at: its own word (`chancery.address`), or the stream's peer.
    pub address: IpAddr,
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

/// The connected proxies. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Report {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    streams: Mutex<Streams>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Streams {
    next: u64,
    proxies: BTreeMap<u64, Proxy>,
    /// The responses that were sent on streams that have ended.
    ended: BTreeMap<Kind, u64>,
}

/// One stream's entry; dropping it takes the proxy off the list.
#[derive(Debug)]
pub struct StreamReport {
    report: Report,
    id: u64,
}

// === impl TypeStatus ===

impl TypeStatus {
    /// Enters a refusal in the place of earlier ones of the same resources.
    pub fn refuse(&mut self, rejection: Rejection) {
        self.keep_refused(|name| !rejection.resources.contains(name));
        self.rejections.push(rejection);
    }

    /// Forgets the refusals of all resources but those that `still` holds for.
    pub fn keep_refused(&mut self, still: impl Fn(&Name) -> bool) {
        for rejection in &mut self.rejections {
            rejection.resources.retain(&still);
        }
        self.rejections.retain(|rejection| !rejection.resources.is_empty());
    }
}

// === impl Proxy ===

impl Proxy {
    /// Whether everything that it was sent was accepted.
    pub fn in_sync(&self) -> bool {
        self.types.values().all(|status| status.rejections.is_empty() && status.sent == status.acked)
    }
}

// === impl Report ===

impl Default for Report {
    fn default() -> Self {
        let shared = Shared { streams: Mutex::default(), changed: watch::Sender::new(0) };
        Self { shared: Arc::new(shared) }
    }
}

impl Report {
    /// Enters a stream.
    pub fn connect(&self, proxy: Proxy) -> StreamReport {
        let id = self.with(|streams| {
            let id = streams.next;
            streams.next += 1;
            streams.proxies.insert(id, proxy);
            id
        });
        StreamReport { report: self.clone(), id }
    }

    /// Every connected proxy, in the order in which the streams began.
    pub fn proxies(&self) -> Vec<Proxy> {
        let streams = self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.proxies.values().cloned().collect()
    }

    /// How many responses were sent since the process began, on every stream, by type.
    pub fn responses(&self) -> BTreeMap<Kind, u64> {
        let streams = self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let mut responses = streams.ended.clone();
        for (kind, status) in streams.proxies.values().flat_map(|proxy| &proxy.types) {
            *responses.entry(*kind).or_default() += status.responses;
        }
        responses
    }

    /// Wakes whenever something has changed.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    fn with<T>(&self, change: impl FnOnce(&mut Streams) -> T) -> T {
        let result = change(&mut self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.changed.send_modify(|version| *version += 1);
        result
    }
}

// === impl StreamReport ===

impl StreamReport {
    /// Changes the proxy's entry, and gives back what the change says.
    pub fn update<T: Default>(&self, change: impl FnOnce(&mut Proxy) -> T) -> T {
        self.report.with(|streams| streams.proxies.get_mut(&self.id).map(change).unwrap_or_default())
    }
}

impl Drop for StreamReport {
    fn drop(&mut self) {
        self.report.with(|streams| {
            for (kind, status) in streams.proxies.remove(&self.id).into_iter().flat_map(|proxy| proxy.types) {
                *streams.ended.entry(kind).or_default() += status.responses;
            }
        });
    }
}
