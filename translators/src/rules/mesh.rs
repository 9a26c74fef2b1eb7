//! `Mesh`: settings of the whole mesh; one object, `mesh-system/default`.
//!
//! Owns: the shape of the spec. May use: `scalar`, the providers of `telemetry`. Never: fills in a default.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::route::RetrySpec;
use super::scalar::{Setting, Span};
use super::telemetry::TelemetryProviderSpec;
use super::tls::CaSpec;
use crate::mesh::{AccessDefault, MtlsMode};
use crate::name::{Label, TrustDomain};

/// Settings of the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshSpec {
    /// The trust domain of every identity; `cluster.local` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", example = &"shop.example")]
    pub trust_domain: Option<TrustDomain>,
    /// Who signs certificates; the built-in authority by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<Ca>,
    /// What holds where no rule says anything; left out, what is built in.
    #[serde(default)]
    pub defaults: Defaults,
    /// Who issues tokens that entries of access policies ask for; nobody by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jwt_providers: Vec<JwtProviderSpec>,
    /// Who is told what proxies log and trace; nobody by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub telemetry_providers: Vec<TelemetryProviderSpec>,
}

/// Who issues tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtProviderSpec {
    /// The name by which entries refer to it.
    #[schemars(with = "String", example = &"login")]
    pub name: Label,
    /// What `iss` of its tokens says.
    #[schemars(example = &"https://login.example")]
    pub issuer: String,
    /// One of these must be in `aud` of a token; left out, any will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = ["shop"])]
    pub audiences: Vec<String>,
    /// The keys that its tokens are signed with.
    #[schemars(extend("examples" = [{"url": "https://login.example/jwks.json"}]))]
    pub jwks: JwksSpec,
    /// With `jwks.url` by `https`: who vouches for the certificate of the server that has the keys; `system` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSpec>,
    /// The header that carries the token; left out, `authorization`, where `Bearer ` comes before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"x-token")]
    pub header: Option<String>,
    /// Whether the application gets the token as well; `false` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<bool>,
}

/// Public keys, as a JSON Web Key Set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum JwksSpec {
    /// The set itself, as JSON.
    Inline(
        #[schemars(example = &r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#)]
         String,
    ),
    /// Where every proxy that needs them fetches them, every 5 minutes: `https` with a certificate that `ca`
    /// vouches for, or `http`. While they cannot be fetched, no token is good.
    Url(
        #[schemars(example = &"https://login.example/jwks.json")]
        String,
    ),
}

/// Who signs certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ca {
    /// The built-in authority; left out, it is that as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builtin: Option<Builtin>,
    /// How long a workload certificate lives; `24h` by default.
    #[serde(default, rename = "leafTTL", skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"24h")]
    pub leaf_ttl: Option<Span>,
}

/// The built-in authority; it has no settings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Builtin {}

/// What holds where no rule says anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Defaults {
    /// Which connections a port takes; `permissive` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MtlsMode>,
    /// What holds for callers whom no entry names; `allow` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessDefault>,
    /// How long a request may take on http and http2 ports; `15s` by default, `0s` is without limit.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub timeout: Setting<Span>,
    /// How long a connection to an endpoint may take; `5s` by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub connect_timeout: Setting<Span>,
    /// What is repeated; once on connect-failure and refused-stream by default.
    #[serde(default, skip_serializing_if = "Setting::is_inherit")]
    pub retry: Setting<RetrySpec>,
}
