//! Limits: what a client may ask of the discovery services.
//!
//! Owns: those numbers and their defaults. May use: the standard library. Never: enforces one; whoever is limited does.

use std::num::NonZeroU32;
use std::time::Duration;

/// What a client may ask of the discovery services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A request may not be larger, in bytes.
    pub request_bytes: usize,
    /// A stream ends when it is about as old: a tenth more or less, so that streams that began together do not end
    /// together. `None` for never.
    pub age: Option<Duration>,
    /// So many streams may be opened in a second; `None` for any number.
    pub opened: Option<NonZeroU32>,
    /// A client that polls over plain HTTP waits so long for a change.
    pub poll: Duration,
}

// === impl Limits ===

impl Limits {
    /// What holds unless it is said otherwise: as little as can be.
    pub const DEFAULT: Self = Self {
        // One that reconnects names all that it holds: 20 MiB were seen.
        request_bytes: 64 * 1024 * 1024,
        age: None,
        opened: None,
        // Envoy gives up after a second unless its configuration says otherwise, and logs a failure: half of it is
        // left for the network.
        poll: Duration::from_millis(500),
    };

    /// What holds for the proxies of a control plane, unless it is said otherwise.
    pub const SERVED: Self = Self {
        // Then it is opened again, elsewhere if there are several control planes.
        age: Some(Duration::from_secs(30 * 60)),
        // Far more than any fleet opens but in an accident.
        opened: NonZeroU32::new(10_000),
        ..Self::DEFAULT
    };

    /// How old one stream may become.
    pub(super) fn stream_age(&self) -> Option<Duration> {
        self.age.map(about)
    }
}

/// About this time, a tenth more or less: what began together does not end together.
pub fn about(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.9..1.1))
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
