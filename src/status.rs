//! Status: what operators are told of the rules and certificates in force.
//!
//! Owns: that one step from a translation to the admin API. May use: `translate`, `ca`, `admin`, their types. Never:
//! looks at a proxy; that is `report`'s.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::Status;
use crate::ca::Issued;
use crate::translate::Translation;

/// Keeps `status` current until stopped.
pub async fn run(
    mut translation: watch::Receiver<Option<Translation>>,
    mut issued: watch::Receiver<Arc<Issued>>,
    status: watch::Sender<Arc<Status>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let certificates =
            issued.borrow_and_update().certificates.iter().map(|(w, i)| (w.clone(), i.not_after)).collect();
        if let Some(translation) = translation.borrow_and_update().clone() {
            let rules = translation.rules;
            status.send_replace(Arc::new(Status {
                ready: Ok(()),
                findings: rules.findings.as_slice().into(),
                locate: Arc::new(move |rule| rules.locate(rule)),
                certificates,
            }));
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = translation.changed() => if changed.is_err() { return Ok(()) },
            changed = issued.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}
