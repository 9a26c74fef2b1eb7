//! A value that many follow, each of it what concerns them.
//!
//! Owns: the current value, and who is woken when there is another one. May use: nothing of ours. Never: queues: who
//! looks sees the latest value.
//!
//! Readers stay registered from one value to the next, those of one interest in one row. An index leads from topics to
//! the rows that follow them: a change costs a look for each topic that it touches and a wake-up for each reader of the
//! rows that it concerns, however many other rows there are. Whom nothing concerns for long is woken too when as much
//! has changed as there is: what readers still hold of former values is never more than one value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use arc_swap::ArcSwap;
use slab::Slab;

/// So many rows are looked up at once, and so many readers woken; between them others may come and go.
const BATCH: usize = 64;

/// What the number of a value is when there will be no other.
const CLOSED: u64 = u64::MAX;

/// The place of no interest: everything concerns who has none.
const EVERYTHING: usize = 0;

/// What can be followed.
pub trait Followed {
    /// What makes two values differ.
    type Change;
    /// What of it can be followed.
    type Topic: Ord + Copy + Send;

    /// What makes `newer` another value; `None` for what concerns everybody.
    fn change_to(&self, newer: &Self) -> Option<Self::Change>;

    /// How many parts it has,
    fn size(&self) -> usize;

    /// how many of them are others,
    fn size_of(change: &Self::Change) -> usize;

    /// and whose followers that concerns.
    fn topics_of(change: &Self::Change) -> impl Iterator<Item = Self::Topic>;
}

/// What a reader follows of a value.
pub trait Interest<T: Followed>: Send + Sync {
    /// The topics.
    fn topics(&self) -> Box<dyn Iterator<Item = T::Topic> + '_>;
}

/// The writer's side. Readers see its end.
pub struct Feed<T: Followed>(Arc<Shared<T>>);

/// A reader's side.
pub struct Reader<T: Followed> {
    shared: Arc<Shared<T>>,
    /// The number of the value that was read last.
    seen: u64,
    /// What concerns it; everything if there is none.
    interest: Option<Arc<dyn Interest<T>>>,
    /// Where it waits, once it does, and for whom.
    seat: Option<(Seat, Waker)>,
}

/// A place in a row.
#[derive(Clone, Copy)]
struct Seat {
    row: usize,
    number: usize,
}

struct Shared<T: Followed> {
    current: ArcSwap<T>,
    number: AtomicU64,
    waiting: Mutex<Waiting<T>>,
}

/// Those who wait.
struct Waiting<T: Followed> {
    rows: Slab<Row<T>>,
    /// The rows by where their interest lies in memory: who follows the same shares it.
    by_interest: BTreeMap<usize, usize>,
    /// Which rows follow a topic; those that follow everything follow none.
    by_topic: BTreeSet<(T::Topic, usize)>,
    /// How much has changed since everybody was woken.
    untold: usize,
}

/// Those who wait for the same.
struct Row<T: Followed> {
    interest: Option<Arc<dyn Interest<T>>>,
    seats: Slab<Waker>,
}

// === impl Feed ===

impl<T: Followed> Feed<T> {
    /// A feed of this value.
    pub fn new(value: Arc<T>) -> Self {
        let (current, number) = (ArcSwap::new(value), AtomicU64::new(0));
        let waiting = Mutex::new(Waiting::default());
        Self(Arc::new(Shared { current, number, waiting }))
    }

    /// The current value.
    pub fn current(&self) -> Arc<T> {
        self.0.current.load_full()
    }

    /// Puts another value in its place, which readers see when they look next; nobody is woken.
    pub fn replace(&self, value: Arc<T>) {
        self.0.current.store(value);
    }

    /// The same, and wakes those whom the change concerns.
    pub fn send(&self, value: Arc<T>) {
        let change = self.current().change_to(&value);
        let size = value.size();
        self.replace(value);
        self.0.number.fetch_add(1, Ordering::SeqCst);
        self.0.wake(change.filter(|change| !self.0.is_too_much(T::size_of(change), size)).as_ref());
    }

    /// A reader, which has seen the current value.
    pub fn subscribe(&self) -> Reader<T> {
        let seen = self.0.number.load(Ordering::SeqCst);
        Reader { shared: Arc::clone(&self.0), seen, interest: None, seat: None }
    }
}

impl<T: Followed> Drop for Feed<T> {
    fn drop(&mut self) {
        self.0.number.store(CLOSED, Ordering::SeqCst);
        self.0.wake(None);
    }
}

// === impl Reader ===

impl<T: Followed> Reader<T> {
    /// The current value, which counts as seen.
    pub fn current(&mut self) -> Arc<T> {
        // The number first: of a value that comes in between it is seen that it did.
        let number = self.shared.number.load(Ordering::SeqCst);
        if number != CLOSED {
            self.seen = number;
        }
        self.shared.current.load_full()
    }

    /// From now on it is woken for what concerns `interest`, and gets the value that this begins with. Whoever has the
    /// same interest is to give the same allocation.
    pub fn follow(&mut self, interest: Arc<dyn Interest<T>>) -> Arc<T> {
        let former = self.interest.replace(interest);
        if place_of(former.as_ref()) != place_of(self.interest.as_ref())
            && let Some((_, waker)) = &self.seat
        {
            let waker = waker.clone();
            self.sit_down(&waker);
        }
        // Only now: whoever sends after this look finds us where we are.
        self.current()
    }

    /// Ready when there is a value that was not seen, and with `None` when the feed is gone. It is woken only for what
    /// concerns it, if it has said what does.
    pub fn poll_next(&mut self, context: &Context<'_>) -> Poll<Option<Arc<T>>> {
        match &self.seat {
            Some((_, waker)) if waker.will_wake(context.waker()) => {}
            _ => self.sit_down(context.waker()),
        }
        // Whoever sends after this look finds us waiting.
        match self.shared.number.load(Ordering::SeqCst) {
            CLOSED => Poll::Ready(None),
            number if number == self.seen => Poll::Pending,
            _ => Poll::Ready(Some(self.current())),
        }
    }

    /// Whether there is a value that was not seen, or the feed is gone.
    pub fn is_behind(&self) -> bool {
        self.shared.number.load(Ordering::SeqCst) != self.seen
    }

    /// Whether both read the same feed.
    pub fn follows_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    fn sit_down(&mut self, waker: &Waker) {
        let former = self.seat.take();
        let mut waiting = self.shared.lock();
        let seat = waiting.sit_down(self.interest.as_ref(), waker.clone());
        let left = former.as_ref().map(|(seat, _)| waiting.leave(*seat));
        drop(waiting);
        self.seat = Some((seat, waker.clone()));
        drop((left, former));
    }
}

/// The same feed from here on, all of it.
impl<T: Followed> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), seen: self.seen, interest: None, seat: None }
    }
}

impl<T: Followed> Drop for Reader<T> {
    fn drop(&mut self) {
        if let Some((seat, _)) = self.seat.take() {
            let left = self.shared.lock().leave(seat);
            // Not under the lock: what it wakes may be the last to hold something that reads.
            drop(left);
        }
    }
}

// === impl Shared ===

impl<T: Followed> Shared<T> {
    /// Whether everybody is to be woken since so much has changed of a value of this size.
    fn is_too_much(&self, changed: usize, size: usize) -> bool {
        let mut waiting = self.lock();
        waiting.untold = waiting.untold.saturating_add(changed);
        let too_much = waiting.untold >= size;
        if too_much {
            waiting.untold = 0;
        }
        too_much
    }

    /// Wakes whom the change concerns; without one, everybody. Who sits down meanwhile looks at the value anyway.
    fn wake(&self, change: Option<&T::Change>) {
        let Some(change) = change else {
            let rows = self.lock().rows.capacity();
            return (0..rows).for_each(|row| self.wake_row(row));
        };
        let everything = self.lock().by_interest.get(&EVERYTHING).copied();
        everything.into_iter().for_each(|row| self.wake_row(row));
        // Each row once, though much that it follows may have changed.
        let mut woken = BTreeSet::new();
        for topic in T::topics_of(change) {
            let mut from = 0;
            loop {
                let batch: Vec<usize> = self.lock().following(topic, from).take(BATCH).collect();
                batch.iter().filter(|row| woken.insert(**row)).for_each(|row| self.wake_row(*row));
                match batch.last() {
                    Some(last) if batch.len() == BATCH => from = last + 1,
                    Some(_) | None => break,
                }
            }
        }
    }

    fn wake_row(&self, row: usize) {
        let mut from = 0;
        loop {
            let waiting = self.lock();
            let Some(seats) = waiting.rows.get(row).map(|row| &row.seats) else { return };
            let end = seats.capacity();
            let batch: Vec<Waker> = (from..end.min(from + BATCH)).filter_map(|seat| seats.get(seat).cloned()).collect();
            drop(waiting);
            batch.into_iter().for_each(Waker::wake);
            from += BATCH;
            if from >= end {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl<T: Followed> Default for Waiting<T> {
    fn default() -> Self {
        Self { rows: Slab::new(), by_interest: BTreeMap::new(), by_topic: BTreeSet::new(), untold: 0 }
    }
}

impl<T: Followed> Waiting<T> {
    fn sit_down(&mut self, interest: Option<&Arc<dyn Interest<T>>>, waker: Waker) -> Seat {
        let row = *self.by_interest.entry(place_of(interest)).or_insert_with(|| {
            let row = self.rows.insert(Row { interest: interest.cloned(), seats: Slab::new() });
            let topics = interest.into_iter().flat_map(|interest| interest.topics());
            self.by_topic.extend(topics.map(|topic| (topic, row)));
            row
        });
        Seat { row, number: self.rows[row].seats.insert(waker) }
    }

    /// The rows that follow a topic, from this one on.
    fn following(&self, topic: T::Topic, from: usize) -> impl Iterator<Item = usize> + '_ {
        self.by_topic.range((topic, from)..).take_while(move |(of, _)| *of == topic).map(|(_, row)| *row)
    }

    /// Gives what is left behind, to be dropped when nothing is locked.
    fn leave(&mut self, seat: Seat) -> (Option<Waker>, Option<Row<T>>) {
        let Some(seats) = self.rows.get_mut(seat.row).map(|row| &mut row.seats) else { return (None, None) };
        let waker = seats.try_remove(seat.number);
        if !seats.is_empty() {
            return (waker, None);
        }
        let row = self.rows.remove(seat.row);
        self.by_interest.remove(&place_of(row.interest.as_ref()));
        for topic in row.interest.iter().flat_map(|interest| interest.topics()) {
            self.by_topic.remove(&(topic, seat.row));
        }
        (waker, Some(row))
    }
}

/// What tells an interest from others, as long as anybody has it.
fn place_of<T: Followed>(interest: Option<&Arc<dyn Interest<T>>>) -> usize {
    interest.map_or(EVERYTHING, |interest| Arc::as_ptr(interest).addr())
}

impl<T: Followed> fmt::Debug for Feed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl<T: Followed> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("seen", &self.seen).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Changes concern everybody.
    impl Followed for i32 {
        type Change = ();
        type Topic = ();

        fn change_to(&self, _: &Self) -> Option<()> {
            None
        }

        fn size(&self) -> usize {
            1
        }

        fn size_of((): &()) -> usize {
            1
        }

        fn topics_of((): &()) -> impl Iterator<Item = ()> {
            std::iter::empty()
        }
    }

    /// Numbers by name.
    type Many = BTreeMap<u16, u8>;

    impl Followed for Many {
        type Change = BTreeSet<u16>;
        type Topic = Counted;

        fn change_to(&self, newer: &Self) -> Option<BTreeSet<u16>> {
            let names: BTreeSet<u16> = self.keys().chain(newer.keys()).copied().collect();
            Some(names.into_iter().filter(|name| self.get(name) != newer.get(name)).collect())
        }

        fn size(&self) -> usize {
            self.len()
        }

        fn size_of(change: &BTreeSet<u16>) -> usize {
            change.len()
        }

        fn topics_of(change: &BTreeSet<u16>) -> impl Iterator<Item = Counted> {
            change.iter().copied().map(Counted)
        }
    }

    /// A number, whose every comparison is counted.
    #[derive(Clone, Copy, Eq)]
    pub struct Counted(u16);

    thread_local! {
        /// How much was looked at: comparisons of topics, and topics that an interest was asked for.
        static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
    }

    fn look() {
        LOOKED_AT.set(LOOKED_AT.get() + 1);
    }

    impl PartialEq for Counted {
        fn eq(&self, other: &Self) -> bool {
            look();
            self.0 == other.0
        }
    }

    impl Ord for Counted {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            look();
            self.0.cmp(&other.0)
        }
    }

    impl PartialOrd for Counted {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }

    /// Some of them.
    struct These(Vec<u16>);

    impl Interest<Many> for These {
        fn topics(&self) -> Box<dyn Iterator<Item = Counted> + '_> {
            Box::new(self.0.iter().copied().inspect(|_| look()).map(Counted))
        }
    }

    impl Count {
        fn taken(&self) -> usize {
            self.0.swap(0, Ordering::SeqCst)
        }
    }

    fn put(feed: &Feed<Many>, names: &[u16], number: u8) {
        let mut next = Many::clone(&feed.current());
        next.extend(names.iter().map(|name| (*name, number)));
        feed.send(Arc::new(next));
    }

    #[test]
    fn a_change_wakes_whom_it_concerns() {
        let feed = Feed::new(Arc::new((0..100).map(|name| (name, 0)).collect::<Many>()));
        let interests: Vec<_> = (0..20).map(|name| Arc::new(These(vec![name, name + 20]))).collect();
        let wakes: Vec<Arc<Count>> = (0..2_000).map(|_| Arc::default()).collect();
        let follow = |number: usize| {
            let mut reader = feed.subscribe();
            reader.follow(interests[number % 20].clone());
            let waker = Waker::from(Arc::clone(&wakes[number]));
            assert!(reader.poll_next(&Context::from_waker(&waker)).is_pending());
            reader
        };
        let mut readers: Vec<_> = (0..2_000).map(follow).collect();
        let woken = || wakes.iter().map(|wakes| wakes.taken()).enumerate().filter(|(_, woken)| *woken > 0);
        put(&feed, &[7], 1);
        assert!(woken().eq((0..100).map(|row| (20 * row + 7, 1))));
        put(&feed, &[5, 25, 9, 29, 9], 1);
        assert!(woken().map(|(_, times)| times).eq([1; 200]), "once, though two of what they follow have changed");
        put(&feed, &[50], 1);
        assert_eq!(woken().count(), 0, "it concerns nobody");
        // Who follows something else is woken for that alone, and sees what came before.
        put(&feed, &[8], 1);
        assert_eq!(woken().count(), 100);
        assert_eq!(readers[7].follow(interests[8].clone())[&8], 1);
        put(&feed, &[7], 2);
        assert_eq!(woken().count(), 99);
        put(&feed, &[8], 2);
        assert_eq!(woken().count(), 101);
        assert!(readers[0].is_behind());
        // Who has not said what concerns it is woken for everything.
        let (mut eager, all): (_, Arc<Count>) = (feed.subscribe(), Arc::default());
        let waker = Waker::from(Arc::clone(&all));
        assert!(eager.poll_next(&Context::from_waker(&waker)).is_pending());
        put(&feed, &[60, 28], 9);
        assert_eq!((woken().count(), all.taken()), (101, 1));
        drop(eager);
        // After as many changes as there are parts, everybody is.
        for number in 0..89 {
            assert_eq!(woken().count(), 0, "{number}");
            put(&feed, &[60], number + 1);
        }
        assert_eq!(woken().count(), 2_000);
        put(&feed, &[60], 100);
        assert_eq!(woken().count(), 0, "from now on, again");
        // Nothing is left of who has gone.
        readers.truncate(10);
        let waiting = feed.0.lock();
        assert_eq!((waiting.rows.len(), waiting.by_interest.len()), (9, 9), "two of them follow the same");
        assert_eq!(waiting.by_topic.len(), 18);
        drop(waiting);
        drop(feed);
        assert_eq!(woken().count(), 10, "the end concerns everybody");
    }

    #[test]
    fn a_change_looks_only_at_those_who_follow_it() {
        let looked_at = |rows: u16| {
            let feed = Feed::new(Arc::new((0..=rows).map(|name| (name, 0)).collect::<Many>()));
            let wakes: Arc<Count> = Arc::default();
            let follow = |name: u16| {
                let mut reader = feed.subscribe();
                reader.follow(Arc::new(These((name..rows.min(name + 10)).chain([rows]).collect())));
                let waker = Waker::from(Arc::clone(&wakes));
                assert!(reader.poll_next(&Context::from_waker(&waker)).is_pending());
                reader
            };
            let _readers: Vec<_> = (0..rows).map(follow).collect();
            LOOKED_AT.set(0);
            put(&feed, &[rows / 2], 1);
            assert_eq!(wakes.taken(), 10, "each other follows something else");
            let looked_at = LOOKED_AT.get();
            put(&feed, &[rows], 1);
            assert_eq!(wakes.taken(), usize::from(rows), "this they all follow");
            looked_at
        };
        let (few, many) = (looked_at(100), looked_at(10_000));
        assert!(many <= 2 * few && many < 200, "{many} topics looked at among 10,000 interests, {few} among 100");
    }

    #[test]
    fn every_reader_is_woken_for_every_value_and_sees_the_latest() {
        let feed = Feed::new(Arc::new(0));
        let wakes: Vec<Arc<Count>> = (0..200).map(|_| Arc::default()).collect();
        let mut readers: Vec<_> = wakes.iter().map(|_| feed.subscribe()).collect();
        let poll = |reader: &mut Reader<i32>, wakes: &Arc<Count>| {
            let waker = Waker::from(Arc::clone(wakes));
            reader.poll_next(&Context::from_waker(&waker)).map(|value| value.map(|value| *value))
        };
        for (reader, wakes) in readers.iter_mut().zip(&wakes) {
            assert_eq!(poll(reader, wakes), Poll::Pending);
        }
        drop(readers.remove(7));
        feed.send(Arc::new(1));
        feed.send(Arc::new(2));
        feed.replace(Arc::new(3));
        let counts: Vec<usize> = wakes.iter().map(|wakes| wakes.0.load(Ordering::SeqCst)).collect();
        assert_eq!(counts.iter().sum::<usize>(), 2 * 199);
        assert_eq!((counts[7], counts[8]), (0, 2), "who is gone is not woken");
        let mut late = readers[0].clone();
        for (reader, wakes) in readers.iter_mut().zip(&wakes) {
            assert_eq!(poll(reader, wakes), Poll::Ready(Some(3)));
            assert_eq!(poll(reader, wakes), Poll::Pending);
        }
        assert_eq!(poll(&mut late, &wakes[0]), Poll::Ready(Some(3)));
        assert!(late.follows_same(&readers[0]));
        drop(feed);
        assert_eq!(wakes[8].0.load(Ordering::SeqCst), 3);
        assert_eq!(poll(&mut late, &wakes[0]), Poll::Ready(None));
    }

    #[test]
    fn a_reader_that_moves_is_woken_where_it_is() {
        let feed = Feed::new(Arc::new(0));
        let (here, there): (Arc<Count>, Arc<Count>) = Default::default();
        let mut reader = feed.subscribe();
        for wakes in [&here, &there] {
            let waker = Waker::from(Arc::clone(wakes));
            assert!(reader.poll_next(&Context::from_waker(&waker)).is_pending());
        }
        feed.send(Arc::new(1));
        assert_eq!((here.0.load(Ordering::SeqCst), there.0.load(Ordering::SeqCst)), (0, 1));
    }
}
