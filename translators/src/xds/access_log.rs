//! Counting requests by caller, and whom an audit would refuse: Envoy's stats access logger on inbound chains.
//!
//! Owns: the names of the counters and their tags, which telemetry reads. May use: `mesh`, what `rbac` says of a
//! request. Never: logs a request.

use proto::envoy::config::accesslog::v3 as accesslog_pb;
use proto::envoy::extensions::access_loggers::filters::cel::v3 as cel_pb;
use proto::envoy::extensions::access_loggers::stats::v3 as stats_pb;
use proto::envoy::r#type::matcher::v3 as matcher_pb;
use proto::envoy::r#type::v3 as type_pb;
use proto::google::protobuf as google_pb;

use super::{Slot, StatsAccessLog, rbac, wire};
use crate::mesh::{Access, Dropped, Protocol, TagValue, Telemetry, Workload};
use crate::telemetry_names as names;

/// What all requests to one port of a workload have in common.
pub(super) struct Counted<'a> {
    service: String,
    port: String,
    version: Option<String>,
    protocol: Protocol,
    telemetry: &'a Telemetry,
}

// === impl Counted ===

impl<'a> Counted<'a> {
    /// The requests (on TCP ports: the connections) to the port of this slot.
    pub(super) fn new(workload: &Workload, slot: &Slot, protocol: Protocol, telemetry: &'a Telemetry) -> Self {
        Self {
            service: slot.service.to_string(),
            port: slot.port.clone(),
            // Envoy refuses an empty tag.
            version: workload.labels.get("version").filter(|v| !v.is_empty()).cloned(),
            protocol,
            telemetry,
        }
    }

    fn counts(&self, what: Dropped) -> bool {
        !self.telemetry.drop.value.contains(&what)
    }

    /// The loggers of one chain: one that counts everything, and those that count whom an audit would refuse.
    pub(super) fn loggers(&self, form: StatsAccessLog, mtls: bool, access: &Access) -> Vec<accesslog_pb::AccessLog> {
        let everything = || logger(form, self.counter(mtls), mtls.then(handshake_done));
        let everything = self.counts(Dropped::Requests).then(everything).flatten();
        let audits = if self.counts(Dropped::Audited) { audits(access, self.protocol) } else { Vec::new() };
        let audits = audits.into_iter().filter_map(|Audited { policy, filters }| {
            let filters: Vec<_> = mtls.then(handshake_done).into_iter().chain(filters).collect();
            logger(form, self.audited(policy, mtls), all_of(filters))
        });
        everything.into_iter().chain(audits).collect()
    }

    fn counter(&self, mtls: bool) -> stats_pb::config::Counter {
        let outcome = [
            Some(tag(names::CODE, "%RESPONSE_CODE%".into())),
            (self.counts(Dropped::Flags) || !self.protocol.is_http())
                .then(|| tag(names::FLAGS, "%RESPONSE_FLAGS%".into())),
            Some(tag(names::MTLS, mtls.to_string())),
        ];
        let further = self.telemetry.labels.iter().map(|(name, value)| tag(name, command(&value.value)));
        counter(names::REQUESTS, self.tags().chain(outcome.into_iter().flatten()).chain(further))
    }

    fn audited(&self, policy: String, mtls: bool) -> stats_pb::config::Counter {
        let outcome = [tag(names::POLICY, policy), tag(names::MTLS, mtls.to_string())];
        counter(names::AUDITED, self.tags().chain(outcome))
    }

    /// Between whom.
    fn tags(&self) -> impl Iterator<Item = stats_pb::config::Tag> {
        let version = self.version.as_ref().filter(|_| self.counts(Dropped::Version));
        let tags = [
            self.counts(Dropped::Caller).then(|| tag(names::CALLER, "%DOWNSTREAM_PEER_URI_SAN%".into())),
            Some(tag(names::SERVICE, literal(&self.service))),
            Some(tag(names::PORT, literal(&self.port))),
            version.map(|version| tag(names::VERSION, literal(version))),
        ];
        tags.into_iter().flatten()
    }
}

/// What an audit refuses by one of its filters.
struct Audited {
    /// The rule that refuses, as a format.
    policy: String,
    /// What holds of its requests.
    filters: Vec<accesslog_pb::AccessLogFilter>,
}

/// Whom the audit of a port would refuse: by an entry, which its filter names, or else by its default.
fn audits(access: &Access, protocol: Protocol) -> Vec<Audited> {
    let Some(audit) = &access.audit else { return Vec::new() };
    let filter = if protocol.is_http() { rbac::HTTP } else { "envoy.filters.network.rbac" };
    let says = |prefix: &str, result: &str| said(filter, &format!("{prefix}shadow_engine_result"), result);
    let by_entry = Audited {
        policy: format!("%DYNAMIC_METADATA({filter}:{}shadow_effective_policy_id)%", rbac::AUDIT_DENY),
        filters: vec![says(rbac::AUDIT_DENY, "denied")],
    };
    let refuses = !audit.deny.is_empty();
    let by_default = Audited {
        policy: audit.default.origin.as_ref().map_or_else(|| "-".to_owned(), |origin| literal(&origin.to_string())),
        // What an entry refuses is counted once.
        filters: refuses
            .then(|| says(rbac::AUDIT_DENY, "allowed"))
            .into_iter()
            .chain([says(rbac::AUDIT_ALLOW, "denied")])
            .collect(),
    };
    refuses.then_some(by_entry).into_iter().chain(access.would_close().then_some(by_default)).collect()
}

fn counter(name: &str, tags: impl Iterator<Item = stats_pb::config::Tag>) -> stats_pb::config::Counter {
    stats_pb::config::Counter {
        stat: Some(stats_pb::config::Stat { name: name.into(), tags: tags.collect() }),
        value_fixed: Some(google_pb::UInt64Value { value: 1 }),
        ..Default::default()
    }
}

fn logger(
    form: StatsAccessLog,
    counter: stats_pb::config::Counter,
    filter: Option<accesslog_pb::AccessLogFilter>,
) -> Option<accesslog_pb::AccessLog> {
    let config = match form {
        StatsAccessLog::Absent => return None,
        StatsAccessLog::Prefix => named_by_prefix(counter),
        StatsAccessLog::Scope => stats_pb::Config {
            stats_scope: Some(type_pb::Scope { prefix: names::PREFIX.into(), ..Default::default() }),
            counters: vec![counter],
            ..Default::default()
        },
    };
    Some(accesslog_pb::AccessLog {
        name: "envoy.access_loggers.stats".into(),
        filter,
        config_type: Some(accesslog_pb::access_log::ConfigType::TypedConfig(wire::any(&config))),
    })
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

/// Envoy wants two of them at least.
pub(super) fn all_of(mut filters: Vec<accesslog_pb::AccessLogFilter>) -> Option<accesslog_pb::AccessLogFilter> {
    use accesslog_pb::access_log_filter::FilterSpecifier::AndFilter;
    if filters.len() < 2 {
        return filters.pop();
    }
    Some(accesslog_pb::AccessLogFilter { filter_specifier: Some(AndFilter(accesslog_pb::AndFilter { filters })) })
}

/// What `filter` has said of a request under `key`.
fn said(filter: &str, key: &str, value: &str) -> accesslog_pb::AccessLogFilter {
    use accesslog_pb::access_log_filter::FilterSpecifier::MetadataFilter;
    use matcher_pb::metadata_matcher::path_segment::Segment;
    let segment = matcher_pb::metadata_matcher::PathSegment { segment: Some(Segment::Key(key.to_owned())) };
    let matcher = matcher_pb::MetadataMatcher {
        filter: filter.to_owned(),
        path: vec![segment],
        value: Some(matcher_pb::ValueMatcher {
            match_pattern: Some(matcher_pb::value_matcher::MatchPattern::StringMatch(wire::exact(value))),
        }),
        ..Default::default()
    };
    let filter =
        accesslog_pb::MetadataFilter { matcher: Some(matcher), match_if_key_not_found: Some(wire::boolean(false)) };
    accesslog_pb::AccessLogFilter { filter_specifier: Some(MetadataFilter(filter)) }
}

fn tag(name: &str, value_format: String) -> stats_pb::config::Tag {
    stats_pb::config::Tag { name: name.into(), value_format, ..Default::default() }
}

/// A value in a format.
fn command(value: &TagValue) -> String {
    match value {
        TagValue::Literal(text) => literal(text),
        TagValue::Header(name) => format!("%REQ({name})%"),
        TagValue::Environment(variable) => format!("%ENVIRONMENT({variable})%"),
    }
}

/// `text` in a format, where `%` begins a command.
pub(super) fn literal(text: &str) -> String {
    text.replace('%', "%%")
}
