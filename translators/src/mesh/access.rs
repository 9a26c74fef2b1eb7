//! Who may do what on a port.
//!
//! Owns: entries, callers and operations as the rules mean them for one port. May use: `name`. Never: Envoy's types.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Sourced, TextMatch};
use crate::name::{Label, RuleRef, SpiffeId};

/// Who may do what on a port: deny beats allow beats the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Access {
    /// Entries that refuse.
    pub deny: Vec<AccessEntry>,
    /// Entries that admit.
    pub allow: Vec<AccessEntry>,
    /// What holds for everybody else.
    pub default: Sourced<AccessDefault>,
}

/// What holds where no entry matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccessDefault {
    /// Admitted.
    Allow,
    /// Refused.
    Deny,
}

/// One entry: it matches when one caller and one operation match.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessEntry {
    /// The entry as written; its text is the policy's name in Envoy.
    pub origin: RuleRef,
    /// The callers; empty is anybody, with or without identity.
    pub from: Vec<Caller>,
    /// The operations; empty is all.
    pub to: Vec<Operation>,
}

/// A caller, recognised by the identity of its certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Caller {
    /// Anybody, with or without identity.
    Any,
    /// One of these identities (of a service's workloads, of a service account).
    Identities(BTreeSet<SpiffeId>),
    /// Any identity of this namespace of the mesh's own trust domain.
    Namespace(Label),
    /// An identity that this pattern takes; `*` is any characters.
    Pattern(String),
}

/// What a caller does on this port; every part must hold. On TCP ports an operation with parts never matches.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Operation {
    /// The methods; empty is any.
    pub methods: BTreeSet<String>,
    /// The paths, after normalisation, without query; `*` is any characters; empty is any.
    pub paths: BTreeSet<String>,
    /// The hosts; empty is any.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub hosts: BTreeSet<HostMatch>,
    /// The headers by name, in lower case; all must match.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, TextMatch>,
    /// The calls of gRPC; empty is any request.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub grpc: BTreeSet<GrpcMethod>,
}

/// Hosts, in lower case and without port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HostMatch {
    /// This one.
    Exact(String),
    /// Those of one or more labels before this, which has no dot at its start.
    Under(String),
    /// Every host.
    Any,
}

/// Calls of gRPC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct GrpcMethod {
    /// `package.Service`.
    pub service: String,
    /// The method; `None` is all of them.
    pub method: Option<String>,
}

// === impl Operation ===

impl Operation {
    /// Whether only requests can tell if it matches, connections cannot.
    pub fn is_http(&self) -> bool {
        let Self { methods, paths, hosts, headers, grpc } = self;
        !(methods.is_empty() && paths.is_empty() && hosts.is_empty() && headers.is_empty() && grpc.is_empty())
    }
}
