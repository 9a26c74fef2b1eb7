//! The port that proxies connect to: ADS and telemetry over one authenticated connection.
//!
//! Owns: the limits and timers of HTTP/2. May use: `stream`, `telemetry`. Never: decides who may have what.

use std::time::Duration;

use futures::Stream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::warn;

/// How often a silent connection is probed, and how long it may take to answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Streams on one connection: one Envoy may open one per resource.
const MAX_STREAMS: u32 = 100_000;
/// The largest header block that is read.
const MAX_HEADERS: u32 = 64 << 10;
