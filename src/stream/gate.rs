//! The gate: how many new streams are let in.
//!
//! Owns: the count of those that may come now. May use: the standard library; the time is passed in. Never: makes
//! anybody wait: who is not let in is told so, and comes again when it likes.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// So many a second, and at most one second's worth at once.
#[derive(Debug)]
pub(super) struct Gate {
    rate: Option<NonZeroU32>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many may come.
    free: f64,
    /// When that was counted.
    at: Option<Instant>,
}

// === impl Gate ===

impl Gate {
    /// Lets `rate` a second in; all of them if there is none.
    pub(super) fn new(rate: Option<NonZeroU32>) -> Self {
        Self { rate, state: Mutex::default() }
    }

    /// Whether one more may come.
    pub(super) fn lets_in(&self, now: Instant) -> bool {
        let Some(rate) = self.rate else { return true };
        let rate = f64::from(rate.get());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since = state.at.map_or(1.0, |at| now.saturating_duration_since(at).as_secs_f64());
        state.free = (state.free + since * rate).min(rate);
        state.at = state.at.max(Some(now));
        let lets_in = state.free >= 1.0;
        if lets_in {
            state.free -= 1.0;
        }
        lets_in
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_come_at_once_and_so_many_a_second() {
        let gate = Gate::new(NonZeroU32::new(10));
        let start = Instant::now();
        let come = |after: u64| (0..100).filter(|_| gate.lets_in(start + Duration::from_millis(after))).count();
        assert_eq!([come(0), come(0), come(500), come(600), come(60_000)], [10, 0, 5, 1, 10]);
        // A clock that another thread read earlier takes nothing away.
        assert_eq!([come(0), come(61_000)], [0, 10]);
        let open = Gate::new(None);
        assert!((0..10_000).all(|_| open.lets_in(start)));
    }
}
