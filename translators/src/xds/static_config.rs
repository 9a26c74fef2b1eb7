//! Resources as one static configuration, for `envoy --mode validate` and for reading.
//!
//! Owns: what discovery would have joined, joined. May use: `bootstrap` for the frame. Never: contains a secret;
//! those still come from the control plane.

use std::collections::BTreeMap;

use prost::{Message, Name as _};
use proto::envoy::config::bootstrap::v3 as bootstrap_pb;
use proto::envoy::config::cluster::v3 as cluster_pb;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::endpoint::v3 as endpoint_pb;
use proto::envoy::config::listener::v3 as listener_pb;
use proto::envoy::config::route::v3 as route_pb;
use proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use proto::envoy::extensions::transport_sockets::tls::v3 as tls_pb;

use super::bootstrap::{AdsProtocol, DEFAULT_ADMIN, Node, Server, admin, ads, control_plane, node};
use super::{tls, wire};
use crate::resource::{Kind, Resource};

/// The resources of one proxy as a bootstrap: routes in their listeners, endpoints in their clusters.
pub fn static_bootstrap(proxy: &Node, server: &Server, resources: &[Resource]) -> bootstrap_pb::Bootstrap {
    let routes = decoded::<route_pb::RouteConfiguration>(resources, Kind::Route);
    let assignments = decoded::<endpoint_pb::ClusterLoadAssignment>(resources, Kind::Endpoints);
    let listeners = decoded::<listener_pb::Listener>(resources, Kind::Listener);
    let clusters = decoded::<cluster_pb::Cluster>(resources, Kind::Cluster);
    let clusters = clusters.into_values().map(|cluster| with_endpoints(cluster, &assignments));
    bootstrap_pb::Bootstrap {
        node: Some(node(proxy)),
        admin: Some(admin(DEFAULT_ADMIN)),
        dynamic_resources: Some(bootstrap_pb::bootstrap::DynamicResources {
            ads_config: Some(ads(AdsProtocol::Delta)),
            ..Default::default()
        }),
        static_resources: Some(bootstrap_pb::bootstrap::StaticResources {
            listeners: listeners.into_values().map(|listener| with_routes(listener, &routes)).collect(),
            clusters: [control_plane(server)].into_iter().chain(clusters).collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn decoded<M: Message + Default>(resources: &[Resource], kind: Kind) -> BTreeMap<String, M> {
    let of_kind = resources.iter().filter(|resource| resource.kind() == kind);
    let decode = |resource: &Resource| M::decode(resource.value()).expect("a resource is of its kind's type");
    of_kind.map(|resource| (resource.name().to_string(), decode(resource))).collect()
}

fn with_endpoints(
    cluster: cluster_pb::Cluster,
    assignments: &BTreeMap<String, endpoint_pb::ClusterLoadAssignment>,
) -> cluster_pb::Cluster {
    use cluster_pb::cluster::{ClusterDiscoveryType, DiscoveryType, TransportSocketMatch};
    let Some(eds) = &cluster.eds_cluster_config else { return cluster };
    let name = if eds.service_name.is_empty() { &cluster.name } else { &eds.service_name };
    let nowhere = || endpoint_pb::ClusterLoadAssignment { cluster_name: name.clone(), ..Default::default() };
    let assignment = assignments.get(name).cloned().unwrap_or_else(nowhere);
    let matches = cluster
        .transport_socket_matches
        .into_iter()
        .map(|one| TransportSocketMatch { transport_socket: one.transport_socket.map(with_secrets), ..one });
    cluster_pb::Cluster {
        load_assignment: Some(assignment),
        transport_socket: cluster.transport_socket.map(with_secrets),
        transport_socket_matches: matches.collect(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        eds_cluster_config: None,
        ..cluster
    }
}

/// The same socket, its secrets over a stream of their own: Envoy loads static clusters before it has an
/// aggregated stream, and crashes (seen: 1.40.0) at one that names it.
fn with_secrets(socket: core_pb::TransportSocket) -> core_pb::TransportSocket {
    use core_pb::transport_socket::ConfigType;
    match &socket.config_type {
        Some(ConfigType::TypedConfig(config)) if config.type_url == tls_pb::UpstreamTlsContext::type_url() => {
            let context = tls_pb::UpstreamTlsContext::decode(config.value.as_slice());
            let mut context = context.expect("the Any says what it holds");
            context.common_tls_context.iter_mut().flat_map(secrets).for_each(|secret| {
                secret.sds_config = Some(own_stream());
            });
            tls::socket(wire::any(&context))
        }
        Some(ConfigType::TypedConfig(_)) | None => socket,
    }
}

fn secrets(context: &mut tls_pb::CommonTlsContext) -> impl Iterator<Item = &mut tls_pb::SdsSecretConfig> {
    use tls_pb::common_tls_context::ValidationContextType;
    let trust = match &mut context.validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            combined.validation_context_sds_secret_config.as_mut()
        }
        Some(_) | None => None,
    };
    context.tls_certificate_sds_secret_configs.iter_mut().chain(trust)
}

fn own_stream() -> core_pb::ConfigSource {
    use core_pb::config_source::ConfigSourceSpecifier;
    core_pb::ConfigSource {
        resource_api_version: core_pb::ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(ads(AdsProtocol::Delta))),
        ..Default::default()
    }
}

fn with_routes(
    mut listener: listener_pb::Listener,
    routes: &BTreeMap<String, route_pb::RouteConfiguration>,
) -> listener_pb::Listener {
    use listener_pb::filter::ConfigType;
    let filters = listener.filter_chains.iter_mut().flat_map(|chain| &mut chain.filters);
    let configs = filters.filter_map(|filter| match &mut filter.config_type {
        Some(ConfigType::TypedConfig(config)) => Some(config),
        Some(ConfigType::ConfigDiscovery(_)) | None => None,
    });
    for config in configs {
        if config.type_url == hcm_pb::HttpConnectionManager::type_url() {
            let manager = hcm_pb::HttpConnectionManager::decode(config.value.as_slice());
            *config = wire::any(&inlined(manager.expect("the Any says what it holds"), routes));
        }
    }
    listener
}

fn inlined(
    manager: hcm_pb::HttpConnectionManager,
    routes: &BTreeMap<String, route_pb::RouteConfiguration>,
) -> hcm_pb::HttpConnectionManager {
    use hcm_pb::http_connection_manager::RouteSpecifier;
    let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier else { return manager };
    let nothing = || route_pb::RouteConfiguration { name: rds.route_config_name.clone(), ..Default::default() };
    let route = routes.get(&rds.route_config_name).cloned().unwrap_or_else(nothing);
    hcm_pb::HttpConnectionManager { route_specifier: Some(RouteSpecifier::RouteConfig(route)), ..manager }
}
