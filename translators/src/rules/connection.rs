//! Rules of a `TrafficRoute` for connections: those of bytes, and those of TLS that nobody on the way ends.
//!
//! Owns: the shape of these rules. May use: `scalar`, `route`. Never: decides which rule wins.

use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::route::DestinationSpec;
use super::scalar::Addresses;
use crate::name::Label;

/// One rule for connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpRuleSpec {
    /// Its name; `rule-N` by default, by its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", example = &"testers")]
    pub name: Option<Label>,
    /// The alternatives; left out, everything matches.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<TcpMatchSpec>,
    /// Where connections go.
    pub to: Vec<DestinationSpec>,
}

/// One alternative of connections; every part must hold, and one that is left out always does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["port"]}, {"required": ["cidr"]}]))]
pub struct TcpMatchSpec {
    /// The port that is called, by the number that callers of the service know; at a gateway, the port of its listener.
    /// Left out, every one that takes connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 6379)]
    pub port: Option<NonZeroU16>,
    /// The address or range that the connection comes from: the application, as its proxy sees it, or the client of a
    /// gateway. Left out, any. Where it connects to is not asked: that is the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"10.0.0.0/8")]
    pub cidr: Option<Addresses>,
}

/// One rule for TLS that is passed on as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsRuleSpec {
    /// Its name; `rule-N` by default, by its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", example = &"testers")]
    pub name: Option<Label>,
    /// The alternatives; left out, everything matches.
    #[serde(default, rename = "match", skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<TlsMatchSpec>,
    /// Where connections go.
    pub to: Vec<DestinationSpec>,
}

/// One alternative of TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsMatchSpec {
    /// The host that the client names in its handshake: `db.example.com`, `*.example.com` for one or more labels before
    /// it, `*` for any that is named. The most specific one decides, wherever its rule stands.
    #[schemars(example = &"db.example.com")]
    pub sni: String,
}
