//! What a stream wants of one type.
//!
//! Owns: the set of names and the wildcard with its legacy form. May use: names, resources for the
//! names that they go by. Never: decides what exists.

use std::sync::Arc;

use translators::resource::{Kind, Name, Resource, Version};

use super::group::Group;
use super::names::Names;
use super::request::List;
use crate::publish::ResourceSet;
use crate::publish::snapshot::Change;

/// How a request spells "everything".
const WILDCARD: &str = "*";

/// What a stream wants of one type. The names are shared with whoever in the group wants the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    wildcard: bool,
    /// A list was given once: from then on an empty list means nothing, not everything.
    named: bool,
    /// None if there are none.
    names: Option<Arc<Names>>,
    /// The digest of the last whole list.
    listed: Option<Version>,
}

/// What a request changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// What it took before: everything,
    pub(super) had_everything: bool,
    /// and these names; only of types that are a whole.
    pub(super) had: Option<Arc<Names>>,
    /// Something is another subscription than before.
    pub(super) changed: bool,
    /// Everything was subscribed to.
    pub(super) everything: bool,
    /// All of the names that are subscribed to are to be answered.
    pub(super) all: bool,
    /// Names to be answered, known or not.
    pub(super) asked: Vec<Name>,
}

// === impl Subscription ===

impl Subscription {
    /// Whether it takes whatever is called `name`.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.as_ref().is_some_and(|names| names.matches(name))
    }

    /// Whether it asks for exactly this name.
    pub(super) fn names_it(&self, name: &str) -> bool {
        self.names.as_ref().is_some_and(|names| names.contains(name))
    }

    /// Whether it takes the resource, by whichever of its names.
    pub(super) fn takes(&self, resource: &Resource) -> bool {
        self.covers(resource.name()) || resource.aliases().iter().any(|alias| self.covers(alias))
    }

    /// Whether it takes what is called `name`, there or not.
    pub(super) fn wants(&self, name: &str, set: &ResourceSet) -> bool {
        self.covers(name) || set.get(name).is_some_and(|resource| self.takes(resource))
    }

    /// Whether something differs between the two that it takes, or took.
    pub(super) fn takes_any_change(&self, seen: &ResourceSet, current: &ResourceSet) -> bool {
        seen.changes_to(current).any(|change| match change {
            Change::Put(resource) => self.takes(&resource) || self.wants(resource.name(), seen),
            Change::Removed(name) => self.wants(&name, seen),
        })
    }

    /// Whether it takes nothing.
    pub(super) fn is_empty(&self) -> bool {
        !self.wildcard && self.names.is_none()
    }

    pub(super) fn wildcard(&self) -> bool {
        self.wildcard
    }

    /// The names that it takes, wildcard or not.
    pub(super) fn names(&self) -> Option<&Arc<Names>> {
        self.names.as_ref()
    }

    /// How many names it takes; `None` for everything.
    pub(super) fn len(&self) -> Option<usize> {
        (!self.wildcard).then(|| self.size())
    }

    /// How many names are held, wildcard or not.
    pub(super) fn size(&self) -> usize {
        self.names.as_ref().map_or(0, |names| names.len())
    }

    /// State of the world: the whole list, each time.
    pub(super) fn replace(
        &mut self,
        kind: Kind,
        list: &List<'_>,
        group: &Group,
        intern: impl Fn(&str) -> Name,
    ) -> Difference {
        let listed = list.digest();
        if self.listed.replace(listed) == Some(listed) {
            return Difference::default();
        }
        let mut wanted = in_order(list);
        let explicit = take_wildcard(&mut wanted);
        self.named |= !list.is_empty();
        let wildcard = explicit || (!self.named && kind.is_full_state());

        let everything = wildcard && !self.wildcard;
        let (had_everything, had) = (self.wildcard, self.names.clone());
        let mut difference = Difference { had_everything, had, changed: true, everything, ..Difference::default() };
        self.wildcard = wildcard;
        match &self.names {
            None => {
                self.names = group.names(&wanted, intern);
                difference.all = self.names.is_some();
            }
            Some(held) if held.are(&wanted) => {}
            Some(held) => {
                let names = group.names(&wanted, |name| held.get(name).cloned().unwrap_or_else(|| intern(name)));
                let new = names.iter().flat_map(|names| names.iter()).filter(|name| !held.contains(name));
                difference.asked = new.cloned().collect();
                self.names = names;
            }
        }
        difference
    }

    /// Incremental: additions, then removals. `first` is the first request of the type on the stream.
    pub(super) fn change(
        &mut self,
        kind: Kind,
        first: bool,
        subscribe: &List<'_>,
        unsubscribe: &List<'_>,
        group: &Group,
        intern: impl Fn(&str) -> Name,
    ) -> Difference {
        let had_everything = self.wildcard;
        let had = if kind.is_full_state() { self.names.clone() } else { None };
        let mut difference = Difference { had_everything, had, ..Difference::default() };
        if subscribe.is_empty() && unsubscribe.is_empty() {
            difference.everything = first && kind.is_full_state();
            difference.changed = difference.everything;
            self.wildcard |= difference.everything;
            return difference;
        }
        difference.changed = true;
        if self.names.is_none() && unsubscribe.is_empty() {
            let mut wanted = in_order(subscribe);
            difference.everything = take_wildcard(&mut wanted) && !self.wildcard;
            self.wildcard |= difference.everything;
            self.names = group.names(&wanted, intern);
            difference.all = self.names.is_some();
            return difference;
        }
        let mut names = self.names.take().map(Arc::unwrap_or_clone).unwrap_or_default();
        for name in subscribe.iter() {
            if name == WILDCARD {
                difference.everything |= !self.wildcard;
                self.wildcard = true;
            } else {
                let name = names.get(name).cloned().unwrap_or_else(|| intern(name));
                names.insert(Name::clone(&name));
                difference.asked.push(name);
            }
        }
        let mut dropped = Vec::new();
        for name in unsubscribe.iter() {
            if name == WILDCARD {
                self.wildcard = false;
                difference.everything = false;
            } else if let Some(name) = names.remove(name) {
                dropped.push(name);
            }
        }
        // The client forgets what it unsubscribes from: under a wildcard it has to be told again.
        difference.asked.append(&mut dropped);
        difference.asked.retain(|name| self.wildcard || names.matches(name));
        self.names = group.share(names);
        difference
    }
}

/// The names of a list in order, each once.
fn in_order<'a>(list: &'a List<'_>) -> Vec<&'a str> {
    let mut names = Vec::with_capacity(list.len());
    names.extend(list.iter());
    names.sort_unstable();
    names.dedup();
    names
}

/// Takes the wildcard out of names that are in order; says whether it was there.
fn take_wildcard(names: &mut Vec<&str>) -> bool {
    let found = names.binary_search(&WILDCARD);
    found.map(|at| names.remove(at)).is_ok()
}
