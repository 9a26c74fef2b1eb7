//! The clock: what time it is, as a value that is passed in.
//!
//! Owns: the one way to ask for wall-clock time where certificates depend on it. May use: tokio's timer.
//! Never: sleeps, or is reached through a global.

use std::time::SystemTime;

use tokio::time::Instant;

/// Where the wall-clock time comes from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// A clock that showed `start` at the instant `since` and runs with tokio's timer, paused or not.
    Runtime {
        /// What it showed.
        start: SystemTime,
        /// When it showed that.
        since: Instant,
    },
}

// === impl Clock ===

impl Clock {
    /// A clock that shows `start` now and from here on runs with tokio's timer.
    pub fn starting_at(start: SystemTime) -> Self {
        Self::Runtime { start, since: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> SystemTime {
        match self {
            Self::System => SystemTime::now(),
            Self::Runtime { start, since } => *start + since.elapsed(),
        }
    }
}
