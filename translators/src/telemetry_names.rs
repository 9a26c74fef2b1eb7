//! What the metrics of a listener are called: by the access logger that counts, and by whoever reads the counts.
//!
//! Owns: the names of the counter, of its tags and of the gauges that go with it. May use: nothing. Never: counts.

/// The prefix of the statistics of the `envoy.access_loggers.stats` loggers that we configure.
pub const PREFIX: &str = "chancery";
/// The counter of such a logger: one for each finished request, or TCP connection.
pub const REQUESTS: &str = "requests";
/// The family in which the counter arrives at a metrics service: prefix and counter.
pub const REQUESTS_FAMILY: &str = "chancery.requests";
/// The counter of those whom an audit would refuse.
pub const AUDITED: &str = "audited";
/// The family in which that one arrives at a metrics service.
pub const AUDITED_FAMILY: &str = "chancery.audited";
/// Envoy's gauge of the seconds since it started: a fall means a restart.
pub const UPTIME_FAMILY: &str = "server.uptime";

/// The peer's URI SAN; empty or `-` when it has none.
pub const CALLER: &str = "caller";
/// The service that was called, `namespace/name`.
pub const SERVICE: &str = "service";
/// The version that answered: the workload's `version` label; no tag when it has none, for a tag cannot be empty.
pub const VERSION: &str = "version";
/// The name of the service's port.
pub const PORT: &str = "port";
/// The HTTP status; 0 where there was no response, and for TCP.
pub const CODE: &str = "code";
/// Envoy's response flags, joined by commas; `-` for none.
pub const FLAGS: &str = "flags";
/// The rule that would refuse: an entry, or a default.
pub const POLICY: &str = "policy";
/// Whether the filter chain takes mTLS: `true` or `false`.
pub const MTLS: &str = "mtls";

/// All of these: no other label is called so.
pub const LABELS: [&str; 8] = [CALLER, SERVICE, VERSION, PORT, CODE, FLAGS, POLICY, MTLS];

/// What Envoy's formats write for nothing.
pub const NONE: &str = "-";
