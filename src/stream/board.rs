//! A board: how the streams of one proxy stand that are for one type each.
//!
//! Owns: what they say of themselves, and waking those that wait for it. May use: the session and its stances. Never:
//! decides what waits for what, or knows the time. A stream of all types has none, and asks itself.
//!
//! What is posted is how a stream stands now: who looks late has missed nothing. A stream looks and takes its seat to
//! wait under one lock, so nothing is posted between.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use slab::Slab;
use translators::resource::Kind;

use super::session::{GRACE, Response, Session};
use super::stance::{Stance, waits_for};
use super::warmth::Warming;
use crate::publish::Snapshot;

/// The streams of one proxy that are for one type each.
#[derive(Debug, Default)]
pub(super) struct Board {
    members: Mutex<Slab<Member>>,
}

/// One of them.
#[derive(Debug)]
struct Member {
    kind: Kind,
    /// Once it has asked for its type.
    stance: Option<Box<Stance<'static>>>,
    /// The last new clusters that it was sent.
    warming: Option<Box<Warming>>,
    /// It waits for others.
    waits: Option<Waker>,
}

/// The place of a stream at the board; it leaves when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    board: Arc<Board>,
    member: usize,
}

/// The other streams of a proxy, as they stand. A stream of all types has none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Siblings<'a> {
    members: Option<&'a Slab<Member>>,
    /// The one that looks.
    but: usize,
}

// === impl Board ===

impl Board {
    fn lock(&self) -> MutexGuard<'_, Slab<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seat ===

impl Seat {
    /// A place for a stream of `kind`.
    pub(super) fn at(board: Arc<Board>, kind: Kind) -> Self {
        let member = board.lock().insert(Member { kind, stance: None, warming: None, waits: None });
        Self { board, member }
    }

    /// The next response, if one is due. While it waits for others, they wake `waker`.
    pub(super) fn poll(
        &self,
        session: &mut Session,
        snapshot: &Snapshot,
        now: Instant,
        waker: &Waker,
    ) -> Option<Response> {
        let mut members = self.board.lock();
        let siblings = Siblings { members: Some(&members), but: self.member };
        let response = session.poll_beside(siblings, snapshot, now);
        let stance = session.stance_alone();
        let waits = (response.is_none() && session.waits_for_siblings()).then(|| waker.clone());
        let member = &mut members[self.member];
        let former = std::mem::replace(&mut member.waits, waits);
        if response.is_some()
            && let Some(warming) = session.warming_alone()
        {
            let before = member.warming.take().filter(|before| now < before.at + GRACE);
            member.warming = Some(Box::new(before.iter().fold(warming, |warming, before| warming.with(before))));
        }
        let woken = match (&member.stance, stance) {
            (Some(posted), Some(stance)) if !posted.differs(&stance) => Vec::new(),
            (None, None) => Vec::new(),
            (_, stance) => {
                member.stance = stance.map(|stance| Box::new(stance.into_owned()));
                let kind = member.kind;
                wakers(&mut members, kind)
            }
        };
        drop(members);
        // Not under the lock: a waker may be the last to hold a stream.
        drop(former);
        woken.into_iter().for_each(Waker::wake);
        response
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut members = self.board.lock();
        let member = members.remove(self.member);
        let woken = if member.stance.is_some() { wakers(&mut members, member.kind) } else { Vec::new() };
        drop(members);
        woken.into_iter().for_each(Waker::wake);
    }
}

// === impl Siblings ===

impl<'a> Siblings<'a> {
    /// How they stand with this type, as far as they have asked for it.
    pub(super) fn of(self, kind: Kind) -> impl Iterator<Item = Stance<'a>> {
        let others = self.members.into_iter().flatten().filter(move |(at, _)| *at != self.but);
        let of_kind = others.filter(move |(_, member)| member.kind == kind);
        of_kind.filter_map(|(_, member)| {
            let warming = member.warming.as_deref();
            Some(Stance { warming, fresh: warming, ..member.stance.as_deref()?.borrowed() })
        })
    }
}

/// Those to be woken when a stream of `kind` stands otherwise.
fn wakers(members: &mut Slab<Member>, kind: Kind) -> Vec<Waker> {
    let waiting = members.iter_mut().filter(|(_, member)| waits_for(member.kind, kind));
    waiting.filter_map(|(_, member)| member.waits.take()).collect()
}
