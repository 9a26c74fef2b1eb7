//! `TrafficRoute`: where the requests and connections to a service or a gateway go.
//!
//! Owns: the shape of the spec. May use: `matching`, `scalar`, `subject`. Never: decides which rule wins.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::checks::{CorsSpec, FaultSpec, RateLimitSpec, StickySpec};
use super::connection::{TcpRuleSpec, TlsRuleSpec};
use super::scalar::{Percent, RelativeName, Setting, Span};
use super::subject::Subject;
use crate::name::Label;

pub use super::matching::{GrpcMatchSpec, HttpMatchSpec};

/// How requests to a service or a gateway are routed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["http"]}, {"required": ["grpc"]}, {"required": ["tcp"]}, {"required": ["tls"]}]))]
pub struct RouteSpec {
    /// Whose requests.
    #[serde(rename = "for")]
    pub subject: Subject,
    /// The rules: tried top to bottom, the first match decides; none by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpRuleSpec>,
    /// The rules for calls of gRPC, on grpc and http2 ports: tried before those of `http`; none by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grpc: Vec<GrpcRuleSpec>,
    /// The rules for connections to tcp ports, tried top to bottom; what none of them takes is closed. None by default: those
    /// to a port that no rule is about go to the service itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcp: Vec<TcpRuleSpec>,
    /// The rules for connections to tls ports, whose TLS nobody on the way ends: told apart by the host that clients name in
    /// their handshakes; what none of them takes is closed. None by default, as with `tcp`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls: Vec<TlsRuleSpec>,
}

// === impl RouteSpec ===

impl RouteSpec {
    /// Whether it has any rule.
    pub fn has_rules(&self) -> bool {
        !(self.http.is_empty() && self.grpc.is_empty() && self.tcp.is_empty() && self.tls.is_empty())
    }
}

/// One rule; what is left out is not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["to"]}, {"required": ["redirect"]}, {"required": ["respond"]}]))]
pub struct HttpRuleSpec {
    /// Its name; `rule-N` by default, by its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", example = &"testers")]
    pub name: Option<Label>,
    /// The alternatives; left out, everything matches.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<HttpMatchSpec>,
    /// Where requests go; left out where there is `redirect` or `respond`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<DestinationSpec>>,
    /// Where clients are told to go instead; left out where there is `to` or `respond`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect: Option<RedirectSpec>,
    /// What is answered without asking anybody; left out where there is `to` or `redirect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<ResponseSpec>,
    /// What a request is made into on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<RewriteSpec>,
    /// Which headers are changed on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeadersSpec>,
    /// Who gets a copy of requests; what it answers is thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorSpec>,
    /// Which pages of other origins may read answers in a browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsSpec>,
    /// What keeps a client at one endpoint for as long as that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky_by: Option<StickySpec>,
    /// What goes wrong on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultSpec>,
    /// How many requests each calling proxy sends at most; the others are answered 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
    /// How long a request may take as a whole; left out, as policies say. `0s` is without limit, `null` the built-in value.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    #[schemars(extend("x-default-from" = "TrafficPolicy.spec.outbound.timeouts.request"))]
    pub timeout: Setting<Span>,
    /// What is repeated; left out, as policies say. `null` is the built-in value.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    #[schemars(extend("x-default-from" = "TrafficPolicy.spec.outbound.retry"))]
    pub retry: Setting<RetrySpec>,
}

/// One rule for calls of gRPC; what is left out is not done. What no rule takes is answered UNIMPLEMENTED.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRuleSpec {
    /// Its name; `rule-N` by default, by its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", example = &"testers")]
    pub name: Option<Label>,
    /// The alternatives; left out, everything matches.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<GrpcMatchSpec>,
    /// Where calls go.
    pub to: Vec<DestinationSpec>,
    /// Which headers are changed on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeadersSpec>,
    /// Who gets a copy of calls; what it answers is thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirrorSpec>,
    /// What keeps a client at one endpoint for as long as that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky_by: Option<StickySpec>,
    /// What goes wrong on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultSpec>,
    /// How many calls each calling proxy sends at most; the others are answered RESOURCE_EXHAUSTED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
    /// How long a call may take as a whole; `0s` is without limit, and left out, the caller's own limit holds alone.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub timeout: Setting<Span>,
    /// What is repeated; left out, as policies say. `null` is the built-in value.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    #[schemars(extend("x-default-from" = "TrafficPolicy.spec.outbound.retry"))]
    pub retry: Setting<RetrySpec>,
}

/// Where a client is told to go; what is left out stays as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["host"]}, {"required": ["path"]}, {"required": ["prefix"]}, {"required": ["scheme"]}, {"required": ["port"]}]))]
pub struct RedirectSpec {
    /// `http` or `https`; the port is then the scheme's own, unless it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"shop.example")]
    pub host: Option<String>,
    /// The port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 8443)]
    pub port: Option<NonZeroU16>,
    /// The whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"/moved")]
    pub path: Option<String>,
    /// What takes the place of the prefix that the match names; not with `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"/new")]
    pub prefix: Option<String>,
    /// 301, 302, 303, 307 or 308; 302 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 301)]
    pub code: Option<u16>,
}

/// The scheme of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// In plaintext, on port 80 of its own.
    Http,
    /// Over TLS, on port 443 of its own.
    Https,
}

// === impl Scheme ===

impl Scheme {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of its own.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// An answer that nobody is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResponseSpec {
    /// The status, 200 to 599.
    #[schemars(example = 503)]
    pub status: u16,
    /// The body, at most 4,096 bytes; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"closed for today")]
    pub body: Option<String>,
}

/// What a request is made into; what is left out stays. Of `path`, `prefix` and `regex` there is one at most.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["host"]}, {"required": ["path"]}, {"required": ["prefix"]}, {"required": ["regex"]}]))]
pub struct RewriteSpec {
    /// The host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"cart.shop.example")]
    pub host: Option<String>,
    /// The whole path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"/cart")]
    pub path: Option<String>,
    /// What takes the place of the prefix that the match names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"/v2")]
    pub prefix: Option<String>,
    /// A part of the path, and what takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<RegexRewriteSpec>,
}

/// Every part of a path that a pattern takes is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegexRewriteSpec {
    /// RE2 over the path without the query.
    #[schemars(example = &"^/item/([0-9]+)$")]
    pub pattern: String,
    /// What takes its place; `\1` is what the first group took.
    #[schemars(example = &r"/items?id=\1")]
    pub substitution: String,
}

/// Which headers are changed, of requests and of responses; what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadersSpec {
    /// Those of requests, before they are sent on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<HeaderChangesSpec>,
    /// Those of responses, before the caller has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<HeaderChangesSpec>,
}

/// Changes of headers; a value is a text and nothing else, and what is left out is not done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderChangesSpec {
    /// There with this value alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"x-team": "shop"}]))]
    pub set: BTreeMap<String, String>,
    /// There with this value beside others.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"x-team": "shop"}]))]
    pub add: BTreeMap<String, String>,
    /// Not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = ["x-debug"])]
    pub remove: Vec<String>,
}

/// Who gets a copy of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorSpec {
    /// The service.
    pub service: RelativeName,
    /// The name of its port; by default the one that is called, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", example = &"http")]
    pub port: Option<Label>,
    /// Short for `labels: {version: ...}`; left out, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"v2")]
    pub version: Option<String>,
    /// The labels that an endpoint must carry; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{"version": "v2"}]))]
    pub labels: Option<BTreeMap<String, String>>,
    /// Of how many requests, in percent; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
}

/// How a path is matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PathSpec {
    /// The whole path.
    Exact(#[schemars(example = &"/cart")] String),
    /// Whole segments; with a trailing slash a prefix of the text.
    Prefix(#[schemars(example = &"/cart")] String),
    /// RE2 over the whole path without the query.
    Regex(#[schemars(example = &"/item/[0-9]+")] String),
    /// Segments, of which `{name}` or `*` is any one, and `{name=**}` or `**` any number at the end.
    Template(#[schemars(example = &"/item/{id}")] String),
}

/// How a header or a parameter is matched: a text, or one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum TextSpec {
    /// The whole value.
    Exact(String),
    /// The start of the value.
    Prefix(String),
    /// RE2 over the whole value.
    Regex(String),
    /// The header is there.
    Present(bool),
    /// The header is not there.
    Absent(bool),
}

// === impl GrpcRuleSpec ===

impl GrpcRuleSpec {
    /// The same for requests of HTTP, but for its alternatives.
    pub fn to_http(&self) -> HttpRuleSpec {
        let Self { name, matches: _, to, headers, mirror, sticky_by, fault, rate_limit, timeout, retry } = self.clone();
        HttpRuleSpec {
            name,
            matches: Vec::new(),
            to: Some(to),
            redirect: None,
            respond: None,
            rewrite: None,
            headers,
            mirror,
            cors: None,
            sticky_by,
            fault,
            rate_limit,
            timeout,
            retry,
        }
    }
}

impl<'de> Deserialize<'de> for TextSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

/// A text, or a mapping with one member.
struct TextVisitor;

/// Exactly one of these; the others are left out.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenText {
    /// The whole value.
    exact: Option<String>,
    /// The start of the value.
    prefix: Option<String>,
    /// RE2 over the whole value.
    regex: Option<String>,
    /// Whether the header must be there.
    present: Option<bool>,
    /// Whether the header must not be there.
    absent: Option<bool>,
}

impl JsonSchema for TextSpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TextSpec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, generator.subschema_for::<WrittenText>()] })
    }
}

impl<'de> Visitor<'de> for TextVisitor {
    type Value = TextSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TextSpec, E> {
        Ok(TextSpec::Exact(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<TextSpec, A::Error> {
        let written = WrittenText::deserialize(MapAccessDeserializer::new(members))?;
        match (written.exact, written.prefix, written.regex, written.present, written.absent) {
            (Some(text), None, None, None, None) => Ok(TextSpec::Exact(text)),
            (None, Some(text), None, None, None) => Ok(TextSpec::Prefix(text)),
            (None, None, Some(text), None, None) => Ok(TextSpec::Regex(text)),
            (None, None, None, Some(holds), None) => Ok(TextSpec::Present(holds)),
            (None, None, None, None, Some(holds)) => Ok(TextSpec::Absent(holds)),
            _ => Err(de::Error::custom("write a text, or exactly one of exact, prefix, regex, present, absent")),
        }
    }
}

/// A destination and its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DestinationSpec {
    /// The service.
    pub service: RelativeName,
    /// The name of its port; by default the one that is called, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", example = &"http")]
    pub port: Option<Label>,
    /// Short for `labels: {version: ...}`; left out, any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"v2")]
    pub version: Option<String>,
    /// The labels that an endpoint must carry; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{"version": "v2"}]))]
    pub labels: Option<BTreeMap<String, String>>,
    /// Its share among its siblings; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Which headers are changed on the way to this one, beside those of the rule; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeadersSpec>,
}

/// What is repeated; what is left out comes from the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetrySpec {
    /// Repetitions after the first try; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 2)]
    pub attempts: Option<u32>,
    /// The conditions: `connect-failure`, `refused-stream`, `reset`, `gateway-error`, `5xx`, `retriable-4xx`, a status such
    /// as `"503"`, or a status of gRPC such as `unavailable`; the first two by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = ["connect-failure", "503"])]
    pub when: Option<Vec<String>>,
    /// How long one try may take; without limit by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"600ms")]
    pub per_try_timeout: Option<Span>,
    /// The first pause between tries, the longest being ten times that; Envoy's own `25ms` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"25ms")]
    pub backoff: Option<Span>,
}
