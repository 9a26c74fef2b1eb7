//! What a stream holds, resource by resource: for whoever looks, not for the protocol.
//!
//! Owns: reading that off a session's state. May use: the session. Never: costs anything while nobody looks.

use std::collections::BTreeMap;
use std::sync::Arc;

use translators::resource::{Kind, Name, Resource, Version};

use super::session::Session;
use super::types::TypeState;
use crate::publish::{ResourceSet, Snapshot};
use crate::report::{ResourceState, ResourceStatus};

impl Session {
    /// Every resource that the stream subscribes to, by type and name, compared with what it is to hold. It looks at
    /// all of them.
    pub fn resources(&self, snapshot: &Snapshot) -> Vec<ResourceStatus> {
        let asked = Kind::ALL.into_iter().filter(|kind| self.asks_for(*kind));
        asked.flat_map(|kind| of_type(kind, self.of(kind), snapshot.of(kind))).collect()
    }
}

fn of_type(kind: Kind, state: &TypeState, current: &ResourceSet) -> Vec<ResourceStatus> {
    let taken = current.iter().filter(|resource| state.subscription.takes(resource));
    let mut all: BTreeMap<Name, (Option<Arc<Resource>>, ResourceState)> = taken
        .map(|resource| {
            let version = resource.version();
            let of = of_resource(state, resource.name(), version);
            (Name::clone(resource.name()), (Some(Arc::clone(resource)), of))
        })
        .collect();
    for name in state.subscription.names().into_iter().flat_map(|names| names.iter()) {
        if current.called(name).next().is_none() {
            all.insert(Name::clone(name), (None, ResourceState::NotSent));
        }
    }
    all.into_iter().map(|(name, (resource, state))| ResourceStatus { kind, name, resource, state }).collect()
}

fn of_resource(state: &TypeState, name: &Name, version: Version) -> ResourceState {
    if let Some(culprit) = state.refused.culprits.get(name).filter(|culprit| culprit.version == version) {
        return ResourceState::Error { reason: Arc::clone(&culprit.reason), since: culprit.since };
    }
    let accepted = state.good.as_ref().and_then(|good| good.get(name)).map(|resource| resource.version());
    let under_way = state.outstanding.as_ref().is_some_and(|push| push.names.contains(name));
    let waits = state.owes_all || state.owed.contains(name) || state.refused.suspects.contains(name);
    match accepted {
        Some(accepted) if accepted == version && !under_way && !waits => ResourceState::Synced,
        Some(_) => ResourceState::Stale,
        None if under_way => ResourceState::Stale,
        None => ResourceState::NotSent,
    }
}
