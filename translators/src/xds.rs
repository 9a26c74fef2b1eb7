//! Mesh to Envoy resources.
//!
//! Owns: which resources the proxies of a workload need ([`plan`]), what each is called ([`ResourceKey`]) and
//! what is in it ([`build`]); one file per resource or filter. May use: `mesh`, `name`,
//! `resource`, the `proto` crate. Never: refuses a mesh: what cannot be served was a finding before.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::mesh::{
    Call, Consumer, Destination, Edge, HttpRule, Instances, Mesh, Port, Senders, Serve, Service, Vantage, Workload,
};
use crate::name::{Label, QualifiedName, RuleRef};
use crate::resource::{Kind, Name, Resource};

mod access_log;
mod action;
pub mod bootstrap;
mod calling;
mod checks;
mod client;
pub mod closed;
mod cluster;
mod collector;
mod connections;
mod edge;
mod endpoint;
mod external;
mod forms;
mod guards;
mod health;
mod http;
mod jwt;
mod limits;
mod listener;
mod log_format;
mod outside;
mod patch_findings;
mod patched;
mod patching;
mod permission;
mod plan;
mod proxyless;
mod raw;
mod rbac;
mod retry;
mod route;
pub mod secret;
pub mod static_config;
mod tcp;
mod telemetry;
mod text;
mod tls;
mod wire;

pub use client::{Audience, Client, Features};
pub use collector::collector_key;
pub use forms::{Forms, OtlpLogs, StatsAccessLog};
pub use patch_findings::patch_findings;
pub use patched::{Applied, Effect};
pub use patching::{Patching, Step};
pub use plan::{Contribution, Entry, Part, Slots, contribution, parts_alike, plan, plans_alike, reads_alike};
pub use proxyless::{CERTIFICATES, Proxyless};

/// One resource of the mesh, before it is built: equal keys give equal bytes in one mesh, whoever receives them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKey {
    /// How callers reach a destination.
    Cluster(Destination),
    /// How the callers of a namespace reach a destination that policies of their own are about.
    ConsumerCluster(Destination, Label),
    /// How a proxy reaches the application behind it.
    LocalCluster(Slot),
    /// Where a destination is, as callers see it from one place where that makes a difference.
    Endpoints(Destination, Option<Arc<Vantage>>),
    /// How a proxy fetches the keys of a provider, by name, whose tokens a port asks for.
    Jwks(Slot, String),
    /// The listener of a port that a workload serves.
    Inbound(Slot, Forms),
    /// The listener of a port that a workload calls, for proxies that know this form of logger, where it has one.
    Outbound(Slot, Option<OtlpLogs>),
    /// How proxies reach a provider of telemetry, `mesh-system/otel`.
    Collector(QualifiedName),
    /// How callers route the requests to a port.
    Route {
        /// The service.
        service: QualifiedName,
        /// The name of its port.
        port: String,
        /// Which callers.
        consumer: Consumer,
        /// Who they are, where rules tell them apart.
        senders: Senders,
    },
    /// The listener of a socket of a gateway.
    Edge(EdgeSlot),
    /// Where the requests to a socket of a gateway go: to all of it, or to a listener of it that ends TLS.
    EdgeRoute(EdgeSlot, Option<String>),
    /// How a gateway fetches the keys of a provider of tokens.
    EdgeJwks(EdgeSlot, String),
    /// What gRPC clients without a proxy need.
    Proxyless(Proxyless),
}

/// One entry of a workload's `serves` or `calls`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The workload.
    pub workload: QualifiedName,
    /// The service that it serves or calls.
    pub service: QualifiedName,
    /// The name of the service's port.
    pub port: String,
    /// The listen address, where the workload has more than one entry for this port.
    pub listen: Option<SocketAddr>,
}

/// One socket of a gateway on a workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeSlot {
    /// The workload.
    pub workload: QualifiedName,
    /// The gateway.
    pub gateway: QualifiedName,
    /// Where it listens.
    pub listen: SocketAddr,
}

/// Everything that clients of these `features` get that are instances of `workload`, secrets apart: what was planned, after the
/// patches, and what they add.
pub fn resources(mesh: &Mesh, workload: &Workload, features: Features, instances: &Instances) -> Vec<Resource> {
    let patching = Patching::of(mesh);
    let made = plan(mesh, workload, features).into_iter().filter_map(|key| {
        let base = build(mesh, &key, instances);
        let steps = Step::of_features(&patching.steps(workload, &key), features);
        if steps.is_empty() { Some(base) } else { Step::apply(&steps, &base).resource }
    });
    let added = Step::of_features(&patching.additions(workload), features);
    made.chain(added.iter().filter_map(Step::added)).collect()
}

/// The resource of a key that [`plan`] gave for this mesh, with these proxies connected. Nothing but endpoints looks
/// at them; a destination that does not exist has none.
pub fn build(mesh: &Mesh, key: &ResourceKey, instances: &Instances) -> Resource {
    match key {
        ResourceKey::Cluster(destination) => cluster::outbound(mesh, destination, None),
        ResourceKey::ConsumerCluster(destination, consumer) => cluster::outbound(mesh, destination, Some(consumer)),
        ResourceKey::LocalCluster(slot) => cluster::local(mesh, slot.serve(mesh).1, slot),
        ResourceKey::Endpoints(destination, from) => {
            endpoint::endpoints(mesh, destination, from.as_deref(), instances, Client::Envoy)
        }
        ResourceKey::Jwks(slot, provider) => jwt::cluster(mesh, slot, provider),
        ResourceKey::Inbound(slot, forms) => {
            let (workload, serve) = slot.serve(mesh);
            listener::inbound(mesh, workload, serve, slot, *forms)
        }
        ResourceKey::Outbound(slot, otlp) => {
            let (workload, call) = slot.call(mesh);
            listener::outbound(mesh, workload, call, slot, *otlp)
        }
        ResourceKey::Collector(provider) => collector::cluster(mesh, provider),
        ResourceKey::Route { service, port, consumer, senders } => {
            route::configuration(mesh, service, port, (consumer, senders))
        }
        ResourceKey::Edge(slot) => edge::listener(mesh, slot.edge(mesh), slot),
        ResourceKey::EdgeRoute(slot, chain) => slot.routes(slot.edge(mesh), chain.as_deref()),
        ResourceKey::EdgeJwks(slot, provider) => jwt::edge_cluster(mesh, slot.edge(mesh), &slot.keys(), provider),
        ResourceKey::Proxyless(key) => key.build(mesh, instances),
    }
}

/// As [`build`], for a key of `entry` alone: the entry is not looked for among its siblings.
pub fn build_own(mesh: &Mesh, workload: &Workload, entry: Entry<'_>, key: &ResourceKey) -> Resource {
    match (key, entry) {
        (ResourceKey::LocalCluster(slot), Entry::Serve(serve)) => cluster::local(mesh, serve, slot),
        (ResourceKey::Inbound(slot, forms), Entry::Serve(serve)) => {
            listener::inbound(mesh, workload, serve, slot, *forms)
        }
        (ResourceKey::Outbound(slot, otlp), Entry::Call(call)) => listener::outbound(mesh, workload, call, slot, *otlp),
        (ResourceKey::Edge(slot), Entry::Edge(edge)) => edge::listener(mesh, edge, slot),
        (ResourceKey::EdgeRoute(slot, chain), Entry::Edge(edge)) => slot.routes(edge, chain.as_deref()),
        (_, Entry::Serve(_) | Entry::Call(_) | Entry::Edge(_)) => build(mesh, key, &Instances::new()),
    }
}

// === impl ResourceKey ===

impl ResourceKey {
    /// The kind of the resource.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Cluster(_)
            | Self::ConsumerCluster(..)
            | Self::LocalCluster(_)
            | Self::Jwks(..)
            | Self::EdgeJwks(..)
            | Self::Collector(_) => Kind::Cluster,
            Self::Endpoints(..) => Kind::Endpoints,
            Self::Inbound(..) | Self::Outbound(..) | Self::Edge(_) => Kind::Listener,
            Self::Route { .. } | Self::EdgeRoute(..) => Kind::Route,
            Self::Proxyless(key) => key.kind(),
        }
    }

    /// Who gets the resource.
    pub fn audience(&self) -> Audience {
        match self {
            Self::Inbound(_, forms) => Audience::Taking(*forms),
            Self::Outbound(_, Some(otlp)) => Audience::Logging(*otlp),
            Self::Cluster(_)
            | Self::ConsumerCluster(..)
            | Self::LocalCluster(_)
            | Self::Jwks(..)
            | Self::Endpoints(..)
            | Self::Outbound(_, None)
            | Self::Collector(_)
            | Self::Route { .. }
            | Self::Edge(_)
            | Self::EdgeJwks(..)
            | Self::EdgeRoute(..) => Audience::Proxies,
            Self::Proxyless(key) => key.audience(),
        }
    }

    /// The destination whose endpoints it says, if it does.
    pub fn endpoints_of(&self) -> Option<&Destination> {
        match self {
            Self::Endpoints(destination, _) | Self::Proxyless(Proxyless::Endpoints(destination, _)) => {
                Some(destination)
            }
            Self::Cluster(_)
            | Self::ConsumerCluster(..)
            | Self::LocalCluster(_)
            | Self::Jwks(..)
            | Self::Inbound(..)
            | Self::Outbound(..)
            | Self::Collector(_)
            | Self::Route { .. }
            | Self::Edge(_)
            | Self::EdgeRoute(..)
            | Self::EdgeJwks(..)
            | Self::Proxyless(_) => None,
        }
    }

    /// The name of the resource.
    pub fn name(&self) -> Name {
        match self {
            Self::Cluster(destination) | Self::ConsumerCluster(destination, _) | Self::Endpoints(destination, _) => {
                cluster_name(destination).into()
            }
            Self::LocalCluster(slot) => slot.name("app").into(),
            Self::Jwks(slot, provider) => jwt::cluster_name(&slot.name("jwks"), provider).into(),
            Self::Inbound(slot, _) => slot.name("in").into(),
            Self::Outbound(slot, _) => slot.name("out").into(),
            Self::Collector(provider) => collector::own_name(provider.name.as_str()).into(),
            Self::Route { service, port, consumer, .. } => route_name(service, port, consumer).into(),
            Self::Edge(slot) => slot.name().into(),
            Self::EdgeRoute(slot, chain) => slot.route(chain.as_deref()).into(),
            Self::EdgeJwks(slot, provider) => jwt::cluster_name(&slot.keys(), provider).into(),
            Self::Proxyless(key) => key.name(),
        }
    }
}

// === impl Slot ===

impl Slot {
    /// The slot of an entry of `workload.serves`.
    pub fn of_serve(workload: &Workload, serve: &Serve) -> Self {
        let listen = Slots::of(workload).listen(Entry::Serve(serve));
        Self::new(&workload.name, &serve.service, &serve.port, listen)
    }

    fn new(workload: &QualifiedName, service: &QualifiedName, port: &str, listen: Option<SocketAddr>) -> Self {
        Self { workload: workload.clone(), service: service.clone(), port: port.to_owned(), listen }
    }

    /// `in/shop/cart/http`, or `in/shop/cart/http@0.0.0.0:8080` where that alone would be ambiguous.
    fn name(&self, prefix: &str) -> String {
        let name = joined(prefix, &self.service, &self.port);
        match self.listen {
            Some(listen) => format!("{name}@{listen}"),
            None => name,
        }
    }

    fn takes(&self, service: &QualifiedName, port: &str, listen: SocketAddr) -> bool {
        self.service == *service && self.port == port && self.listen.is_none_or(|only| only == listen)
    }

    fn serve<'a>(&self, mesh: &'a Mesh) -> (&'a Workload, &'a Serve) {
        let workload = mesh.workloads.get(&self.workload).expect("the plan of this mesh has the slot");
        let serve = workload.serves.iter().find(|s| self.takes(&s.service, &s.port, s.listen));
        (workload, serve.expect("the plan of this mesh has the slot"))
    }

    fn call<'a>(&self, mesh: &'a Mesh) -> (&'a Workload, &'a Call) {
        let workload = mesh.workloads.get(&self.workload).expect("the plan of this mesh has the slot");
        let call = workload.calls.iter().find(|c| self.takes(&c.service, &c.port, c.listen));
        (workload, call.expect("the plan of this mesh has the slot"))
    }
}

// === impl EdgeSlot ===

impl EdgeSlot {
    fn of(workload: &Workload, edge: &Edge) -> Self {
        Self { workload: workload.name.clone(), gateway: edge.gateway.clone(), listen: edge.listen }
    }

    /// `edge/front/edge/0.0.0.0:80`.
    fn name(&self) -> String {
        format!("edge/{}/{}", self.gateway, self.listen)
    }

    /// The same, or that and the name of a chain.
    fn route(&self, chain: Option<&str>) -> String {
        let name = self.name();
        chain.map_or(name.clone(), |chain| format!("{name}/{chain}"))
    }

    /// `jwks/front/edge/0.0.0.0:80`.
    fn keys(&self) -> String {
        format!("jwks/{}/{}", self.gateway, self.listen)
    }

    fn routes(&self, edge: &Edge, chain: Option<&str>) -> Resource {
        let chain = edge.chains.iter().find(|of| of.name.as_deref() == chain);
        edge::routes(edge, self, chain.expect("the plan of this mesh has the chain"))
    }

    fn edge<'a>(&self, mesh: &'a Mesh) -> &'a Edge {
        let workload = mesh.workloads.get(&self.workload);
        let mut edges = workload.iter().flat_map(|workload| &workload.edges);
        let edge = edges.find(|edge| edge.gateway == self.gateway && edge.listen == self.listen);
        edge.expect("the plan of this mesh has the socket")
    }
}

/// The name of the cluster of a destination, and of its endpoints.
fn cluster_name(destination: &Destination) -> String {
    if destination.labels.is_empty() && !destination.sticky {
        joined("out", &destination.service, &destination.port)
    } else {
        format!("out/{destination}")
    }
}

fn route_name(service: &QualifiedName, port: &str, consumer: &Consumer) -> String {
    let name = joined("out", service, port);
    match consumer {
        Consumer::Everyone => name,
        Consumer::Namespace(namespace) => name + "@" + namespace.as_str(),
    }
}

/// `prefix/ns/name/port`.
fn joined(prefix: &str, service: &QualifiedName, port: &str) -> String {
    [prefix, service.namespace.as_str(), service.name.as_str(), port].join("/")
}

fn port<'a>(mesh: &'a Mesh, service: &QualifiedName, port: &str) -> Option<(&'a Service, &'a Port)> {
    let service = mesh.services.get(service)?;
    Some((service, service.port(port)?))
}

fn planned_port<'a>(mesh: &'a Mesh, service: &QualifiedName, name: &str) -> (&'a Service, &'a Port) {
    port(mesh, service, name).expect("the plan of this mesh has the port")
}

/// Whose route the callers of this workload follow.
fn consumer(called: &Port, workload: &Workload) -> Consumer {
    called.route_for(&workload.name.namespace).map_or(Consumer::Everyone, |(consumer, _)| consumer.clone())
}

/// What the callers of this workload are, where the rules of their route tell them apart.
fn senders(called: &Port, workload: &Workload) -> Senders {
    called.route_for(&workload.name.namespace).and_then(|(_, route)| route.senders(workload))
}

/// Where the calls through one outbound listener may end, each once.
fn destinations(workload: &Workload, call: &Call, called: &Port) -> Vec<Destination> {
    if !called.protocol.is_http() {
        let route = called.tcp_route_for(&workload.name.namespace);
        let to = route.map(|route| route.destinations().cloned().collect());
        let mut destinations: Vec<Destination> = to.unwrap_or_else(|| vec![whole_port(call)]);
        destinations.sort_unstable();
        destinations.dedup();
        return destinations;
    }
    let route = called.route_for(&workload.name.namespace);
    let rules = route.iter().flat_map(|(_, route)| &route.rules).filter(|rule| rule.is_about(workload));
    let mut destinations: Vec<&Destination> = rules.flat_map(HttpRule::destinations).collect();
    destinations.sort_unstable();
    destinations.dedup();
    destinations.into_iter().cloned().collect()
}

/// All endpoints of the called port.
fn whole_port(call: &Call) -> Destination {
    Destination { service: call.service.clone(), port: call.port.clone(), labels: Default::default(), sticky: false }
}

/// The rules behind a resource, once each, in order.
fn origins<'a>(rules: impl IntoIterator<Item = &'a RuleRef>) -> Arc<[RuleRef]> {
    let mut rules: Vec<&RuleRef> = rules.into_iter().collect();
    rules.sort();
    rules.dedup();
    rules.into_iter().cloned().collect()
}
