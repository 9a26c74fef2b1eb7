//! What a stream holds, resource by resource: for whoever looks, not for the protocol.
//!
//! Owns: reading that off a session's state. May use: the session. Never: costs anything while nobody looks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use translators::resource::{Kind, Name, Version};

use super::session::Session;
use super::types::TypeState;
use crate::publish::{ResourceSet, Snapshot};

/// One resource that a stream subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceStatus {
    /// Its type.
    pub kind: Kind,
    /// Its name; the name that was asked for if there is no such resource.
    pub name: Name,
    /// Its version as it is now; `None` if there is no such resource.
    pub version: Option<Version>,
    /// How far the proxy is.
    pub state: State,
}

/// How far a proxy is with a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It was not sent.
    NotSent,
    /// It has accepted it as it is now.
    Synced,
    /// It was sent, and has not been answered; or there is newer content than it was sent.
    Stale,
    /// It refuses it as it is now.
    Error {
        /// Why, in words fit to be shown.
        reason: Arc<str>,
        /// Since when.
        since: Instant,
    },
}

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
    let mut all: BTreeMap<Name, (Option<Version>, State)> = taken
        .map(|resource| {
            let version = resource.version();
            (Name::clone(resource.name()), (Some(version), of_resource(state, resource.name(), version)))
        })
        .collect();
    for name in state.subscription.names().into_iter().flat_map(|names| names.iter()) {
        if current.called(name).next().is_none() {
            all.insert(Name::clone(name), (None, State::NotSent));
        }
    }
    all.into_iter().map(|(name, (version, state))| ResourceStatus { kind, name, version, state }).collect()
}

fn of_resource(state: &TypeState, name: &Name, version: Version) -> State {
    if let Some(culprit) = state.refused.culprits.get(name).filter(|culprit| culprit.version == version) {
        return State::Error { reason: Arc::clone(&culprit.reason), since: culprit.since };
    }
    let accepted = state.good.as_ref().and_then(|good| good.get(name)).map(|resource| resource.version());
    let under_way = state.outstanding.as_ref().is_some_and(|push| push.names.contains(name));
    let waits = state.owes_all || state.owed.contains(name) || state.refused.suspects.contains(name);
    match accepted {
        Some(accepted) if accepted == version && !under_way && !waits => State::Synced,
        Some(_) => State::Stale,
        None if under_way => State::Stale,
        None => State::NotSent,
    }
}
