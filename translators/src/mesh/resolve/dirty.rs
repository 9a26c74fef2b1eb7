//! Dirty: what has to be looked at again in an update.
//!
//! Owns: the marks that one stage leaves for those after it. May use: `name`. Never: evaluates anything.

use std::collections::{BTreeMap, BTreeSet};

use super::levels::Level;
use super::services::Services;
use crate::name::{ObjectKey, ObjectKind, QualifiedName};

/// The marks of one update.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    objects: BTreeMap<ObjectKind, BTreeSet<QualifiedName>>,
    /// Services behind which there may be something else.
    pub backings: BTreeSet<QualifiedName>,
    /// Services to put together again.
    pub services: BTreeSet<QualifiedName>,
    /// Levels that access policies began or ceased to target.
    pub levels: BTreeSet<Level>,
    /// Access policies to be held against the ports that they cover.
    pub warnings: BTreeSet<QualifiedName>,
}

// === impl Dirty ===

impl Dirty {
    /// The object `key` is to be evaluated.
    pub(super) fn object(&mut self, key: &ObjectKey) {
        self.objects.entry(key.kind).or_default().insert(key.name.clone());
    }

    /// The objects of `kind` that are to be evaluated.
    pub(super) fn take(&mut self, kind: ObjectKind) -> BTreeSet<QualifiedName> {
        self.objects.remove(&kind).unwrap_or_default()
    }

    /// The services that `level` covers are to be put together.
    pub(super) fn covered(&mut self, level: &Level, services: &Services) {
        match level {
            Level::Mesh => self.services.extend(services.iter().map(|(name, _)| name.clone())),
            Level::Namespace(namespace) => {
                self.services.extend(services.within(namespace).map(|(name, _)| name.clone()));
            }
            Level::Service(service) | Level::Port(service, _) => {
                self.services.insert(service.clone());
            }
        }
    }
}
