//! The lobby: what is said before it is known who says it.
//!
//! Owns: the count of those bytes, for all streams of one connection together. May use: the standard library. Never:
//! counts what is said by whom was let in, or was handed over whole by the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The lobby of one connection, shared by its streams. It is among the extensions of a request.
#[derive(Debug, Clone, Default)]
pub struct Lobby(Arc<AtomicUsize>);

/// The part of one stream that was not let in yet.
#[derive(Debug, Default)]
pub(super) struct Guest {
    lobby: Lobby,
    bytes: usize,
}

// === impl Lobby ===

impl Lobby {
    /// One more stream.
    pub(super) fn guest(&self) -> Guest {
        Guest { lobby: self.clone(), bytes: 0 }
    }
}

// === impl Guest ===

impl Guest {
    /// Makes us hold so many bytes from now on; whether all guests together make us hold no more than `most`.
    pub(super) fn holds(&mut self, bytes: usize, most: usize) -> bool {
        let others = self.lobby.0.fetch_sub(self.bytes, Ordering::Relaxed) - self.bytes;
        self.lobby.0.fetch_add(bytes, Ordering::Relaxed);
        self.bytes = bytes;
        others.saturating_add(bytes) <= most
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.lobby.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
