//! The plan of a workload: which resources its proxies need, entry by entry.
//!
//! Owns: what one entry of `serves` or `calls` adds to the plan, what an entry is called, and what of a service each
//! resource reads, so that who follows a mesh as it changes builds what changed. May use: `mesh`. Never: builds a
//! resource.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::{
    EdgeSlot, Features, ResourceKey, Slot, calling, collector, consumer, destinations, endpoint, external, jwt, port,
    proxyless, senders,
};
use crate::mesh::{
    Access, Backing, Call, Destination, Edge, External, HttpMatch, HttpRoute, HttpRule, Mesh, Outbound, Port, Prefer,
    Serve, Service, Source, Vantage, Workload,
};
use crate::name::{Label, QualifiedName, RuleRef};

/// One entry of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// Of `serves`.
    Serve(&'a Serve),
    /// Of `calls`.
    Call(&'a Call),
    /// A socket of a gateway.
    Edge(&'a Edge),
}

/// What one entry adds to the plan of its workload; every list is sorted and names nothing twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contribution {
    /// The resources of this entry alone.
    pub own: Vec<ResourceKey>,
    /// The resources that other entries, also of other workloads, may need as well.
    pub shared: Vec<ResourceKey>,
    /// The services that this follows from, whether they exist or not.
    pub follows_from: Vec<QualifiedName>,
}

/// What entries of a workload need to be told apart from others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots {
    /// By their listen address.
    served_twice: BTreeSet<(QualifiedName, String)>,
    /// By their listen address.
    called_twice: BTreeSet<(QualifiedName, String)>,
    /// By their port.
    called_by_ports: BTreeSet<QualifiedName>,
}

/// What a resource is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// [`ResourceKey::Cluster`].
    Cluster,
    /// [`ResourceKey::LocalCluster`].
    LocalCluster,
    /// [`ResourceKey::Jwks`].
    Jwks,
    /// [`ResourceKey::Collector`].
    Collector,
    /// [`ResourceKey::Endpoints`].
    Endpoints,
    /// [`ResourceKey::Inbound`].
    Inbound,
    /// [`ResourceKey::Outbound`].
    Outbound,
    /// [`ResourceKey::Route`].
    Route,
    /// [`ResourceKey::Edge`], [`ResourceKey::EdgeRoute`] and [`ResourceKey::EdgeJwks`].
    Edge,
}

/// Everything that the proxies of `workload` need, secrets apart: its listeners, the routes and clusters of what
/// it calls and of where those routes lead, and the endpoints of every one of these clusters.
pub fn plan(mesh: &Mesh, workload: &Workload, features: Features) -> BTreeSet<ResourceKey> {
    let (slots, features) = (Slots::of(workload), BTreeSet::from([features]));
    let serves = workload.serves.iter().map(Entry::Serve);
    let edges = workload.edges.iter().map(|edge| Entry::Edge(edge));
    let entries = serves.chain(workload.calls.iter().map(Entry::Call)).chain(edges);
    let contributions = entries.map(|entry| contribution(mesh, workload, entry, &slots, &features));
    contributions.flat_map(|contribution| contribution.own.into_iter().chain(contribution.shared)).collect()
}

/// What `entry` adds to the plan of `workload`, for clients of all these `features`.
pub fn contribution(
    mesh: &Mesh,
    workload: &Workload,
    entry: Entry<'_>,
    slots: &Slots,
    features: &BTreeSet<Features>,
) -> Contribution {
    if let Entry::Edge(edge) = entry {
        return of_edge(mesh, workload, edge, features);
    }
    let mut added = Contribution::default();
    let Some(slot) = slots.slot(workload, entry) else { return added };
    added.follows_from.push(slot.service.clone());
    let Some((called, used)) = port(mesh, &slot.service, &slot.port) else { return added };
    let envoys = || features.iter().filter(|features| !features.client.is_proxyless());
    if envoys().next().is_some() {
        told(mesh, workload, entry, &mut added);
    }
    match entry {
        Entry::Edge(_) => {}
        Entry::Serve(_) => {
            let forms: BTreeSet<_> = envoys().map(|features| features.forms()).collect();
            added.own = forms.into_iter().map(|forms| ResourceKey::Inbound(slot.clone(), forms)).collect();
            if !added.own.is_empty() {
                let access = used.apart_of(&workload.name).map_or(&used.access, |own| &own.access);
                let access = used.protocol.is_http().then_some(access);
                let fetched = access.into_iter().flat_map(|access| jwt::fetched(access).map(|provider| &provider.name));
                added.own.extend(fetched.map(|name| ResourceKey::Jwks(slot.clone(), name.clone())));
                added.own.push(ResourceKey::LocalCluster(slot));
                for external in access.into_iter().flat_map(Access::externals) {
                    added.ask(mesh, external::destination(external), workload);
                }
            }
        }
        Entry::Call(call) => {
            // Most calls end at the port that is called: it need not be looked for.
            let known = |to: Destination| {
                let own = (&to.service, &to.port) == (&call.service, &call.port);
                let (service, reached) = if own { (called, used) } else { port(mesh, &to.service, &to.port)? };
                Some((to, service, reached))
            };
            let leads_to = destinations(workload, call, used);
            let elsewhere = leads_to.iter().filter(|destination| destination.service != call.service);
            added.follows_from.extend(elsewhere.map(|destination| destination.service.clone()));
            let leads_to = leads_to.into_iter().filter_map(known);
            let (service, port, consumer) = (call.service.clone(), call.port.clone(), consumer(used, workload));
            let senders = senders(used, workload);
            let clients: BTreeSet<_> = features.iter().map(|features| features.client).collect();
            if clients.iter().any(|client| client.is_proxyless()) {
                let is_only = slots.is_only_port(&call.service);
                let keys = proxyless::contribution(
                    mesh,
                    call,
                    used,
                    (&consumer, &senders),
                    is_only,
                    leads_to.clone().map(|(to, _, reached)| (to, vantage(reached, workload))),
                    &clients,
                );
                added.shared.extend(keys.map(ResourceKey::Proxyless));
            }
            if envoys().next().is_some() {
                for (destination, service, reached) in leads_to {
                    added.reach(destination, (service, reached), workload);
                }
                if used.protocol.is_http() {
                    added.shared.push(ResourceKey::Route { service, port, consumer, senders });
                }
                if mesh.telemetry_of_calls(workload).logs_by_otlp() {
                    let forms: BTreeSet<_> = envoys().map(|features| features.forms().otlp_logs).collect();
                    added.own.extend(forms.into_iter().map(|form| ResourceKey::Outbound(slot.clone(), Some(form))));
                } else {
                    added.own.push(ResourceKey::Outbound(slot, None));
                }
            }
        }
    }
    added.ordered()
}

/// What an entry needs to tell providers what is said of its requests.
fn told(mesh: &Mesh, workload: &Workload, entry: Entry<'_>, added: &mut Contribution) {
    let telemetry = match entry {
        Entry::Serve(serve) => mesh.telemetry_of_serve(workload, serve),
        Entry::Call(_) => mesh.telemetry_of_calls(workload),
        Entry::Edge(_) => return,
    };
    for collector in telemetry.collectors() {
        match collector::destination(collector) {
            Some(to) => {
                added.ask(mesh, to, workload);
            }
            None if mesh.telemetry_providers.contains_key(&collector.provider.name) => {
                added.shared.extend(collector::collector_key(&collector.provider));
            }
            None => {}
        }
    }
}

/// A gateway needs no calls: its routes bring their destinations.
fn of_edge(mesh: &Mesh, workload: &Workload, edge: &Edge, features: &BTreeSet<Features>) -> Contribution {
    let destinations = edge.destinations();
    let follows_from = destinations.iter().map(|to| to.service.clone()).collect();
    let mut added = Contribution { follows_from, ..Contribution::default() };
    if features.iter().any(|features| !features.client.is_proxyless()) {
        let asked = edge.chains.iter().flat_map(|chain| chain.access.externals());
        asked.for_each(|external| added.ask(mesh, external::destination(external), workload));
        let slot = EdgeSlot::of(workload, edge);
        for chain in edge.chains.iter().filter(|chain| chain.hosts().is_some()) {
            added.own.push(ResourceKey::EdgeRoute(slot.clone(), chain.name.clone()));
            let key = |provider: &crate::mesh::JwtProvider| ResourceKey::EdgeJwks(slot.clone(), provider.name.clone());
            added.own.extend(jwt::fetched(&chain.access).map(key));
        }
        added.own.push(ResourceKey::Edge(slot));
        for destination in destinations {
            let Some(reached) = port(mesh, &destination.service, &destination.port) else { continue };
            added.reach(destination.clone(), reached, workload);
        }
    }
    added.ordered()
}

/// From where `workload` sees the endpoints of a port, where that makes a difference.
fn vantage(reached: &Port, workload: &Workload) -> Option<Arc<Vantage>> {
    let namespace = &workload.name.namespace;
    let (consumer, calls) = match reached.outbound_of.get_key_value(namespace) {
        Some((consumer, calls)) => (Some(consumer), calls),
        None => (None, &reached.outbound),
    };
    calls.locality.vantage(consumer, workload.locality.as_deref()).map(Arc::new)
}

/// Whether no plan can tell the two forms of a service apart.
pub fn plans_alike(former: &Service, next: &Service) -> bool {
    let leads_to = |port: &Port| -> Vec<_> {
        // Who is led there: nobody told apart, for most.
        type Led = BTreeSet<(Vec<Option<BTreeSet<Source>>>, Option<Destination>)>;
        let led = |route: &HttpRoute| -> Led {
            let of_rule = |rule: &HttpRule| {
                let is_told = rule.sources().next().is_some();
                let of_one = |one: &HttpMatch| one.from.as_deref().cloned();
                let who: Vec<_> = rule.matches.iter().filter(|_| is_told).map(of_one).collect();
                let to = rule.destinations().map(|to| Some(to.clone()));
                to.chain(is_told.then_some(None)).map(|to| (who.clone(), to)).collect::<Vec<_>>()
            };
            route.rules.iter().flat_map(of_rule).collect()
        };
        port.routes.iter().map(|(consumer, route)| (consumer.clone(), led(route))).collect()
    };
    // The keys to fetch, and whom to ask.
    let brought = |access: &Access| -> (Vec<String>, Vec<External>) {
        let fetched = jwt::fetched(access).map(|provider| provider.name.clone());
        (fetched.collect(), access.externals().into_iter().cloned().collect())
    };
    let brought = |port: &Port| -> Vec<_> {
        let apart = port.apart().map(|(workload, own)| (Some(workload.clone()), brought(&own.access)));
        [(None, brought(&port.access))].into_iter().chain(apart).collect()
    };
    former.ports.len() == next.ports.len()
        && endpoint::is_listed(former) == endpoint::is_listed(next)
        && former.ports.iter().zip(&next.ports).all(|(former, next)| {
            (&former.name, former.number, former.protocol) == (&next.name, next.number, next.protocol)
                && former.outbound_of.keys().eq(next.outbound_of.keys())
                && preferred(former).eq(preferred(next))
                && former.tcp_routes == next.tcp_routes
                && (former.routes == next.routes || leads_to(former) == leads_to(next))
                && ((&former.access, &former.apart) == (&next.access, &next.apart) || brought(former) == brought(next))
        })
}

/// Whether the resource of `key` says the same for both forms of its service: it reads nothing in which they differ.
pub fn reads_alike(key: &ResourceKey, former: &Service, next: &Service) -> bool {
    match key {
        ResourceKey::Route { port, consumer, .. } => ports(former, next, port).is_some_and(|(a, b)| {
            (&former.origin, a.protocol, a.routes.get(consumer)) == (&next.origin, b.protocol, b.routes.get(consumer))
                && calls(a) == calls(b)
        }),
        ResourceKey::Cluster(to) | ResourceKey::ConsumerCluster(to, _) => {
            parts_alike(key.part(), &to.port, former, next)
        }
        ResourceKey::Endpoints(to, from) => endpoints_alike(to, from.as_deref(), former, next),
        ResourceKey::LocalCluster(slot)
        | ResourceKey::Jwks(slot, _)
        | ResourceKey::Inbound(slot, _)
        | ResourceKey::Outbound(slot, _) => parts_alike(key.part(), &slot.port, former, next),
        // They are about no service, though one might be called the same.
        ResourceKey::Collector(_) => true,
        ResourceKey::Edge(_) | ResourceKey::EdgeRoute(..) | ResourceKey::EdgeJwks(..) => true,
        ResourceKey::Proxyless(key) => key.reads_alike(former, next),
    }
}

/// Whether the endpoints of a destination are the same in both forms of its service, seen from one place.
pub(super) fn endpoints_alike(to: &Destination, from: Option<&Vantage>, former: &Service, next: &Service) -> bool {
    let ranked = |service: &Service| Some(endpoint::nearness(service.port(&to.port)?, from?).clone());
    parts_alike(Part::Endpoints, &to.port, former, next) && ranked(former) == ranked(next)
}

/// Whether what `part` reads of the port called `port` is the same in both forms of its service.
pub fn parts_alike(part: Part, port: &str, former: &Service, next: &Service) -> bool {
    let Some((a, b)) = ports(former, next, port) else { return false };
    former.origin == next.origin
        && a.protocol == b.protocol
        && match part {
            Part::Cluster => {
                let of_workloads = |service: &Service| matches!(service.backing, Backing::Workloads(_));
                let named = |service: &Service| endpoint::is_listed(service) || former.backing == next.backing;
                (&a.mtls, &a.apart, &former.identities, &former.outside)
                    == (&b.mtls, &b.apart, &next.identities, &next.outside)
                    && (a.apart.is_none() || former.backing == next.backing)
                    && calls(a) == calls(b)
                    && named(former)
                    && named(next)
                    && of_workloads(former) == of_workloads(next)
            }
            Part::LocalCluster => a.inbound.buffer_limit == b.inbound.buffer_limit && a.apart == b.apart,
            Part::Collector => true,
            Part::Jwks => (&a.access, &a.apart) == (&b.access, &b.apart),
            Part::Endpoints => {
                (&a.mtls, a.callers_use_mtls, &a.apart, &former.backing)
                    == (&b.mtls, b.callers_use_mtls, &b.apart, &next.backing)
            }
            Part::Inbound => {
                (a.server_first, &a.mtls, &a.access, &a.inbound, &a.apart)
                    == (b.server_first, &b.mtls, &b.access, &b.inbound, &b.apart)
            }
            Part::Outbound => {
                a.routes.keys().eq(b.routes.keys())
                    && a.tcp_routes == b.tcp_routes
                    && (a.protocol.is_http() || calls(a) == calls(b))
                    && tell_callers(a).eq(tell_callers(b))
            }
            Part::Route => a.routes == b.routes && calls(a) == calls(b),
            // What it says of services stands in it.
            Part::Edge => true,
        }
}

/// Which endpoints the callers of a port prefer.
fn preferred(port: &Port) -> impl Iterator<Item = Prefer> {
    [&port.outbound].into_iter().chain(port.outbound_of.values()).map(|calls| calls.locality.prefer.value)
}

/// Which callers of a port are told apart by who they are; all of them, if any is.
fn tell_callers(port: &Port) -> impl Iterator<Item = (Option<&Label>, Option<Option<&RuleRef>>)> {
    let of_namespaces = port.outbound_of.iter().map(|(namespace, calls)| (Some(namespace), calls));
    let all = [(None, &port.outbound)].into_iter().chain(of_namespaces);
    let any = all.clone().any(|(_, calls)| calling::by_caller(calls));
    all.filter(move |_| any).map(|(of, calls)| (of, calling::by_caller(calls).then(|| calls.hash_on.origin.as_ref())))
}

/// How all callers of a port make their calls.
fn calls(port: &Port) -> (&Arc<Outbound>, &BTreeMap<Label, Arc<Outbound>>) {
    (&port.outbound, &port.outbound_of)
}

pub(super) fn ports<'a>(former: &'a Service, next: &'a Service, name: &str) -> Option<(&'a Port, &'a Port)> {
    Some((former.port(name)?, next.port(name)?))
}

// === impl Contribution ===

impl Contribution {
    /// Adds how `workload` reaches `destination`, which is a part of this port of this service.
    fn reach(&mut self, destination: Destination, (service, port): (&Service, &Port), workload: &Workload) {
        let namespace = &workload.name.namespace;
        self.shared.push(match port.outbound_of.contains_key(namespace) {
            true => ResourceKey::ConsumerCluster(destination.clone(), namespace.clone()),
            false => ResourceKey::Cluster(destination.clone()),
        });
        if endpoint::is_told(service, &destination) {
            self.shared.push(ResourceKey::Endpoints(destination, vantage(port, workload)));
        }
    }

    /// Adds how `workload` asks `to`. Resolution refuses rules that ask what is nowhere.
    fn ask(&mut self, mesh: &Mesh, to: Destination, workload: &Workload) {
        self.follows_from.push(to.service.clone());
        if let Some(reached) = port(mesh, &to.service, &to.port) {
            self.reach(to, reached, workload);
        }
    }

    fn ordered(mut self) -> Self {
        self.own.sort_unstable();
        self.own.dedup();
        self.shared.sort_unstable();
        self.shared.dedup();
        self.follows_from.sort_unstable();
        self.follows_from.dedup();
        self
    }
}

// === impl Entry ===

impl<'a> Entry<'a> {
    /// The service and the name of its port, where it is about one.
    pub fn port(self) -> Option<(&'a QualifiedName, &'a str)> {
        match self {
            Entry::Serve(serve) => Some((&serve.service, &serve.port)),
            Entry::Call(call) => Some((&call.service, &call.port)),
            Entry::Edge(_) => None,
        }
    }

    fn listen(self) -> SocketAddr {
        match self {
            Entry::Serve(serve) => serve.listen,
            Entry::Call(call) => call.listen,
            Entry::Edge(edge) => edge.listen,
        }
    }
}

// === impl Slots ===

impl Slots {
    /// Of a workload none of whose entries needs its address.
    pub const NONE_TWICE: &Self =
        &Self { served_twice: BTreeSet::new(), called_twice: BTreeSet::new(), called_by_ports: BTreeSet::new() };

    /// The slots of `workload`.
    pub fn of(workload: &Workload) -> Self {
        Self {
            served_twice: twice(workload.serves.iter().map(Entry::Serve)),
            called_twice: twice(workload.calls.iter().map(Entry::Call)),
            called_by_ports: by_several_ports(workload.calls.iter()),
        }
    }

    /// Whether the workload calls no more than one port of `service`.
    pub fn is_only_port(&self, service: &QualifiedName) -> bool {
        !self.called_by_ports.contains(service)
    }

    /// The slot of an entry of `workload`, where it is about a port.
    pub fn slot(&self, workload: &Workload, entry: Entry<'_>) -> Option<Slot> {
        let (service, port) = entry.port()?;
        Some(Slot {
            workload: workload.name.clone(),
            service: service.clone(),
            port: port.to_owned(),
            listen: self.listen(entry),
        })
    }

    /// The listen address of an entry, where that alone tells it from another.
    pub fn listen(&self, entry: Entry<'_>) -> Option<SocketAddr> {
        let twice = match entry {
            Entry::Serve(_) => &self.served_twice,
            Entry::Call(_) => &self.called_twice,
            Entry::Edge(_) => return None,
        };
        let (service, port) = entry.port()?;
        let ambiguous = !twice.is_empty() && twice.contains(&(service.clone(), port.to_owned()));
        ambiguous.then(|| entry.listen())
    }
}

fn twice<'a>(entries: impl Iterator<Item = Entry<'a>>) -> BTreeSet<(QualifiedName, String)> {
    let mut ports: Vec<_> = entries.filter_map(Entry::port).collect();
    ports.sort();
    let again = ports.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
    again.map(|(service, port)| (service.clone(), port.to_owned())).collect()
}

/// The services that are called by more than one port.
fn by_several_ports<'a>(calls: impl Iterator<Item = &'a Call>) -> BTreeSet<QualifiedName> {
    let ports: BTreeSet<(&QualifiedName, &str)> = calls.map(|call| (&call.service, call.port.as_str())).collect();
    let services: Vec<&QualifiedName> = ports.into_iter().map(|(service, _)| service).collect();
    services.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone()).collect()
}

// === impl ResourceKey ===

impl ResourceKey {
    /// What the resource is there for.
    pub fn part(&self) -> Part {
        match self {
            Self::Cluster(_) | Self::ConsumerCluster(..) => Part::Cluster,
            Self::LocalCluster(_) => Part::LocalCluster,
            Self::Jwks(..) => Part::Jwks,
            Self::Endpoints(..) => Part::Endpoints,
            Self::Inbound(..) => Part::Inbound,
            Self::Outbound(..) => Part::Outbound,
            Self::Collector(_) => Part::Collector,
            Self::Route { .. } => Part::Route,
            Self::Edge(_) | Self::EdgeRoute(..) | Self::EdgeJwks(..) => Part::Edge,
            Self::Proxyless(key) => key.part(),
        }
    }

    /// The service that the resource is about; for a provider of telemetry, its own name. Those of gateways are about none,
    /// and never shared.
    pub fn service(&self) -> Option<&QualifiedName> {
        Some(match self {
            Self::Cluster(destination) | Self::ConsumerCluster(destination, _) | Self::Endpoints(destination, _) => {
                &destination.service
            }
            Self::LocalCluster(slot) | Self::Jwks(slot, _) | Self::Inbound(slot, _) | Self::Outbound(slot, _) => {
                &slot.service
            }
            Self::Collector(provider) => provider,
            Self::Route { service, .. } => service,
            Self::Edge(_) | Self::EdgeRoute(..) | Self::EdgeJwks(..) => return None,
            Self::Proxyless(key) => key.service(),
        })
    }
}
