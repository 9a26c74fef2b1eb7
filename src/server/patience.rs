//! Patience: how long the server waits for a peer.
//!
//! Owns: those times and their defaults. May use: the standard library. Never: waits.

use std::time::Duration;

use crate::stream::about;

/// How long the server waits for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A connection on which nothing comes for so long is probed,
    pub probe: Duration,
    /// and is given up when the probe is not answered in this time.
    pub answer: Duration,
    /// A stream or a connection is given up when its peer takes nothing for so long of what there is for it.
    pub stalled: Duration,
    /// A connection takes no more new streams when it is about as old, a tenth more or less; `None` for never.
    pub age: Option<Duration>,
    /// A connection has begun to speak after this time.
    pub opening: Duration,
    /// A connection without HTTP/2 may be silent for so long between two requests.
    pub idle: Duration,
}

// === impl Patience ===

impl Patience {
    /// What holds unless it is said otherwise.
    pub const DEFAULT: Self = Self {
        probe: Duration::from_secs(30),
        answer: Duration::from_secs(10),
        stalled: Duration::from_secs(60),
        age: None,
        opening: Duration::from_secs(20),
        idle: Duration::from_secs(90),
    };

    /// How old one connection may become.
    pub(super) fn connection_age(&self) -> Option<Duration> {
        self.age.map(about)
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::DEFAULT
    }
}
