//! Endpoints: where a destination is.
//!
//! Owns: which instances are endpoints, and which of them are reached by mTLS. May use: `mesh`. Never: anything
//! else of the translation: an endpoint change touches this resource alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::endpoint::v3 as endpoint_pb;

use super::{Slot, cluster_name, origins, port, wire};
use crate::mesh::{Backing, Destination, Instance, Mesh, MtlsMode, Serving, StaticEndpoint};
use crate::resource::{Kind, Resource};

/// The key of an endpoint's metadata that clusters choose its transport by.
pub(super) const MTLS: &str = "mtls";

/// Where `destination` is, given the connected proxies.
pub fn endpoints(mesh: &Mesh, destination: &Destination, instances: &[Instance]) -> Resource {
    let name = cluster_name(destination);
    let Some((service, port)) = port(mesh, &destination.service, &destination.port) else {
        return Resource::new(Kind::Endpoints, name.clone(), &assignment(name, Vec::new()), []);
    };
    let mode = port.mtls.value;
    let endpoints = match &service.backing {
        Backing::Workloads(servings) => connected(servings, destination, mode, instances),
        Backing::Static(endpoints) => listed(endpoints, destination, mode),
    };
    let origins = origins(port.mtls.origin.iter().chain([&service.origin]));
    Resource::new(Kind::Endpoints, name.clone(), &assignment(name, endpoints), origins)
}

/// An instance is an endpoint once it has accepted the listener and, where callers come by mTLS, can answer so.
fn connected(
    servings: &[Serving],
    destination: &Destination,
    mode: MtlsMode,
    instances: &[Instance],
) -> Vec<endpoint_pb::LbEndpoint> {
    let mtls = mode != MtlsMode::Disabled;
    let mut found = BTreeMap::new();
    for serving in servings.iter().filter(|s| s.port == destination.port && carries(&s.labels, destination)) {
        let listener = listener_name(servings, serving, destination);
        for instance in instances.iter().filter(|instance| {
            instance.workload == serving.workload
                && instance.listeners.contains(&listener)
                && (!mtls || instance.has_certificate)
        }) {
            let listen = serving.listen;
            let ip = if listen.ip().is_unspecified() { instance.address } else { listen.ip() };
            found.insert(SocketAddr::new(ip, listen.port()), 1);
        }
    }
    found.into_iter().map(|(address, weight)| endpoint(address, weight, mtls)).collect()
}

/// Nothing is known of what stands behind a listed address, so it is reached by mTLS only where nothing else is
/// allowed.
fn listed(endpoints: &[StaticEndpoint], destination: &Destination, mode: MtlsMode) -> Vec<endpoint_pb::LbEndpoint> {
    let mtls = mode == MtlsMode::Strict;
    let mut found = BTreeMap::<_, u32>::new();
    for listed in endpoints.iter().filter(|listed| listed.weight > 0 && carries(&listed.labels, destination)) {
        if let Some(port) = listed.ports.get(&destination.port) {
            let weight = found.entry(SocketAddr::new(listed.address, port.get())).or_default();
            *weight = weight.saturating_add(listed.weight);
        }
    }
    found.into_iter().map(|(address, weight)| endpoint(address, weight, mtls)).collect()
}

fn carries(labels: &BTreeMap<String, String>, destination: &Destination) -> bool {
    destination.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The name of the inbound listener behind a serving.
fn listener_name(servings: &[Serving], serving: &Serving, destination: &Destination) -> String {
    let same = |other: &&Serving| other.workload == serving.workload && other.port == serving.port;
    let twice = servings.iter().filter(same).count() > 1;
    let listen = twice.then_some(serving.listen);
    Slot::new(&serving.workload, &destination.service, &serving.port, listen).name("in")
}

fn assignment(cluster_name: String, lb_endpoints: Vec<endpoint_pb::LbEndpoint>) -> endpoint_pb::ClusterLoadAssignment {
    let locality = endpoint_pb::LocalityLbEndpoints { lb_endpoints, ..Default::default() };
    let endpoints = if locality.lb_endpoints.is_empty() { Vec::new() } else { vec![locality] };
    endpoint_pb::ClusterLoadAssignment { cluster_name, endpoints, ..Default::default() }
}

fn endpoint(address: SocketAddr, weight: u32, mtls: bool) -> endpoint_pb::LbEndpoint {
    let mtls_metadata = || core_pb::Metadata {
        filter_metadata: [("envoy.transport_socket_match".to_owned(), wire::member(MTLS, "true"))].into(),
        ..Default::default()
    };
    endpoint_pb::LbEndpoint {
        load_balancing_weight: Some(wire::number(weight)),
        metadata: mtls.then(mtls_metadata),
        ..at(address)
    }
}

/// An endpoint at `address` with nothing said about it.
pub(super) fn at(address: SocketAddr) -> endpoint_pb::LbEndpoint {
    let endpoint = endpoint_pb::Endpoint { address: Some(wire::address(address)), ..Default::default() };
    endpoint_pb::LbEndpoint {
        host_identifier: Some(endpoint_pb::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..Default::default()
    }
}
