//! A pulse: whether what a stream has given is being taken.
//!
//! Owns: one count. May use: the standard library. Never: knows the time; whoever watches it does.
//!
//! A body that is not asked for more after it gave something has a reader that takes nothing: HTTP/2 has no room for
//! what it gave. Nobody asks such a body, so it cannot tell by itself; who drives its connection can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The pulse of one stream, shared by its body and whoever watches it. It is among the extensions of a request.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<AtomicU64>);

// === impl Pulse ===

impl Pulse {
    /// The body was asked for more: all that it gave before was taken.
    pub fn asked(&self) {
        let beats = self.0.load(Ordering::Relaxed);
        self.0.store(beats + beats % 2, Ordering::Relaxed);
    }

    /// The body gave something.
    pub fn gave(&self) {
        let beats = self.0.load(Ordering::Relaxed);
        self.0.store(beats + 1 + beats % 2, Ordering::Relaxed);
    }

    /// The number of what was given and is not taken yet.
    pub fn waits(&self) -> Option<u64> {
        let beats = self.0.load(Ordering::Relaxed);
        (beats % 2 == 1).then_some(beats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_waits_until_more_is_asked_for() {
        let pulse = Pulse::default();
        pulse.asked();
        assert_eq!(pulse.waits(), None);
        pulse.gave();
        let first = pulse.waits();
        assert!(first.is_some());
        pulse.gave();
        let second = pulse.waits();
        assert!(second.is_some() && second != first);
        pulse.asked();
        pulse.asked();
        assert_eq!(pulse.waits(), None);
    }
}
