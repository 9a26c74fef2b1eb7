//! The mesh: rules resolved and typed, every value with the rule that it came from.
//!
//! Owns: the model between what people write and what Envoy is sent. An either/or is an enum, names are
//! resolved, defaults are filled in. May use: `name`, `rules` (only in [`resolve`], and its scalars). Never: Envoy's types.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::{Label, QualifiedName, RuleRef, SpiffeId, TrustDomain};
use crate::rules::scalar::Setting;

mod access;
mod apart;
mod certificate;
mod connection;
mod edge;
mod health;
mod host;
mod inbound;
mod instance;
mod jwt;
mod locality;
mod node;
mod outside;
mod patch;
pub mod resolve;
mod route;
mod snapshot;
mod source;
mod telemetry;
mod traffic;

pub use access::{Access, AccessDefault, AccessEntry, Audit, Caller, External, GrpcMethod, Network, Operation};
pub use apart::{AllApart, Apart};
pub use certificate::{Certificate, CertificateSource, Seen, Shown, findings};
pub use connection::{TcpRoute, TcpRule};
pub use edge::{
    Edge, EdgeAction, EdgeCarried, EdgeChain, EdgeClients, EdgeHosts, EdgeRedirect, EdgeRule, EdgeTcpRule, EdgeTls,
};
pub use health::{GRPC_HEALTH, HealthCheck, HealthCheckKind};
pub use host::{HostMatch, closest};
pub use inbound::{Adaptive, Inbound};
pub use instance::{Instance, InstanceKey, Instances, instances_of, keyed};
pub use jwt::{Jwt, JwtKeys, JwtProvider, KeysUrl};
pub use locality::{Failover, Locality, Nearness, Prefer, Vantage};
pub use node::{NodeMatch, Precision};
pub use outside::{Authorities, DnsEndpoints, DnsFamily, DnsMode, Originate, Outside, TlsVersion};
pub use patch::{Direction, EnvoyPatch, PatchChange, PatchEdit, PatchTarget, Patched};
pub use route::{
    Changes, Checks, Consumer, Cors, Destination, Fault, GrpcStatus, HeaderChanges, HttpAction, HttpMatch, HttpRoute,
    HttpRule, Mirror, PathChange, PathMatch, Percent, RateKey, RateLimit, Redirect, Respond, Retry, RetryCondition,
    Scheme, TextMatch, WeightedDestination,
};
pub use snapshot::EnvoySnapshot;
pub use source::{Senders, Source};
pub use telemetry::{
    AccessLog, Collector, CollectorAt, Comparison, Dropped, Language, LogFormat, LogSink, LogWhen, Observed, TagValue,
    Telemetry, TelemetryProvider,
};
pub use traffic::{BalancingPolicy, Breaker, HashOn, Keepalive, Outbound, Outliers, ProxyProtocol};

/// Everything that the rules say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mesh {
    /// The trust domain of every identity.
    pub trust_domain: Sourced<TrustDomain>,
    /// How long a workload certificate lives.
    pub leaf_ttl: Sourced<Duration>,
    /// How long a connection to an application may take, and to an endpoint unless a policy says so.
    pub connect_timeout: Sourced<Duration>,
    /// The services.
    pub services: OrdMap<QualifiedName, Arc<Service>>,
    /// The workloads.
    pub workloads: OrdMap<QualifiedName, Arc<Workload>>,
    /// What somebody wrote for Envoy itself.
    #[serde(skip_serializing_if = "OrdMap::is_empty")]
    pub snapshots: OrdMap<QualifiedName, Arc<EnvoySnapshot>>,
    /// What somebody changes in what Envoys get.
    #[serde(skip_serializing_if = "OrdMap::is_empty")]
    pub patches: OrdMap<QualifiedName, Arc<EnvoyPatch>>,
    /// What the proxies of workloads say of requests, where a policy says anything of that.
    #[serde(skip_serializing_if = "OrdMap::is_empty")]
    pub observed: OrdMap<QualifiedName, Arc<Observed>>,
    /// Who is told, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub telemetry_providers: Arc<BTreeMap<String, Arc<TelemetryProvider>>>,
}

/// A value and where it came from; `None` is the built-in default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// The rule that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<RuleRef>,
}

/// A service: what callers call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its name.
    pub name: QualifiedName,
    /// The MeshService.
    pub origin: RuleRef,
    /// Its ports, by number.
    pub ports: Vec<Port>,
    /// Where its endpoints come from.
    pub backing: Backing,
    /// What is to be known of a service that is not of the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<Arc<Outside>>,
    /// The identities that may answer for it: those of the workloads that serve it, or, where no workload
    /// does, the one that a workload of the service's own name would have.
    pub identities: BTreeSet<SpiffeId>,
}

/// Where the endpoints of a service come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Backing {
    /// The connected proxies of these workloads, by name, and the serving port of each per service port name.
    Workloads(Vec<Serving>),
    /// A list that the MeshService holds.
    Static(Arc<[StaticEndpoint]>),
    /// What a name server says to proxies.
    Dns(Arc<DnsEndpoints>),
}

/// One workload that serves one port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Serving {
    /// The workload.
    pub workload: QualifiedName,
    /// Its labels: what `version` and `labels` of a route select.
    pub labels: BTreeMap<String, String>,
    /// The name of the service's port.
    pub port: String,
    /// Where its proxies listen; a wildcard address stands for the proxy's own.
    pub listen: SocketAddr,
    /// Where its proxies are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Arc<Locality>>,
}

/// One endpoint of a MeshService's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StaticEndpoint {
    /// The address.
    pub address: IpAddr,
    /// The port per name of the service's ports; endpoints next to each other that have the same share them.
    pub ports: Arc<BTreeMap<String, NonZeroU16>>,
    /// Its share of the traffic.
    pub weight: u32,
    /// What `version` and `labels` of a route select.
    pub labels: BTreeMap<String, String>,
    /// Where it is; endpoints next to each other that are at one place share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Arc<Locality>>,
}

/// One port of a service, with everything that applies to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its number, as callers know it.
    pub number: NonZeroU16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Whether the application speaks first.
    pub server_first: bool,
    /// Which connections its proxies take.
    pub mtls: Sourced<MtlsMode>,
    /// Whether callers use mTLS where the mode allows it; not so on the way to and from `disabled`, which the
    /// rules do not speak of.
    #[serde(skip)]
    pub callers_use_mtls: bool,
    /// Who may do what.
    pub access: Access,
    /// How calls are made by callers for whose namespace there is nothing else.
    #[serde(skip_serializing_if = "is_built_in")]
    pub outbound: Arc<Outbound>,
    /// How calls are made by the callers of a namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outbound_of: BTreeMap<Label, Arc<Outbound>>,
    /// What its proxies take.
    #[serde(skip_serializing_if = "takes_anything")]
    pub inbound: Arc<Inbound>,
    /// The workloads of whose proxies policies by labels say something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apart: AllApart,
    /// How callers route; empty for TCP ports.
    pub routes: BTreeMap<Consumer, Arc<HttpRoute>>,
    /// Where connections go if not to the port itself; empty for HTTP ports.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tcp_routes: BTreeMap<Consumer, Arc<TcpRoute>>,
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 without TLS of the application's own.
    Http2,
    /// gRPC.
    Grpc,
    /// Bytes.
    Tcp,
    /// TLS that the application itself ends; told apart by the host that clients name in it.
    Tls,
}

/// Which connections a port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MtlsMode {
    /// Mutual TLS only.
    Strict,
    /// Mutual TLS and plaintext.
    Permissive,
    /// Plaintext only.
    Disabled,
}

/// Proxies that are alike: they form one group and receive the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Its name.
    pub name: QualifiedName,
    /// The Workload.
    pub origin: RuleRef,
    /// Who its proxies are.
    pub identity: SpiffeId,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where its proxies are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<Arc<Locality>>,
    /// Which nodes are its proxies, for proxies whose credential names no workload.
    pub matches: Option<NodeMatch>,
    /// What it serves.
    pub serves: Vec<Serve>,
    /// What it calls.
    pub calls: Vec<Call>,
    /// Where it takes traffic from outside of the mesh, by gateway and address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<Arc<Edge>>,
}

/// One port that a workload serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Serve {
    /// `/spec/serves/N`.
    pub origin: RuleRef,
    /// The service.
    pub service: QualifiedName,
    /// The name of its port.
    pub port: String,
    /// Where the proxy listens.
    pub listen: SocketAddr,
    /// Where the application listens.
    pub app: SocketAddr,
}

/// One port that a workload calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// `/spec/calls/N`.
    pub origin: RuleRef,
    /// The service.
    pub service: QualifiedName,
    /// The name of its port.
    pub port: String,
    /// Where the proxy listens for the application.
    pub listen: SocketAddr,
}

/// Whether no rule says how calls are made.
fn is_built_in(outbound: &Outbound) -> bool {
    outbound.origins().next().is_none()
}

/// Whether no rule says what is taken.
fn takes_anything(inbound: &Inbound) -> bool {
    inbound.origins().next().is_none()
}

// === impl Sourced ===

impl<T> Sourced<T> {
    /// A built-in default.
    pub fn built_in(value: T) -> Self {
        Self { value, origin: None }
    }

    /// A value that a rule gives.
    pub fn from_rule(value: T, origin: RuleRef) -> Self {
        Self { value, origin: Some(origin) }
    }

    /// Takes what the rule `origin` says in place of what there is.
    fn settle(&mut self, written: Setting<T>, built_in: impl FnOnce() -> T, origin: impl FnOnce() -> RuleRef) {
        let value = match written {
            Setting::Inherit => return,
            Setting::BuiltIn => built_in(),
            Setting::Given(value) => value,
        };
        *self = Self::from_rule(value, origin());
    }
}

// === impl Mesh ===

impl Mesh {
    /// What is said of the requests to an entry of `workload.serves`.
    pub fn telemetry_of_serve(&self, workload: &Workload, serve: &Serve) -> &Arc<Telemetry> {
        let of_workload = || {
            let observed = self.observed.get(&workload.name)?;
            observed.serves.get(workload.serves.iter().position(|other| other == serve)?)
        };
        of_workload().unwrap_or_else(|| Telemetry::built_in())
    }

    /// What is said of the calls of `workload`.
    pub fn telemetry_of_calls(&self, workload: &Workload) -> &Arc<Telemetry> {
        self.observed.get(&workload.name).map_or_else(|| Telemetry::built_in(), |observed| &observed.calls)
    }
}

// === impl Protocol ===

impl Protocol {
    /// Whether routes, HTTP access rules and retries apply.
    pub fn is_http(self) -> bool {
        match self {
            Self::Http | Self::Http2 | Self::Grpc => true,
            Self::Tcp | Self::Tls => false,
        }
    }

    /// Whether calls of gRPC can be made.
    pub fn takes_grpc(self) -> bool {
        match self {
            Self::Http2 | Self::Grpc => true,
            Self::Http | Self::Tcp | Self::Tls => false,
        }
    }
}

// === impl Service ===

impl Service {
    /// The port called `name`.
    pub fn port(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == name)
    }
}

// === impl Port ===

impl Port {
    /// How the callers of `namespace` make their calls.
    pub fn outbound_for(&self, namespace: &Label) -> &Arc<Outbound> {
        self.outbound_of.get(namespace).unwrap_or(&self.outbound)
    }

    /// Where the connections of callers of `namespace` go, if not to the port itself.
    pub fn tcp_route_for(&self, namespace: &Label) -> Option<&Arc<TcpRoute>> {
        let own = self.tcp_routes.get(&Consumer::Namespace(namespace.clone()));
        own.or_else(|| self.tcp_routes.get(&Consumer::Everyone))
    }

    /// The route that callers of `namespace` follow.
    pub fn route_for(&self, namespace: &Label) -> Option<(&Consumer, &Arc<HttpRoute>)> {
        self.routes
            .get_key_value(&Consumer::Namespace(namespace.clone()))
            .or_else(|| self.routes.get_key_value(&Consumer::Everyone))
    }
}
