//! Requests: the HTTP connection manager.
//!
//! Owns: what a sidecar does to a request and what it leaves alone. May use: `tcp` for the filter's shell.
//! Never: routes to other services; those are `route`'s.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use prost::{Message as _, Name as _};
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::listener::v3 as listener_pb;
use proto::envoy::config::route::v3 as route_pb;
use proto::envoy::extensions::filters::http::router::v3 as router_pb;
use proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use proto::google::protobuf as google_pb;

use super::raw::{Fields, Raw};
use super::tcp::network_filter;
use super::telemetry::{Told, of_manager};
use super::{checks, limits, wire};
use crate::mesh::{Port, Protocol, Service};

use hcm_pb::http_connection_manager as manager_pb;

const NAME: &str = "envoy.filters.network.http_connection_manager";

/// To the application, past the access rules and what a policy limits.
pub(super) fn inbound(
    stat_prefix: &str,
    port: &Port,
    cluster: String,
    mtls: bool,
    mut access: Vec<hcm_pb::HttpFilter>,
    told: Told,
) -> listener_pb::Filter {
    access.extend(limits::http(&port.inbound, mtls));
    let ruled = !port.access.deny.is_empty() || !port.access.allow.is_empty();
    access.push(router());
    let manager = hcm_pb::HttpConnectionManager {
        route_specifier: Some(manager_pb::RouteSpecifier::RouteConfig(everything_to(stat_prefix, cluster, port))),
        http_filters: access,
        access_log: told.access_log,
        tracing: told.tracing,
        ..manager(stat_prefix, port.protocol)
    };
    // The application learns its caller from a certificate and from nothing that a caller writes.
    let named = if mtls {
        hcm_pb::HttpConnectionManager {
            forward_client_cert_details: manager_pb::ForwardClientCertDetails::SanitizeSet.into(),
            set_current_client_cert_details: Some(manager_pb::SetCurrentClientCertDetails {
                uri: true,
                ..Default::default()
            }),
            ..manager
        }
    } else {
        manager
    };
    // Rules about paths hold for the path that the application sees, so both see one spelling of it.
    filter(if ruled { normalising(named) } else { named })
}

/// Whoever reads a path behind `manager` reads one spelling of it.
pub(super) fn normalising(manager: hcm_pb::HttpConnectionManager) -> hcm_pb::HttpConnectionManager {
    hcm_pb::HttpConnectionManager {
        normalize_path: Some(wire::boolean(true)),
        merge_slashes: true,
        path_with_escaped_slashes_action: manager_pb::PathWithEscapedSlashesAction::UnescapeAndForward.into(),
        ..manager
    }
}

/// To wherever the route `route` leads: the fields of a filter.
pub(super) fn outbound(filter: &mut Raw, stat_prefix: &str, service: &Service, port: &Port, route: &str, told: Told) {
    let mut varying = Raw::default();
    // HttpConnectionManager: its stat_prefix, rds, http_protocol_options, and what is told.
    varying.text(2, stat_prefix);
    varying.message(3, |rds| {
        rds.encoded(&ADS);
        rds.text(2, route);
    });
    varying.message(8, |options| {
        options.encoded(&HTTP1);
        options.parts(3, &[service.name.name.as_str(), ".", service.name.namespace.as_str()]);
    });
    let varying = varying.into_bytes();
    let varying = if told.is_nothing() { varying } else { Fields::of(of_manager(told)).merged(&varying) };
    let manager = ALIKE.get(&port.protocol).map(|same| same.merged(&varying)).unwrap_or(varying);
    filter.text(1, NAME);
    filter.large(4, |any| {
        any.text(1, &TYPE_URL);
        any.large(2, |message| message.encoded(&manager));
    });
}

/// What the managers of all calls by one protocol have in common, encoded.
static ALIKE: LazyLock<BTreeMap<Protocol, Fields>> = LazyLock::new(|| {
    let protocols = [Protocol::Http, Protocol::Http2, Protocol::Grpc];
    let alike = |protocol| hcm_pb::HttpConnectionManager {
        http_filters: checks::idle().into_iter().chain([router()]).collect(),
        http_protocol_options: None,
        ..manager("", protocol)
    };
    protocols.into_iter().map(|protocol| (protocol, Fields::of(alike(protocol).encode_to_vec()))).collect()
});

/// Routes come over the aggregated stream: the fields of an `Rds` without its name.
static ADS: LazyLock<Vec<u8>> =
    LazyLock::new(|| hcm_pb::Rds { config_source: Some(wire::ads()), ..Default::default() }.encode_to_vec());

/// The fields of [`http1`] without the host.
static HTTP1: LazyLock<Vec<u8>> = LazyLock::new(|| http1("").encode_to_vec());

static TYPE_URL: LazyLock<String> = LazyLock::new(hcm_pb::HttpConnectionManager::type_url);

pub(super) fn manager(stat_prefix: &str, protocol: Protocol) -> hcm_pb::HttpConnectionManager {
    hcm_pb::HttpConnectionManager {
        stat_prefix: stat_prefix.into(),
        codec_type: manager_pb::CodecType::Auto.into(),
        common_http_protocol_options: Some(core_pb::HttpProtocolOptions {
            idle_timeout: Some(wire::duration(wire::IDLE)),
            ..Default::default()
        }),
        http_protocol_options: Some(http1("localhost")),
        stream_idle_timeout: Some(wire::duration(wire::IDLE)),
        upgrade_configs: upgrades(protocol),
        forward_client_cert_details: manager_pb::ForwardClientCertDetails::Sanitize.into(),
        // A sidecar is no hop that an application should see: it adds no x-forwarded-for and keeps the
        // application's own `server`. Nobody counts as internal, so no caller can steer a proxy with
        // x-envoy-* request headers.
        server_header_transformation: manager_pb::ServerHeaderTransformation::PassThrough.into(),
        use_remote_address: Some(wire::boolean(false)),
        skip_xff_append: true,
        internal_address_config: Some(manager_pb::InternalAddressConfig::default()),
        normalize_path: Some(wire::boolean(false)),
        path_with_escaped_slashes_action: manager_pb::PathWithEscapedSlashesAction::KeepUnchanged.into(),
        ..Default::default()
    }
}

/// HTTP/1.0 is served as well; a request without a host is for `host`.
fn http1(host: &str) -> core_pb::Http1ProtocolOptions {
    core_pb::Http1ProtocolOptions { accept_http_10: true, default_host_for_http_10: host.into(), ..Default::default() }
}

fn upgrades(protocol: Protocol) -> Vec<manager_pb::UpgradeConfig> {
    match protocol {
        Protocol::Http => vec![manager_pb::UpgradeConfig { upgrade_type: "websocket".into(), ..Default::default() }],
        Protocol::Http2 | Protocol::Grpc | Protocol::Tcp | Protocol::Tls => Vec::new(),
    }
}

/// Adds no x-envoy-* headers: applications and their callers see each other's, and nothing else.
pub(super) fn router() -> hcm_pb::HttpFilter {
    let router = router_pb::Router { suppress_envoy_headers: true, ..Default::default() };
    http_filter("envoy.filters.http.router", wire::any(&router))
}

pub(super) fn http_filter(name: &str, config: google_pb::Any) -> hcm_pb::HttpFilter {
    hcm_pb::HttpFilter {
        name: name.into(),
        config_type: Some(hcm_pb::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

pub(super) fn filter(manager: hcm_pb::HttpConnectionManager) -> listener_pb::Filter {
    network_filter(NAME, wire::any(&manager))
}

/// Time limits are the callers' business, unless a policy says what the service itself bears.
fn everything_to(name: &str, cluster: String, port: &Port) -> route_pb::RouteConfiguration {
    let limited = match port.protocol {
        Protocol::Http | Protocol::Http2 => port.inbound.request_timeout.value,
        // A call may be a stream that has no end.
        Protocol::Grpc | Protocol::Tcp | Protocol::Tls => None,
    };
    let action = route_pb::RouteAction {
        cluster_specifier: Some(route_pb::route_action::ClusterSpecifier::Cluster(cluster)),
        timeout: Some(limited.map(wire::duration).unwrap_or_default()),
        ..Default::default()
    };
    let route = route_pb::Route {
        r#match: Some(route_pb::RouteMatch {
            path_specifier: Some(route_pb::route_match::PathSpecifier::Prefix("/".into())),
            ..Default::default()
        }),
        action: Some(route_pb::route::Action::Route(action)),
        ..Default::default()
    };
    routes(name, vec![route])
}

/// One virtual host for every host: a sidecar knows the service by its listener.
pub(super) fn routes(name: &str, routes: Vec<route_pb::Route>) -> route_pb::RouteConfiguration {
    let host = route_pb::VirtualHost { name: name.into(), domains: vec!["*".into()], routes, ..Default::default() };
    route_pb::RouteConfiguration { name: name.into(), virtual_hosts: vec![host], ..Default::default() }
}
