//! What a stream wants of one type.
//!
//! Owns: the set of names and the wildcard with its legacy form. May use: names. Never: knows what exists.

use imbl::OrdSet;
use translators::resource::{Kind, Name};

/// How a request spells "everything".
const WILDCARD: &str = "*";

/// What a stream wants of one type. The names are a persistent set: cloning shares it.
#[derive(Debug, Clone, Default)]
pub(super) struct Subscription {
    wildcard: bool,
    /// A list was given once: from then on an empty list means nothing, not everything.
    named: bool,
    names: OrdSet<Name>,
}

/// What a request changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Everything was subscribed to.
    pub(super) everything: bool,
    /// Names to be answered, known or not.
    pub(super) asked: Vec<Name>,
}

// === impl Subscription ===

impl Subscription {
    /// Whether it takes the resource `name`.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Whether it takes nothing.
    pub(super) fn is_empty(&self) -> bool {
        !self.wildcard && self.names.is_empty()
    }

    /// How many names it holds; `None` for everything.
    pub(super) fn len(&self) -> Option<usize> {
        (!self.wildcard).then(|| self.names.len())
    }

    /// State of the world: the whole list, each time.
    pub(super) fn replace(&mut self, kind: Kind, list: &[String], intern: impl Fn(&str) -> Name) -> Difference {
        let mut wanted: Vec<&str> = list.iter().map(String::as_str).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let explicit = wanted.binary_search(&WILDCARD).is_ok();
        wanted.retain(|name| *name != WILDCARD);
        self.named |= !list.is_empty();
        let wildcard = explicit || (!self.named && kind.is_full_state());

        let mut difference = Difference { everything: wildcard && !self.wildcard, ..Difference::default() };
        self.wildcard = wildcard;
        if self.names.len() == wanted.len() && self.names.iter().zip(&wanted).all(|(held, name)| **held == **name) {
            return difference;
        }
        let names: OrdSet<Name> =
            wanted.iter().map(|name| self.names.get(*name).cloned().unwrap_or_else(|| intern(name))).collect();
        difference.asked = names.iter().filter(|name| !self.names.contains(*name)).cloned().collect();
        self.names = names;
        difference
    }

    /// Incremental: additions, then removals. `first` is the first request of the type on the stream.
    pub(super) fn change(
        &mut self,
        kind: Kind,
        first: bool,
        subscribe: &[String],
        unsubscribe: &[String],
        intern: impl Fn(&str) -> Name,
    ) -> Difference {
        let mut difference = Difference::default();
        if first && subscribe.is_empty() && unsubscribe.is_empty() && kind.is_full_state() {
            self.wildcard = true;
            difference.everything = true;
        }
        for name in subscribe {
            if name == WILDCARD {
                difference.everything |= !self.wildcard;
                self.wildcard = true;
            } else {
                let name = intern(name);
                self.names.insert(Name::clone(&name));
                difference.asked.push(name);
            }
        }
        let mut dropped = Vec::new();
        for name in unsubscribe {
            if name == WILDCARD {
                self.wildcard = false;
                difference.everything = false;
            } else if let Some(name) = self.names.remove(name.as_str()) {
                dropped.push(name);
            }
        }
        if self.wildcard {
            // The client forgets what it unsubscribes from: under a wildcard it has to be told again.
            difference.asked.append(&mut dropped);
        } else {
            difference.asked.retain(|name| self.names.contains(name));
        }
        difference
    }

    /// How many names are held, wildcard or not.
    pub(super) fn size(&self) -> usize {
        self.names.len()
    }
}
