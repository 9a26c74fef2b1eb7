//! Edges: the sockets on which proxies take traffic from outside of the mesh.
//!
//! Owns: what becomes of a request to each host of a socket. May use: `name`, and the routes of `mesh`. Never: Envoy's
//! types.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::Serialize;

use super::{
    Authorities, Certificate, Destination, HostMatch, HttpRule, Outbound, Protocol, Scheme, TlsVersion, is_built_in,
};
use crate::name::{ObjectKind, QualifiedName, RuleRef};

/// One socket of a gateway: its listeners of one address and port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// The gateway.
    pub gateway: QualifiedName,
    /// The EdgeGateway, its listeners on this socket and the TrafficRoutes of its hosts, in order.
    pub origins: Vec<RuleRef>,
    /// Where the proxies listen.
    pub listen: SocketAddr,
    /// What becomes of its connections: of one kind, or by the host that a client names in its handshake.
    pub chains: Vec<EdgeChain>,
}

/// Connections that are treated alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EdgeChain {
    /// TLS, where it ends here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<EdgeTls>,
    /// The hosts, each group with what becomes of its requests; any other host is answered 404.
    pub hosts: Vec<EdgeHosts>,
}

/// TLS that ends at a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EdgeTls {
    /// The name of the listener.
    pub listener: String,
    /// The hosts that clients name in their handshakes; never empty, and the most specific one of the socket decides.
    pub names: BTreeSet<HostMatch>,
    /// What is shown.
    pub certificate: Arc<Certificate>,
    /// The lowest version that is spoken.
    pub min_version: TlsVersion,
    /// What clients show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<EdgeClients>,
}

/// What clients show of themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EdgeClients {
    /// Who vouches for them.
    pub authorities: Authorities,
    /// Whether nobody gets in without.
    pub required: bool,
    /// Whether services are told.
    pub forward: bool,
}

/// Hosts whose requests are treated alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EdgeHosts {
    /// The hosts, none of which another group of the socket has; the most specific one decides.
    pub hosts: BTreeSet<HostMatch>,
    /// What becomes of their requests.
    #[serde(flatten)]
    pub action: EdgeAction,
}

/// What becomes of requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EdgeAction {
    /// The first rule that takes one decides; no match is a 404.
    Rules(Vec<EdgeRule>),
    /// Their senders are told to go to another listener.
    Redirect(EdgeRedirect),
    /// They are another listener's, and came in by a connection for this one: 421.
    Misdirected,
}

/// A rule, and how its calls are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EdgeRule {
    /// The rule.
    #[serde(flatten)]
    pub rule: HttpRule,
    /// What is spoken by the first of its destinations.
    pub protocol: Protocol,
    /// How calls of it are made.
    #[serde(skip_serializing_if = "is_built_in")]
    pub outbound: Arc<Outbound>,
}

/// Another listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct EdgeRedirect {
    /// Its scheme.
    pub scheme: Scheme,
    /// Its port.
    pub port: NonZeroU16,
}

// === impl Edge ===

impl Edge {
    /// The first of its listeners.
    pub fn at(&self) -> &RuleRef {
        let listener = self
            .origins
            .iter()
            .find(|origin| origin.object.kind == ObjectKind::EdgeGateway && !origin.pointer.is_empty());
        listener.or(self.origins.first()).expect("an edge comes from a gateway")
    }

    /// Every rule of every host.
    pub fn rules(&self) -> impl Iterator<Item = &EdgeRule> {
        self.chains.iter().flat_map(EdgeChain::rules)
    }

    /// The certificates that its proxies get as secrets.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.chains.iter().filter_map(|chain| Some(&chain.tls.as_ref()?.certificate))
    }

    /// Whatever gets requests or copies of them, each once.
    pub fn destinations(&self) -> BTreeSet<&Destination> {
        self.rules().flat_map(|of| of.rule.destinations()).collect()
    }
}

// === impl EdgeChain ===

impl EdgeChain {
    /// What tells it from others of its socket: the name of the listener that ends TLS.
    pub fn name(&self) -> Option<&str> {
        self.tls.as_ref().map(|tls| tls.listener.as_str())
    }

    /// Every rule of every host.
    pub fn rules(&self) -> impl Iterator<Item = &EdgeRule> {
        self.hosts.iter().flat_map(|of| match &of.action {
            EdgeAction::Rules(rules) => rules.as_slice(),
            EdgeAction::Redirect(_) | EdgeAction::Misdirected => &[],
        })
    }

    /// Whether none of its requests is sent on.
    pub fn only_redirects(&self) -> bool {
        self.hosts.iter().all(|of| !matches!(of.action, EdgeAction::Rules(_)))
    }
}

// === impl EdgeRedirect ===

impl EdgeRedirect {
    /// Whether its port is the one of its scheme.
    pub fn is_usual_port(&self) -> bool {
        self.port.get() == self.scheme.port()
    }
}
