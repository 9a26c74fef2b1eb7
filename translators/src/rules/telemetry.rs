//! `TelemetryPolicy`: what proxies say of the requests that pass them; and the providers that are told.
//!
//! Owns: the shape of the spec. May use: `scalar`, `target`, the texts of `route`. Never: merges two policies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::route::TextSpec;
use super::scalar::{Percent, RelativeName, Setting, Span, TextOf, text};
use super::target::Target;
use super::tls::CaSpec;
use crate::mesh::{Comparison, Dropped};
use crate::name::Label;

/// What proxies say of the requests that pass them. Policies merge down the ladder (mesh, namespace, labels, service,
/// port) field by field; lists are replaced whole, and `null` is the built-in value: no logs, no traces, all counters.
/// What a workload serves is told as its port's policies say; what it calls, as the policies of the mesh, of its
/// namespace and of its labels say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TelemetrySpec {
    /// Which proxies and ports: a `scope`, a `service` or its `port`, or the workloads of the policy's namespace with some
    /// `labels`: a policy that asks for more of them goes before one that asks for fewer.
    pub target: Target,
    /// Where requests (on tcp ports: connections) are logged when they have ended; nowhere by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub access_logs: Setting<Vec<AccessLogSpec>>,
    /// Which requests are traced; none by default. Connections of tcp ports never are.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub tracing: Setting<TracingSpec>,
    /// What is counted of the requests that a workload serves, by proxies from Envoy 1.37 on; everything but
    /// further labels by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub metrics: Setting<MetricsSpec>,
}

/// One log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessLogSpec {
    /// Where it goes.
    pub to: LogSinkSpec,
    /// The file, left out unless `to` is `file`: an absolute path on the machine of the proxy, which refuses its listener
    /// where it cannot write there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The provider, with `to: otlp`; the only one of its kind by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub provider: Option<Label>,
    /// How an entry is written; `json` by default. The control plane gets every field whatever the format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<LogFormatSpec>,
    /// The line, left out unless `format` is `template`: a text with Envoy's commands, such as `%RESPONSE_CODE% %REQ(:METHOD)%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Which requests; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<LogWhenSpec>,
    /// How many of these, in percent; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Percent>,
}

/// Where a log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogSinkSpec {
    /// The standard output of the proxy.
    Stdout,
    /// A file beside the proxy.
    File,
    /// A provider, as OpenTelemetry logs over gRPC.
    Otlp,
    /// The control plane, which keeps the newest.
    ControlPlane,
}

/// How an entry is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormatSpec {
    /// One JSON object; for OTLP one attribute each.
    Json,
    /// One line with the same fields.
    Text,
    /// As `template` says.
    Template,
}

/// Which requests are logged: those for which every condition holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogWhenSpec {
    /// Those with such a status, `">=500"`, `"<400"`, `"!=200"` or `"404"`, and no connection of a tcp port;
    /// any by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusIs>,
    /// Those that took so long, `">=500ms"` or `"<2s"`; however long by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<DurationIs>,
    /// Those with all of these headers, and no connection of a tcp port; whatever the headers by default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, TextSpec>,
    /// Those that failed: with a status of 500 and above, a status of gRPC other than OK on grpc ports, or cut short by the
    /// proxy, and connections that were; false by default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub errors: bool,
}

/// A status that a condition takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusIs {
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub status: u16,
}

/// A length of time that a condition takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationIs {
    /// How it is compared.
    pub comparison: Comparison,
    /// With what.
    pub span: Span,
}

/// Which requests are traced. A trace that came with a request, by `traceparent` towards OpenTelemetry and by the headers of
/// B3 towards Zipkin, goes on as its beginning decided, whatever the share. Applications pass these headers on, and
/// `x-request-id`, from what they are asked to what they ask.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracingSpec {
    /// The provider that spans go to, one of `telemetryProviders` of the Mesh; left out, nothing is traced.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    #[schemars(with = "Option<String>")]
    pub provider: Setting<Label>,
    /// How many of the requests that come without a trace, in percent; all by default. Towards Zipkin in steps of a
    /// hundredth.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub percent: Setting<Percent>,
    /// What spans say beside what Envoy says, by name; merged name by name, `null` takes one away. Nothing by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub tags: Setting<BTreeMap<String, Option<TagSpec>>>,
}

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MetricsSpec {
    /// Further labels of the counter of requests, by name; merged name by name, `null` takes one away. Every value of every
    /// label is a counter of its own: choose what has few. None by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub labels: Setting<BTreeMap<String, Option<TagSpec>>>,
    /// What is left out; nothing by default. An edge without `caller` is one of unknown callers, without `version` one of no
    /// version; without `requests` there is no edge at all.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub drop: Setting<BTreeSet<Dropped>>,
}

/// The value of a tag or label: a text, or one of these. Where there is no such header or variable a span has no tag, and a
/// counter the label `-`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TagSpec {
    /// Always the same; left out where there is `header` or `environment`.
    Literal(String),
    /// What this header of the request says; left out where there is `literal` or `environment`.
    Header(String),
    /// What this variable of the proxy's environment says; left out where there is `literal` or `header`.
    Environment(String),
}

/// Who is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TelemetryProviderSpec {
    /// The name by which policies refer to it.
    #[schemars(with = "String")]
    pub name: Label,
    /// A collector of OpenTelemetry: traces and logs, over gRPC; left out where there is `zipkin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otlp: Option<CollectorSpec>,
    /// A collector of Zipkin: traces, as JSON over HTTP; left out where there is `otlp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zipkin: Option<CollectorSpec>,
}

/// Where a collector is: an address, or a service of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CollectorSpec {
    /// A host and a port, `collector.example:4317`; left out where there is `service`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// With `address`: whether it is spoken to by TLS; `false` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<bool>,
    /// With `tls: true`: who vouches for the certificate of the collector; `system` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSpec>,
    /// A MeshService, `observe/collector`, which is called as any other: by mTLS where it takes it. Nothing that it serves
    /// itself is told to any provider; left out where there is `address`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<RelativeName>,
    /// With `service`: the name of its port; its only one by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub port: Option<Label>,
    /// Of Zipkin alone: the path that spans are sent to; `/api/v2/spans` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// A comparison that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCondition {
    /// Not of a status.
    #[error("{0:?} is no condition of a status: write \">=500\", \"<400\", \"!=200\" or \"404\"")]
    Status(String),
    /// Not of a duration.
    #[error("{0:?} is no condition of a duration: write \">=500ms\" or \"<2s\"")]
    Duration(String),
}

// === impl Comparison ===

/// The comparison that `text` begins with, and the rest of it.
fn compared(text: &str) -> (Option<Comparison>, &str) {
    let signs = [
        (">=", Comparison::AtLeast),
        ("<=", Comparison::AtMost),
        ("!=", Comparison::Not),
        (">", Comparison::Above),
        ("<", Comparison::Below),
    ];
    let found = signs.iter().find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?)));
    found.map_or((None, text), |(comparison, rest)| (Some(comparison), rest))
}

// === impl StatusIs ===

impl FromStr for StatusIs {
    type Err = InvalidCondition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (comparison, rest) = compared(text);
        let status = rest.parse().ok().filter(|status| rest.len() == 3 && (100..600).contains(status));
        let status = status.ok_or_else(|| InvalidCondition::Status(text.to_owned()))?;
        Ok(Self { comparison: comparison.unwrap_or(Comparison::Is), status })
    }
}

impl fmt::Display for StatusIs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.comparison, self.status)
    }
}

// === impl DurationIs ===

impl FromStr for DurationIs {
    type Err = InvalidCondition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidCondition::Duration(text.to_owned());
        let (comparison, rest) = compared(text);
        // Hardly anything takes exactly so long.
        let comparison = comparison.filter(|comparison| *comparison != Comparison::Not).ok_or_else(invalid)?;
        Ok(Self { comparison, span: rest.parse().map_err(|_| invalid())? })
    }
}

impl fmt::Display for DurationIs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.comparison, self.span)
    }
}

text! {
    StatusIs: "a condition such as \">=500\"", "comparison with a status", ">=500", r"^(>=|<=|!=|>|<)?[1-5]\d\d$";
    DurationIs: "a condition such as \">=500ms\"", "comparison with a duration", ">=500ms", r"^(>=|<=|>|<)(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$";
}

// === impl TagSpec ===

impl<'de> Deserialize<'de> for TagSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TagVisitor)
    }
}

/// A text, or a mapping with one member.
struct TagVisitor;

/// Exactly one of these.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenTag {
    /// Always the same; left out where there is `header` or `environment`.
    literal: Option<String>,
    /// What this header of the request says; left out where there is `literal` or `environment`.
    header: Option<String>,
    /// What this variable of the proxy's environment says; left out where there is `literal` or `header`.
    environment: Option<String>,
}

impl JsonSchema for TagSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TagSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, generator.subschema_for::<WrittenTag>()] })
    }
}

impl<'de> Visitor<'de> for TagVisitor {
    type Value = TagSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TagSpec, E> {
        Ok(TagSpec::Literal(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<TagSpec, A::Error> {
        let written = WrittenTag::deserialize(MapAccessDeserializer::new(members))?;
        match (written.literal, written.header, written.environment) {
            (Some(text), None, None) => Ok(TagSpec::Literal(text)),
            (None, Some(name), None) => Ok(TagSpec::Header(name)),
            (None, None, Some(name)) => Ok(TagSpec::Environment(name)),
            _ => Err(de::Error::custom("write a text, or exactly one of literal, header, environment")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn conditions() {
        for (text, comparison, status) in [
            (">=500", Comparison::AtLeast, 500),
            ("<=399", Comparison::AtMost, 399),
            ("!=200", Comparison::Not, 200),
            (">499", Comparison::Above, 499),
            ("<400", Comparison::Below, 400),
            ("404", Comparison::Is, 404),
        ] {
            let condition = StatusIs { comparison, status };
            assert_eq!(text.parse(), Ok(condition), "{text}");
            assert_eq!(condition.to_string(), text);
        }
        for text in ["", "=500", "5xx", ">=", ">=5000", "600", "99", "+50", "> 500"] {
            assert_eq!(text.parse::<StatusIs>(), Err(InvalidCondition::Status(text.to_owned())), "{text}");
        }
        let half = DurationIs { comparison: Comparison::AtLeast, span: Span(Duration::from_millis(500)) };
        assert_eq!(">=500ms".parse(), Ok(half));
        assert_eq!(half.to_string(), ">=500ms");
        for text in ["", "500ms", "!=1s", ">=1.5s", ">= 1s", ">="] {
            assert_eq!(text.parse::<DurationIs>(), Err(InvalidCondition::Duration(text.to_owned())), "{text}");
        }
    }
}
