//! Forms: what Envoys of a version take otherwise than those of another.
//!
//! Owns: the one table of what depends on the version of a proxy. May use: `version`. Never: builds anything.

use crate::version::EnvoyVersion;

/// The forms in which proxies of a version take what they get; a form that a version does not know is refused or ignored
/// by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Forms {
    /// How requests are counted by caller.
    pub stats_access_log: StatsAccessLog,
    /// Whether a TCP connection to the application can wait for the caller's TLS handshake.
    pub connect_after_handshake: bool,
    /// Where a logger of OpenTelemetry's says where its entries go.
    pub otlp_logs: OtlpLogs,
}

/// The forms of Envoy's stats access logger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatsAccessLog {
    /// Before 1.37: there is none.
    #[default]
    Absent,
    /// 1.37 and 1.38: named by `stat_prefix`.
    Prefix,
    /// From 1.39: named by `stats_scope`.
    Scope,
}

/// The forms of Envoy's logger of OpenTelemetry's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OtlpLogs {
    /// Before 1.37: in `common_config`.
    #[default]
    Common,
    /// From 1.37: in fields of its own.
    Own,
}

// === impl Forms ===

impl Forms {
    /// What Envoys of `version` take.
    pub fn of(version: EnvoyVersion) -> Self {
        let since = |minor| version >= EnvoyVersion::new(1, minor);
        Self {
            stats_access_log: if since(39) {
                StatsAccessLog::Scope
            } else if since(37) {
                StatsAccessLog::Prefix
            } else {
                StatsAccessLog::Absent
            },
            connect_after_handshake: since(37),
            otlp_logs: if since(37) { OtlpLogs::Own } else { OtlpLogs::Common },
        }
    }
}
