//! Behind a service: where its endpoints come from, and who may answer for it.
//!
//! Owns: what workloads mean for the services that they serve. May use: `services`. Never: knows a policy.

use std::collections::{BTreeMap, BTreeSet};

use super::services::{Declared, Services};
use crate::mesh::{Backing, Serving, Workload};
use crate::name::{QualifiedName, SpiffeId, TrustDomain};

/// Where the endpoints of every service come from.
pub(super) fn backings(
    services: &Services,
    workloads: &BTreeMap<QualifiedName, Workload>,
) -> BTreeMap<QualifiedName, Backing> {
    let mut serving: BTreeMap<&QualifiedName, Vec<Serving>> = BTreeMap::new();
    for workload in workloads.values() {
        for serve in &workload.serves {
            serving.entry(&serve.service).or_default().push(Serving {
                workload: workload.name.clone(),
                labels: workload.labels.clone(),
                port: serve.port.clone(),
                listen: serve.listen,
            });
        }
    }
    let backing = |(name, declared): (&QualifiedName, &Declared)| {
        let backing = match &declared.endpoints {
            Some(list) => Backing::Static(list.clone()),
            None => Backing::Workloads(serving.remove(name).unwrap_or_default()),
        };
        (name.clone(), backing)
    };
    services.0.iter().map(backing).collect()
}

/// Who may answer for every service.
pub(super) fn identities(
    trust_domain: &TrustDomain,
    services: &Services,
    workloads: &BTreeMap<QualifiedName, Workload>,
) -> BTreeMap<QualifiedName, BTreeSet<SpiffeId>> {
    let mut identities: BTreeMap<QualifiedName, BTreeSet<SpiffeId>> = BTreeMap::new();
    for workload in workloads.values() {
        for serve in &workload.serves {
            identities.entry(serve.service.clone()).or_default().insert(workload.identity.clone());
        }
    }
    for name in services.0.keys() {
        identities.entry(name.clone()).or_insert_with(|| BTreeSet::from([SpiffeId::of_workload(trust_domain, name)]));
    }
    identities
}
