//! What proxies say of requests: access loggers and tracers, as policies ask for them.
//!
//! Owns: where entries and spans go, and of which requests. May use: `collector`, `log_format`, `access_log`. Never: counts;
//! that is `access_log`'s.

use prost::{Message as _, Name};
use proto::envoy::config::accesslog::v3 as accesslog_pb;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::trace::v3 as trace_pb;
use proto::envoy::extensions::access_loggers::file::v3 as file_pb;
use proto::envoy::extensions::access_loggers::grpc::v3 as grpc_pb;
use proto::envoy::extensions::access_loggers::open_telemetry::v3 as otlp_pb;
use proto::envoy::extensions::access_loggers::stream::v3 as stream_pb;
use proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use proto::envoy::extensions::tracers::opentelemetry::samplers::v3 as sampler_pb;
use proto::envoy::r#type::tracing::v3 as tracing_pb;
use proto::envoy::r#type::v3 as type_pb;
use proto::google::protobuf as google_pb;

use super::access_log::all_of;
use super::bootstrap::control_plane_service;
use super::log_format::{self, Subject};
use super::raw::Raw;
use super::{OtlpLogs, collector, route, wire};
use crate::mesh::{AccessLog, Collector, Comparison, Language, LogSink, LogWhen, Percent, TagValue, Telemetry};

use accesslog_pb::access_log_filter::FilterSpecifier;
use hcm_pb::http_connection_manager::Tracing;

/// What the filters of a listener are told to say.
#[derive(Default)]
pub(super) struct Told {
    /// Where requests are logged, or counted.
    pub(super) access_log: Vec<accesslog_pb::AccessLog>,
    /// Where their spans go.
    pub(super) tracing: Option<Tracing>,
}

// === impl Told ===

impl Told {
    /// Whether that is nothing.
    pub(super) fn is_nothing(&self) -> bool {
        self.access_log.is_empty() && self.tracing.is_none()
    }
}

/// What is said of the requests of one listener.
pub(super) struct Said<'a> {
    pub(super) telemetry: &'a Telemetry,
    /// The name of the listener.
    pub(super) listener: &'a str,
    pub(super) subject: Subject,
    pub(super) otlp: OtlpLogs,
}

// === impl Said ===

impl Said<'_> {
    /// Everything that policies ask for.
    pub(super) fn told(&self) -> Told {
        Told { access_log: self.loggers(), tracing: self.tracing() }
    }

    fn loggers(&self) -> Vec<accesslog_pb::AccessLog> {
        let logs = self.telemetry.access_logs.value.iter();
        logs.filter_map(|log| {
            let filter = self.filter(log)?;
            let (name, config) = self.sink(&log.to);
            let config_type = Some(accesslog_pb::access_log::ConfigType::TypedConfig(config));
            Some(accesslog_pb::AccessLog { name: name.into(), filter, config_type })
        })
        .collect()
    }

    fn sink(&self, to: &LogSink) -> (&'static str, google_pb::Any) {
        match to {
            LogSink::Stdout(format) => {
                let mut config = Raw::default();
                config.large(1, |form| form.encoded(&log_format::substitution(format, &self.subject)));
                ("envoy.access_loggers.stdout", packed::<stream_pb::StdoutAccessLog>(config))
            }
            LogSink::File(path, format) => {
                let mut config = Raw::default();
                config.text(1, path);
                config.large(5, |form| form.encoded(&log_format::substitution(format, &self.subject)));
                ("envoy.access_loggers.file", packed::<file_pb::FileAccessLog>(config))
            }
            LogSink::Otlp(collector, format) => {
                let service = collector::grpc_service(collector);
                let (body, attributes) = log_format::record(format, &self.subject);
                let config = otlp_pb::OpenTelemetryAccessLogConfig {
                    body,
                    attributes,
                    resource_attributes: Some(log_format::attributes([("service.name", self.who())])),
                    ..self.otlp(service)
                };
                ("envoy.access_loggers.open_telemetry", wire::any(&config))
            }
            LogSink::ControlPlane => {
                let common = Some(self.common(control_plane_service()));
                if self.subject.protocol.is_http() {
                    let config = grpc_pb::HttpGrpcAccessLogConfig { common_config: common, ..Default::default() };
                    ("envoy.access_loggers.http_grpc", wire::any(&config))
                } else {
                    let config = grpc_pb::TcpGrpcAccessLogConfig { common_config: common };
                    ("envoy.access_loggers.tcp_grpc", wire::any(&config))
                }
            }
        }
    }

    /// Who speaks, as collectors know it: the service that is served, or the workload that calls.
    fn who(&self) -> String {
        let Subject { direction, workload, service, .. } = &self.subject;
        if *direction == INBOUND { service.clone() } else { workload.clone() }
    }

    /// The place of the collector and of the log's name, by the form that the proxy's Envoy knows.
    #[expect(deprecated, reason = "the only form before Envoy 1.37")]
    fn otlp(&self, service: core_pb::GrpcService) -> otlp_pb::OpenTelemetryAccessLogConfig {
        match self.otlp {
            OtlpLogs::Common => otlp_pb::OpenTelemetryAccessLogConfig {
                common_config: Some(self.common(service)),
                ..Default::default()
            },
            OtlpLogs::Own => otlp_pb::OpenTelemetryAccessLogConfig {
                grpc_service: Some(service),
                log_name: self.listener.to_owned(),
                ..Default::default()
            },
        }
    }

    fn common(&self, service: core_pb::GrpcService) -> grpc_pb::CommonGrpcAccessLogConfig {
        grpc_pb::CommonGrpcAccessLogConfig {
            log_name: self.listener.to_owned(),
            grpc_service: Some(service),
            transport_api_version: core_pb::ApiVersion::V3.into(),
            ..Default::default()
        }
    }

    /// Which requests a log takes, `Some(None)` for all; `None` where it takes none.
    #[expect(clippy::option_option, reason = "no logger, and a logger without a filter")]
    fn filter(&self, log: &AccessLog) -> Option<Option<accesslog_pb::AccessLogFilter>> {
        let LogWhen { status, duration, headers, errors } = &log.when;
        let is_http = self.subject.protocol.is_http();
        // Connections have neither.
        if log.sample.millionths == 0 || !is_http && (status.is_some() || !headers.is_empty()) {
            return None;
        }
        let status = status.map(|(comparison, status)| compared(comparison, status.into(), of_status));
        let duration = duration.map(|(comparison, span)| {
            compared(comparison, u32::try_from(span.as_millis()).unwrap_or(u32::MAX), of_duration)
        });
        let headers = headers.iter().map(|(name, value)| {
            let header = Some(route::value(name, value));
            filter(FilterSpecifier::HeaderFilter(accesslog_pb::HeaderFilter { header }))
        });
        let conditions = status.into_iter().chain(duration).chain(headers).chain(errors.then(|| self.failed()));
        // Last, so that it takes its share of what is left.
        let sampled = (log.sample != Percent::ALL).then(|| sampled(log.sample));
        Some(all_of(conditions.chain(sampled).collect()))
    }

    fn failed(&self) -> accesslog_pb::AccessLogFilter {
        use crate::mesh::Protocol;
        use accesslog_pb::grpc_status_filter::Status;
        let cut_short = filter(FilterSpecifier::ResponseFlagFilter(Default::default()));
        let status = || compared(Comparison::AtLeast, 500, of_status);
        let grpc = || {
            let of_grpc = accesslog_pb::GrpcStatusFilter { statuses: vec![Status::Ok.into()], exclude: true };
            filter(FilterSpecifier::GrpcStatusFilter(of_grpc))
        };
        match self.subject.protocol {
            Protocol::Tcp | Protocol::Tls => cut_short,
            Protocol::Http | Protocol::Http2 => any_of(vec![status(), cut_short]),
            Protocol::Grpc => any_of(vec![status(), cut_short, grpc()]),
        }
    }

    fn tracing(&self) -> Option<Tracing> {
        let Telemetry { provider, percent, tags, .. } = self.telemetry;
        let collector = provider.value.as_ref().filter(|_| self.subject.protocol.is_http())?;
        let random_sampling = match collector.provider.language {
            // The tracer itself decides, which knows whether a trace has begun.
            Language::Otlp => None,
            // In steps of a hundredth of a percent, and never none of some.
            Language::Zipkin(_) => {
                Some(type_pb::Percent { value: f64::from(percent.value.millionths.div_ceil(100)) / 100.0 })
            }
        };
        Some(Tracing {
            // Nobody but the policy says that a trace begins.
            client_sampling: Some(type_pb::Percent { value: 0.0 }),
            random_sampling,
            custom_tags: tags.iter().map(|(name, value)| custom_tag(name, &value.value)).collect(),
            provider: Some(self.tracer(collector)),
            ..Default::default()
        })
    }

    fn tracer(&self, collector: &Collector) -> trace_pb::tracing::Http {
        let (name, config) = match &collector.provider.language {
            Language::Otlp => {
                let config = trace_pb::OpenTelemetryConfig {
                    grpc_service: Some(collector::grpc_service(collector)),
                    service_name: self.who(),
                    sampler: Some(sampler(self.telemetry.percent.value)),
                    ..Default::default()
                };
                ("envoy.tracers.opentelemetry", wire::any(&config))
            }
            Language::Zipkin(path) => ("envoy.tracers.zipkin", wire::any(&collector::zipkin(collector, path))),
        };
        let config_type = Some(trace_pb::tracing::http::ConfigType::TypedConfig(config));
        trace_pb::tracing::Http { name: name.into(), config_type }
    }
}

/// The direction of what is served.
pub(super) const INBOUND: &str = "inbound";
/// The direction of what is called.
pub(super) const OUTBOUND: &str = "outbound";

fn packed<M: Name>(config: Raw) -> google_pb::Any {
    google_pb::Any { type_url: M::type_url(), value: config.into_bytes() }
}

/// The fields of a manager that tell what is to be said; those of a `HttpConnectionManager`.
pub(super) fn of_manager(told: Told) -> Vec<u8> {
    let Told { access_log, tracing } = told;
    hcm_pb::HttpConnectionManager { access_log, tracing, ..Default::default() }.encode_to_vec()
}

fn filter(specifier: FilterSpecifier) -> accesslog_pb::AccessLogFilter {
    accesslog_pb::AccessLogFilter { filter_specifier: Some(specifier) }
}

fn any_of(filters: Vec<accesslog_pb::AccessLogFilter>) -> accesslog_pb::AccessLogFilter {
    filter(FilterSpecifier::OrFilter(accesslog_pb::OrFilter { filters }))
}

fn of_status(comparison: accesslog_pb::ComparisonFilter) -> FilterSpecifier {
    FilterSpecifier::StatusCodeFilter(accesslog_pb::StatusCodeFilter { comparison: Some(comparison) })
}

fn of_duration(comparison: accesslog_pb::ComparisonFilter) -> FilterSpecifier {
    FilterSpecifier::DurationFilter(accesslog_pb::DurationFilter { comparison: Some(comparison) })
}

/// Envoy knows three comparisons, and before 1.37 no other.
fn compared(
    comparison: Comparison,
    value: u32,
    of: impl Fn(accesslog_pb::ComparisonFilter) -> FilterSpecifier,
) -> accesslog_pb::AccessLogFilter {
    use accesslog_pb::comparison_filter::Op;
    let one = |op: Op, value: u32| {
        // A value that can be changed at run time has a name there; nobody gives it one.
        let value = core_pb::RuntimeUInt32 { default_value: value, runtime_key: "chancery.access_log.value".into() };
        filter(of(accesslog_pb::ComparisonFilter { op: op.into(), value: Some(value) }))
    };
    let above = || one(Op::Ge, value.saturating_add(1));
    let below = || one(Op::Le, value.saturating_sub(1));
    match comparison {
        Comparison::Is => one(Op::Eq, value),
        Comparison::AtLeast => one(Op::Ge, value),
        Comparison::AtMost => one(Op::Le, value),
        Comparison::Above => above(),
        Comparison::Below => below(),
        Comparison::Not => any_of(vec![above(), below()]),
    }
}

fn sampled(share: Percent) -> accesslog_pb::AccessLogFilter {
    filter(FilterSpecifier::RuntimeFilter(accesslog_pb::RuntimeFilter {
        runtime_key: "chancery.access_log.sample".into(),
        percent_sampled: Some(wire::share(share)),
        use_independent_randomness: true,
    }))
}

/// A trace that has begun goes on if it was sampled; others begin by their share.
fn sampler(share: Percent) -> core_pb::TypedExtensionConfig {
    let extension = |name: &str, config| core_pb::TypedExtensionConfig {
        name: format!("envoy.tracers.opentelemetry.samplers.{name}"),
        typed_config: Some(config),
    };
    let by_share = sampler_pb::TraceIdRatioBasedSamplerConfig { sampling_percentage: Some(wire::share(share)) };
    let by_share = extension("trace_id_ratio_based", wire::any(&by_share));
    let by_parent = sampler_pb::ParentBasedSamplerConfig { wrapped_sampler: Some(by_share) };
    extension("parent_based", wire::any(&by_parent))
}

fn custom_tag(name: &str, value: &TagValue) -> tracing_pb::CustomTag {
    use tracing_pb::custom_tag::{Environment, Header, Literal, Type};
    let kind = match value {
        TagValue::Literal(text) => Type::Literal(Literal { value: text.clone() }),
        TagValue::Header(header) => Type::RequestHeader(Header { name: header.clone(), ..Default::default() }),
        TagValue::Environment(variable) => {
            Type::Environment(Environment { name: variable.clone(), ..Default::default() })
        }
    };
    tracing_pb::CustomTag { tag: name.to_owned(), r#type: Some(kind) }
}
