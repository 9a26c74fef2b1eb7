//! Connections: which rule takes one, and where it goes.
//!
//! Owns: rules for bytes and for TLS that nobody on the way ends. May use: `name`, and the destinations of `mesh`. Never:
//! Envoy's types.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Destination, HostMatch, Network, WeightedDestination};
use crate::name::RuleRef;

/// Where connections to one port go: of those that say most of the host that is named in a handshake, the first rule that
/// takes one decides; what none takes is closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TcpRoute {
    /// The TrafficRoute.
    pub origin: RuleRef,
    /// The rules, in order; never empty.
    pub rules: Vec<TcpRule>,
}

/// One rule for connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TcpRule {
    /// The rule as written: `/spec/tcp/N` or `/spec/tls/N`.
    pub origin: RuleRef,
    /// Its name: as written, or `rule-N`.
    pub name: String,
    /// The hosts that clients name in their handshakes; empty is anything, TLS or not.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub names: BTreeSet<HostMatch>,
    /// The addresses that connections come from; empty is any.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub networks: BTreeSet<Network>,
    /// Where to; never empty, and not all weights are 0.
    pub to: Vec<WeightedDestination>,
}

// === impl TcpRoute ===

impl TcpRoute {
    /// Whatever gets connections.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.rules.iter().flat_map(TcpRule::destinations)
    }
}

// === impl TcpRule ===

impl TcpRule {
    /// Whatever gets connections.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.to.iter().map(|to| &to.destination)
    }

    /// Whether it takes every connection.
    pub fn takes_everything(&self) -> bool {
        self.names.is_empty() && self.networks.is_empty()
    }
}
