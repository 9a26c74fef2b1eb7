//! Status: what operators are told of the rules and certificates in force.
//!
//! Owns: that one step from a translation to the admin API. May use: `translate`, `ca`, `materials`, `admin`, their types. Never:
//! looks at a proxy; that is `report`'s.

use std::sync::Arc;

use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use translators::finding::by_place;
use translators::mesh;
use translators::name::QualifiedName;
use translators::xds;

use crate::admin::{Status, Validity};
use crate::ca::{Issuance, Issued};
use crate::materials::Materials;
use crate::translate::Translation;

/// Keeps `status` current until stopped. What costs more than a change does is put together when somebody asks.
pub async fn run(
    mut translation: watch::Receiver<Option<Translation>>,
    mut issued: watch::Receiver<Arc<Issued>>,
    mut materials: watch::Receiver<Arc<Materials>>,
    status: watch::Sender<Arc<Status>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut former: OrdMap<QualifiedName, Arc<Issuance>> = OrdMap::new();
    let mut certificates: OrdMap<QualifiedName, Validity> = OrdMap::new();
    loop {
        let next = issued.borrow_and_update().certificates.clone();
        for change in former.diff(&next) {
            match change {
                DiffItem::Add(workload, issuance) | DiffItem::Update { new: (workload, issuance), .. } => {
                    let Issuance { not_after, renew_at, .. } = **issuance;
                    certificates.insert(workload.clone(), Validity { not_after, renew_at });
                }
                DiffItem::Remove(workload, _) => drop(certificates.remove(workload)),
            }
        }
        former = next;
        let rules = translation.borrow_and_update().as_ref().map(|translation| Arc::clone(&translation.rules));
        if let Some(rules) = rules {
            let (of_findings, seen) = (Arc::clone(&rules), Arc::clone(&materials.borrow_and_update().seen));
            status.send_replace(Arc::new(Status {
                ready: Ok(()),
                findings: Arc::new(move || {
                    let mut all = of_findings.findings.all();
                    all.extend(mesh::findings(&of_findings.mesh, &of_findings.objects, &seen));
                    all.extend(xds::patch_findings(&of_findings.mesh, &of_findings.objects));
                    all.sort_by(by_place);
                    all
                }),
                objects: rules.objects.clone(),
                mesh: Some(rules.mesh.clone()),
                locate: Arc::new(move |rule| rules.locate(rule)),
                certificates: certificates.clone(),
            }));
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = translation.changed() => if changed.is_err() { return Ok(()) },
            changed = issued.changed() => if changed.is_err() { return Ok(()) },
            changed = materials.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}
