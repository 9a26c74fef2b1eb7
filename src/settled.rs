//! Settled: which publication every connected proxy has accepted as a whole.
//!
//! Owns: the comparison of what is published with what was accepted. May use: `report` and `publish`, as data.
//! Never: waits for a proxy that has gone: one that is an instance still is expected back.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use translators::name::QualifiedName;
use translators::resource::Kind;

use crate::publish::{Published, Table};
use crate::report::{Proxy, Report};
use crate::sources::instances::Instances;

/// How long an accepted listener may still warm before it counts.
const WARMING: Duration = Duration::from_millis(1000);
/// How long after the start proxies of a former run may take to come back, those that serve nothing included.
const RETURN: Duration = Duration::from_secs(10);
/// How often the comparison is made while a publication is on its way.
const PACE: Duration = Duration::from_millis(100);

/// Keeps `settled` at the number of the last publication that every connected proxy has accepted.
pub async fn run(
    report: Report,
    table: Table,
    instances: watch::Receiver<Instances>,
    mut published: watch::Receiver<u64>,
    settled: watch::Sender<u64>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let former_run = !instances.borrow().is_empty();
    let returned = Instant::now() + if former_run { RETURN } else { Duration::ZERO };
    loop {
        let number = *published.borrow_and_update();
        if number > *settled.borrow() {
            let accepted = || {
                let (proxies, published) = (report.proxies(), table.current());
                let back: BTreeSet<_> = proxies.iter().filter_map(instance).collect();
                Instant::now() >= returned
                    && instances.borrow().keys().all(|(workload, node)| back.contains(&(workload, node)))
                    && proxies.iter().all(|proxy| has_accepted(proxy, &published))
            };
            if accepted() {
                tokio::time::sleep(WARMING).await;
                if accepted() && *published.borrow() == number {
                    settled.send_replace(number);
                }
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(PACE) => continue,
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = published.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

fn instance(proxy: &Proxy) -> Option<(&QualifiedName, &String)> {
    Some((proxy.owner.workload()?, &proxy.node))
}

/// Whether a proxy has accepted what its group is to hold now.
fn has_accepted(proxy: &Proxy, published: &Published) -> bool {
    // No step of the mesh is in what somebody wrote.
    let Some(workload) = proxy.owner.workload() else { return true };
    published.snapshots_of(workload).any(|snapshot| {
        [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Route].into_iter().all(|kind| {
            let set = snapshot.of(kind);
            match proxy.types.get(&kind) {
                Some(status) => status.acked == Some(set.version()) && status.rejections.is_empty(),
                None => set.is_empty(),
            }
        })
    })
}
