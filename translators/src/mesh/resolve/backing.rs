//! Behind a service: where its endpoints come from, and who may answer for it.
//!
//! Owns: what workloads mean for the services that they serve. May use: `services`. Never: knows a policy.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::OrdMap;

use super::facts::Fact;
use super::report::Report;
use super::services::Declared;
use super::stage::Change;
use crate::mesh::{Backing, Serving, StaticEndpoint, Workload};
use crate::name::{QualifiedName, SpiffeId, TrustDomain};

/// What can be selected of some endpoints: the port that they have, and the labels that they carry.
pub(super) type Selectable<'a> = (&'a str, &'a BTreeMap<String, String>);

/// What is behind one service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Behind {
    pub backing: Backing,
    pub identities: BTreeSet<SpiffeId>,
}

/// What is behind every service, and which workloads serve it.
#[derive(Debug, Default)]
pub(super) struct Backings {
    behind: BTreeMap<QualifiedName, Behind>,
    servers: BTreeMap<QualifiedName, BTreeSet<QualifiedName>>,
}

// === impl Backings ===

impl Backings {
    /// What is behind a service.
    pub(super) fn get(&self, service: &QualifiedName) -> Option<&Behind> {
        self.behind.get(service)
    }

    /// What can be selected of the endpoints of a service.
    pub(super) fn selectable(
        &self,
        service: &QualifiedName,
        report: &mut Report<'_>,
    ) -> Option<BTreeSet<Selectable<'_>>> {
        report.reads.push(Fact::Selectable(service.clone()));
        self.behind.get(service).map(|behind| selectable(&behind.backing))
    }

    /// Who may answer for a service.
    pub(super) fn identities(&self, service: &QualifiedName, report: &mut Report<'_>) -> Option<&BTreeSet<SpiffeId>> {
        report.reads.push(Fact::Identities(service.clone()));
        self.behind.get(service).map(|behind| &behind.identities)
    }

    /// Takes up a change of a workload; the services behind which there may be something else now.
    pub(super) fn follow(&mut self, change: &Change<Workload>) -> BTreeSet<QualifiedName> {
        let served = |workload: &Workload| workload.serves.iter().map(|serve| serve.service.clone()).collect();
        let before: BTreeSet<QualifiedName> =
            change.before.as_ref().map(|kept| served(&kept.value)).unwrap_or_default();
        let after: BTreeSet<QualifiedName> = change.after.as_ref().map(|kept| served(&kept.value)).unwrap_or_default();
        for service in before.difference(&after) {
            let Some(servers) = self.servers.get_mut(service) else { continue };
            servers.remove(&change.name);
            if servers.is_empty() {
                self.servers.remove(service);
            }
        }
        for service in after.difference(&before) {
            self.servers.entry(service.clone()).or_default().insert(change.name.clone());
        }
        match (&change.before, &change.after) {
            (Some(before), Some(after)) if serves_alike(&before.value, &after.value) => BTreeSet::new(),
            _ => before.into_iter().chain(after).collect(),
        }
    }

    /// Looks again at what is behind `service`; if that is something else, which facts are others now.
    pub(super) fn refresh(
        &mut self,
        service: &QualifiedName,
        declared: Option<&Declared>,
        workloads: &OrdMap<QualifiedName, Arc<Workload>>,
        trust_domain: &TrustDomain,
    ) -> Option<Vec<Fact>> {
        let Some(declared) = declared else {
            self.behind.remove(service);
            return None;
        };
        let servers = self.servers.get(service).into_iter().flatten();
        let servers: Vec<&Workload> = servers.filter_map(|name| workloads.get(name)).map(AsRef::as_ref).collect();
        let backing = match &declared.endpoints {
            Some(backing) => backing.clone(),
            None => Backing::Workloads(servers.iter().flat_map(|workload| serving(workload, service)).collect()),
        };
        let mut identities: BTreeSet<SpiffeId> = servers.iter().map(|workload| workload.identity.clone()).collect();
        if identities.is_empty() {
            identities.insert(SpiffeId::of_workload(trust_domain, service));
        }
        let now = Behind { backing, identities };
        match self.behind.entry(service.clone()) {
            Entry::Occupied(mut entry) => {
                let before = entry.insert(now);
                let now = entry.get();
                let mut facts = Vec::new();
                if before.backing != now.backing && selectable(&before.backing) != selectable(&now.backing) {
                    facts.push(Fact::Selectable(service.clone()));
                }
                if before.identities != now.identities {
                    facts.push(Fact::Identities(service.clone()));
                }
                (before != *now).then_some(facts)
            }
            Entry::Vacant(entry) => {
                entry.insert(now);
                Some(vec![Fact::Selectable(service.clone()), Fact::Identities(service.clone())])
            }
        }
    }
}

/// Whether it makes no difference to any service which of the two serves it.
fn serves_alike(left: &Workload, right: &Workload) -> bool {
    (&left.identity, &left.labels, &left.locality, &left.serves)
        == (&right.identity, &right.labels, &right.locality, &right.serves)
}

/// What can be selected, whatever else is said of the endpoints.
fn selectable(backing: &Backing) -> BTreeSet<Selectable<'_>> {
    match backing {
        Backing::Workloads(list) => list.iter().map(|serving| (serving.port.as_str(), &serving.labels)).collect(),
        Backing::Static(list) => list.iter().flat_map(of_endpoint).collect(),
        Backing::Dns(dns) => dns.ports.keys().map(|port| (port.as_str(), &NO_LABELS)).collect(),
    }
}

/// Of an address that a name server gives nothing is known.
static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

fn of_endpoint(endpoint: &StaticEndpoint) -> impl Iterator<Item = Selectable<'_>> {
    endpoint.ports.keys().map(|port| (port.as_str(), &endpoint.labels))
}

fn serving<'a>(workload: &'a Workload, service: &'a QualifiedName) -> impl Iterator<Item = Serving> + 'a {
    workload.serves.iter().filter(move |serve| serve.service == *service).map(|serve| Serving {
        workload: workload.name.clone(),
        labels: workload.labels.clone(),
        port: serve.port.clone(),
        listen: serve.listen,
        locality: workload.locality.clone(),
    })
}
