//! Facts: what an object reads of others, and who has to look again when that changes.
//!
//! Owns: the index from what was read to its readers. May use: `name`. Never: knows what was read.

use std::collections::BTreeSet;

use crate::name::{Label, ObjectKey, QualifiedName};

/// Something that an object reads of others while it is evaluated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    /// Whether there is a service of this name, and its ports.
    Service(QualifiedName),
    /// Which labels the endpoints of a service carry, by port.
    Selectable(QualifiedName),
    /// Who may answer for a service.
    Identities(QualifiedName),
    /// The names of the services of a namespace.
    Names(Label),
    /// Which labels the workloads of a namespace carry.
    Labels(Label),
    /// Whether there is a route of this name, and what its rules are called.
    Route(QualifiedName),
    /// The names of the routes of a namespace.
    Routes(Label),
    /// The names of all services.
    AllNames,
    /// Whether there is a gateway of this name, and its hosts.
    Gateway(QualifiedName),
    /// Who the proxies of a gateway are.
    AtGateway(QualifiedName),
    /// The names of the gateways of a namespace.
    Gateways(Label),
    /// Whether there is a certificate of this name, and where it comes from.
    Certificate(QualifiedName),
    /// The names of the certificates of a namespace.
    Certificates(Label),
}

/// Who read what.
#[derive(Debug, Default)]
pub(super) struct Readers(BTreeSet<(Fact, ObjectKey)>);

// === impl Readers ===

impl Readers {
    /// `reader` reads `after` from now on, no longer `before`; both are sorted.
    pub(super) fn replace(&mut self, reader: &ObjectKey, before: &[Fact], after: &[Fact]) {
        if before == after {
            return;
        }
        for fact in before.iter().filter(|fact| after.binary_search(fact).is_err()) {
            self.0.remove(&(fact.clone(), reader.clone()));
        }
        let new = after.iter().filter(|fact| before.binary_search(fact).is_err());
        let new = new.map(|fact| (fact.clone(), reader.clone()));
        if after.len() > self.0.len() {
            // Many go in quicker all together.
            self.0.append(&mut new.collect());
        } else {
            self.0.extend(new);
        }
    }

    /// Whether nobody reads anything.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those who read `fact`.
    pub(super) fn of(&self, fact: Fact) -> impl Iterator<Item = &ObjectKey> {
        let from = (fact, ObjectKey::first());
        let fact = from.0.clone();
        self.0.range(from..).take_while(move |(read, _)| *read == fact).map(|(_, reader)| reader)
    }
}
