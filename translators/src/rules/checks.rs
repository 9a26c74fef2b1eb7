//! What a rule has done to requests before they are sent on: cross-origin requests, faults, limits of rate, sticky clients.
//!
//! Owns: the shape of these parts of a rule. May use: `scalar`. Never: a destination.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::route::TextSpec;
use super::scalar::{Method, Percent, Span};

/// Which pages of other origins may read answers in a browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CorsSpec {
    /// The origins: `https://shop.example`, or `{prefix: ...}` or `{regex: ...}`; `"*"` is any.
    #[schemars(extend("examples" = [["https://shop.example"]]))]
    pub allow_origins: Vec<TextSpec>,
    /// The methods that they may use; none by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<Method>,
    /// The headers that they may send; none by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = ["x-cart"])]
    pub allow_headers: Vec<String>,
    /// The headers that they may read; none by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = ["x-cart"])]
    pub expose_headers: Vec<String>,
    /// How long a browser may remember that, in whole seconds; left out, the browser decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"10m")]
    pub max_age: Option<Span>,
    /// Whether cookies are sent; false by default.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_credentials: bool,
}

/// By what clients are told apart that stay at one endpoint each. Where weights share requests out, they share clients out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StickySpec {
    /// The cookie of this name, which the proxy sets where there is none, for as long as the client's session. Who comes
    /// without it over one connection is given the same. Envoy decides about weights before it sets one: where they share
    /// clients out, a client stays from its second request on.
    Cookie(#[schemars(example = &"cart")] String),
    /// The header of this name, which clients send.
    Header(#[schemars(example = &"x-cart")] String),
}

/// What goes wrong on purpose; what is left out does not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["abort"]}, {"required": ["delay"]}]))]
pub struct FaultSpec {
    /// Requests that wait before they are sent on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<DelaySpec>,
    /// Requests that are answered with a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<AbortSpec>,
    /// Only requests with all of these headers; none by default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"x-fault": "1"}]))]
    pub only_if_header: BTreeMap<String, TextSpec>,
}

/// Requests that wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DelaySpec {
    /// How many of them; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
    /// How long.
    pub fixed: Span,
}

/// Requests that fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AbortSpec {
    /// How many of them; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<Percent>,
    /// The status, 200 to 599.
    #[schemars(example = 503)]
    pub status: u16,
}

/// How many requests are sent at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitSpec {
    /// So many, at once or one after the other.
    #[schemars(example = 500)]
    pub requests: NonZeroU32,
    /// In so long; what was used comes back evenly.
    #[schemars(example = &"1s")]
    pub per: Span,
    /// What has a bucket of its own for each of its values; one bucket for all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<RateKeySpec>,
}

/// What has a bucket of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RateKeySpec {
    /// Each caller, by its identity. Callers count for themselves anyway, so in a route of theirs this is one bucket.
    Caller,
    /// Each address that requests come from.
    Ip,
    /// Each value of the header of this name; requests without it share one.
    Header(#[schemars(example = &"x-cart")] String),
}
