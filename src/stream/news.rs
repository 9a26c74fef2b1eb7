//! What has to be said next of one type: the difference between what was seen and what there is, and whatever is owed.
//!
//! Owns: that list of names, and what becomes of removals. May use: the type's state. Never: composes a response.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use translators::resource::{Kind, Name};

use super::node::Client;
use super::session::Protocol;
use super::types::{Leaving, TypeState};
use crate::publish::ResourceSet;
use crate::publish::snapshot::Change;

/// What has to be said.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) names: BTreeSet<Name>,
    /// Those among them that were asked for, and are said as they are.
    pub(super) asked: BTreeSet<Name>,
    /// Those among them that there was a resource of, and is none any more.
    pub(super) gone: BTreeSet<Name>,
    /// Those among them that are said in the form that was accepted before.
    pub(super) mending: BTreeSet<Name>,
    /// All of them were refused before, and nothing else is to be said.
    pub(super) retries: bool,
    /// Among the names are some that the proxy does not have.
    pub(super) brings_new: bool,
}

impl TypeState {
    /// The names that were asked for; what else is new or changed stays for later.
    pub(super) fn asked(&mut self, current: &ResourceSet) -> News {
        self.spell_out();
        let mut gone = std::mem::take(&mut self.lost);
        for name in &self.owed {
            let mut found = false;
            for resource in current.called(name) {
                found = true;
                self.seen.put(Arc::clone(resource));
            }
            if !found {
                // The client has it: that it asks for it again does not make it one that there never was.
                let before = self.seen.get(name).filter(|before| self.subscription.takes(before));
                gone.extend(before.map(|before| Name::clone(before.name())));
                self.seen.remove(name);
            }
        }
        let names = std::mem::take(&mut self.owed);
        News { asked: names.clone(), names, gone, ..News::default() }
    }

    /// What has to be said: owed, new, changed, and removed unless that has to wait.
    pub(super) fn news(
        &mut self,
        (protocol, client): (Protocol, Client),
        kind: Kind,
        current: &ResourceSet,
        now: Instant,
    ) -> News {
        let mut brings_new = std::mem::take(&mut self.rest_is_new);
        self.spell_out();
        let mut names = std::mem::take(&mut self.owed);
        let tells_asked = client.takes_errors || self.refused.is_any();
        let asked = if tells_asked { names.clone() } else { BTreeSet::new() };
        let mut gone = std::mem::take(&mut self.lost);
        for name in self.woken.take().iter().flat_map(|woken| woken.iter()) {
            let as_refused = current.get(name).is_some_and(|resource| self.refused.refuses(resource));
            if self.subscription.covers(name) && !as_refused {
                names.insert(Name::clone(name));
            }
        }
        for name in &names {
            self.held.remove(name);
        }
        names.extend(self.refused.due(now));
        let mut takes_any = false;
        for change in self.seen.changes_to(current) {
            let name = match &change {
                Change::Put(resource) => resource.name(),
                Change::Removed(name) => name,
            };
            let before = self.seen.get(name).filter(|before| self.subscription.takes(before));
            match &change {
                Change::Put(resource) if self.subscription.takes(resource) => {
                    takes_any = true;
                    brings_new |= self.seen.get(name).is_none();
                    self.held.remove(name);
                    self.kept.remove(name);
                    if !self.refused.delays(resource, now) {
                        names.insert(Name::clone(name));
                    }
                }
                // It does not go by the name any more that was asked for.
                Change::Put(_) | Change::Removed(_) if before.is_some() || self.subscription.covers(name) => {
                    takes_any = true;
                    self.retry = true;
                    match (kind, before) {
                        // As the proxy has it: what it refuses stays away.
                        (Kind::Cluster | Kind::Endpoints, Some(resource))
                            if !names.contains(name) && self.refused.form(resource).is_some() =>
                        {
                            let form = self.refused.form(resource).cloned();
                            self.held.insert(Name::clone(name), Leaving { form, since: now });
                        }
                        (Kind::ExtensionConfig, Some(_)) => _ = self.kept.insert(Name::clone(name)),
                        _ => {
                            names.insert(Name::clone(name));
                            gone.insert(Name::clone(name));
                        }
                    }
                }
                Change::Put(_) | Change::Removed(_) => {}
            }
        }
        if takes_any {
            self.seen = current.clone();
        } else {
            self.saw(current);
        }
        let Self { refused, subscription, .. } = self;
        // What it does not take any more is gone to it.
        let taken = |name: &Name| current.get(name).filter(|resource| subscription.takes(resource));
        refused.compare(|name| taken(name).map(|resource| resource.version()));
        // Of what is gone, this protocol says nothing, but to who asks and takes an error for an answer.
        let silent = protocol == Protocol::Sotw && !kind.is_full_state() && kind != Kind::Endpoints;
        let answered = |name: &Name| client.takes_errors && asked.contains(name);
        names.retain(|name| !silent || current.find(name).is_some() || answered(name));
        let retries = names.is_empty();
        self.join_suspects(&mut names);
        let mending = self.mend(&mut names);
        News { names, asked, gone, mending, retries, brings_new }
    }

    /// What was refused with others goes with whatever is sent next, or alone if that is another response.
    pub(super) fn join_suspects(&mut self, names: &mut BTreeSet<Name>) {
        if std::mem::take(&mut self.retry) || !names.is_empty() {
            let wanted = |name: &Name| self.subscription.wants(name, &self.seen) && !self.held.contains_key(name);
            names.extend(self.refused.take_suspects().into_iter().filter(wanted));
        }
    }

    /// With whatever is sent, culprits go in the form that was accepted before.
    fn mend(&mut self, names: &mut BTreeSet<Name>) -> BTreeSet<Name> {
        if names.is_empty() || self.refused.mending.is_empty() {
            return BTreeSet::new();
        }
        let mending = std::mem::take(&mut self.refused.mending);
        mending.into_iter().filter(|name| names.insert(Name::clone(name))).collect()
    }

    /// Puts what is owed into `owed`.
    fn spell_out(&mut self) {
        if std::mem::take(&mut self.owes_all) {
            self.owed.extend(self.subscription.names().into_iter().flat_map(|names| names.iter()).cloned());
        }
    }
}
