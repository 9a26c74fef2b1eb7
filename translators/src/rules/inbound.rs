//! `TrafficPolicy.inbound`: what a service takes.
//!
//! Owns: the shape of this part of the spec. May use: `checks`, `scalar`. Never: merges two policies.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checks::{FaultSpec, RateLimitSpec};
use super::scalar::{Setting, Span};

/// What the proxies of a service take: each counts for itself. What has to do with requests does nothing on tcp ports. On a
/// permissive port what comes by mTLS and what comes without are counted apart.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InboundSpec {
    /// How many requests that the access rules admit; without limit by default. What is beyond is answered 429. With
    /// `key: caller` each identity has a bucket of its own, and callers without one share one.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub rate_limit: Setting<RateLimitSpec>,
    /// What goes wrong on purpose; nothing by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub fault: Setting<FaultSpec>,
    /// How many connections at once; without limit by default. One more is closed at once.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub max_connections: Setting<NonZeroU32>,
    /// How long a request may take, on http and http2 ports; without limit by default, as `0s` is. What takes longer is
    /// answered 504.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub request_timeout: Setting<Span>,
    /// How many bytes of a connection a proxy holds for a side that does not take them, about; 1048576 by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub buffer_limit: Setting<NonZeroU32>,
    /// How many requests at once, as found out from how long they take; off by default, and `{}` is on. What is beyond is
    /// answered 503.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub adaptive_concurrency: Setting<AdaptiveSpec>,
}

/// How many requests at once: fewer where they take longer than they have to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdaptiveSpec {
    /// So many are let through while it is found out how long they have to take; 3 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_concurrent: Option<NonZeroU32>,
    /// Never more; 1000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<NonZeroU32>,
    /// How often the number is set anew; `100ms` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Span>,
    /// How often it is found out how long requests have to take; `1m` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<Span>,
}
