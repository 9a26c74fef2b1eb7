//! Who may do what on a port.
//!
//! Owns: entries, callers and operations as the rules mean them for one port. May use: `name`. Never: Envoy's types.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Sourced;
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

/// What a caller does; every part must hold. On TCP ports an operation with parts never matches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Operation {
    /// The methods; empty is any.
    pub methods: BTreeSet<String>,
    /// The paths, after normalisation, without query; `*` is any characters; empty is any.
    pub paths: BTreeSet<String>,
}
