//! What a stream is to be told of: whatever it subscribes to, of every type.
//!
//! Owns: the topics that a stream follows. May use: the names that it subscribes to. Never: looks at what there
//! is: who is told too much finds that nothing is due, who is told too little misses something.

use std::sync::Arc;

use translators::resource::{Kind, Version};

use super::names::Names;
use super::subscription::Subscription;
use crate::publish::{self, Snapshot, Topic};

/// What streams are to be told of that subscribe to the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interest(Box<[Part]>);

/// The same of one type.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    kind: Kind,
    wildcard: bool,
    names: Option<Arc<Names>>,
}

// === impl Interest ===

impl Interest {
    /// Of these subscriptions.
    pub(super) fn of<'a>(subscriptions: impl Iterator<Item = (Kind, &'a Subscription)>) -> Self {
        let taken = subscriptions.filter(|(_, subscription)| !subscription.is_empty());
        let part = |(kind, subscription): (Kind, &Subscription)| Part {
            kind,
            wildcard: subscription.wildcard(),
            names: subscription.names().cloned(),
        };
        Self(taken.map(part).collect())
    }

    /// Tells it from most others.
    pub(super) fn sum(&self) -> Version {
        self.0.iter().fold(Version::EMPTY, |sum, part| {
            let sum = sum.with(Version::of(&[part.kind as u8, part.wildcard.into()]));
            part.names.iter().fold(sum, |sum, names| sum.with(names.sum()))
        })
    }
}

impl publish::Interest<Snapshot> for Interest {
    fn topics(&self) -> Box<dyn Iterator<Item = Topic> + '_> {
        Box::new(self.0.iter().flat_map(|part| {
            let all = part.wildcard.then(|| Topic::all(part.kind));
            // Who follows all of them follows each.
            let names = part.names.iter().filter(|_| !part.wildcard).flat_map(|names| names.iter());
            all.into_iter().chain(names.map(|name| Topic::named(part.kind, name)))
        }))
    }
}
