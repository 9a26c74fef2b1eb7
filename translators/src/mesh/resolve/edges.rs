//! Edges: the sockets of gateways, on the workloads that have them.
//!
//! Owns: which listener and which routes a host belongs to, and which sockets a workload cannot have. May use:
//! `gateways`, `gateway_routes`, the workloads. Never: looks at gateways that a change does not concern.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::gateway_routes::OfGateway;
use super::gateways::{Gateway, Listener};
use super::report::Report;
use super::routes::Routing;
use super::stage::{Change, Kept};
use super::workloads::{Taken, sockets};
use crate::finding::{Code, Finding};
use crate::mesh::{
    Access, Destination, Edge, EdgeAction, EdgeCarried, EdgeChain, EdgeHosts, EdgeRedirect, EdgeTcpRule, EdgeTls,
    HostMatch, HttpRule, Inbound, Outbound, Protocol, Workload, closest,
};
use crate::name::{ObjectKey, ObjectKind, QualifiedName, RuleRef};
use crate::rules::Objects;
use crate::rules::gateway::WorkloadChoice;
use crate::suggest;

/// How the calls of a gateway's namespace to a destination are made, and what is spoken there.
pub(super) type Calls<'a> = dyn Fn(Option<&HttpRule>, &Destination) -> Option<(Protocol, Arc<Outbound>)> + 'a;

/// What policies say of a listener of a gateway.
pub(super) struct Said {
    pub access: Access,
    pub inbound: Arc<Inbound>,
}

/// What policies say of a listener of a gateway, if one is named, and of its port.
pub(super) type Policies<'a> = dyn Fn(Option<&str>, NonZeroU16) -> Said + 'a;

/// The sockets of every gateway, and who has them.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// The TrafficRoutes of each gateway, by name.
    routes: BTreeMap<QualifiedName, BTreeMap<QualifiedName, Arc<OfGateway>>>,
    /// Which gateways have routes that are led by a service.
    led_by: BTreeSet<(QualifiedName, QualifiedName)>,
    /// What there is of each gateway.
    gateways: BTreeMap<QualifiedName, Placed>,
    /// The gateways of each workload that has any.
    on: BTreeMap<QualifiedName, BTreeSet<QualifiedName>>,
    /// What cannot be had, by gateway and workload.
    left_out: BTreeMap<(QualifiedName, QualifiedName), Vec<Finding>>,
}

/// A gateway, and who has it.
#[derive(Debug, Default)]
struct Placed {
    workloads: BTreeSet<QualifiedName>,
    edges: Vec<Arc<Edge>>,
}

/// What decides about the requests to a host.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Decided {
    Redirected(EdgeRedirect),
    Misdirected,
    /// The TrafficRoutes, in the order in which they are tried.
    Routed(Vec<QualifiedName>),
}

// === impl Edges ===

impl Edges {
    /// Takes up changes of TrafficRoutes; the gateways that they are for.
    pub(super) fn follow(&mut self, changes: &[Change<Routing>]) -> BTreeSet<QualifiedName> {
        let of_gateway = |kept: &Option<Kept<Routing>>| match kept.as_ref().map(|kept| &*kept.value) {
            Some(Routing::Gateway(of)) => Some(Arc::clone(of)),
            Some(Routing::Service(_)) | None => None,
        };
        let mut concerned = BTreeSet::new();
        for change in changes.iter().filter(|change| change.is_new()) {
            if let Some(before) = of_gateway(&change.before) {
                for service in before.led_by() {
                    self.led_by.remove(&(service.clone(), before.gateway.clone()));
                }
                let routes = self.routes.get_mut(&before.gateway);
                if routes.is_some_and(|routes| routes.remove(&change.name).is_some() && routes.is_empty()) {
                    self.routes.remove(&before.gateway);
                }
                concerned.insert(before.gateway.clone());
            }
            if let Some(after) = of_gateway(&change.after) {
                concerned.insert(after.gateway.clone());
                self.routes.entry(after.gateway.clone()).or_default().insert(change.name.clone(), after);
            }
        }
        for gateway in &concerned {
            let routes = self.routes.get(gateway).into_iter().flat_map(BTreeMap::values);
            let led_by = routes.flat_map(|route| route.led_by()).cloned();
            self.led_by.extend(led_by.map(|service| (service, gateway.clone())).collect::<Vec<_>>());
        }
        concerned
    }

    /// The gateways whose routes are led by `service`.
    pub(super) fn led_by(&self, service: &QualifiedName) -> impl Iterator<Item = &QualifiedName> {
        let from = (service.clone(), QualifiedName::first_of(&crate::name::Label::first()));
        let service = service.clone();
        self.led_by.range(from..).take_while(move |(by, _)| *by == service).map(|(_, gateway)| gateway)
    }

    /// The workloads that have `gateway`.
    pub(super) fn workloads_of(&self, gateway: &QualifiedName) -> impl Iterator<Item = &QualifiedName> {
        self.gateways.get(gateway).into_iter().flat_map(|placed| &placed.workloads)
    }

    /// The gateways that `workload` has.
    pub(super) fn gateways_on(&self, workload: &QualifiedName) -> impl Iterator<Item = &QualifiedName> {
        self.on.get(workload).into_iter().flatten()
    }

    /// Whether `workload` has any gateway.
    pub(super) fn is_on(&self, workload: &QualifiedName) -> bool {
        self.on.contains_key(workload)
    }

    /// Puts a gateway together again, for `candidates`, the workloads of its namespace; those that had it or have it now.
    pub(super) fn place<'a>(
        &mut self,
        name: &QualifiedName,
        gateway: Option<&Gateway>,
        candidates: impl Iterator<Item = &'a Workload>,
        usual: &Arc<Outbound>,
        calls: &Calls<'_>,
        said: &Policies<'_>,
    ) -> BTreeSet<QualifiedName> {
        let before = self.gateways.remove(name).unwrap_or_default();
        let mut after = Placed::default();
        if let Some(gateway) = gateway {
            let chosen = candidates.filter(|workload| is_chosen(&gateway.workload, workload));
            after.workloads = chosen.map(|workload| workload.name.clone()).collect();
            let edges = gateway.sockets.iter().map(|(listen, listeners)| {
                let edge = self.edge(name, gateway, (*listen, listeners), usual, (calls, said));
                let same = before.edges.iter().find(|before| ***before == edge);
                same.cloned().unwrap_or_else(|| Arc::new(edge))
            });
            after.edges = edges.collect();
        }
        for left in before.workloads.difference(&after.workloads) {
            self.left_out.remove(&(name.clone(), left.clone()));
            let Some(gateways) = self.on.get_mut(left) else { continue };
            gateways.remove(name);
            if gateways.is_empty() {
                self.on.remove(left);
            }
        }
        for workload in &after.workloads {
            self.on.entry(workload.clone()).or_default().insert(name.clone());
        }
        let concerned = before.workloads.union(&after.workloads).cloned().collect();
        if gateway.is_some() {
            self.gateways.insert(name.clone(), after);
        }
        concerned
    }

    /// The sockets that `workload` has by its gateways; of those that collide, the one that comes first.
    pub(super) fn on(&mut self, workload: &Workload, objects: &Objects) -> Vec<Arc<Edge>> {
        let object = |name: &QualifiedName| objects.get(&ObjectKey::new(ObjectKind::EdgeGateway, name.clone()));
        let names = self.on.get(&workload.name).into_iter().flatten();
        let mut gateways: Vec<_> =
            names.filter_map(|name| Some((object(name)?, name, self.gateways.get(name)?))).collect();
        gateways.sort_by(|(one, ..), (other, ..)| one.home().cmp(&other.home()));
        let of_workload = sockets(workload).map(|(at, socket)| (format!("{} {at}", workload.origin.object), socket));
        let of_workload: Vec<(String, SocketAddr)> = of_workload.collect();
        let of_gateways = gateways.iter().flat_map(|(_, _, placed)| &placed.edges);
        let of_gateways: Vec<String> = of_gateways.map(|edge| edge.at().to_string()).collect();
        let mut texts = of_gateways.iter();
        let mut taken = Taken::default();
        of_workload.iter().for_each(|(at, socket)| taken.take((at, 0), *socket));
        let (mut edges, mut left_out) = (Vec::new(), Vec::new());
        for (object, name, placed) in gateways {
            let mut report = Report::of(object);
            for (edge, text) in placed.edges.iter().zip(texts.by_ref()) {
                match taken.colliding(edge.listen) {
                    Some(((at, _), socket)) => {
                        let message = format!("on {} {} collides with {socket} at {at}", workload.name, edge.listen);
                        report.error(Code::Conflict, &edge.at().pointer, message);
                    }
                    None => {
                        taken.take((text, 0), edge.listen);
                        edges.push(Arc::clone(edge));
                    }
                }
            }
            left_out.push(((name.clone(), workload.name.clone()), report.findings));
        }
        for (place, findings) in left_out {
            if findings.is_empty() {
                self.left_out.remove(&place);
            } else {
                self.left_out.insert(place, findings);
            }
        }
        edges.sort_by(|one, other| (&one.gateway, one.listen).cmp(&(&other.gateway, other.listen)));
        edges
    }

    /// What is wrong with a gateway where it is, `nearby` being the workloads of its namespace.
    pub(super) fn warn<'a>(
        &self,
        name: &QualifiedName,
        gateway: &Gateway,
        nearby: impl Iterator<Item = &'a QualifiedName>,
        report: &mut Report<'_>,
    ) {
        let workloads: Vec<&QualifiedName> = self.workloads_of(name).collect();
        for workload in &workloads {
            let left_out = self.left_out.get(&(name.clone(), (*workload).clone()));
            report.findings.extend(left_out.into_iter().flatten().cloned());
        }
        if !workloads.is_empty() {
            return;
        }
        match &gateway.workload {
            WorkloadChoice::Name(workload) => {
                let message = format!("there is no workload {}/{workload}", name.namespace);
                let choices: Vec<String> = nearby.map(|near| near.name.to_string()).collect();
                let finding = report.error(Code::NotFound, "/spec/workload/name", message);
                finding.hint = suggest::did_you_mean(workload.as_str(), &choices);
                finding.choices = choices;
            }
            WorkloadChoice::Labels(labels) => {
                let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                let message = format!("no workload of {} carries {}", name.namespace, labels.join(", "));
                report.warning(Code::NoEndpoints, "/spec/workload/labels", message);
            }
        }
    }

    /// One socket of a gateway.
    fn edge(
        &self,
        name: &QualifiedName,
        gateway: &Gateway,
        (listen, listeners): (SocketAddr, &Vec<Listener>),
        usual: &Arc<Outbound>,
        (calls, said): (&Calls<'_>, &Policies<'_>),
    ) -> Edge {
        let said = |listener: Option<&Listener>| {
            let port = NonZeroU16::new(listen.port()).unwrap_or(NonZeroU16::MAX);
            said(listener.map(|listener| listener.name.as_str()), port)
        };
        let nothing = BTreeMap::new();
        let routes = self.routes.get(name).unwrap_or(&nothing);
        let mut origins: BTreeSet<RuleRef> = listeners.iter().map(|listener| listener.origin.clone()).collect();
        origins.insert(gateway.origin.clone());
        let action = |decided: &Decided| match decided {
            Decided::Redirected(redirect) => EdgeAction::Redirect(*redirect),
            Decided::Misdirected => EdgeAction::Misdirected,
            Decided::Routed(names) => {
                let routes = names.iter().filter_map(|name| routes.get(name));
                EdgeAction::Rules(routes.flat_map(|route| route.rules(usual, calls)).collect())
            }
        };
        let decided = decided(listeners, routes);
        let mut chains = Vec::new();
        for end in ends(listeners) {
            let mut groups: BTreeMap<&Decided, BTreeSet<HostMatch>> = BTreeMap::new();
            for (host, (listener, decided)) in &decided {
                let is_own = end.is_none_or(|end| std::ptr::eq(end, *listener));
                groups.entry(if is_own { decided } else { &Decided::Misdirected }).or_default().insert(host.clone());
            }
            let mut hosts = Vec::new();
            for (decided, of) in groups {
                if let Decided::Routed(names) = decided {
                    origins.extend(names.iter().filter_map(|name| Some(routes.get(name)?.origin.clone())));
                }
                hosts.push(EdgeHosts { hosts: of, action: action(decided) });
            }
            hosts.sort_by(|one, other| one.hosts.cmp(&other.hosts));
            // In plaintext what is said of one is said of all of them, or of the only one.
            let only = listeners.iter().next().filter(|_| listeners.len() == 1);
            let Said { access, inbound } = said(end.or(only));
            chains.push(EdgeChain {
                access,
                inbound,
                name: end.map(|end| end.name.to_string()),
                names: end.into_iter().flat_map(|end| &end.hosts).cloned().collect(),
                tls: end.and_then(ended),
                carried: EdgeCarried::Hosts(hosts),
            });
        }
        for listener in listeners.iter().filter(|listener| !listener.takes_requests()) {
            // Whoever makes no handshake names no host.
            let own = decided.iter().filter(|(host, (of, _))| {
                std::ptr::eq(*of, listener) && (listener.is_secured() || **host == HostMatch::Any)
            });
            let mut unasked: BTreeSet<HostMatch> = own.clone().map(|(host, _)| host.clone()).collect();
            for (route, mut rule, names) in bytes(own, &decided, |route| {
                let of = routes.get(route);
                of.map(|of| of.connections(listen.port(), listener, usual, calls)).unwrap_or_default()
            }) {
                origins.extend(routes.get(&route).map(|route| route.origin.clone()));
                rule.rule.names.clear();
                unasked.retain(|host| !names.contains(host));
                let Said { access, inbound } = said(Some(listener));
                chains.push(EdgeChain {
                    access,
                    inbound,
                    name: Some(format!("{}/{}/{}", listener.name, route.name, rule.rule.name)),
                    names: if listener.is_secured() { names } else { BTreeSet::new() },
                    tls: ended(listener),
                    carried: EdgeCarried::Bytes(Box::new(rule)),
                });
            }
            // What it has no rule for is no wider listener's.
            if !unasked.is_empty() {
                let Said { access, inbound } = said(Some(listener));
                chains.push(EdgeChain {
                    access,
                    inbound,
                    name: Some(listener.name.to_string()),
                    names: if listener.is_secured() { unasked } else { BTreeSet::new() },
                    tls: None,
                    carried: EdgeCarried::Nothing,
                });
            }
        }
        let certificates = chains.iter().filter_map(|chain: &EdgeChain| Some(&chain.tls.as_ref()?.certificate));
        origins.extend(certificates.map(|certificate| certificate.origin.clone()));
        Edge { gateway: name.clone(), origins: origins.into_iter().collect(), listen, chains }
    }
}

/// The listeners by which requests come in: in plaintext all of them are one, with TLS each ends its own.
fn ends(listeners: &[Listener]) -> Vec<Option<&Listener>> {
    let mut of_requests = listeners.iter().filter(|listener| listener.takes_requests()).peekable();
    match of_requests.peek().map(|first| first.is_secured()) {
        None => Vec::new(),
        Some(true) => of_requests.map(Some).collect(),
        Some(false) => vec![None],
    }
}

/// TLS of a listener, if it ends there.
fn ended(listener: &Listener) -> Option<EdgeTls> {
    let tls = listener.tls.as_ref()?;
    Some(EdgeTls {
        listener: listener.name.to_string(),
        certificate: Arc::clone(&tls.certificate),
        min_version: tls.min_version,
        clients: tls.clients.clone(),
    })
}

/// The rules for the connections of one listener, whose hosts are `own` among those that are `decided`: each with its
/// TrafficRoute and the hosts in handshakes for which it is asked, in the order in which they are tried.
fn bytes<'a>(
    own: impl Iterator<Item = (&'a HostMatch, &'a (&'a Listener, Decided))>,
    decided: &BTreeMap<HostMatch, (&Listener, Decided)>,
    rules: impl Fn(&QualifiedName) -> Vec<EdgeTcpRule>,
) -> Vec<(QualifiedName, EdgeTcpRule, BTreeSet<HostMatch>)> {
    let mut hosts: BTreeMap<&QualifiedName, Vec<&HostMatch>> = BTreeMap::new();
    for (host, (_, decided)) in own {
        let names = match decided {
            Decided::Routed(names) => names.as_slice(),
            Decided::Redirected(_) | Decided::Misdirected => &[],
        };
        names.iter().for_each(|name| hosts.entry(name).or_default().push(host));
    }
    let mut found = Vec::new();
    for (route, hosts) in hosts {
        for rule in rules(route) {
            let mut names = BTreeSet::new();
            for host in &hosts {
                if rule.rule.names.is_empty() {
                    names.insert((*host).clone());
                }
                // Of what both are for a more specific one may have a part.
                let common = rule.rule.names.iter().filter_map(|name| host.common(name));
                names.extend(common.filter(|name| closest(name, decided.keys()) == Some(*host)).cloned());
            }
            if !names.is_empty() {
                found.push((route.clone(), rule, names));
            }
        }
    }
    found
}

/// What decides about each host of a socket that has anything of its own, and whose host it is.
fn decided<'a>(
    listeners: &'a [Listener],
    routes: &BTreeMap<QualifiedName, Arc<OfGateway>>,
) -> BTreeMap<HostMatch, (&'a Listener, Decided)> {
    let of_routes: BTreeSet<&HostMatch> = routes.values().flat_map(|route| &route.hosts).collect();
    let of_listeners = || listeners.iter().flat_map(|listener| listener.hosts.iter().map(move |host| (host, listener)));
    let mut decided = BTreeMap::new();
    for (of_listener, listener) in of_listeners() {
        let common = of_routes.iter().filter_map(|host| of_listener.common(host));
        for host in common.chain([of_listener]) {
            // A more specific listener has it.
            if closest(host, of_listeners().map(|(host, _)| host)) != Some(of_listener) {
                continue;
            }
            match (&listener.redirect, closest(host, of_routes.iter().copied())) {
                (Some(redirect), _) => {
                    decided.insert(of_listener.clone(), (listener, Decided::Redirected(*redirect)));
                }
                (None, Some(closest)) => {
                    let mut of_host: Vec<_> =
                        routes.iter().filter(|(_, route)| route.hosts.contains(closest)).collect();
                    of_host.sort_by_key(|(name, route)| (std::cmp::Reverse(route.prefix.len()), *name));
                    let names = of_host.into_iter().map(|(name, _)| name.clone()).collect();
                    decided.insert(host.clone(), (listener, Decided::Routed(names)));
                }
                (None, None) => {
                    decided.insert(host.clone(), (listener, Decided::Routed(Vec::new())));
                }
            }
        }
    }
    decided
}

/// Whether a gateway's listeners are on the proxies of `workload`.
pub(super) fn is_chosen(choice: &WorkloadChoice, workload: &Workload) -> bool {
    match choice {
        WorkloadChoice::Name(name) => workload.name.name == *name,
        WorkloadChoice::Labels(labels) => {
            !labels.is_empty() && labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
        }
    }
}
