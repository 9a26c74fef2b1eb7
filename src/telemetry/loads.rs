//! Load reports: what proxies say of the clusters that they send requests to, as it was last.
//!
//! Owns: the last report of each stream and cluster, within bounds: a proxy may have several, as a gRPC client has one
//! for each of its channels. May use: `translators` names. Never: adds up, or keeps what was said on a stream that has
//! ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use translators::name::Owner;

/// So many streams are listened to,
const MOST_STREAMS: usize = 65_536;
/// for so many clusters each,
const MOST_CLUSTERS: usize = 10_000;
/// in so many localities;
const MOST_LOCALITIES: usize = 256;
/// so many clusters are kept of all proxies together.
const MOST: usize = 1_000_000;

/// What proxies have reported. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Loads(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// By node and number.
    streams: BTreeMap<(Arc<str>, u64), Reports>,
    /// The number of the last stream.
    last: u64,
    /// How many clusters there are.
    clusters: usize,
    /// How many reports of a cluster were not kept.
    lost: u64,
}

#[derive(Debug)]
struct Reports {
    owner: Owner,
    clusters: BTreeMap<String, (SystemTime, ClusterLoad)>,
}

/// A stream of reports; the reports go with it.
#[derive(Debug)]
pub struct LoadStream {
    loads: Loads,
    key: (Arc<str>, u64),
}

/// One cluster as a proxy saw it since its report before.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterLoad {
    /// The name of the cluster.
    pub cluster: String,
    /// The name that its endpoints go by, if it is another.
    pub service: String,
    /// How long it was looked at.
    pub interval: Duration,
    /// Requests that were dropped.
    pub dropped: u64,
    /// The requests of each locality.
    pub localities: Vec<LocalityLoad>,
}

/// The requests to one locality of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalityLoad {
    /// Its region, zone and sub-zone.
    pub locality: [String; 3],
    /// Its priority.
    pub priority: u32,
    /// Requests that were begun,
    pub issued: u64,
    /// that have succeeded,
    pub succeeded: u64,
    /// that have failed,
    pub failed: u64,
    /// and that are under way.
    pub active: u64,
}

/// The last report of a proxy on a cluster, on one of its streams.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// The proxy's node id.
    pub node: Arc<str>,
    /// Whose configuration it receives.
    pub owner: Owner,
    /// When it reported.
    pub at: SystemTime,
    /// What it reported.
    #[serde(flatten)]
    pub load: ClusterLoad,
}

// === impl Loads ===

impl Loads {
    /// Enters a stream of `node`, beside others that it may have.
    pub fn open(&self, node: &str, owner: Owner) -> LoadStream {
        let mut state = self.lock();
        state.last += 1;
        let key = (Arc::from(node), state.last);
        if state.streams.len() < MOST_STREAMS {
            state.streams.insert(key.clone(), Reports { owner, clusters: BTreeMap::new() });
        }
        LoadStream { loads: self.clone(), key }
    }

    /// The last reports, by node, stream and cluster.
    pub fn snapshot(&self) -> Vec<Load> {
        let state = self.lock();
        let loads = state.streams.iter().flat_map(|((node, _), of)| {
            of.clusters.values().map(|(at, load)| Load {
                node: Arc::clone(node),
                owner: of.owner.clone(),
                at: *at,
                load: load.clone(),
            })
        });
        loads.collect()
    }

    /// The node ids of the proxies that report, in order.
    pub fn reporters(&self) -> BTreeSet<Arc<str>> {
        self.lock().streams.keys().map(|(node, _)| Arc::clone(node)).collect()
    }

    /// How many reports of a cluster were not kept: there were too many.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl LoadStream ===

impl LoadStream {
    /// Takes a report.
    pub fn record(&self, loads: impl IntoIterator<Item = ClusterLoad>, at: SystemTime) {
        let mut state = self.loads.lock();
        let State { streams, clusters, lost, .. } = &mut *state;
        let Some(reports) = streams.get_mut(&self.key) else { return };
        for mut load in loads {
            let known = reports.clusters.contains_key(&load.cluster);
            if !known && (reports.clusters.len() >= MOST_CLUSTERS || *clusters >= MOST) {
                *lost += 1;
                continue;
            }
            load.localities.truncate(MOST_LOCALITIES);
            *clusters += usize::from(!known);
            reports.clusters.insert(load.cluster.clone(), (at, load));
        }
    }
}

impl Drop for LoadStream {
    fn drop(&mut self) {
        let mut state = self.loads.lock();
        let reports = state.streams.remove(&self.key);
        state.clusters -= reports.map_or(0, |reports| reports.clusters.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(cluster: &str, dropped: u64) -> ClusterLoad {
        ClusterLoad { cluster: cluster.into(), dropped, ..Default::default() }
    }

    fn seen(loads: &Loads) -> Vec<(String, String, u64)> {
        let loads = loads.snapshot().into_iter();
        loads.map(|load| (load.node.to_string(), load.load.cluster, load.load.dropped)).collect()
    }

    #[test]
    fn the_streams_of_a_proxy_are_kept_apart() {
        let (loads, now) = (Loads::default(), SystemTime::UNIX_EPOCH);
        let owner = Owner::Workload("shop/cart".parse().expect("a name"));
        let first = loads.open("a", owner.clone());
        first.record([load("x", 1)], now);
        let reported = |dropped: &[u64]| -> Vec<_> {
            dropped.iter().map(|dropped| ("a".to_owned(), "x".to_owned(), *dropped)).collect()
        };
        // Neither that another one comes nor that it goes takes away what was said on the first.
        let second = loads.open("a", owner);
        assert_eq!(seen(&loads), reported(&[1]));
        second.record([load("x", 2)], now);
        assert_eq!((seen(&loads), loads.reporters().len()), (reported(&[1, 2]), 1));
        drop(second);
        assert_eq!((seen(&loads), loads.reporters().len()), (reported(&[1]), 1));
        drop(first);
        assert_eq!((seen(&loads).len(), loads.reporters().len()), (0, 0));
    }

    #[test]
    fn the_last_report_of_each_cluster_is_kept_for_as_long_as_its_stream() {
        let loads = Loads::default();
        let owner = Owner::Workload("shop/cart".parse().expect("a name"));
        let now = SystemTime::UNIX_EPOCH;
        let first = loads.open("a", owner.clone());
        let other = loads.open("b", owner);
        first.record([load("x", 1), load("y", 2)], now);
        first.record([load("x", 3)], now);
        other.record([load("x", 4)], now);
        let of = |node: &str, cluster: &str, dropped| (node.to_owned(), cluster.to_owned(), dropped);
        assert_eq!(seen(&loads), [of("a", "x", 3), of("a", "y", 2), of("b", "x", 4)]);
        drop(first);
        assert_eq!(seen(&loads), [of("b", "x", 4)]);
        drop(other);
        assert_eq!((seen(&loads), loads.lock().clusters), (vec![], 0));
    }

    #[test]
    fn a_proxy_fills_no_more_than_its_room() {
        let loads = Loads::default();
        let stream = loads.open("a", Owner::Workload("shop/cart".parse().expect("a name")));
        let localities = vec![LocalityLoad::default(); MOST_LOCALITIES + 1];
        let many = (0..MOST_CLUSTERS + 5).map(|number| load(&format!("{number:05}"), 0));
        stream.record(many, SystemTime::UNIX_EPOCH);
        stream.record([ClusterLoad { localities, ..load("00000", 7) }], SystemTime::UNIX_EPOCH);
        let kept = loads.snapshot();
        assert_eq!((kept.len(), loads.lost()), (MOST_CLUSTERS, 5));
        assert_eq!((kept[0].load.dropped, kept[0].load.localities.len()), (7, MOST_LOCALITIES));
    }
}
