//! `TLSCertificate`: what a gateway shows of itself to clients outside of the mesh.
//!
//! Owns: the shape of the spec, and a key that is never shown. May use: nothing. Never: reads a file.

use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};

/// A certificate and its private key. They are sent to the proxies of the gateways that name them, and to nobody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateSpec {
    /// Where they come from.
    pub source: SourceSpec,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SourceSpec {
    /// Two files of the control plane's host. They are watched: when both say something else that belongs together, that is
    /// what proxies get.
    File(FileSpec),
    /// The texts themselves. The file that they stand in is as secret as the key.
    Inline(InlineSpec),
    /// The authority of the mesh issues it, and renews it at half of its life, which is that of workloads' certificates.
    Issued(IssuedSpec),
}

/// Two files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSpec {
    /// The absolute path of the certificate, leaf first, as PEM.
    pub cert: String,
    /// The absolute path of its private key, as PEM.
    pub key: String,
}

/// Two texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InlineSpec {
    /// The certificate, leaf first, as PEM.
    pub cert: String,
    /// Its private key, as PEM.
    pub key: PrivateKey,
}

/// What is issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuedSpec {
    /// The hosts that it is for, at least one: `shop.example.com`, or `*.example.com` for one label before it.
    pub dns_names: Vec<String>,
}

/// The text of a private key. Nothing shows it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct PrivateKey(Arc<str>);

// === impl PrivateKey ===

impl PrivateKey {
    /// The key, for the one who is to hold it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(private key)")
    }
}

impl Serialize for PrivateKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(private key)")
    }
}

impl JsonSchema for PrivateKey {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PrivateKey".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}
