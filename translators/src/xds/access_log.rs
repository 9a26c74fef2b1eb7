//! Counting requests by caller: Envoy's stats access logger on inbound chains.
//!
//! Owns: the name of the counter and its tags, which telemetry reads. May use: `mesh`. Never: logs a request.

use proto::envoy::config::accesslog::v3 as accesslog_pb;
use proto::envoy::extensions::access_loggers::filters::cel::v3 as cel_pb;
use proto::envoy::extensions::access_loggers::stats::v3 as stats_pb;
use proto::envoy::r#type::v3 as type_pb;
use proto::google::protobuf as google_pb;

use super::{Slot, StatsAccessLog, wire};
use crate::mesh::Workload;
use crate::telemetry_names as names;

/// What all requests to one port of a workload have in common.
pub(super) struct Counted {
    service: String,
    port: String,
    version: Option<String>,
}

// === impl Counted ===

impl Counted {
    /// The requests (on TCP ports: the connections) to the port of this slot.
    pub(super) fn new(workload: &Workload, slot: &Slot) -> Self {
        Self {
            service: slot.service.to_string(),
            port: slot.port.clone(),
            // Envoy refuses an empty tag.
            version: workload.labels.get("version").filter(|v| !v.is_empty()).cloned(),
        }
    }

    /// The loggers of one chain.
    pub(super) fn loggers(&self, form: StatsAccessLog, mtls: bool) -> Vec<accesslog_pb::AccessLog> {
        let config = match form {
            StatsAccessLog::Absent => return Vec::new(),
            StatsAccessLog::Prefix => named_by_prefix(self.counter(mtls)),
            StatsAccessLog::Scope => stats_pb::Config {
                stats_scope: Some(type_pb::Scope { prefix: names::PREFIX.into(), ..Default::default() }),
                counters: vec![self.counter(mtls)],
                ..Default::default()
            },
        };
        let logger = accesslog_pb::AccessLog {
            name: "envoy.access_loggers.stats".into(),
            filter: mtls.then(handshake_done),
            config_type: Some(accesslog_pb::access_log::ConfigType::TypedConfig(wire::any(&config))),
        };
        vec![logger]
    }

    fn counter(&self, mtls: bool) -> stats_pb::config::Counter {
        let version = self.version.as_ref().map(|version| tag(names::VERSION, literal(version)));
        let tags = [
            tag(names::CALLER, "%DOWNSTREAM_PEER_URI_SAN%".into()),
            tag(names::SERVICE, literal(&self.service)),
            tag(names::PORT, literal(&self.port)),
        ];
        let outcome = [
            tag(names::CODE, "%RESPONSE_CODE%".into()),
            tag(names::FLAGS, "%RESPONSE_FLAGS%".into()),
            tag(names::MTLS, mtls.to_string()),
        ];
        stats_pb::config::Counter {
            stat: Some(stats_pb::config::Stat {
                name: names::REQUESTS.into(),
                tags: tags.into_iter().chain(version).chain(outcome).collect(),
            }),
            value_fixed: Some(google_pb::UInt64Value { value: 1 }),
            ..Default::default()
        }
    }
}

/// Envoy 1.37 and 1.38 know no other form, and later ones take only one of the two.
#[expect(deprecated, reason = "the only form before Envoy 1.39")]
fn named_by_prefix(counter: stats_pb::config::Counter) -> stats_pb::Config {
    stats_pb::Config { stat_prefix: names::PREFIX.into(), counters: vec![counter], ..Default::default() }
}

/// A connection whose handshake failed is logged too, under the name that its certificate claims: a forged one
/// must not be counted.
fn handshake_done() -> accesslog_pb::AccessLogFilter {
    use accesslog_pb::access_log_filter::FilterSpecifier;
    let expression = "!has(connection.transport_failure_reason)".into();
    let config = cel_pb::ExpressionFilter { expression, ..Default::default() };
    let extension = accesslog_pb::ExtensionFilter {
        name: "envoy.access_loggers.extension_filters.cel".into(),
        config_type: Some(accesslog_pb::extension_filter::ConfigType::TypedConfig(wire::any(&config))),
    };
    accesslog_pb::AccessLogFilter { filter_specifier: Some(FilterSpecifier::ExtensionFilter(extension)) }
}

fn tag(name: &str, value_format: String) -> stats_pb::config::Tag {
    stats_pb::config::Tag { name: name.into(), value_format, ..Default::default() }
}

/// `text` in a format, where `%` begins a command.
fn literal(text: &str) -> String {
    text.replace('%', "%%")
}
