//! `TrafficPolicy.outbound.healthCheck`: how endpoints are asked whether they are well.
//!
//! Owns: the shape of this part of the spec. May use: `scalar`. Never: checks anything.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::Span;

/// How callers ask endpoints whether they are well: by one of `http`, `grpc` and `tcp`. An endpoint that is not gets
/// nothing, even when none is. Callers ask by mTLS where they call by mTLS, and the access rules of the service always admit
/// what they ask. A port that does not speak what is asked by (`http`: http, http2 and grpc; `grpc`: http2 and grpc) is asked
/// by `tcp`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheckSpec {
    /// By a GET, which is answered 200; what else is asked by is left out then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheckSpec>,
    /// By the health service of gRPC; what else is asked by is left out then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcCheckSpec>,
    /// By a connection, `{}`; what else is asked by is left out then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpCheckSpec>,
    /// How often; `10s` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// How long an answer may take; `2s` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// So many failures one after the other make an endpoint unwell; 3 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_threshold: Option<NonZeroU32>,
    /// So many successes one after the other make it well again; 2 by default. A new one needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_threshold: Option<NonZeroU32>,
}

/// By a GET.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheckSpec {
    /// The path.
    pub path: String,
}

/// By the health service of gRPC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcCheckSpec {
    /// The service that is asked about; the server as a whole by default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
}

/// By a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpCheckSpec {}
