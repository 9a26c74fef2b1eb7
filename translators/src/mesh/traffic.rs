//! How calls are made: limits, repetitions, balancing, and what is done about endpoints that fail.
//!
//! Owns: these settings as they hold for one port, every one with its origin. May use: `route`, the scalars of `rules`.
//! Never: Envoy's types.

use std::num::NonZeroU32;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HealthCheck, Nearness, Percent, Retry, RetryCondition, Sourced};
use crate::name::RuleRef;

/// How the calls to a port are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outbound {
    /// Until a connection to an endpoint stands.
    pub connect_timeout: Sourced<Duration>,
    /// A request as a whole on http and http2 ports, unless its rule says so; `None` is without limit.
    pub request_timeout: Sourced<Option<Duration>>,
    /// Without a byte on a stream, or without a stream on a connection; `None` is without limit.
    pub idle_timeout: Sourced<Option<Duration>>,
    /// A request and its response; `None` is without limit.
    pub max_stream: Sourced<Option<Duration>>,
    /// A connection; `None` is without limit.
    pub max_connection: Sourced<Option<Duration>>,
    /// What is repeated, unless its rule says so.
    pub retry: Sourced<Retry>,
    /// The share of what is under way that repetitions may be.
    pub retry_percent: Sourced<Percent>,
    /// Repetitions that there may be in any case.
    pub retry_min_concurrent: Sourced<u32>,
    /// Which endpoint gets a request.
    pub balancing: Sourced<BalancingPolicy>,
    /// In what requests are alike that go to the same endpoint.
    pub hash_on: Sourced<Option<HashOn>>,
    /// How long a new endpoint takes to get its whole share.
    pub slow_start: Sourced<Option<Duration>>,
    /// Which endpoints get nothing for a while.
    pub outliers: Outliers,
    /// How much is under way at once.
    pub breaker: Breaker,
    /// How endpoints are asked whether they are well.
    pub health_check: Sourced<Option<HealthCheck>>,
    /// Whether endpoints without a proxy of the mesh are told by whom a connection is made.
    pub proxy_protocol: Sourced<Option<ProxyProtocol>>,
    /// How idle connections are kept open; `None` is as the system has it.
    pub keepalive: Sourced<Option<Keepalive>>,
    /// Which endpoints are preferred for where they are.
    #[serde(skip_serializing_if = "Nearness::is_built_in")]
    pub locality: Nearness,
}

/// The versions of the protocol by which a connection says whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

/// Which endpoint gets a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BalancingPolicy {
    /// One after the other.
    RoundRobin,
    /// Of two at random, the one with fewer requests under way.
    LeastRequest,
    /// By hash, on a ring: few requests move when an endpoint comes or goes.
    RingHash,
    /// By hash, in a table: more even than a ring, and more requests move.
    Maglev,
    /// Any.
    Random,
}

/// In what requests are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HashOn {
    /// The header of this lower-case name.
    Header(String),
    /// The cookie of this name, which lives as long as the client's session.
    Cookie(String),
    /// The identity of the caller.
    Caller,
    /// The address that they come from.
    Ip,
}

/// Which endpoints get nothing for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outliers {
    /// So many server errors one after the other.
    pub consecutive_5xx: Sourced<Option<NonZeroU32>>,
    /// So many gateway errors one after the other.
    pub consecutive_gateway_errors: Sourced<Option<NonZeroU32>>,
    /// Fewer successes than this.
    pub success_rate: Sourced<Option<Percent>>,
    /// How long, the first time.
    pub eject_for: Sourced<Duration>,
    /// How many of the endpoints at most.
    pub max_ejected: Sourced<Percent>,
}

/// How much is under way at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breaker {
    /// Connections.
    pub max_connections: Sourced<u32>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Sourced<u32>,
    /// Requests.
    pub max_requests: Sourced<u32>,
    /// Repetitions, in place of a share of what is under way.
    pub max_retries: Sourced<Option<u32>>,
}

/// How idle connections are kept open; `None` is as the system has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Keepalive {
    /// Before the first probe, in whole seconds.
    pub time: Option<Duration>,
    /// From one probe to the next, in whole seconds.
    pub interval: Option<Duration>,
    /// So many without an answer end the connection.
    pub probes: Option<NonZeroU32>,
}

// === impl Outbound ===

impl Default for Outbound {
    /// Every built-in default.
    fn default() -> Self {
        let when = [RetryCondition::ConnectFailure, RetryCondition::RefusedStream];
        // Enough that only a runaway meets it; Envoy's own is 1,024.
        let many = || Sourced::built_in(65_536);
        Self {
            connect_timeout: Sourced::built_in(Duration::from_secs(5)),
            request_timeout: Sourced::built_in(Some(Duration::from_secs(15))),
            idle_timeout: Sourced::built_in(Some(Duration::from_secs(60 * 60))),
            max_stream: Sourced::built_in(None),
            max_connection: Sourced::built_in(None),
            // Where nothing was processed.
            retry: Sourced::built_in(Retry { attempts: 1, when: when.into(), per_try_timeout: None, backoff: None }),
            retry_percent: Sourced::built_in(Percent { millionths: 200_000 }),
            retry_min_concurrent: Sourced::built_in(3),
            balancing: Sourced::built_in(BalancingPolicy::LeastRequest),
            hash_on: Sourced::built_in(None),
            slow_start: Sourced::built_in(None),
            outliers: Outliers {
                consecutive_5xx: Sourced::built_in(None),
                consecutive_gateway_errors: Sourced::built_in(None),
                success_rate: Sourced::built_in(None),
                eject_for: Sourced::built_in(Duration::from_secs(30)),
                max_ejected: Sourced::built_in(Percent { millionths: 100_000 }),
            },
            breaker: Breaker {
                max_connections: many(),
                max_pending_requests: many(),
                max_requests: many(),
                max_retries: Sourced::built_in(None),
            },
            health_check: Sourced::built_in(None),
            proxy_protocol: Sourced::built_in(None),
            keepalive: Sourced::built_in(None),
            locality: Nearness::default(),
        }
    }
}

impl Outbound {
    /// What holds where nobody says anything.
    pub fn built_in() -> &'static Arc<Self> {
        static BUILT_IN: LazyLock<Arc<Outbound>> = LazyLock::new(Arc::default);
        &BUILT_IN
    }

    /// Where the values come from that are not built in.
    pub fn origins(&self) -> impl Iterator<Item = &RuleRef> {
        let Self { outliers, breaker, .. } = self;
        let origins = [
            &self.connect_timeout.origin,
            &self.request_timeout.origin,
            &self.idle_timeout.origin,
            &self.max_stream.origin,
            &self.max_connection.origin,
            &self.retry.origin,
            &self.retry_percent.origin,
            &self.retry_min_concurrent.origin,
            &self.balancing.origin,
            &self.hash_on.origin,
            &self.slow_start.origin,
            &outliers.consecutive_5xx.origin,
            &outliers.consecutive_gateway_errors.origin,
            &outliers.success_rate.origin,
            &outliers.eject_for.origin,
            &outliers.max_ejected.origin,
            &breaker.max_connections.origin,
            &breaker.max_pending_requests.origin,
            &breaker.max_requests.origin,
            &breaker.max_retries.origin,
            &self.health_check.origin,
            &self.proxy_protocol.origin,
            &self.keepalive.origin,
        ];
        origins.into_iter().flatten().chain(self.locality.origins())
    }
}

// === impl Outliers ===

impl Outliers {
    /// Whether any endpoint is ever left out.
    pub fn is_on(&self) -> bool {
        self.consecutive_5xx.value.is_some()
            || self.consecutive_gateway_errors.value.is_some()
            || self.success_rate.value.is_some()
    }
}

// === impl BalancingPolicy ===

impl BalancingPolicy {
    /// Whether a hash decides.
    pub fn hashes(self) -> bool {
        match self {
            Self::RingHash | Self::Maglev => true,
            Self::RoundRobin | Self::LeastRequest | Self::Random => false,
        }
    }
}
