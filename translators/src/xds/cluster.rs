//! Clusters: how a caller's proxy reaches a destination, and how a proxy reaches its own application.
//!
//! Owns: transport, protocol, balancing and limits of both. May use: `mesh`, `tls`. Never: an endpoint of
//! another proxy; those are `endpoint`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::LazyLock;
use std::time::Duration;

use prost::Message as _;
use proto::envoy::config::cluster::v3 as cluster_pb;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::extensions::clusters::common::dns::v3 as common_dns_pb;
use proto::envoy::extensions::clusters::dns::v3 as dns_pb;
use proto::envoy::extensions::transport_sockets::raw_buffer::v3 as raw_pb;
use proto::envoy::r#type::v3 as type_pb;
use proto::google::protobuf as google_pb;

use super::raw::{Fields, Raw};
use super::{Slot, calling, cluster_name, endpoint, health, origins, planned_port, tls, wire};
use crate::mesh::{
    Backing, Destination, DnsEndpoints, DnsFamily, DnsMode, Mesh, MtlsMode, Outbound, Port, Prefer, Protocol, Serve,
    Service,
};
use crate::name::{Label, RuleRef, SpiffeId};
use crate::resource::{Kind, Resource};

/// The cluster of a destination, for all callers or for those of one namespace.
pub(super) fn outbound(mesh: &Mesh, destination: &Destination, consumer: Option<&Label>) -> Resource {
    let (service, port) = planned_port(mesh, &destination.service, &destination.port);
    let calls = consumer.map_or(&port.outbound, |consumer| port.outbound_for(consumer));
    let origins = origins([&service.origin].into_iter().chain(modes(port)).chain(calls.origins()));
    let name = cluster_name(destination);
    let mode = service.mode_towards(port);
    let secured = (mode != MtlsMode::Disabled).then(|| secured(mode, &identities(mesh, service)));
    let is_plain = calling::is_plain(calls) && !destination.sticky && service.outside.is_none();
    let alike = ALIKE.get(&(port.protocol, mode)).filter(|_| is_plain && !matches!(service.backing, Backing::Dns(_)));
    let cluster = if let Some(alike) = alike {
        let mut varying = Raw::with_capacity(512);
        varying.text(1, &name);
        wire::put_duration(&mut varying, 4, calls.connect_timeout.value);
        if let Some(secured) = secured {
            varying.encoded(&secured.encode_to_vec());
        }
        alike.merged(&varying.into_bytes())
    } else {
        let mut cluster = self::alike(port.protocol, mode, calls);
        if destination.sticky {
            calling::stick(&mut cluster, calls);
        }
        cluster.name.clone_from(&name);
        if let (Backing::Dns(dns), false) = (&service.backing, endpoint::is_told(service, destination)) {
            asking(&mut cluster, dns, destination);
        }
        if let Some(server) = service.outside.as_ref().and_then(|outside| outside.tls.as_ref()) {
            cluster.transport_socket = Some(tls::outside(server, spoken(port.protocol)));
        }
        if calls.locality.prefer.value != Prefer::None && endpoint::is_told(service, destination) {
            cluster.common_lb_config = Some(by_locality());
        }
        cluster.connect_timeout = Some(wire::duration(calls.connect_timeout.value));
        if let Some(secured) = secured {
            cluster.transport_socket = secured.transport_socket;
            cluster.transport_socket_matches.splice(0..0, secured.transport_socket_matches);
        }
        cluster
            .health_checks
            .extend(calls.health_check.value.as_ref().map(|check| health::check(check, service, port)));
        // A proxy of the mesh would take it for the beginning of what it is about.
        let version = calls.proxy_protocol.value.filter(|_| !matches!(service.backing, Backing::Workloads(_)));
        if let (Some(version), MtlsMode::Permissive | MtlsMode::Disabled) = (version, mode) {
            tls::announcing(&mut cluster, version);
        }
        cluster.encode_to_vec()
    };
    Resource::from_bytes(Kind::Cluster, name.into(), &cluster, origins)
}

/// The rules by which those who serve a port take connections.
pub(super) fn modes(port: &Port) -> impl Iterator<Item = &RuleRef> {
    let apart = port.apart().filter_map(|(_, own)| own.mtls.origin.as_ref());
    port.mtls.origin.iter().chain(apart)
}

/// The cluster of the application behind a proxy.
pub(super) fn local(mesh: &Mesh, serve: &Serve, slot: &Slot) -> Resource {
    let (service, port) = planned_port(mesh, &slot.service, &slot.port);
    let inbound = port.apart_of(&slot.workload).map_or(&port.inbound, |own| &own.inbound);
    let limit = &inbound.buffer_limit;
    let rules = [&serve.origin, &service.origin].into_iter().chain(&mesh.connect_timeout.origin).chain(&limit.origin);
    let origins = origins(rules);
    let name = slot.name("app");
    let cluster = cluster_pb::Cluster {
        cluster_discovery_type: Some(discovery(cluster_pb::cluster::DiscoveryType::Static)),
        load_assignment: Some(endpoint::only(&name, wire::address(serve.app))),
        // The application itself says when it has enough.
        circuit_breakers: Some(calling::without_limits()),
        per_connection_buffer_limit_bytes: limit.value.map(|limit| wire::number(limit.get())),
        ..base(name.clone(), port.protocol, mesh.connect_timeout.value)
    };
    Resource::new(Kind::Cluster, name, &cluster, origins)
}

pub(super) fn base(name: String, protocol: Protocol, connect_timeout: Duration) -> cluster_pb::Cluster {
    cluster_pb::Cluster {
        name,
        connect_timeout: Some(wire::duration(connect_timeout)),
        typed_extension_protocol_options: calling::protocol_options(protocol, Outbound::built_in())
            .into_iter()
            .collect(),
        ..Default::default()
    }
}

/// What the clusters of all destinations of one protocol and mode have in common where no policy says anything, encoded.
static ALIKE: LazyLock<BTreeMap<(Protocol, MtlsMode), Fields>> = LazyLock::new(|| {
    let protocols = [Protocol::Http, Protocol::Http2, Protocol::Grpc, Protocol::Tcp, Protocol::Tls];
    let modes = [MtlsMode::Strict, MtlsMode::Permissive, MtlsMode::Disabled];
    let each = protocols.into_iter().flat_map(|protocol| modes.map(|mode| (protocol, mode)));
    let alike = |(protocol, mode)| Fields::of(alike(protocol, mode, Outbound::built_in()).encode_to_vec());
    each.map(|kind| (kind, alike(kind))).collect()
});

/// Its endpoints come over the aggregated stream.
pub(super) fn discovered() -> cluster_pb::Cluster {
    let eds = cluster_pb::cluster::EdsClusterConfig { eds_config: Some(wire::ads()), ..Default::default() };
    cluster_pb::Cluster {
        cluster_discovery_type: Some(discovery(cluster_pb::cluster::DiscoveryType::Eds)),
        eds_cluster_config: Some(eds),
        circuit_breakers: Some(calling::limits(Outbound::built_in())),
        ..Default::default()
    }
}

fn alike(protocol: Protocol, mode: MtlsMode, calls: &Outbound) -> cluster_pb::Cluster {
    let unsecured = || socket_match("plaintext", google_pb::Struct::default(), plaintext());
    let cluster = cluster_pb::Cluster {
        common_lb_config: Some(no_panic()),
        transport_socket_matches: (mode == MtlsMode::Permissive).then(unsecured).into_iter().collect(),
        ..discovered()
    };
    calling::cluster(cluster, protocol, calls)
}

/// Its endpoints are what a name server says.
fn asking(cluster: &mut cluster_pb::Cluster, dns: &DnsEndpoints, destination: &Destination) {
    use cluster_pb::cluster::{ClusterDiscoveryType, CustomClusterType};
    use common_dns_pb::DnsLookupFamily;
    let config = dns_pb::DnsCluster {
        dns_refresh_rate: dns.refresh.map(wire::duration),
        dns_lookup_family: match dns.family {
            DnsFamily::V4Preferred => DnsLookupFamily::V4Preferred,
            DnsFamily::V4Only => DnsLookupFamily::V4Only,
            DnsFamily::V6Only => DnsLookupFamily::V6Only,
            DnsFamily::All => DnsLookupFamily::All,
        }
        .into(),
        all_addresses_in_single_endpoint: dns.mode == DnsMode::Logical,
        ..Default::default()
    };
    let name = "envoy.clusters.dns".into();
    let discovery_type = CustomClusterType { name, typed_config: Some(wire::any(&config)) };
    cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(discovery_type));
    cluster.eds_cluster_config = None;
    let address = |port: &NonZeroU16| wire::host_and_port(dns.hostname.clone(), port.get());
    cluster.load_assignment = dns.ports.get(&destination.port).map(|port| endpoint::only(&cluster.name, address(port)));
}

/// What is offered to a server outside of the mesh, by ALPN.
fn spoken(protocol: Protocol) -> &'static [&'static str] {
    match protocol {
        Protocol::Http => &["http/1.1"],
        Protocol::Http2 | Protocol::Grpc => &["h2"],
        Protocol::Tcp | Protocol::Tls => &[],
    }
}

/// Towards a strict port there is no plaintext to fall back to. Towards a permissive one each endpoint says
/// what it takes; the empty match is the last, and alike everywhere.
fn secured(mode: MtlsMode, servers: &BTreeSet<SpiffeId>) -> cluster_pb::Cluster {
    let mut cluster = cluster_pb::Cluster::default();
    match mode {
        MtlsMode::Strict => cluster.transport_socket = Some(tls::upstream(servers)),
        MtlsMode::Permissive => {
            let criteria = wire::member(endpoint::MTLS, "true");
            cluster.transport_socket_matches.push(socket_match("mtls", criteria, tls::upstream(servers)));
        }
        MtlsMode::Disabled => {}
    }
    cluster
}

/// Never empty: no matcher would mean that anybody of the trust domain may answer.
pub(super) fn identities(mesh: &Mesh, service: &Service) -> BTreeSet<SpiffeId> {
    if service.identities.is_empty() {
        [SpiffeId::of_workload(&mesh.trust_domain.value, &service.name)].into()
    } else {
        service.identities.clone()
    }
}

fn socket_match(
    name: &str,
    criteria: google_pb::Struct,
    socket: core_pb::TransportSocket,
) -> cluster_pb::cluster::TransportSocketMatch {
    cluster_pb::cluster::TransportSocketMatch {
        name: name.into(),
        r#match: Some(criteria),
        transport_socket: Some(socket),
    }
}

pub(super) fn plaintext() -> core_pb::TransportSocket {
    use core_pb::transport_socket::ConfigType;
    let config_type = Some(ConfigType::TypedConfig(wire::any(&raw_pb::RawBuffer::default())));
    core_pb::TransportSocket { name: "envoy.transport_sockets.raw_buffer".into(), config_type }
}

fn discovery(kind: cluster_pb::cluster::DiscoveryType) -> cluster_pb::cluster::ClusterDiscoveryType {
    cluster_pb::cluster::ClusterDiscoveryType::Type(kind.into())
}

/// Endpoints that are unhealthy get nothing, even when all are.
fn no_panic() -> cluster_pb::cluster::CommonLbConfig {
    cluster_pb::cluster::CommonLbConfig {
        healthy_panic_threshold: Some(type_pb::Percent { value: 0.0 }),
        ..Default::default()
    }
}

/// Each locality of a priority gets its share as long as enough of it is healthy, and less when it is not.
fn by_locality() -> cluster_pb::cluster::CommonLbConfig {
    use cluster_pb::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
    let weighted = LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {});
    cluster_pb::cluster::CommonLbConfig { locality_config_specifier: Some(weighted), ..no_panic() }
}
