//! Outside: services that are not of the mesh.
//!
//! Owns: by which name and how such a service is called, and what is known of endpoints by name. May use: the values of
//! `rules`. Never: resolves a name.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::rules::tls::TlsVersion;

/// A service that is not of the mesh: its servers have no proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outside {
    /// The host that requests to it are for, unless their rule says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How it is called by TLS; `None` is without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Originate>,
}

/// How a server is called by TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Originate {
    /// The name, or address, that its certificate must have.
    pub name: String,
    /// Who vouches for that.
    pub authorities: Authorities,
    /// The oldest version.
    pub oldest: TlsVersion,
}

/// Who vouches for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Authorities {
    /// Whom the proxy's system trusts.
    System,
    /// Those in this file of the proxy's machine.
    File(String),
    /// These, PEM.
    Inline(String),
}

/// Endpoints that a name server knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DnsEndpoints {
    /// The name.
    pub hostname: String,
    /// Their port per name of the service's ports.
    pub ports: Arc<BTreeMap<String, NonZeroU16>>,
    /// Whether each address is an endpoint, or the name is one.
    pub mode: DnsMode,
    /// Which addresses.
    pub family: DnsFamily,
    /// How often the name is asked for; `None` is what Envoy has it.
    pub refresh: Option<Duration>,
}

/// What the addresses of a name are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DnsMode {
    /// Each is an endpoint; one that is gone gets no new connection.
    #[default]
    Strict,
    /// New connections go to the first of them, and those that stand stay: for names of large services whose addresses come
    /// and go.
    Logical,
}

/// Which addresses of a name are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DnsFamily {
    /// Those of IPv4, or if there are none, of IPv6.
    #[default]
    V4Preferred,
    /// Those of IPv4.
    V4Only,
    /// Those of IPv6.
    V6Only,
    /// Those of both.
    All,
}
