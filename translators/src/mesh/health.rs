//! Active health checks.
//!
//! Owns: how an endpoint is asked whether it is well. May use: the protocol of a port. Never: who is admitted.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;

use super::Protocol;

/// How endpoints are asked whether they are well. One that is not gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HealthCheck {
    /// By what.
    pub kind: HealthCheckKind,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many failures one after the other make it unwell.
    pub unhealthy: NonZeroU32,
    /// So many successes one after the other make it well again.
    pub healthy: NonZeroU32,
}

/// By what an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HealthCheckKind {
    /// A GET of this path, answered 200.
    Http(String),
    /// The health service of gRPC, about this service of it; empty is the server as a whole.
    Grpc(String),
    /// A connection.
    Tcp,
}

/// The path of the health service of gRPC.
pub const GRPC_HEALTH: &str = "/grpc.health.v1.Health/Check";

// === impl HealthCheck ===

impl HealthCheck {
    /// By what a port that speaks `protocol` is asked.
    pub fn kind_for(&self, protocol: Protocol) -> HealthCheckKind {
        let speaks = match self.kind {
            HealthCheckKind::Http(_) => protocol.is_http(),
            HealthCheckKind::Grpc(_) => protocol.takes_grpc(),
            HealthCheckKind::Tcp => true,
        };
        if speaks { self.kind.clone() } else { HealthCheckKind::Tcp }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        let count = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            kind: HealthCheckKind::Tcp,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(2),
            unhealthy: count(3),
            healthy: count(2),
        }
    }
}
