//! Edges: the sockets on which proxies take traffic from outside of the mesh.
//!
//! Owns: what becomes of each connection to a socket, and of the requests to each host. May use: `name`, and the routes of `mesh`. Never: Envoy's
//! types.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use serde::Serialize;

use super::{
    Access, Authorities, Certificate, Destination, HostMatch, HttpRule, Inbound, Outbound, Protocol, Scheme, TcpRule,
    TlsVersion, is_built_in, takes_anything,
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
    /// What tells it from others of its socket, if there may be others: the name of its listener, and for connections
    /// those of the TrafficRoute and of its rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The hosts that clients name in their handshakes, the most specific one of the socket deciding; empty is anything,
    /// TLS or not.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub names: BTreeSet<HostMatch>,
    /// TLS, where it ends here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<EdgeTls>,
    /// Who may do what.
    #[serde(skip_serializing_if = "Access::is_open")]
    pub access: Access,
    /// What is taken of it.
    #[serde(skip_serializing_if = "takes_anything")]
    pub inbound: Arc<Inbound>,
    /// What comes over them.
    #[serde(flatten)]
    pub carried: EdgeCarried,
}

/// What comes over connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EdgeCarried {
    /// Requests: the hosts, each group with what becomes of its requests; any other host is answered 404.
    Hosts(Vec<EdgeHosts>),
    /// Bytes, those that the rule takes.
    Bytes(Box<EdgeTcpRule>),
    /// Nothing: they are closed, as no rule is about them.
    Nothing,
}

/// A rule for connections, and how these are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EdgeTcpRule {
    /// The rule; the hosts in handshakes are those of its chain.
    #[serde(flatten)]
    pub rule: TcpRule,
    /// How calls of it are made.
    #[serde(skip_serializing_if = "is_built_in")]
    pub outbound: Arc<Outbound>,
}

/// TLS that ends at a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EdgeTls {
    /// The name of the listener.
    pub listener: String,
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

    /// Every rule for connections.
    pub fn connections(&self) -> impl Iterator<Item = &EdgeTcpRule> {
        self.chains.iter().filter_map(EdgeChain::bytes)
    }

    /// The certificates that its proxies get as secrets.
    pub fn certificates(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.chains.iter().filter_map(|chain| Some(&chain.tls.as_ref()?.certificate))
    }

    /// Whatever gets requests or copies of them, each once.
    pub fn destinations(&self) -> BTreeSet<&Destination> {
        let bytes = self.connections().flat_map(|of| of.rule.destinations());
        self.rules().flat_map(|of| of.rule.destinations()).chain(bytes).collect()
    }
}

// === impl EdgeChain ===

impl EdgeChain {
    /// The hosts, if it carries requests.
    pub fn hosts(&self) -> Option<&[EdgeHosts]> {
        match &self.carried {
            EdgeCarried::Hosts(hosts) => Some(hosts),
            EdgeCarried::Bytes(_) | EdgeCarried::Nothing => None,
        }
    }

    /// The rule of its connections, if it carries bytes.
    pub fn bytes(&self) -> Option<&EdgeTcpRule> {
        match &self.carried {
            EdgeCarried::Hosts(_) | EdgeCarried::Nothing => None,
            EdgeCarried::Bytes(rule) => Some(rule),
        }
    }

    /// Every rule of every host.
    pub fn rules(&self) -> impl Iterator<Item = &EdgeRule> {
        self.hosts().into_iter().flatten().flat_map(|of| match &of.action {
            EdgeAction::Rules(rules) => rules.as_slice(),
            EdgeAction::Redirect(_) | EdgeAction::Misdirected => &[],
        })
    }

    /// Whether none of its requests is sent on.
    pub fn only_redirects(&self) -> bool {
        self.hosts().into_iter().flatten().all(|of| !matches!(of.action, EdgeAction::Rules(_)))
    }
}

// === impl EdgeRedirect ===

impl EdgeRedirect {
    /// Whether its port is the one of its scheme.
    pub fn is_usual_port(&self) -> bool {
        self.port.get() == self.scheme.port()
    }
}
