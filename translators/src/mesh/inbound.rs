//! What a service takes.
//!
//! Owns: the settings of the proxies that serve a port, each with its origin. May use: `name`, `route`'s limits and faults.
//! Never: who may call; that is `access`'s.

use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::Serialize;

use super::{Fault, RateLimit, Sourced};
use crate::name::RuleRef;

/// What the proxies of a port take, each for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inbound {
    /// How many requests.
    pub rate_limit: Sourced<Option<RateLimit>>,
    /// What goes wrong on purpose.
    pub fault: Sourced<Option<Fault>>,
    /// How many connections at once.
    pub max_connections: Sourced<Option<NonZeroU32>>,
    /// How long a request may take.
    pub request_timeout: Sourced<Option<Duration>>,
    /// How many bytes of a connection a proxy holds; `None` is what Envoy has it.
    pub buffer_limit: Sourced<Option<NonZeroU32>>,
    /// How many requests at once, as found out from how long they take.
    pub adaptive_concurrency: Sourced<Option<Adaptive>>,
}

/// How many requests at once, as found out from how long they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Adaptive {
    /// Never fewer.
    pub min_concurrent: NonZeroU32,
    /// Never more.
    pub max_concurrent: NonZeroU32,
    /// How often the number is set anew.
    pub update: Duration,
    /// How often it is found out how long requests have to take.
    pub measure: Duration,
}

// === impl Inbound ===

impl Default for Inbound {
    /// Without any limit.
    fn default() -> Self {
        Self {
            rate_limit: Sourced::built_in(None),
            fault: Sourced::built_in(None),
            max_connections: Sourced::built_in(None),
            request_timeout: Sourced::built_in(None),
            buffer_limit: Sourced::built_in(None),
            adaptive_concurrency: Sourced::built_in(None),
        }
    }
}

impl Inbound {
    /// What holds where nobody says anything.
    pub fn built_in() -> &'static Arc<Self> {
        static BUILT_IN: LazyLock<Arc<Inbound>> = LazyLock::new(Arc::default);
        &BUILT_IN
    }

    /// Where the values come from that are not built in.
    pub fn origins(&self) -> impl Iterator<Item = &RuleRef> {
        let Self { rate_limit, fault, max_connections, request_timeout, buffer_limit, adaptive_concurrency } = self;
        let origins = [
            &rate_limit.origin,
            &fault.origin,
            &max_connections.origin,
            &request_timeout.origin,
            &buffer_limit.origin,
            &adaptive_concurrency.origin,
        ];
        origins.into_iter().flatten()
    }
}

// === impl Adaptive ===

impl Default for Adaptive {
    fn default() -> Self {
        let count = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            min_concurrent: count(3),
            max_concurrent: count(1000),
            update: Duration::from_millis(100),
            measure: Duration::from_secs(60),
        }
    }
}
