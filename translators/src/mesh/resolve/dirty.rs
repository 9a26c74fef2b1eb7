//! Dirty: what has to be looked at again in an update.
//!
//! Owns: the marks that one stage leaves for those after it. May use: `name`, `levels`, `reach`. Never: evaluates anything.

use std::collections::BTreeMap;

use super::levels::Level;
use super::reach::{Reach, Workloads};
use super::services::Services;
use crate::name::{ObjectKey, ObjectKind, QualifiedName};

/// The marks of one update.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    objects: BTreeMap<ObjectKind, Marks<QualifiedName>>,
    /// Services behind which there may be something else.
    pub backings: Marks<QualifiedName>,
    /// Services to put together again.
    pub services: Marks<QualifiedName>,
    /// Gateways whose sockets may say something else.
    pub gateways: Marks<QualifiedName>,
    /// Workloads whose sockets may be others.
    pub edges: Marks<QualifiedName>,
    /// Levels that access policies began or ceased to target.
    pub levels: Marks<Level>,
    /// Access policies to be held against the ports that they cover.
    pub warnings: Marks<QualifiedName>,
    /// Workloads whose proxies may have to say something else.
    pub observed: Marks<QualifiedName>,
}

/// What is marked, in order only when it is taken: most marks are set in order, and many twice.
#[derive(Debug)]
pub(super) struct Marks<T>(Vec<T>);

// === impl Dirty ===

impl Dirty {
    /// The object `key` is to be evaluated.
    pub(super) fn object(&mut self, key: &ObjectKey) {
        self.objects.entry(key.kind).or_default().insert(key.name.clone());
    }

    /// The objects of `kind` that are to be evaluated.
    pub(super) fn take(&mut self, kind: ObjectKind) -> Vec<QualifiedName> {
        self.objects.remove(&kind).unwrap_or_default().take()
    }

    /// The services of which a policy with this `reach` says something are to be put together.
    pub(super) fn reached(&mut self, reach: &Reach, services: &Services, workloads: &Workloads) {
        reach.level().into_iter().for_each(|level| self.covered(level, services));
        let served = reach.within(workloads).flat_map(|workload| &workload.serves);
        self.services.extend(served.map(|serve| serve.service.clone()));
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
            Level::Gateway(gateway, _) => self.gateways.insert(gateway.clone()),
        }
    }
}

// === impl Marks ===

impl<T> Default for Marks<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> Marks<T> {
    pub(super) fn insert(&mut self, mark: T) {
        self.0.push(mark);
    }

    /// What is marked, sorted and once each; nothing is any more.
    pub(super) fn take(&mut self) -> Vec<T> {
        let mut marks = std::mem::take(&mut self.0);
        marks.sort();
        marks.dedup();
        marks
    }
}

impl<T> Extend<T> for Marks<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, marks: I) {
        self.0.extend(marks);
    }
}
