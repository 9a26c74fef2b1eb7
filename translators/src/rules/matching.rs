//! Matches: which requests a rule takes.
//!
//! Owns: the shape of an alternative, for HTTP and for gRPC, and of who sends a request. May use: `route`, `scalar`. Never:
//! decides which rule wins.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::route::{PathSpec, TextSpec};
use super::scalar::{AccountName, Addresses, Method, RelativeName};
use crate::name::Label;

/// One alternative of calls; every part must hold, and one that is left out always does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatchSpec {
    /// The full name of the service of gRPC: `shop.v1.Cart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"shop.v1.Cart")]
    pub service: Option<String>,
    /// The method, without its service: `Get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"Get")]
    pub method: Option<String>,
    /// The headers, which gRPC calls metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"x-canary": "true"}]))]
    pub headers: BTreeMap<String, TextSpec>,
    /// Who calls: one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<SourceSpec>,
}

/// One alternative; every part must hold, and one that is left out always does.
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
    #[schemars(extend("examples" = [{"x-canary": "true"}]))]
    pub headers: BTreeMap<String, TextSpec>,
    /// The parameters of the query.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"beta": {"present": true}}]))]
    pub query: BTreeMap<String, TextSpec>,
    /// Who sends it: one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<SourceSpec>,
}

/// Who sends requests. A caller's proxy knows this of itself, and gets only the rules that are about it: nothing of it
/// travels with a request. Rules of a service name workloads, those of a gateway addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SourceSpec {
    /// The workloads of a namespace.
    Namespace(#[schemars(with = "String", example = &"front")] Label),
    /// The workloads that serve a service.
    Service(RelativeName),
    /// The workloads of one service account.
    ServiceAccount(AccountName),
    /// Clients of a gateway whose connections come from this address or range: the other end of the connection, never what a
    /// header says.
    Ip(Addresses),
}
