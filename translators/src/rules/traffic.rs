//! `TrafficPolicy`: how the calls to services are made, and what services take.
//!
//! Owns: the shape of the spec. May use: `inbound`, `locality`, `scalar`, `target`. Never: merges two policies.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::health::HealthCheckSpec;
use super::inbound::InboundSpec;
use super::locality::NearnessSpec;
use super::route::RetrySpec;
use super::scalar::{Percent, Setting, Span};
use super::target::Target;
use crate::mesh::{BalancingPolicy, ProxyProtocol};

/// How the calls to services are made, and what services take. Policies merge down the ladder (mesh, namespace, labels, service, port, route, rule) field by field;
/// `null` is the built-in value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["outbound"]}, {"required": ["inbound"]}]))]
pub struct TrafficSpec {
    /// Which services: a `scope`, a `service` or its `port`; a policy that names a service of another namespace is for the
    /// callers in its own. Of `labels`, what the workloads with these labels take (`inbound` alone). Of a `route` or one
    /// `rule` of it, `outbound.timeouts.request` and `outbound.retry` of the requests that its rules take, which themselves
    /// have the last word; the rest of `outbound` is said of services.
    pub target: Target,
    /// What callers do; nothing of its own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-ladder" = "a TrafficPolicy with a wider target (route, port, service, namespace, mesh)"))]
    pub outbound: Option<OutboundSpec>,
    /// What the service's own proxies do; nothing of its own by default. Not for a service of another namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-ladder" = "a TrafficPolicy with a wider target (port, service, labels, namespace, mesh)"))]
    pub inbound: Option<InboundSpec>,
}

/// What callers do; where a part is left out, each of its fields has its default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutboundSpec {
    /// How long things may take.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub timeouts: Setting<TimeoutsSpec>,
    /// What is repeated; once on connect-failure and refused-stream by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    #[schemars(extend("x-default-from" = "Mesh.spec.defaults.retry"))]
    pub retry: Setting<RetrySpec>,
    /// How much of the traffic repetitions may be.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub retry_budget: Setting<RetryBudgetSpec>,
    /// Which endpoint gets a request.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub load_balancing: Setting<LoadBalancingSpec>,
    /// Which endpoints get nothing for a while because requests to them fail; off by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub outlier_detection: Setting<OutlierSpec>,
    /// How much is under way at once from each caller.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub circuit_breaker: Setting<CircuitBreakerSpec>,
    /// How endpoints are asked whether they are well; they are not by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub health_check: Setting<HealthCheckSpec>,
    /// Whether endpoints that have no proxy of the mesh (of a `static` list, or by `dns`) are told by whom a connection is
    /// made, before its first byte, and in which version; they are not by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub proxy_protocol: Setting<ProxyProtocol>,
    /// How idle connections are kept open; left out, the system decides.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub keepalive: Setting<KeepaliveSpec>,
    /// Which endpoints are preferred for where they are.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub locality: Setting<NearnessSpec>,
}

/// How long things may take; `0s` is without limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimeoutsSpec {
    /// Until a connection to an endpoint stands; `5s` by default, and never without limit.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    #[schemars(extend("x-default-from" = "Mesh.spec.defaults.connectTimeout"))]
    pub connect: Setting<Span>,
    /// A request as a whole, on http and http2 ports; `15s` by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    #[schemars(extend("x-default-from" = "Mesh.spec.defaults.timeout"))]
    pub request: Setting<Span>,
    /// Without a byte on a stream, or without a stream on a connection; `1h` by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub idle: Setting<Span>,
    /// A request and its response, however many bytes still come; without limit by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub max_stream: Setting<Span>,
    /// A connection, which then takes no more requests; without limit by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub max_connection: Setting<Span>,
}

/// How much of the traffic repetitions may be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudgetSpec {
    /// Of what is under way; 20 by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub percent: Setting<Percent>,
    /// So many in any case; 3 by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub min_concurrent: Setting<u32>,
}

/// Which endpoint gets a request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancingSpec {
    /// The policy; `least-request` by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub policy: Setting<BalancingPolicy>,
    /// What decides with `ring-hash` and `maglev`: requests that are alike in it go to the same endpoint; nothing by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub hash_on: Setting<HashOnSpec>,
    /// How long a new endpoint takes to get its whole share, with `round-robin` and `least-request`; none by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub slow_start: Setting<Span>,
}

/// In what requests are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HashOnSpec {
    /// The header of this name.
    Header(#[schemars(example = &"x-user")] String),
    /// The cookie of this name, which the proxy sets where there is none. Who comes without it over one connection is given
    /// the same.
    Cookie(#[schemars(example = &"cart")] String),
    /// The identity of the caller: whatever one workload asks goes to one endpoint.
    Caller,
    /// The address that they come from.
    Ip,
}

/// Which endpoints get nothing for a while; a reason that is left out is none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierSpec {
    /// So many answers of 500 and above, or none at all, one after the other.
    #[serde(default, rename = "consecutive5xx", skip_serializing_if = "Setting::is_inherit")]
    pub consecutive_5xx: Setting<NonZeroU32>,
    /// So many answers of 502, 503 or 504, or none at all, one after the other.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub consecutive_gateway_errors: Setting<NonZeroU32>,
    /// Less than this share of successes, in percent, of 50 requests or more in one interval.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub success_rate: Setting<Percent>,
    /// How long, the first time; `30s` by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub eject_for: Setting<Span>,
    /// How many of the endpoints at most, in percent; 10 by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub max_ejected_percent: Setting<Percent>,
}

/// How much is under way at once from each caller; what is beyond is answered 503 at once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CircuitBreakerSpec {
    /// Connections; 65536 by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub max_connections: Setting<u32>,
    /// Requests that wait for a connection; 65536 by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub max_pending_requests: Setting<u32>,
    /// Requests; 65536 by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub max_requests: Setting<u32>,
    /// Repetitions; left out, `retryBudget` decides, whose place it takes.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub max_retries: Setting<u32>,
}

/// How idle connections are kept open.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeepaliveSpec {
    /// How long a connection is idle before the first probe; the system's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Span>,
    /// From one probe to the next; the system's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// So many without an answer end it; the system's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<NonZeroU32>,
}
