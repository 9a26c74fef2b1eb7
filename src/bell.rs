//! A bell: what hardly ever has something to say rings when it has.
//!
//! Owns: waking a task for some of its futures, and telling that it was they who did. May use: the standard library.
//! Never: wakes anybody but who asked last. A task that is woken often polls its quiet futures only when they rang.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// Rung by the waker that it gives to futures.
#[derive(Debug)]
pub struct Bell {
    rope: Arc<Rope>,
    /// What futures are polled with.
    waker: Waker,
    /// Whom the rope wakes.
    heard_by: Waker,
}

#[derive(Debug)]
struct Rope {
    rung: AtomicBool,
    heard_by: Mutex<Waker>,
}

// === impl Bell ===

/// A bell that has rung, so that every future is polled once.
impl Default for Bell {
    fn default() -> Self {
        let heard_by = Waker::noop().clone();
        let rope = Arc::new(Rope { rung: AtomicBool::new(true), heard_by: Mutex::new(heard_by.clone()) });
        Self { waker: Arc::clone(&rope).into(), rope, heard_by }
    }
}

impl Bell {
    /// Whether it has rung since this was asked last; from now on it wakes the context.
    pub fn has_rung(&mut self, context: &Context<'_>) -> bool {
        if !self.heard_by.will_wake(context.waker()) {
            self.heard_by.clone_from(context.waker());
            self.rope.heard_by.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&self.heard_by);
        }
        self.rope.rung.load(Ordering::SeqCst) && self.rope.rung.swap(false, Ordering::SeqCst)
    }

    /// Makes it ring when whatever is polled with this can go on.
    pub fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    /// Rings it.
    pub fn ring(&self) {
        self.rope.rung.store(true, Ordering::SeqCst);
    }
}

// === impl Rope ===

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        // Whoever looks has said before whom to wake.
        let heard_by = self.heard_by.lock().unwrap_or_else(PoisonError::into_inner).clone();
        heard_by.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::FutureExt;
    use futures::channel::oneshot;
    use futures::task::noop_waker;

    use super::*;

    #[test]
    fn it_rings_for_its_futures_and_for_nothing_else() {
        let mut bell = Bell::default();
        let waker = noop_waker();
        let context = Context::from_waker(&waker);
        assert!(bell.has_rung(&context), "every future is polled once");
        let (send, mut receive) = oneshot::channel();
        assert_eq!(receive.poll_unpin(&mut bell.context()), Poll::Pending);
        assert!(!bell.has_rung(&context));
        send.send(1).expect("there is a receiver");
        assert!(bell.has_rung(&context));
        assert!(!bell.has_rung(&context), "once");
        assert_eq!(receive.poll_unpin(&mut bell.context()), Poll::Ready(Ok(1)));
        bell.ring();
        assert!(bell.has_rung(&context));
    }
}
