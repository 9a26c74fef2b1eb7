//! `EdgeGateway`: where traffic from outside of the mesh comes in.
//!
//! Owns: the shape of the spec. May use: `name`, `scalar`, `tls`. Never: looks a name up.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::RelativeName;
use super::tls::{CaSpec, TlsVersion};
use crate::name::Label;

/// Where traffic from outside of the mesh comes in. The TrafficRoutes of its namespace say where it goes; what none of them
/// takes is answered 404. Its proxies need no `calls`, and call services as any other does: with the identity of their
/// workload. Paths are normalised, and nothing passes that a client says of its own certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewaySpec {
    /// Whose proxies have the listeners: workloads of its own namespace.
    pub workload: WorkloadChoice,
    /// Which way the traffic goes; `ingress` by default.
    #[serde(default, skip_serializing_if = "Direction::is_ingress")]
    pub direction: Direction,
    /// The listeners. Those of one address and port are told apart by `hostnames`.
    pub listeners: Vec<ListenerSpec>,
}

/// Which workloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WorkloadChoice {
    /// The one of this name.
    Name(#[schemars(with = "String")] Label),
    /// Those that carry all of these labels, at least one.
    Labels(BTreeMap<String, String>),
}

/// Which way traffic goes through a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Into the mesh.
    #[default]
    Ingress,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerSpec {
    /// Its name.
    #[schemars(with = "String")]
    pub name: Label,
    /// The address that it listens on; `0.0.0.0` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(example = &"0.0.0.0")]
    pub address: Option<IpAddr>,
    /// The port that it listens on.
    pub port: NonZeroU16,
    /// What is spoken on it.
    pub protocol: ListenerProtocol,
    /// The hosts that it is for: `shop.example.com`, `*.example.com` for one or more labels before it, `*` for all; the
    /// most specific one decides; all by default. With TLS, the host that a client names in its handshake; a tcp listener
    /// has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// The name of the listener of this gateway that clients are told to go to instead, with 301: no route is asked. The
    /// Location has that listener's port, left out where it is the one of its scheme.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub redirect_to: Option<Label>,
    /// TLS, on an https or tls listener; left out on others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// TLS on a listener. A client that names no host in its handshake gets no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsSpec {
    /// What becomes of it; `terminate` by default.
    #[serde(default)]
    pub mode: TlsMode,
    /// The TLSCertificate that is shown, of the gateway's own namespace; left out, a listener that ends TLS is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<RelativeName>,
    /// The lowest version that is spoken, "1.2" or "1.3"; "1.2" by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// Whether clients have certificates; they are not asked by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuthSpec>,
}

/// What becomes of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// It ends at the gateway.
    #[default]
    Terminate,
    /// It is passed on as it is, on a tls listener: the rules of `tls` of a TrafficRoute say where to, and there is no
    /// certificate here.
    Passthrough,
}

/// Whether clients have certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientAuthSpec {
    /// Whether they are asked for one.
    pub mode: ClientAuthMode,
    /// The authorities that vouch for them; left out with `none` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaSpec>,
    /// Whether services are told of the certificate, in the header `x-edge-client-cert`, as
    /// `Hash=<SHA-256>;Subject="...";URI=...;DNS=...`, where `-` is nothing; false by default. What a client itself says
    /// in that header never passes a gateway.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forward: bool,
}

/// Whether clients are asked for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuthMode {
    /// They are not.
    None,
    /// They are, and those who have none get in; a certificate that is not good is refused.
    Optional,
    /// They are, and nobody gets in without.
    Require,
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListenerProtocol {
    /// HTTP in plaintext: versions 1.0, 1.1 and 2.
    Http,
    /// HTTP over TLS, that `tls` is about; listeners of one port are told apart by the host that a client names in its
    /// handshake, and a request for another one's host is answered 421.
    Https,
    /// Bytes: the rules of `tcp` of a TrafficRoute without `hostnames` say where they go, told apart by `match.port` where a
    /// gateway has several such listeners.
    Tcp,
    /// TLS, that `tls` is about: passed on as it is by the rules of `tls`, or ended here and passed on as bytes by the rules
    /// of `tcp`. Told apart by the host that a client names in its handshake, also from https listeners of the same port.
    Tls,
}

// === impl Direction ===

impl Direction {
    fn is_ingress(&self) -> bool {
        match self {
            Self::Ingress => true,
        }
    }
}
