//! The instances: which connected proxies are endpoints of which services.
//!
//! Owns: when a proxy becomes an endpoint, when it stops being one, and the record of it on disk. May use:
//! `report`, as data. Never: talks to a proxy.
//!
//! A proxy is an instance from the first inbound listener that it accepts until a while after its stream
//! has gone, and never less than a minute after the control plane itself started: a control plane that
//! restarts takes nobody away.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use translators::mesh::Instance;
pub use translators::mesh::Instances;
use translators::name::QualifiedName;

use crate::durable;
use crate::report::{Proxy, Report};

/// What the names of inbound listeners begin with.
const INBOUND_PREFIX: &str = "in/";
/// How long an instance outlives its stream.
const LINGER: Duration = Duration::from_secs(30);
/// How long after the start nothing is taken away.
const START_GRACE: Duration = Duration::from_secs(60);
/// Facts that arrive within this time are looked at together.
const SETTLE: Duration = Duration::from_millis(5);

/// What is on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    instances: Vec<Arc<Instance>>,
}

#[derive(Debug)]
struct Known {
    instance: Arc<Instance>,
    gone: Option<Instant>,
}

/// The known instances, by workload and node.
#[derive(Debug)]
struct Registry {
    started: Instant,
    known: BTreeMap<(QualifiedName, String), Known>,
}

/// Reads the record of a former run; a record that cannot be read is reported and counts as none.
pub fn load(path: &std::path::Path) -> Instances {
    match durable::read_json::<Record>(path) {
        Ok(record) => {
            record.unwrap_or_default().instances.into_iter().map(|instance| (instance.key(), instance)).collect()
        }
        Err(error) => {
            warn!(path = %path.display(), %error, "record of instances cannot be read, starting without");
            Instances::new()
        }
    }
}

/// Keeps `state` and the record at `path` current until stopped.
pub async fn run(
    report: Report,
    path: PathBuf,
    state: watch::Sender<Instances>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut changes = report.watch();
    let mut registry = Registry::new(Instant::now(), state.borrow().clone());
    loop {
        changes.borrow_and_update();
        registry.observe(&report.proxies(), Instant::now());
        let next = registry.instances();
        if *state.borrow() != next {
            info!(instances = next.len(), "instances changed");
            let record = Record { instances: next.values().cloned().collect() };
            let written = {
                let path = path.clone();
                tokio::task::spawn_blocking(move || durable::write_json(&path, &record)).await?
            };
            if let Err(error) = written {
                warn!(path = %path.display(), %error, "record of instances cannot be written");
            }
            state.send_replace(next);
        }
        let wake = registry.next_departure().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep_until(wake) => {}
            changed = changes.changed() => {
                if changed.is_err() { return Ok(()) }
                tokio::time::sleep(SETTLE).await;
            }
        }
    }
}

// === impl Registry ===

impl Registry {
    fn new(started: Instant, recorded: Instances) -> Self {
        let known =
            recorded.into_iter().map(|(key, instance)| (key, Known { instance, gone: Some(started) })).collect();
        Self { started, known }
    }

    fn observe(&mut self, proxies: &[Proxy], now: Instant) {
        let mut connected = std::collections::BTreeSet::new();
        for proxy in proxies {
            let key = (proxy.workload.clone(), proxy.node.clone());
            let listeners = proxy.listeners.iter().filter(|name| name.starts_with(INBOUND_PREFIX));
            let known = self.known.entry(key.clone()).or_insert_with(|| Known {
                instance: Arc::new(Instance {
                    workload: proxy.workload.clone(),
                    node: proxy.node.clone(),
                    address: proxy.address,
                    listeners: std::collections::BTreeSet::new(),
                    has_certificate: false,
                }),
                gone: None,
            });
            // What was accepted once stays accepted: a reconnecting proxy still listens.
            let instance = Arc::make_mut(&mut known.instance);
            instance.listeners.extend(listeners.map(ToString::to_string));
            instance.has_certificate |= proxy.has_certificate;
            instance.address = proxy.address;
            known.gone = None;
            connected.insert(key);
        }
        for (key, known) in &mut self.known {
            if !connected.contains(key) {
                known.gone.get_or_insert(now);
            }
        }
        let started = self.started;
        self.known.retain(|_, known| known.gone.is_none_or(|gone| now < departure(started, gone)));
    }

    fn instances(&self) -> Instances {
        let serves = |(_, known): &(_, &Known)| !known.instance.listeners.is_empty();
        self.known.iter().filter(serves).map(|(key, known)| (key.clone(), Arc::clone(&known.instance))).collect()
    }

    fn next_departure(&self) -> Option<Instant> {
        self.known.values().filter_map(|known| known.gone).map(|gone| departure(self.started, gone)).min()
    }
}

fn departure(started: Instant, gone: Instant) -> Instant {
    (gone + LINGER).max(started + START_GRACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(node: &str, listeners: &[&str]) -> Proxy {
        Proxy {
            node: node.into(),
            workload: "shop/cart-v1".parse().expect("valid"),
            address: [127, 0, 0, 1].into(),
            envoy: String::new(),
            protocol: "delta",
            connected: std::time::SystemTime::UNIX_EPOCH,
            types: BTreeMap::new(),
            listeners: listeners.iter().map(|name| (*name).into()).collect(),
            has_certificate: false,
        }
    }

    #[test]
    fn a_proxy_is_an_instance_from_its_first_inbound_listener() {
        let now = Instant::now();
        let mut registry = Registry::new(now, Instances::new());
        registry.observe(&[proxy("a", &[])], now);
        assert_eq!(registry.instances(), Instances::new());
        registry.observe(&[proxy("a", &["out/shop/redis/redis"])], now);
        assert_eq!(registry.instances(), Instances::new());
        registry.observe(&[proxy("a", &["in/shop/cart/http"])], now);
        assert_eq!(registry.instances().len(), 1);
    }

    #[test]
    fn an_instance_outlives_its_stream_and_the_start_of_the_control_plane() {
        let start = Instant::now();
        let mut registry = Registry::new(start, Instances::new());
        registry.observe(&[proxy("a", &["in/shop/cart/http"])], start);
        let gone = start + Duration::from_secs(100);
        registry.observe(&[], gone);
        registry.observe(&[], gone + Duration::from_secs(29));
        assert_eq!(registry.instances().len(), 1);
        registry.observe(&[], gone + Duration::from_secs(30));
        assert_eq!(registry.instances(), Instances::new());

        let mut registry = Registry::new(start, Instances::new());
        registry.observe(&[proxy("a", &["in/shop/cart/http"])], start);
        registry.observe(&[], start + Duration::from_secs(1));
        registry.observe(&[], start + Duration::from_secs(59));
        assert_eq!(registry.instances().len(), 1, "the first minute takes nobody away");
        registry.observe(&[], start + Duration::from_secs(60));
        assert_eq!(registry.instances(), Instances::new());
    }

    #[test]
    fn a_recorded_instance_waits_for_its_proxy_to_come_back() {
        let start = Instant::now();
        let mut former = Registry::new(start, Instances::new());
        former.observe(&[proxy("a", &["in/shop/cart/http"])], start);
        let recorded = former.instances();
        let mut registry = Registry::new(start, recorded.clone());
        registry.observe(&[], start + Duration::from_secs(10));
        assert_eq!(registry.instances(), recorded);
        registry.observe(&[proxy("a", &[])], start + Duration::from_secs(20));
        registry.observe(&[proxy("a", &[])], start + Duration::from_secs(200));
        assert_eq!(registry.instances(), recorded, "what it had accepted, it still listens on");
    }
}
