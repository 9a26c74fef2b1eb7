//! Endpoints: where a destination is.
//!
//! Owns: which instances are endpoints, their priorities, and which of them are reached by mTLS. May use: `mesh`. Never: anything
//! else of the translation: an endpoint change touches this resource alone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use prost::Message;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::endpoint::v3 as endpoint_pb;

use super::cluster::modes;
use super::raw::Raw;
use super::{Client, Slot, cluster_name, origins, port, wire};
use crate::mesh::{
    Backing, Destination, Instance, Instances, Locality, Mesh, MtlsMode, Nearness, Port, Service, Serving,
    StaticEndpoint, Vantage, instances_of,
};
use crate::name::QualifiedName;
use crate::resource::{Kind, Resource};

/// The key of an endpoint's metadata that clusters choose its transport by.
pub(super) const MTLS: &str = "mtls";

/// As many bytes as most endpoints take.
const ENDPOINT_BYTES: usize = 64;

/// The metadata of an endpoint that is reached by mTLS, as its field of the endpoint.
static MTLS_METADATA: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let metadata = core_pb::Metadata {
        filter_metadata: [("envoy.transport_socket_match".to_owned(), wire::member(MTLS, "true"))].into(),
        ..Default::default()
    };
    endpoint_pb::LbEndpoint { metadata: Some(metadata), ..Default::default() }.encode_to_vec()
});

/// The fields of a locality that gRPC wants to see, though there is but one: its name and its share.
static GRPC_LOCALITY: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let name = endpoint_pb::LocalityLbEndpoints { locality: Some(core_pb::Locality::default()), ..Default::default() };
    let share = endpoint_pb::LocalityLbEndpoints { load_balancing_weight: Some(wire::number(1)), ..Default::default() };
    [name, share].map(|locality| locality.encode_to_vec())
});

/// Whether callers are told where a service is; otherwise they ask a name server.
pub(super) fn is_listed(service: &Service) -> bool {
    !matches!(service.backing, Backing::Dns(_))
}

/// Whether callers are told where `destination` is: a name server knows nothing of labels.
pub(super) fn is_told(service: &Service, destination: &Destination) -> bool {
    is_listed(service) || !destination.labels.is_empty()
}

/// One endpoint.
#[derive(Debug, Clone, Copy)]
struct Found<'a> {
    address: SocketAddr,
    weight: u32,
    locality: Option<&'a Arc<Locality>>,
    /// Whether it is reached by mTLS.
    mtls: bool,
}

/// How callers at one place rank endpoints.
type Ranking<'a> = (&'a Nearness, Option<&'a Locality>);

/// How callers rank the endpoints of a port.
pub(super) fn nearness<'a>(port: &'a Port, from: &Vantage) -> &'a Nearness {
    let calls = from.consumer.as_ref().map_or(&port.outbound, |consumer| port.outbound_for(consumer));
    &calls.locality
}

/// Where `destination` is as callers see it `from` one place, given the connected proxies.
pub(super) fn endpoints(
    mesh: &Mesh,
    destination: &Destination,
    from: Option<&Vantage>,
    instances: &Instances,
    client: Client,
) -> Resource {
    let name = cluster_name(destination);
    let Some((service, port)) = port(mesh, &destination.service, &destination.port) else {
        let nowhere = assignment(&name, &[], None, client);
        return Resource::from_bytes(Kind::Endpoints, name.into(), &nowhere, [].into());
    };
    let found = match &service.backing {
        Backing::Workloads(servings) => connected(servings, destination, port, instances),
        Backing::Static(endpoints) => listed(endpoints, destination, port.mtls.value == MtlsMode::Strict),
        // No address of a name carries a label; without one, proxies ask for them.
        Backing::Dns(_) => Vec::new(),
    };
    let ranking = from.map(|from| (nearness(port, from), from.place.as_ref()));
    let value = assignment(&name, &found, ranking, client);
    let rules = modes(port).chain([&service.origin]);
    let origins = origins(rules.chain(ranking.into_iter().flat_map(|(nearness, _)| nearness.origins())));
    Resource::from_bytes(Kind::Endpoints, name.into(), &value, origins)
}

/// An instance is an endpoint once it has accepted the listener and, where callers come by mTLS, can answer so.
fn connected<'a>(
    servings: &'a [Serving],
    destination: &Destination,
    port: &Port,
    instances: &Instances,
) -> Vec<Found<'a>> {
    let mut found = BTreeMap::new();
    let mut listeners: BTreeMap<&QualifiedName, u32> = BTreeMap::new();
    for serving in servings.iter().filter(|s| s.port == destination.port) {
        *listeners.entry(&serving.workload).or_default() += 1;
    }
    for serving in servings.iter().filter(|s| s.port == destination.port && carries(&s.labels, destination)) {
        let (mode, callers_use_mtls) = port.mode_of(&serving.workload);
        let mtls = mode != MtlsMode::Disabled && callers_use_mtls;
        let twice = listeners.get(&serving.workload).is_some_and(|listeners| *listeners > 1);
        let listen = twice.then_some(serving.listen);
        let listener = Slot::new(&serving.workload, &destination.service, &serving.port, listen).name("in");
        let answers =
            |instance: &&Arc<Instance>| instance.listeners.contains(&listener) && (!mtls || instance.has_certificate);
        for instance in instances_of(instances, &serving.workload).filter(answers) {
            let listen = serving.listen;
            let ip = if listen.ip().is_unspecified() { instance.address } else { listen.ip() };
            let address = SocketAddr::new(ip, listen.port());
            found.insert(address, Found { address, weight: 1, locality: serving.locality.as_ref(), mtls });
        }
    }
    found.into_values().collect()
}

/// Nothing is known of what stands behind a listed address, so it is reached by mTLS only where nothing else is
/// allowed.
fn listed<'a>(endpoints: &'a [StaticEndpoint], destination: &Destination, mtls: bool) -> Vec<Found<'a>> {
    let counts = endpoints.iter().filter(|listed| listed.weight > 0 && carries(&listed.labels, destination));
    let mut found = Vec::with_capacity(endpoints.len());
    found.extend(counts.filter_map(|listed| {
        let port = listed.ports.get(&destination.port)?;
        let address = SocketAddr::new(listed.address, port.get());
        Some(Found { address, weight: listed.weight, locality: listed.locality.as_ref(), mtls })
    }));
    found.sort_by_key(|found| found.address);
    found.dedup_by(|one, same| {
        let again = one.address == same.address;
        if again {
            same.weight = same.weight.saturating_add(one.weight);
        }
        again
    });
    found
}

fn carries(labels: &BTreeMap<String, String>, destination: &Destination) -> bool {
    destination.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A load assignment; each address is there once. A gRPC client has one transport for all of them.
fn assignment(cluster_name: &str, endpoints: &[Found<'_>], ranking: Option<Ranking<'_>>, client: Client) -> Vec<u8> {
    let is_proxyless = client.is_proxyless();
    let by_mtls = |found: &Found<'_>| found.mtls && !is_proxyless;
    let each = ENDPOINT_BYTES + if endpoints.first().is_some_and(by_mtls) { MTLS_METADATA.len() } else { 0 };
    let mut assignment = Raw::with_capacity(cluster_name.len() + 16 + endpoints.len() * each);
    assignment.text(1, cluster_name);
    if ranking.is_some() || endpoints.iter().any(|found| found.locality.is_some()) {
        by_place(&mut assignment, endpoints, ranking, by_mtls);
    } else if !endpoints.is_empty() {
        let [name, share] = &*GRPC_LOCALITY;
        assignment.message(2, |locality| {
            if is_proxyless {
                locality.encoded(name);
            }
            for found in endpoints {
                locality.message(2, |endpoint| lb_endpoint(endpoint, found, by_mtls(found)));
            }
            if is_proxyless {
                locality.encoded(share);
            }
        });
    }
    assignment.into_bytes()
}

/// The endpoints of each place together, the place's share being the sum of theirs. Priorities have no gaps, whatever is
/// missing.
fn by_place(
    assignment: &mut Raw,
    endpoints: &[Found<'_>],
    ranking: Option<Ranking<'_>>,
    by_mtls: impl Fn(&Found<'_>) -> bool,
) {
    type OfPlace<'a> = BTreeMap<Option<&'a Arc<Locality>>, Vec<&'a Found<'a>>>;
    let mut by_rank: BTreeMap<usize, OfPlace<'_>> = BTreeMap::new();
    for found in endpoints {
        let place = found.locality.map(AsRef::as_ref);
        let rank = ranking.map_or(0, |(nearness, from)| nearness.rank(from, place));
        by_rank.entry(rank).or_default().entry(found.locality).or_default().push(found);
    }
    for (priority, places) in (0..).zip(by_rank.values()) {
        let all: u64 = places.values().flatten().map(|found| u64::from(found.weight)).sum();
        // What a proxy adds up it adds up in 32 bits.
        let most = u64::from(u32::MAX);
        let scale = if all > most { all.div_ceil(most / 2) } else { 1 };
        for (place, endpoints) in places {
            assignment.large(2, |locality| {
                locality.message(1, |name| place.iter().for_each(|place| put_locality(name, place)));
                for found in endpoints {
                    locality.message(2, |endpoint| lb_endpoint(endpoint, found, by_mtls(found)));
                }
                let share: u64 = endpoints.iter().map(|found| u64::from(found.weight)).sum();
                locality.message(3, |value| value.number(1, (share / scale).max(1)));
                if priority > 0 {
                    locality.number(5, priority);
                }
            });
        }
    }
    if let Some((nearness, _)) = ranking {
        let factor = nearness.overprovisioning.value;
        assignment.message(4, |policy| policy.message(3, |value| value.number(1, factor.into())));
    }
}

fn put_locality(raw: &mut Raw, locality: &Locality) {
    let parts = [&locality.region, &locality.zone, &locality.subzone];
    for (tag, part) in (1..).zip(parts).filter(|(_, part)| !part.is_empty()) {
        raw.text(tag, part);
    }
}

fn lb_endpoint(raw: &mut Raw, found: &Found<'_>, mtls: bool) {
    raw.message(1, |endpoint| wire::put_address(endpoint, 1, found.address));
    if mtls {
        raw.encoded(&MTLS_METADATA);
    }
    raw.message(4, |value| value.number(1, found.weight.into()));
}

/// A load assignment with this one endpoint, and nothing said about it.
pub(super) fn only(cluster_name: &str, address: core_pb::Address) -> endpoint_pb::ClusterLoadAssignment {
    let locality = endpoint_pb::LocalityLbEndpoints { lb_endpoints: vec![at(address)], ..Default::default() };
    endpoint_pb::ClusterLoadAssignment {
        cluster_name: cluster_name.to_owned(),
        endpoints: vec![locality],
        ..Default::default()
    }
}

/// An endpoint at `address` with nothing said about it.
fn at(address: core_pb::Address) -> endpoint_pb::LbEndpoint {
    let endpoint = endpoint_pb::Endpoint { address: Some(address), ..Default::default() };
    endpoint_pb::LbEndpoint {
        host_identifier: Some(endpoint_pb::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use imbl::OrdMap;

    use super::*;
    use crate::mesh::{Access, AccessDefault, Protocol, Sourced, keyed};
    use crate::name::{ObjectKey, ObjectKind, RuleRef, TrustDomain};

    fn name(text: &str) -> QualifiedName {
        text.parse().expect("a name")
    }

    fn mesh(mode: MtlsMode, backing: Backing) -> Mesh {
        let access = Access {
            deny: vec![],
            allow: vec![],
            default: Sourced::built_in(AccessDefault::Allow),
            checks: None,
            audit: None,
        };
        let port = Port {
            name: "http".into(),
            number: 80.try_into().expect("not 0"),
            protocol: Protocol::Http,
            server_first: false,
            callers_use_mtls: true,
            mtls: Sourced::built_in(mode),
            access,
            outbound: Arc::default(),
            outbound_of: BTreeMap::new(),
            inbound: Default::default(),
            apart: None,
            routes: BTreeMap::new(),
            tcp_routes: BTreeMap::new(),
        };
        let service = Service {
            name: name("shop/cart"),
            origin: RuleRef::new(ObjectKey::new(ObjectKind::MeshService, name("shop/cart")), ""),
            ports: vec![port],
            backing,
            outside: None,
            identities: Default::default(),
        };
        Mesh {
            trust_domain: Sourced::built_in(TrustDomain::built_in()),
            leaf_ttl: Sourced::built_in(Duration::from_secs(1)),
            connect_timeout: Sourced::built_in(Duration::from_secs(1)),
            services: OrdMap::unit(name("shop/cart"), Arc::new(service)),
            workloads: OrdMap::new(),
            patches: Default::default(),
            snapshots: Default::default(),
            observed: Default::default(),
            telemetry_providers: Default::default(),
        }
    }

    fn serving(workload: &str, listen: &str, version: &str) -> Serving {
        Serving {
            workload: name(workload),
            labels: [("version".to_owned(), version.to_owned())].into(),
            port: "http".into(),
            listen: listen.parse().expect("an address"),
            locality: None,
        }
    }

    fn instance(workload: &str, address: &str, listener: &str, has_certificate: bool) -> Instance {
        Instance {
            workload: name(workload),
            node: address.into(),
            address: address.parse().expect("an address"),
            listeners: [listener.to_owned()].into(),
            has_certificate,
        }
    }

    fn destination(version: Option<&str>) -> Destination {
        let labels = version.map(|version| ("version".to_owned(), version.to_owned())).into_iter().collect();
        Destination { service: name("shop/cart"), port: "http".into(), labels, sticky: false }
    }

    fn typed_assignment(
        cluster_name: String,
        lb_endpoints: Vec<endpoint_pb::LbEndpoint>,
    ) -> endpoint_pb::ClusterLoadAssignment {
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
            ..super::at(wire::address(address))
        }
    }

    fn expected(cluster: &str, endpoints: Vec<endpoint_pb::LbEndpoint>) -> bytes::Bytes {
        Resource::new(Kind::Endpoints, cluster, &typed_assignment(cluster.into(), endpoints), []).value()
    }

    fn at(address: &str, weight: u32, mtls: bool) -> endpoint_pb::LbEndpoint {
        endpoint(address.parse().expect("an address"), weight, mtls)
    }

    #[test]
    fn an_instance_is_an_endpoint_when_it_can_answer_as_callers_come() {
        let servings = vec![serving("shop/v1", "0.0.0.0:8080", "v1"), serving("shop/v2", "10.0.0.9:8081", "v2")];
        let instances = keyed([
            instance("shop/v1", "10.0.0.1", "in/shop/cart/http", true),
            instance("shop/v1", "10.0.0.2", "in/shop/cart/http", false),
            instance("shop/v1", "10.0.0.3", "in/shop/cart/other", true),
            instance("shop/v2", "10.0.0.4", "in/shop/cart/http", true),
            instance("shop/v3", "10.0.0.5", "in/shop/cart/http", true),
        ]);
        let of = |mode, version| {
            let mesh = mesh(mode, Backing::Workloads(servings.clone()));
            endpoints(&mesh, &destination(version), None, &instances, Client::Envoy).value()
        };
        for mode in [MtlsMode::Strict, MtlsMode::Permissive] {
            let both = vec![at("10.0.0.1:8080", 1, true), at("10.0.0.9:8081", 1, true)];
            assert_eq!(of(mode, None), expected("out/shop/cart/http", both));
            let second = vec![at("10.0.0.9:8081", 1, true)];
            assert_eq!(of(mode, Some("v2")), expected("out/shop/cart/http/version=v2", second));
        }
        let plain = vec![at("10.0.0.1:8080", 1, false), at("10.0.0.2:8080", 1, false), at("10.0.0.9:8081", 1, false)];
        assert_eq!(of(MtlsMode::Disabled, None), expected("out/shop/cart/http", plain));
        assert_eq!(of(MtlsMode::Strict, Some("v9")), expected("out/shop/cart/http/version=v9", vec![]));
    }

    #[test]
    fn a_workload_that_serves_a_port_twice_is_an_endpoint_per_listener() {
        let servings = vec![serving("shop/v1", "0.0.0.0:8080", "v1"), serving("shop/v1", "0.0.0.0:8081", "v1")];
        let mesh = mesh(MtlsMode::Strict, Backing::Workloads(servings));
        let instance = instance("shop/v1", "10.0.0.1", "in/shop/cart/http@0.0.0.0:8081", true);
        let only = vec![at("10.0.0.1:8081", 1, true)];
        let found = endpoints(&mesh, &destination(None), None, &keyed([instance]), Client::Envoy).value();
        assert_eq!(found, expected("out/shop/cart/http", only));
    }

    #[test]
    fn listed_endpoints_carry_their_weight_and_mtls_only_where_nothing_else_is_taken() {
        let listed = |last, weight| StaticEndpoint {
            address: [10, 0, 0, last].into(),
            ports: Arc::new([("http".to_owned(), 80.try_into().expect("not 0"))].into()),
            weight,
            labels: BTreeMap::new(),
            locality: None,
        };
        let of = |mode| {
            let mesh = mesh(mode, Backing::Static([listed(2, 5), listed(1, 1), listed(3, 0)].into()));
            endpoints(&mesh, &destination(None), None, &Instances::new(), Client::Envoy).value()
        };
        for (mode, mtls) in [(MtlsMode::Strict, true), (MtlsMode::Permissive, false), (MtlsMode::Disabled, false)] {
            let both = vec![at("10.0.0.1:80", 1, mtls), at("10.0.0.2:80", 5, mtls)];
            assert_eq!(of(mode), expected("out/shop/cart/http", both));
        }
    }
}
