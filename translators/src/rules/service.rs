//! `MeshService`: a service that callers call.
//!
//! Owns: the shape of the spec. May use: `locality`, `scalar`, `tls`. Never: resolves an endpoint.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::locality::LocalitySpec;
use super::scalar::Span;
use super::tls::OriginateSpec;
use crate::mesh::{DnsFamily, DnsMode, Protocol};
use crate::name::Label;

/// A service: its ports and endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// The ports; at least one.
    pub ports: Vec<PortSpec>,
    /// Where the endpoints come from; omitted, they are the Workloads that serve the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
    /// Whether its servers are outside of the mesh: callers never come to them by mTLS, whatever the policies. `false` by
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<bool>,
    /// How callers' proxies begin TLS towards a service outside of the mesh; without it by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<OriginateSpec>,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PortSpec {
    /// Its name: a DNS label.
    #[schemars(with = "String", example = &"http")]
    pub name: Label,
    /// Its number, as callers know it.
    #[schemars(example = 8080)]
    pub port: NonZeroU16,
    /// What is spoken on it; never guessed.
    pub protocol: Protocol,
    /// Whether the application speaks first; `false` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_first: Option<bool>,
}

/// Where the endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Endpoints {
    /// A fixed list.
    Static(Vec<EndpointSpec>),
    /// The addresses of a name, as proxies find them.
    Dns(DnsSpec),
}

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsSpec {
    /// The name.
    pub hostname: String,
    /// What its addresses are; `strict` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<DnsMode>,
    /// Which of its addresses; `v4-preferred` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<DnsFamily>,
    /// How often the name is asked for; `5s` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Span>,
    /// The servers' port for named ports of the service; the service's own number by default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, NonZeroU16>,
}

/// One endpoint of a fixed list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSpec {
    /// Its IP address.
    #[schemars(with = "String", example = &"10.0.0.1")]
    pub address: IpAddr,
    /// Its port, for a service with one port; left out where `ports` names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = 8080)]
    pub port: Option<NonZeroU16>,
    /// Its port for each named port of the service; left out where `port` is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("examples" = [{"http": 8080}]))]
    pub ports: Option<BTreeMap<String, NonZeroU16>>,
    /// Its share of the traffic; 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<NonZeroU32>,
    /// What `version` and `labels` of a route select; none by default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"version": "v1"}]))]
    pub labels: BTreeMap<String, String>,
    /// Where it is; not said by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<LocalitySpec>,
}
