//! The instances: which connected proxies are endpoints of which services.
//!
//! Owns: when a proxy becomes an endpoint, when it stops being one, and the record of it on disk. May use:
//! `report`, as data. Never: talks to a proxy.
//!
//! A proxy is an instance from the first inbound listener that it accepts until a while after its stream
//! has gone, and never less than a minute after the control plane itself started: a control plane that
//! restarts takes nobody away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use imbl::ordmap::DiffItem;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
pub use translators::mesh::Instances;
use translators::mesh::{Instance, InstanceKey};

use crate::durable;
use crate::report::{Connected, Connections, Report};

/// What the names of inbound listeners begin with.
const INBOUND_PREFIX: &str = "in/";
/// How long an instance outlives its stream.
const LINGER: Duration = Duration::from_secs(30);
/// How long after the start nothing is taken away.
const START_GRACE: Duration = Duration::from_secs(60);
/// Facts that arrive within this time are looked at together.
const SETTLE: Duration = Duration::from_millis(5);
/// How long after the record was written it is written again.
const RECORD_PACE: Duration = Duration::from_millis(250);

/// What is on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    instances: Vec<Arc<Instance>>,
}

/// A proxy that is connected, or was.
#[derive(Debug)]
struct Known {
    instance: Arc<Instance>,
    /// How many streams it has.
    streams: usize,
    /// When the last one ended.
    gone: Option<Instant>,
}

/// The known proxies, by workload and node.
#[derive(Debug)]
struct Registry {
    started: Instant,
    observed: Connections,
    known: BTreeMap<InstanceKey, Known>,
    /// When those that have gone are forgotten.
    departures: BTreeSet<(Instant, InstanceKey)>,
    /// Those that serve.
    instances: Instances,
}

/// Reads the record of a former run; a record that cannot be read is reported and counts as none.
pub fn load(path: &Path) -> Instances {
    let record = durable::read_json::<Record>(path).unwrap_or_else(|error| {
        warn!(path = %path.display(), %error, "record of instances cannot be read, starting without");
        None
    });
    record.unwrap_or_default().instances.into_iter().map(|instance| (instance.key(), instance)).collect()
}

/// Keeps `state` and the record at `path` current until stopped; `state` does not wait for the record.
pub async fn run(
    report: Report,
    path: PathBuf,
    state: watch::Sender<Instances>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let recorded = state.subscribe();
    let path = Arc::new(path);
    let write = move |instances| write(Arc::clone(&path), instances);
    tokio::try_join!(gather(report.watch(), state, stop.clone()), record(recorded, write, stop))?;
    Ok(())
}

async fn write(path: Arc<PathBuf>, instances: Instances) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || {
        let record = Record { instances: instances.values().cloned().collect() };
        if let Err(error) = durable::write_json(&path, &record) {
            warn!(path = %path.display(), %error, "record of instances cannot be written");
        }
    })
    .await?;
    Ok(())
}

/// Keeps `state` current until stopped.
async fn gather(
    mut connections: watch::Receiver<Connections>,
    state: watch::Sender<Instances>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let recorded = state.borrow().clone();
    let mut registry = Registry::new(Instant::now(), recorded);
    loop {
        let current = connections.borrow_and_update().clone();
        registry.observe(current, Instant::now());
        state.send_if_modified(|published| {
            let changed = !published.ptr_eq(&registry.instances);
            published.clone_from(&registry.instances);
            changed
        });
        let wake = registry.next_departure().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep_until(wake) => {}
            changed = connections.changed() => {
                if changed.is_err() { return Ok(()) }
                tokio::time::sleep(SETTLE).await;
            }
        }
    }
}

/// Has every state written, or a later one, at a bounded pace, until nobody can change it any more.
async fn record<F: Future<Output = anyhow::Result<()>>>(
    mut state: watch::Receiver<Instances>,
    write: impl Fn(Instances) -> F,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while state.changed().await.is_ok() {
        let instances = state.borrow_and_update().clone();
        info!(instances = instances.len(), "instances changed");
        write(instances).await?;
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(RECORD_PACE) => {}
        }
    }
    Ok(())
}

// === impl Registry ===

impl Registry {
    fn new(started: Instant, recorded: Instances) -> Self {
        let instances = recorded.clone();
        let departures = recorded.keys().map(|key| (departure(started, started), key.clone())).collect();
        let known = |(key, instance)| (key, Known { instance, streams: 0, gone: Some(started) });
        let known = recorded.into_iter().map(known).collect();
        Self { started, observed: Connections::new(), known, departures, instances }
    }

    /// Takes in what has changed since it was last asked, and the time.
    fn observe(&mut self, connections: Connections, now: Instant) {
        let former = std::mem::replace(&mut self.observed, connections.clone());
        for change in former.diff(&connections) {
            match change {
                DiffItem::Add(_, connected) => self.came(connected),
                DiffItem::Update { old: (_, old), new: (_, new) } => {
                    self.came(new);
                    self.went(old, now);
                }
                DiffItem::Remove(_, connected) => self.went(connected, now),
            }
        }
        while self.next_departure().is_some_and(|departure| departure <= now) {
            if let Some((_, key)) = self.departures.pop_first() {
                self.known.remove(&key);
                self.instances.remove(&key);
            }
        }
    }

    fn came(&mut self, proxy: &Connected) {
        // What somebody wrote for Envoy itself is no endpoint of the mesh.
        let Some(workload) = proxy.owner.workload() else { return };
        let key = (workload.clone(), proxy.node.clone());
        let known = self.known.entry(key.clone()).or_insert_with(|| Known {
            instance: Arc::new(Instance {
                workload: workload.clone(),
                node: proxy.node.clone(),
                address: proxy.address,
                listeners: BTreeSet::new(),
                has_certificate: false,
            }),
            streams: 0,
            gone: None,
        });
        known.streams += 1;
        if let Some(gone) = known.gone.take() {
            self.departures.remove(&(departure(self.started, gone), key.clone()));
        }
        // What was accepted once stays accepted: a reconnecting proxy still listens.
        let mut next = Instance::clone(&known.instance);
        let listeners = proxy.listeners.iter().filter(|name| name.starts_with(INBOUND_PREFIX));
        next.listeners.extend(listeners.map(ToString::to_string));
        next.has_certificate |= proxy.has_certificate;
        next.address = proxy.address;
        if next != *known.instance {
            known.instance = Arc::new(next);
            if !known.instance.listeners.is_empty() {
                self.instances.insert(key, Arc::clone(&known.instance));
            }
        }
    }

    fn went(&mut self, proxy: &Connected, now: Instant) {
        let Some(workload) = proxy.owner.workload() else { return };
        let key = (workload.clone(), proxy.node.clone());
        if let Some(known) = self.known.get_mut(&key) {
            known.streams -= 1;
            if known.streams == 0 {
                known.gone = Some(now);
                self.departures.insert((departure(self.started, now), key));
            }
        }
    }

    fn next_departure(&self) -> Option<Instant> {
        self.departures.first().map(|(departure, _)| *departure)
    }
}

fn departure(started: Instant, gone: Instant) -> Instant {
    (gone + LINGER).max(started + START_GRACE)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use translators::name::Owner;

    use crate::report::Proxy;

    /// The connections of these proxies, one stream each.
    fn connected(proxies: &[(&str, &[&str])]) -> Connections {
        let connected = |(id, (node, listeners)): (u64, &(&str, &[&str]))| {
            let connected = Connected {
                node: (*node).into(),
                owner: Owner::Workload("shop/cart-v1".parse().expect("valid")),
                address: [127, 0, 0, 1].into(),
                listeners: listeners.iter().map(|name| (*name).into()).collect(),
                has_certificate: false,
            };
            (id, Arc::new(connected))
        };
        (0..).zip(proxies).map(connected).collect()
    }

    fn nobody() -> Connections {
        Connections::new()
    }

    #[test]
    fn a_proxy_is_an_instance_from_its_first_inbound_listener() {
        let now = Instant::now();
        let mut registry = Registry::new(now, Instances::new());
        registry.observe(connected(&[("a", &[])]), now);
        assert_eq!(registry.instances, Instances::new());
        registry.observe(connected(&[("a", &["out/shop/redis/redis"])]), now);
        assert_eq!(registry.instances, Instances::new());
        registry.observe(connected(&[("a", &["in/shop/cart/http"])]), now);
        assert_eq!(registry.instances.len(), 1);
    }

    #[test]
    fn an_instance_outlives_its_stream_and_the_start_of_the_control_plane() {
        let start = Instant::now();
        let mut registry = Registry::new(start, Instances::new());
        registry.observe(connected(&[("a", &["in/shop/cart/http"])]), start);
        let gone = start + Duration::from_secs(100);
        registry.observe(nobody(), gone);
        registry.observe(nobody(), gone + Duration::from_secs(29));
        assert_eq!(registry.instances.len(), 1);
        registry.observe(nobody(), gone + Duration::from_secs(30));
        assert_eq!(registry.instances, Instances::new());

        let mut registry = Registry::new(start, Instances::new());
        registry.observe(connected(&[("a", &["in/shop/cart/http"])]), start);
        registry.observe(nobody(), start + Duration::from_secs(1));
        registry.observe(nobody(), start + Duration::from_secs(59));
        assert_eq!(registry.instances.len(), 1, "the first minute takes nobody away");
        registry.observe(nobody(), start + Duration::from_secs(60));
        assert_eq!(registry.instances, Instances::new());
    }

    #[test]
    fn a_proxy_with_two_streams_has_gone_when_both_have() {
        let start = Instant::now();
        let mut registry = Registry::new(start, Instances::new());
        let mut streams = connected(&[("a", &["in/shop/cart/http"]), ("a", &[])]);
        registry.observe(streams.clone(), start);
        streams.remove(&0);
        registry.observe(streams.clone(), start + Duration::from_secs(1));
        registry.observe(streams, start + Duration::from_secs(100));
        assert_eq!(registry.instances.len(), 1);
        registry.observe(nobody(), start + Duration::from_secs(200));
        registry.observe(nobody(), start + Duration::from_secs(230));
        assert_eq!(registry.instances, Instances::new());
    }

    #[test]
    fn a_recorded_instance_waits_for_its_proxy_to_come_back() {
        let start = Instant::now();
        let mut former = Registry::new(start, Instances::new());
        former.observe(connected(&[("a", &["in/shop/cart/http"])]), start);
        let recorded = former.instances.clone();
        let mut registry = Registry::new(start, recorded.clone());
        registry.observe(nobody(), start + Duration::from_secs(10));
        assert_eq!(registry.instances, recorded);
        registry.observe(connected(&[("a", &[])]), start + Duration::from_secs(20));
        registry.observe(connected(&[("a", &[])]), start + Duration::from_secs(200));
        assert_eq!(registry.instances, recorded, "what it had accepted, it still listens on");
        assert!(registry.instances.ptr_eq(&recorded), "nothing has changed, and nobody is told");
    }

    #[tokio::test(start_paused = true)]
    async fn many_changes_are_few_records_and_the_last_is_written() {
        let state = watch::Sender::new(Instances::new());
        let (written, stop) = (RefCell::new(Vec::new()), CancellationToken::new());
        let write = |instances: Instances| {
            written.borrow_mut().push(instances.len());
            std::future::ready(Ok(()))
        };
        let recorded = state.subscribe();
        let change = async {
            for n in 0..1000u32 {
                let mut registry = Registry::new(Instant::now(), state.borrow().clone());
                registry.observe(connected(&[(&n.to_string(), &["in/shop/cart/http"])]), Instant::now());
                state.send_replace(registry.instances);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stop.cancel();
            drop(state);
        };
        let (ended, ()) = tokio::join!(record(recorded, write, stop.clone()), change);
        ended.expect("nothing failed");
        let written = written.into_inner();
        assert!(written.len() <= 6, "{written:?}");
        assert_eq!(written.last(), Some(&1000));
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "a test owns its tasks")]
    async fn what_a_proxy_accepts_becomes_an_instance_and_a_record() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("instances.json");
        let (report, stop) = (Report::default(), CancellationToken::new());
        let (state, mut instances) = watch::channel(load(&path));
        let running = tokio::spawn(run(report.clone(), path.clone(), state, stop.clone()));
        let mut proxy = Proxy {
            node: "a".into(),
            owner: Owner::Workload("shop/cart-v1".parse().expect("valid")),
            address: [127, 0, 0, 1].into(),
            proven: true,
            envoy: String::new(),
            protocol: "delta",
            connected: std::time::SystemTime::UNIX_EPOCH,
            types: BTreeMap::new(),
            listeners: BTreeSet::new(),
            has_certificate: false,
        };
        let stream = report.connect(Arc::new(std::sync::Mutex::new(proxy.clone())));
        proxy.listeners.extend(["in/shop/cart/http".into()]);
        stream.tell(proxy.connected());
        let now = instances.wait_for(|instances| instances.len() == 1).await.expect("it runs").clone();
        stop.cancel();
        running.await.expect("no panic").expect("no failure");
        assert_eq!(load(&path), now);
    }
}
