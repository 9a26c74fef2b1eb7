//! Workloads: who they are, what they serve and call.
//!
//! Owns: identities, and which addresses collide. May use: `rules`, `services`. Never: knows a policy.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::claims::Claim;
use super::nearness;
use super::report::Report;
use super::services::Services;
use crate::finding::Code;
use crate::mesh::{Call, NodeMatch, Serve, Workload};
use crate::name::{QualifiedName, SpiffeId, TrustDomain};
use crate::rules::workload::{MatchSpec, WorkloadSpec};

/// The workload that `spec` describes.
pub(super) fn workload(
    spec: &WorkloadSpec,
    trust_domain: &TrustDomain,
    services: &Services,
    report: &mut Report<'_>,
) -> Workload {
    let name = report.object.key.name.clone();
    let workload = Workload {
        origin: report.origin(""),
        identity: identity(spec, trust_domain, &name, report),
        labels: spec.labels.clone(),
        locality: nearness::locality(spec.locality.as_ref(), || "/spec/locality".to_owned(), None, report),
        matches: spec.matches.as_ref().map(|written| node_match(written, report)),
        serves: serves(spec, &name, services, report),
        calls: calls(spec, &name, services, report),
        edges: Vec::new(),
        name,
    };
    addresses_differ(spec, report);
    workload
}

fn identity(
    spec: &WorkloadSpec,
    trust_domain: &TrustDomain,
    name: &QualifiedName,
    report: &mut Report<'_>,
) -> SpiffeId {
    let Some(identity) = &spec.identity else {
        return SpiffeId::of_workload(trust_domain, name);
    };
    if identity.trust_domain() != trust_domain.as_str() {
        let message = format!("the identity belongs to another trust domain than {trust_domain}");
        let hint = format!("write spiffe://{trust_domain}/...");
        report.error(Code::InvalidValue, "/spec/identity", message).hint = Some(hint);
    }
    identity.clone()
}

/// Which nodes are meant.
pub(super) fn node_match(written: &MatchSpec, report: &mut Report<'_>) -> NodeMatch {
    let matches = NodeMatch {
        node_id: written.node_id.clone(),
        node_cluster: written.node_cluster.clone(),
        metadata: written.metadata.clone(),
    };
    if matches.node_id.is_none() && matches.node_cluster.is_none() && matches.metadata.is_empty() {
        let finding = report.error(Code::InvalidValue, "/spec/match", "an empty match would take every node");
        finding.choices = ["nodeId", "nodeCluster", "metadata"].map(str::to_owned).to_vec();
    }
    matches
}

fn serves(spec: &WorkloadSpec, name: &QualifiedName, services: &Services, report: &mut Report<'_>) -> Vec<Serve> {
    let mut serves: Vec<Serve> = Vec::new();
    for (index, written) in spec.serves.iter().enumerate() {
        let at = format!("/spec/serves/{index}");
        let service = written.service.within(&name.namespace);
        if service.namespace != name.namespace {
            let message = format!("a workload of {} cannot serve {service}", name.namespace);
            let hint = format!("write the Workload in the namespace {}", service.namespace);
            report.error(Code::Foreign, format!("{at}/service"), message).hint = Some(hint);
            continue;
        }
        let Some(declared) = services.service(&service, format_args!("{at}/service"), report) else { continue };
        let Some(port) = declared.port(written.port.as_ref(), format_args!("{at}/port"), report) else { continue };
        if serves.iter().any(|other| other.service == service && other.port == port.name) {
            report.error(Code::Conflict, at, format!("{service} {} is served twice", port.name));
            continue;
        }
        serves.push(Serve {
            origin: report.origin(at),
            service,
            port: port.name.clone(),
            listen: written.listen.0,
            app: written.app.0,
        });
    }
    serves
}

fn calls(spec: &WorkloadSpec, name: &QualifiedName, services: &Services, report: &mut Report<'_>) -> Vec<Call> {
    let mut calls = Vec::new();
    for (index, written) in spec.calls.iter().enumerate() {
        let at = format!("/spec/calls/{index}");
        let service = written.service.within(&name.namespace);
        let Some(declared) = services.service(&service, format_args!("{at}/service"), report) else { continue };
        let Some(port) = declared.port(written.port.as_ref(), format_args!("{at}/port"), report) else { continue };
        calls.push(Call { origin: report.origin(at), service, port: port.name.clone(), listen: written.listen.0 });
    }
    calls
}

/// No two listeners on one address, and no application where its own proxy listens.
fn addresses_differ(spec: &WorkloadSpec, report: &mut Report<'_>) {
    let serves = spec.serves.iter().enumerate().map(|(n, serve)| (("serves", n), serve.listen.0));
    let calls = spec.calls.iter().enumerate().map(|(n, call)| (("calls", n), call.listen.0));
    let mut taken = Taken::default();
    for ((list, index), address) in serves.chain(calls) {
        match taken.colliding(address) {
            Some(((first, n), other)) => {
                let message = format!("{address} collides with {other} at /spec/{first}/{n}/listen");
                report.error(Code::Conflict, format!("/spec/{list}/{index}/listen"), message);
            }
            None => taken.take((list, index), address),
        }
    }
    for (index, serve) in spec.serves.iter().enumerate() {
        if let Some(((list, n), address)) = taken.colliding(serve.app.0) {
            let message = format!("the proxy itself listens on {address} at /spec/{list}/{n}/listen");
            report.error(Code::Conflict, format!("/spec/serves/{index}/app"), message);
        }
    }
}

/// The sockets of the listeners that a workload has by itself, and where its object says so.
pub(super) fn sockets(workload: &Workload) -> impl Iterator<Item = (String, SocketAddr)> {
    let serves = workload.serves.iter().map(|serve| (format!("{}/listen", serve.origin.pointer), serve.listen));
    let apps = workload.serves.iter().map(|serve| (format!("{}/app", serve.origin.pointer), serve.app));
    let calls = workload.calls.iter().map(|call| (format!("{}/listen", call.origin.pointer), call.listen));
    serves.chain(apps).chain(calls)
}

/// The sockets of a workload's listeners, none of which collide.
#[derive(Default)]
pub(super) struct Taken<'a> {
    /// In the order in which they are written.
    sockets: Vec<((&'a str, usize), SocketAddr)>,
    /// The first one that an address collides with: the address itself, or a wildcard for those that it covers.
    first: BTreeMap<SocketAddr, usize>,
}

// === impl Taken ===

impl<'a> Taken<'a> {
    /// The first socket that cannot be bound together with `address`.
    pub(super) fn colliding(&self, address: SocketAddr) -> Option<((&'a str, usize), SocketAddr)> {
        let collides = |ip: IpAddr| self.first.get(&SocketAddr::new(ip, address.port())).copied();
        let first = [address.ip()].into_iter().chain(wildcards(address.ip())).filter_map(collides);
        let first = first.filter(|at| collide(self.sockets[*at].1, address)).min()?;
        Some(self.sockets[first])
    }

    pub(super) fn take(&mut self, place: (&'a str, usize), address: SocketAddr) {
        for ip in [address.ip()].into_iter().chain(wildcards(address.ip())) {
            self.first.entry(SocketAddr::new(ip, address.port())).or_insert(self.sockets.len());
        }
        self.sockets.push((place, address));
    }
}

/// The wildcard addresses that cover an address.
fn wildcards(ip: IpAddr) -> impl Iterator<Item = IpAddr> {
    let v4 = ip.is_ipv4().then_some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    v4.into_iter().chain([IpAddr::V6(Ipv6Addr::UNSPECIFIED)])
}

/// Whether two sockets cannot be bound together.
fn collide(left: SocketAddr, right: SocketAddr) -> bool {
    let covers = |wide: IpAddr, other: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || other.is_ipv4());
    left.port() == right.port()
        && (left.ip() == right.ip() || covers(left.ip(), right.ip()) || covers(right.ip(), left.ip()))
}

/// The node match, when it names exactly one node id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ExactNode {
    id: String,
    cluster: Option<String>,
    metadata: BTreeMap<String, String>,
}

// === impl ExactNode ===

impl Claim for ExactNode {
    const POINTER: &'static str = "/spec/match";
    const WHY: &'static str = "matches the same node";
}

impl ExactNode {
    /// The one node that `workload` takes.
    pub(super) fn of(workload: &Workload) -> Option<Self> {
        let NodeMatch { node_id, node_cluster, metadata } = workload.matches.as_ref()?;
        let id = node_id.clone().filter(|id| !id.contains('*'))?;
        Some(Self { id, cluster: node_cluster.clone(), metadata: metadata.clone() })
    }
}
