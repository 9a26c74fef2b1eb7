//! Formats of log entries.
//!
//! Owns: the fields of an entry, and how a line or an object is made of them. May use: `raw`. Never: where an entry goes.

use prost::Message as _;
use proto::envoy::config::core::v3 as core_pb;
use proto::opentelemetry::proto::common::v1 as otlp_pb;

use super::raw::Raw;
use crate::mesh::{LogFormat, Protocol};

/// Of what entries speak.
pub(super) struct Subject {
    /// `inbound` or `outbound`.
    pub(super) direction: &'static str,
    /// The workload whose proxy speaks.
    pub(super) workload: String,
    /// The service.
    pub(super) service: String,
    /// The name of its port.
    pub(super) port: String,
    /// What is spoken on it.
    pub(super) protocol: Protocol,
}

/// The fields of an entry, each with Envoy's command.
fn fields(subject: &Subject) -> Vec<(&'static str, String)> {
    let Subject { direction, workload, service, port, protocol } = subject;
    let of_all = [
        ("time", "%START_TIME%".to_owned()),
        ("direction", (*direction).to_owned()),
        ("workload", super::access_log::literal(workload)),
        ("service", super::access_log::literal(service)),
        ("port", super::access_log::literal(port)),
    ];
    let of_requests = [
        ("method", "%REQ(:METHOD)%"),
        ("path", "%PATH(NQ)%"),
        ("protocol", "%PROTOCOL%"),
        ("host", "%REQ(:AUTHORITY)%"),
        ("status", "%RESPONSE_CODE%"),
        ("details", "%RESPONSE_CODE_DETAILS%"),
        ("user_agent", "%REQ(USER-AGENT)%"),
        ("request_id", "%REQ(X-REQUEST-ID)%"),
        ("trace_id", "%TRACE_ID%"),
    ];
    // A connection whose handshake failed names a caller too: the one that its certificate claims.
    let of_connections =
        [("details", "%CONNECTION_TERMINATION_DETAILS%"), ("tls_failure", "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%")];
    let kind: &[(&str, &str)] = if protocol.is_http() { &of_requests } else { &of_connections };
    let grpc: &[(&str, &str)] = if *protocol == Protocol::Grpc { &[("grpc_status", "%GRPC_STATUS%")] } else { &[] };
    let last = [
        ("flags", "%RESPONSE_FLAGS%"),
        ("duration_ms", "%DURATION%"),
        ("bytes_received", "%BYTES_RECEIVED%"),
        ("bytes_sent", "%BYTES_SENT%"),
        ("caller", "%DOWNSTREAM_PEER_URI_SAN%"),
        ("source", "%DOWNSTREAM_REMOTE_ADDRESS%"),
        ("upstream", "%UPSTREAM_HOST%"),
    ];
    let commands = kind.iter().chain(grpc).chain(&last).map(|(name, command)| (*name, (*command).to_owned()));
    of_all.into_iter().chain(commands).collect()
}

/// A line, without its end.
fn line(format: &LogFormat, subject: &Subject) -> String {
    match format {
        LogFormat::Template(line) => line.clone(),
        LogFormat::Json | LogFormat::Text => {
            let fields = fields(subject).into_iter();
            fields.map(|(name, command)| format!("{name}=\"{command}\"")).collect::<Vec<_>>().join(" ")
        }
    }
}

/// The fields of a `SubstitutionFormatString`.
pub(super) fn substitution(format: &LogFormat, subject: &Subject) -> Vec<u8> {
    use core_pb::substitution_format_string::Format;
    if *format == LogFormat::Json {
        // A struct, whose members are a map: written one by one, for a map has no order.
        let mut message = Raw::default();
        message.large(2, |members| {
            for (name, command) in fields(subject) {
                members.message(1, |member| {
                    member.text(1, name);
                    member.message(2, |value| value.text(3, &command));
                });
            }
        });
        return message.into_bytes();
    }
    let line = line(format, subject);
    let ended = if line.ends_with('\n') { line } else { line + "\n" };
    let source = core_pb::DataSource {
        specifier: Some(core_pb::data_source::Specifier::InlineString(ended)),
        ..Default::default()
    };
    core_pb::SubstitutionFormatString { format: Some(Format::TextFormatSource(source)), ..Default::default() }
        .encode_to_vec()
}

/// An entry as OpenTelemetry has it: its body, or else its attributes.
pub(super) fn record(
    format: &LogFormat,
    subject: &Subject,
) -> (Option<otlp_pb::AnyValue>, Option<otlp_pb::KeyValueList>) {
    match format {
        LogFormat::Json => (None, Some(attributes(fields(subject)))),
        LogFormat::Text | LogFormat::Template(_) => (Some(text(line(format, subject))), None),
    }
}

/// Texts by name.
pub(super) fn attributes<'a>(values: impl IntoIterator<Item = (&'a str, String)>) -> otlp_pb::KeyValueList {
    let value = |(key, value): (&str, String)| otlp_pb::KeyValue {
        key: key.to_owned(),
        value: Some(text(value)),
        ..Default::default()
    };
    otlp_pb::KeyValueList { values: values.into_iter().map(value).collect() }
}

fn text(text: String) -> otlp_pb::AnyValue {
    otlp_pb::AnyValue { value: Some(otlp_pb::any_value::Value::StringValue(text)) }
}
