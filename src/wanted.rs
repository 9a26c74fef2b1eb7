//! Wanted: which identities are to have certificates, by the rules in force.
//!
//! Owns: that one step from a translation to the issuer. May use: `translate` and `ca`, their types. Never: issues.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ca::Wanted;
use crate::translate::Translation;

/// Keeps `wanted` at the identities of the workloads in force until stopped; `leaf_ttl` goes before what the Mesh says.
pub async fn run(
    mut translation: watch::Receiver<Option<Translation>>,
    wanted: watch::Sender<Arc<Wanted>>,
    leaf_ttl: Option<Duration>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        if let Some(translation) = &*translation.borrow_and_update() {
            let mesh = &translation.rules.mesh;
            let identities = mesh.workloads.values().map(|w| (w.name.clone(), w.identity.clone())).collect();
            let next = Wanted { identities, leaf_ttl: leaf_ttl.unwrap_or(mesh.leaf_ttl.value) };
            wanted.send_if_modified(|held| {
                let changed = **held != next;
                if changed {
                    *held = Arc::new(next);
                }
                changed
            });
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = translation.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}
