//! `TrafficRoute`: how requests to a service are routed.
//!
//! Owns: the shape of the spec. May use: `scalar`. Never: decides which rule wins.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::scalar::{Method, RelativeName, Setting, Span};
use crate::name::Label;

/// How requests to a service are routed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// Whose requests.
    #[serde(rename = "for")]
    pub subject: Subject,
    /// The rules: tried top to bottom, the first match decides.
    pub http: Vec<HttpRuleSpec>,
}

/// Whose requests are routed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subject {
    /// The service that callers call.
    pub service: RelativeName,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRuleSpec {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub name: Option<Label>,
    /// The alternatives; none matches everything.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<HttpMatchSpec>,
    /// Where requests go.
    pub to: Vec<DestinationSpec>,
    /// How long a request may take as a whole; `0s` is without limit, `null` the built-in value.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub timeout: Setting<Span>,
    /// What is repeated; `null` is the built-in value.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub retry: Setting<RetrySpec>,
}

/// One alternative; every part must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatchSpec {
    /// The path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathSpec>,
    /// The methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
    /// The headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, TextSpec>,
}

/// How a path is matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PathSpec {
    /// The whole path.
    Exact(String),
    /// Whole segments; with a trailing slash a prefix of the text.
    Prefix(String),
    /// RE2 over the whole path without the query.
    Regex(String),
}

/// How a header is matched: a text, or one of these.
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

impl<'de> Deserialize<'de> for TextSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

/// A text, or a mapping with one member.
struct TextVisitor;

/// Exactly one of these.
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
            _ => {
                Err(de::Error::custom("a header takes a text or exactly one of exact, prefix, regex, present, absent"))
            }
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
    #[schemars(with = "Option<String>")]
    pub port: Option<Label>,
    /// Short for `labels: {version: ...}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The labels that an endpoint must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Its share among its siblings; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// What is repeated; what is left out comes from the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetrySpec {
    /// Repetitions after the first try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Vec<String>>,
    /// How long one try may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<Span>,
    /// The first pause between tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Span>,
}
