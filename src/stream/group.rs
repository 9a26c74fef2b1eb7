//! What the streams of one group share: sets of names, and responses that are due to many of them.
//!
//! Owns: finding what another stream has made already, and the numbers that nonces are. May use: the types that it
//! finds. Never: keeps what no stream uses, or makes anything itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use translators::name::Owner;
use translators::resource::{Kind, Name, Version};

use super::board::Board;
use super::interest::Interest;
use super::names::Names;
use super::node::Client;
use super::push::Push;
use super::session::Protocol;
use super::shelf::Shelf;
use crate::publish::{Reader, ResourceSet, Snapshot};

/// What the streams of one group share.
#[derive(Debug, Default)]
pub struct Group {
    /// What tells it from other groups.
    snapshots: Option<Reader<Snapshot>>,
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The last nonce of any stream: each is used by every stream that is sent the same, and by each once.
    nonce: u64,
    names: Shelf<Version, Names>,
    interests: Shelf<Version, Interest>,
    pushes: Shelf<Due, Push>,
    /// Where the streams meet of one proxy each, by the ids of their nodes.
    boards: Shelf<Box<str>, Board>,
    /// The sets that a stream accepted last that takes everything.
    accepted: BTreeMap<Kind, ResourceSet>,
}

/// All that a response follows from, where nothing is due to the one stream alone. Sets stand here by their sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    /// The protocol, and what the client can do.
    pub(super) speech: (Protocol, Client),
    pub(super) kind: Kind,
    /// The set last evaluated.
    pub(super) seen: Version,
    pub(super) current: Version,
    pub(super) wildcard: bool,
    pub(super) names: Version,
    /// All of the names are to be answered.
    pub(super) all: bool,
    /// A response is due even if it says nothing.
    pub(super) due: bool,
    pub(super) woken: Version,
}

/// The groups that have streams.
#[derive(Debug, Default)]
pub(super) struct Groups {
    shelf: Mutex<Shelf<Owner, Group>>,
}

// === impl Group ===

impl Group {
    /// The next nonce.
    pub(super) fn nonce(&self) -> u64 {
        let mut shared = self.lock();
        shared.nonce += 1;
        shared.nonce
    }

    /// The set of `names`, which are in order and each given once; `name` makes one.
    pub(super) fn names(&self, names: &[&str], name: impl Fn(&str) -> Name) -> Option<Arc<Names>> {
        if names.is_empty() {
            return None;
        }
        let sum = Names::sum_of(names.iter().copied());
        let found = self.lock().names.find(&sum, |set| set.are(names));
        found.or_else(|| self.share(names.iter().map(|text| name(text)).collect()))
    }

    /// The same set, shared with whoever has it already.
    pub(super) fn share(&self, names: Names) -> Option<Arc<Names>> {
        if names.is_empty() {
            return None;
        }
        let mut shared = self.lock();
        if let Some(found) = shared.names.find(&names.sum(), |set| *set == names) {
            return Some(found);
        }
        let names = Arc::new(names);
        shared.names.put(names.sum(), &names);
        Some(names)
    }

    /// The same interest, shared with whoever has it already.
    pub(super) fn interest(&self, interest: Interest) -> Arc<Interest> {
        let (mut shared, sum) = (self.lock(), interest.sum());
        let found = shared.interests.find(&sum, |other| *other == interest);
        found.unwrap_or_else(|| {
            let interest = Arc::new(interest);
            shared.interests.put(sum, &interest);
            interest
        })
    }

    /// A response that is under way to another stream and that `fits`.
    pub(super) fn push(&self, due: &Due, fits: impl Fn(&Push) -> bool) -> Option<Arc<Push>> {
        self.lock().pushes.find(due, fits)
    }

    /// Lets other streams find a response, while it is under way.
    pub(super) fn put(&self, due: Due, push: &Arc<Push>) {
        self.lock().pushes.put(due, push);
    }

    /// What a stream that takes everything accepted last, if any did.
    pub(super) fn accepted(&self, kind: Kind) -> Option<ResourceSet> {
        self.lock().accepted.get(&kind).cloned()
    }

    /// Remembers what a stream that takes everything has accepted.
    pub(super) fn accept(&self, kind: Kind, set: ResourceSet) {
        self.lock().accepted.insert(kind, set);
    }

    /// Where the streams of a node meet that are for one type each.
    pub(super) fn board(&self, node: &str) -> Arc<Board> {
        let (mut shared, node) = (self.lock(), Box::from(node));
        shared.boards.find(&node, |_| true).unwrap_or_else(|| {
            let board = Arc::default();
            shared.boards.put(node, &board);
            board
        })
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Groups ===

impl Groups {
    /// The group of the streams that follow these snapshots.
    pub(super) fn of(&self, owner: &Owner, snapshots: &Reader<Snapshot>) -> Arc<Group> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |group: &Group| group.snapshots.as_ref().is_some_and(|other| other.follows_same(snapshots));
        shelf.find(owner, same).unwrap_or_else(|| {
            let group = Arc::new(Group { snapshots: Some(snapshots.clone()), ..Group::default() });
            shelf.put(owner.clone(), &group);
            group
        })
    }
}
