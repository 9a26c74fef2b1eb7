//! The connection to the control plane.
//!
//! Owns: the cluster, the aggregated stream over it, and how both recover. May use: `wire`. Never: who may
//! connect; transport security is the bootstrap's.

use std::net::IpAddr;
use std::time::Duration;

use prost::Name as _;
use proto::envoy::config::cluster::v3 as cluster_pb;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::extensions::upstreams::http::v3 as upstream_pb;
use proto::google::protobuf as google_pb;

use super::{AdsProtocol, Server};
use crate::xds::{endpoint, wire};

/// The cluster of the control plane.
const CONTROL_PLANE: &str = "chancery-control-plane";

/// One stream for everything. Envoy's own back-off would notice a control plane that has returned only after
/// many seconds.
pub(in crate::xds) fn ads(protocol: AdsProtocol) -> core_pb::ApiConfigSource {
    use core_pb::api_config_source::ApiType;
    let back_off = core_pb::BackoffStrategy {
        base_interval: Some(wire::duration(Duration::from_millis(200))),
        max_interval: Some(wire::duration(Duration::from_secs(2))),
    };
    let retry_policy = core_pb::RetryPolicy { retry_back_off: Some(back_off), ..Default::default() };
    let api_type = match protocol {
        AdsProtocol::Delta => ApiType::DeltaGrpc,
        AdsProtocol::Sotw => ApiType::Grpc,
    };
    core_pb::ApiConfigSource {
        api_type: api_type.into(),
        transport_api_version: core_pb::ApiVersion::V3.into(),
        set_node_on_first_message_only: true,
        grpc_services: vec![grpc_service(Some(retry_policy))],
        ..Default::default()
    }
}

/// Where load reports go; how often is what the control plane answers.
pub(super) fn load_reports() -> core_pb::ApiConfigSource {
    core_pb::ApiConfigSource {
        api_type: core_pb::api_config_source::ApiType::Grpc.into(),
        transport_api_version: core_pb::ApiVersion::V3.into(),
        grpc_services: vec![grpc_service(None)],
        ..Default::default()
    }
}

pub(super) fn grpc_service(retry_policy: Option<core_pb::RetryPolicy>) -> core_pb::GrpcService {
    use core_pb::grpc_service::{EnvoyGrpc, TargetSpecifier};
    let envoy = EnvoyGrpc { cluster_name: CONTROL_PLANE.into(), retry_policy, ..Default::default() };
    core_pb::GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(envoy)), ..Default::default() }
}

/// The cluster of the control plane, without transport security. A peer that vanishes silently is noticed by
/// HTTP/2 pings, and by TCP's own where a proxy stands between.
pub(in crate::xds) fn control_plane(server: &Server) -> cluster_pb::Cluster {
    use cluster_pb::cluster::DiscoveryType;
    let is_address = server.host.parse::<IpAddr>().is_ok();
    let discovery = if is_address { DiscoveryType::Static } else { DiscoveryType::StrictDns };
    let address = wire::host_and_port(server.host.clone(), server.port);
    cluster_pb::Cluster {
        name: CONTROL_PLANE.into(),
        cluster_discovery_type: Some(cluster_pb::cluster::ClusterDiscoveryType::Type(discovery.into())),
        connect_timeout: Some(wire::duration(Duration::from_secs(5))),
        load_assignment: Some(endpoint::only(CONTROL_PLANE, address)),
        typed_extension_protocol_options: [(upstream_pb::HttpProtocolOptions::full_name(), pinging_http2())].into(),
        upstream_connection_options: Some(cluster_pb::UpstreamConnectionOptions {
            tcp_keepalive: Some(core_pb::TcpKeepalive {
                keepalive_probes: Some(wire::number(3)),
                keepalive_time: Some(wire::number(30)),
                keepalive_interval: Some(wire::number(5)),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn pinging_http2() -> google_pb::Any {
    use upstream_pb::http_protocol_options::explicit_http_config::ProtocolConfig;
    use upstream_pb::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
    let keepalive = core_pb::KeepaliveSettings {
        interval: Some(wire::duration(Duration::from_secs(30))),
        timeout: Some(wire::duration(Duration::from_secs(5))),
        ..Default::default()
    };
    let http2 = core_pb::Http2ProtocolOptions { connection_keepalive: Some(keepalive), ..Default::default() };
    let explicit = ExplicitHttpConfig { protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http2)) };
    wire::any(&upstream_pb::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..Default::default()
    })
}
