//! TLS as people write it: authorities, versions, and how a server outside of the mesh is called.
//!
//! Owns: the shape of these settings. May use: nothing. Never: reads a certificate.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a service outside of the mesh is called by TLS. Callers speak to their proxy without it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginateSpec {
    /// The name that the server is asked for, and that its certificate must have; the name of its `dns` endpoints by
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// Who vouches for the server's certificate; `system` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSpec>,
    /// The oldest version; `"1.2"` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
}

/// Who vouches for a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CaSpec {
    /// Whom the proxy's system trusts.
    System,
    /// The certificates in this file of the proxy's machine, PEM.
    File(String),
    /// These certificates, PEM.
    Inline(String),
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V13,
}
