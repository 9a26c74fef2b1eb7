//! `MTLSPolicy` and `AccessPolicy`: which connections a port takes, and who may do what on it.
//!
//! Owns: the shape of the two specs. May use: `scalar`, `target`,
//! the texts of `route`. Never: applies a policy.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::route::TextSpec;
use super::scalar::{AccountName, Addresses, Method, RelativeName, Span};
use super::target::Target;
use crate::mesh::{AccessDefault, MtlsMode};
use crate::name::Label;

/// Which connections ports take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MtlsSpec {
    /// Which ports: a `scope`, a `service` or its `port`, or those of the workloads with some `labels`, towards each of which
    /// callers follow. The most specific target wins; labels are above a namespace and below a service.
    pub target: Target,
    /// Which connections.
    pub mode: MtlsMode,
}

/// Who may do what on ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessSpec {
    /// Which ports: a `scope`, a `service` or its `port`, or those of the workloads with some `labels`; or a `gateway` or one
    /// listener of it, about which no wider target says anything: there everybody is admitted unless such a policy refuses
    /// them, and callers are known by `ip` and by a token, never by an identity.
    pub target: Target,
    /// Whether it is enforced; `enforce` by default.
    #[serde(default, skip_serializing_if = "AccessMode::is_enforce")]
    pub mode: AccessMode,
    /// What holds where no entry matches; left out, as a wider target says. The most specific target wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "x-ladder" = "an AccessPolicy with a wider target (port, service, labels, namespace, mesh)",
        "x-default-from" = "Mesh.spec.defaults.access"
    ))]
    pub default: Option<AccessDefault>,
    /// Entries that admit; none by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<EntrySpec>,
    /// Entries that refuse; none by default. They beat every allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<EntrySpec>,
}

/// Whether an AccessPolicy is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// It is.
    #[default]
    Enforce,
    /// It changes no answer: whom it would have refused is counted and listed.
    Audit,
}

/// One entry: it matches when one caller and one operation match.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["from"]}, {"required": ["to"]}, {"required": ["jwt"]}, {"required": ["external"]}]))]
pub struct EntrySpec {
    /// The callers; left out, anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Vec<CallerSpec>>,
    /// The operations; left out, all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<OperationSpec>>,
    /// The token that a request must carry; left out, none. On a port with such an entry a token that is not good is
    /// answered with 401 (403 for another audience), whatever the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtSpec>,
    /// A service that is asked about every request which the rest of the entry matches and no entry without `external`
    /// admits; left out, none. Its answer is the last word: of several such entries that match, the first one's service
    /// alone is asked. Only in `allow`, only where the default is deny, only on HTTP ports (on TCP ports such an entry
    /// never matches), and never on the ports of the service itself, whose callers another entry must admit. In an
    /// audit the entry counts as admitting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalSpec>,
}

/// A service that says whether a request may come: by the port's protocol, `envoy.service.auth.v3.Authorization` of gRPC
/// on grpc and http2, or on http a request with the method, the path and the headers of the one in question (200 admits;
/// anything else goes back to the caller).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalSpec {
    /// The service, called as any other: by its rules and its mTLS mode.
    pub service: RelativeName,
    /// The name of its port; left out, its only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub port: Option<Label>,
    /// How long it may take to answer; 1s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// Whether requests are admitted while it cannot be asked or does not answer in time; false by default: 403.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fail_open: bool,
}

/// A good token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtSpec {
    /// Who issued it: one of `jwtProviders` of the Mesh.
    #[schemars(with = "String", example = &"login")]
    pub provider: Label,
    /// What it says: each of these claims is one of its values, a text or a list with it; none by default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"role": ["customer"]}]))]
    pub claims: BTreeMap<String, Vec<String>>,
}

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CallerSpec {
    /// The workloads that serve a service.
    Service(RelativeName),
    /// Every identity of a namespace.
    Namespace(#[schemars(with = "String", example = &"front")] Label),
    /// The workloads that have a gateway: what came in by it, as far as it sends that on itself.
    Gateway(RelativeName),
    /// One service account.
    ServiceAccount(AccountName),
    /// Identities that a pattern takes; `*` is any characters.
    Spiffe(
        #[schemars(example = &"spiffe://cluster.local/ns/front/*")]
        String,
    ),
    /// Those whose connections come from this address or range, with or without identity: the other end of the
    /// connection, never what a header says.
    Ip(Addresses),
    /// Anybody, with or without identity.
    Any,
}

/// What a caller does; every part must hold, and of each part one value. A part that is left out is anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["methods"]}, {"required": ["paths"]}, {"required": ["hosts"]}, {"required": ["ports"]}, {"required": ["headers"]}, {"required": ["grpcMethods"]}]))]
pub struct OperationSpec {
    /// The methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
    /// The paths; `*` is any characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = ["/cart", "/cart/*"])]
    pub paths: Vec<String>,
    /// The hosts that requests are for, without port and whatever their case; `*.example.com` is one or more labels
    /// before `.example.com`, `*` is every host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = ["*.shop.example"])]
    pub hosts: Vec<String>,
    /// The ports, by the numbers that callers of the service know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = [8080])]
    pub ports: Vec<NonZeroU16>,
    /// The headers; all of them must match.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"x-team": "shop"}]))]
    pub headers: BTreeMap<String, TextSpec>,
    /// The calls of gRPC, `package.Service/Method` or `package.Service/*`: POST to that path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(example = ["shop.v1.Cart/Get"])]
    pub grpc_methods: Vec<String>,
}

// === impl AccessMode ===

impl AccessMode {
    fn is_enforce(&self) -> bool {
        match self {
            Self::Enforce => true,
            Self::Audit => false,
        }
    }
}
