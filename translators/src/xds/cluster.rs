//! Clusters: how a caller's proxy reaches a destination, and how a proxy reaches its own application.
//!
//! Owns: transport, protocol, balancing and limits of both. May use: `mesh`, `tls`. Never: an endpoint of
//! another proxy; those are `endpoint`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use prost::{Message as _, Name as _};
use proto::envoy::config::cluster::v3 as cluster_pb;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::endpoint::v3 as endpoint_pb;
use proto::envoy::extensions::transport_sockets::raw_buffer::v3 as raw_pb;
use proto::envoy::extensions::upstreams::http::v3 as upstream_pb;
use proto::envoy::r#type::v3 as type_pb;
use proto::google::protobuf as google_pb;

use super::raw::{Fields, Raw};
use super::{Slot, cluster_name, endpoint, origins, planned_port, tls, wire};
use crate::mesh::{Destination, Mesh, MtlsMode, Protocol, Serve, Service};
use crate::name::SpiffeId;
use crate::resource::{Kind, Resource};

/// Connections, requests and waiting requests per destination: enough that only a runaway meets it (Envoy's own
/// default is 1,024).
const LIMIT: u32 = 65_536;

/// The cluster of a destination.
pub(super) fn outbound(mesh: &Mesh, destination: &Destination) -> Resource {
    let (service, port) = planned_port(mesh, &destination.service, &destination.port);
    let origins = origins([&service.origin].into_iter().chain(&port.mtls.origin).chain(&mesh.connect_timeout.origin));
    let name = cluster_name(destination);
    let mut varying = Raw::with_capacity(512);
    varying.text(1, &name);
    wire::put_duration(&mut varying, 4, mesh.connect_timeout.value);
    if port.mtls.value != MtlsMode::Disabled {
        varying.encoded(&secured(port.mtls.value, &identities(mesh, service)).encode_to_vec());
    }
    let varying = varying.into_bytes();
    let cluster = ALIKE.get(&(port.protocol, port.mtls.value)).map(|same| same.merged(&varying)).unwrap_or(varying);
    Resource::from_bytes(Kind::Cluster, name.into(), &cluster, origins)
}

/// The cluster of the application behind a proxy.
pub(super) fn local(mesh: &Mesh, serve: &Serve, slot: &Slot) -> Resource {
    let (service, port) = planned_port(mesh, &slot.service, &slot.port);
    let origins = origins([&serve.origin, &service.origin].into_iter().chain(&mesh.connect_timeout.origin));
    let name = slot.name("app");
    let locality =
        endpoint_pb::LocalityLbEndpoints { lb_endpoints: vec![endpoint::at(serve.app)], ..Default::default() };
    let assignment = endpoint_pb::ClusterLoadAssignment {
        cluster_name: name.clone(),
        endpoints: vec![locality],
        ..Default::default()
    };
    let cluster = cluster_pb::Cluster {
        cluster_discovery_type: Some(discovery(cluster_pb::cluster::DiscoveryType::Static)),
        load_assignment: Some(assignment),
        // The application itself says when it has enough.
        circuit_breakers: Some(limits(u32::MAX, None)),
        ..base(name.clone(), port.protocol, mesh.connect_timeout.value)
    };
    Resource::new(Kind::Cluster, name, &cluster, origins)
}

pub(super) fn base(name: String, protocol: Protocol, connect_timeout: Duration) -> cluster_pb::Cluster {
    cluster_pb::Cluster {
        name,
        connect_timeout: Some(wire::duration(connect_timeout)),
        typed_extension_protocol_options: protocol_options(protocol).into_iter().collect(),
        ..Default::default()
    }
}

/// What the clusters of all destinations of one protocol and mode have in common, encoded.
static ALIKE: LazyLock<BTreeMap<(Protocol, MtlsMode), Fields>> = LazyLock::new(|| {
    let protocols = [Protocol::Http, Protocol::Http2, Protocol::Grpc, Protocol::Tcp];
    let modes = [MtlsMode::Strict, MtlsMode::Permissive, MtlsMode::Disabled];
    let each = protocols.into_iter().flat_map(|protocol| modes.map(|mode| (protocol, mode)));
    each.map(|(protocol, mode)| ((protocol, mode), Fields::of(alike(protocol, mode).encode_to_vec()))).collect()
});

/// Its endpoints come over the aggregated stream.
pub(super) fn discovered() -> cluster_pb::Cluster {
    let eds = cluster_pb::cluster::EdsClusterConfig { eds_config: Some(wire::ads()), ..Default::default() };
    cluster_pb::Cluster {
        cluster_discovery_type: Some(discovery(cluster_pb::cluster::DiscoveryType::Eds)),
        eds_cluster_config: Some(eds),
        circuit_breakers: Some(limits(LIMIT, Some(retry_budget()))),
        ..Default::default()
    }
}

fn alike(protocol: Protocol, mode: MtlsMode) -> cluster_pb::Cluster {
    let unsecured = || socket_match("plaintext", google_pb::Struct::default(), plaintext());
    cluster_pb::Cluster {
        lb_policy: cluster_pb::cluster::LbPolicy::LeastRequest.into(),
        common_lb_config: Some(no_panic()),
        typed_extension_protocol_options: protocol_options(protocol).into_iter().collect(),
        transport_socket_matches: (mode == MtlsMode::Permissive).then(unsecured).into_iter().collect(),
        ..discovered()
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

fn plaintext() -> core_pb::TransportSocket {
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

fn limits(
    limit: u32,
    retry_budget: Option<cluster_pb::circuit_breakers::thresholds::RetryBudget>,
) -> cluster_pb::CircuitBreakers {
    let thresholds = cluster_pb::circuit_breakers::Thresholds {
        max_connections: Some(wire::number(limit)),
        max_pending_requests: Some(wire::number(limit)),
        max_requests: Some(wire::number(limit)),
        retry_budget,
        ..Default::default()
    };
    cluster_pb::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

/// A fifth of what is under way may be repetitions, and three in any case.
fn retry_budget() -> cluster_pb::circuit_breakers::thresholds::RetryBudget {
    cluster_pb::circuit_breakers::thresholds::RetryBudget {
        budget_percent: Some(type_pb::Percent { value: 20.0 }),
        min_retry_concurrency: Some(wire::number(3)),
        ..Default::default()
    }
}

/// One entry or none: with more, the encoding would have no order.
fn protocol_options(protocol: Protocol) -> Option<(String, google_pb::Any)> {
    use upstream_pb::http_protocol_options::explicit_http_config::ProtocolConfig;
    use upstream_pb::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
    let protocol_config = match protocol {
        Protocol::Http => ProtocolConfig::HttpProtocolOptions(Default::default()),
        Protocol::Http2 | Protocol::Grpc => ProtocolConfig::Http2ProtocolOptions(Default::default()),
        Protocol::Tcp => return None,
    };
    let explicit = ExplicitHttpConfig { protocol_config: Some(protocol_config) };
    let options = upstream_pb::HttpProtocolOptions {
        common_http_protocol_options: Some(core_pb::HttpProtocolOptions {
            idle_timeout: Some(wire::duration(wire::IDLE)),
            ..Default::default()
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..Default::default()
    };
    Some((upstream_pb::HttpProtocolOptions::full_name(), wire::any(&options)))
}
