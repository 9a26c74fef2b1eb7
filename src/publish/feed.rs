//! A value that many follow.
//!
//! Owns: the current value, and who is woken when there is another one. May use: nothing of ours. Never: queues: who
//! looks sees the latest value.
//!
//! Readers stay registered from one value to the next: with thousands of them, a wake-up is all that a change costs.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use arc_swap::ArcSwap;
use slab::Slab;

/// So many are woken at once; between them others may come and go.
const BATCH: usize = 64;

/// What the number of a value is when there will be no other.
const CLOSED: u64 = u64::MAX;

/// The writer's side. Readers see its end.
pub struct Feed<T>(Arc<Shared<T>>);

/// A reader's side.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    /// The number of the value that was read last.
    seen: u64,
    /// Where it waits, once it does, and for whom.
    seat: Option<(usize, Waker)>,
}

struct Shared<T> {
    current: ArcSwap<T>,
    number: AtomicU64,
    waiting: Mutex<Slab<Waker>>,
}

// === impl Feed ===

impl<T> Feed<T> {
    /// A feed of this value.
    pub fn new(value: Arc<T>) -> Self {
        let current = ArcSwap::new(value);
        Self(Arc::new(Shared { current, number: AtomicU64::new(0), waiting: Mutex::default() }))
    }

    /// The current value.
    pub fn current(&self) -> Arc<T> {
        self.0.current.load_full()
    }

    /// Puts another value in its place, which readers see when they look next; nobody is woken.
    pub fn replace(&self, value: Arc<T>) {
        self.0.current.store(value);
    }

    /// The same, and wakes everybody.
    pub fn send(&self, value: Arc<T>) {
        self.replace(value);
        self.0.number.fetch_add(1, Ordering::SeqCst);
        self.0.wake();
    }

    /// A reader, which has seen the current value.
    pub fn subscribe(&self) -> Reader<T> {
        let seen = self.0.number.load(Ordering::SeqCst);
        Reader { shared: Arc::clone(&self.0), seen, seat: None }
    }
}

impl<T> Drop for Feed<T> {
    fn drop(&mut self) {
        self.0.number.store(CLOSED, Ordering::SeqCst);
        self.0.wake();
    }
}

// === impl Reader ===

impl<T> Reader<T> {
    /// The current value, which counts as seen.
    pub fn current(&mut self) -> Arc<T> {
        let number = self.shared.number.load(Ordering::SeqCst);
        if number != CLOSED {
            self.seen = number;
        }
        self.shared.current.load_full()
    }

    /// Ready when there is a value that was not seen, and with `None` when the feed is gone.
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
        let mut waiting = self.shared.lock();
        let seat = match &self.seat {
            Some((seat, _)) => {
                waiting[*seat] = waker.clone();
                *seat
            }
            None => waiting.insert(waker.clone()),
        };
        drop(waiting);
        self.seat = Some((seat, waker.clone()));
    }
}

/// The same feed, from here on.
impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), seen: self.seen, seat: None }
    }
}

impl<T> Drop for Reader<T> {
    fn drop(&mut self) {
        if let Some((seat, _)) = self.seat.take() {
            let waker = self.shared.lock().remove(seat);
            // Not under the lock: what it wakes may be the last to hold something that reads.
            drop(waker);
        }
    }
}

// === impl Shared ===

impl<T> Shared<T> {
    fn wake(&self) {
        let mut from = 0;
        loop {
            let waiting = self.lock();
            let end = waiting.capacity();
            let batch: Vec<Waker> =
                (from..end.min(from + BATCH)).filter_map(|seat| waiting.get(seat).cloned()).collect();
            drop(waiting);
            batch.into_iter().for_each(Waker::wake);
            from += BATCH;
            if from >= end {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Feed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("seen", &self.seen).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
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
        let feed = Feed::new(Arc::new(()));
        let (here, there): (Arc<Count>, Arc<Count>) = Default::default();
        let mut reader = feed.subscribe();
        for wakes in [&here, &there] {
            let waker = Waker::from(Arc::clone(wakes));
            assert!(reader.poll_next(&Context::from_waker(&waker)).is_pending());
        }
        feed.send(Arc::new(()));
        assert_eq!((here.0.load(Ordering::SeqCst), there.0.load(Ordering::SeqCst)), (0, 1));
    }
}
