//! Bytes: the TCP proxy filter.
//!
//! Owns: how a connection is passed on. May use: `calling`. Never: looks into it.

use proto::envoy::config::accesslog::v3 as accesslog_pb;
use proto::envoy::config::listener::v3 as listener_pb;
use proto::envoy::extensions::filters::network::direct_response::v3 as direct_pb;
use proto::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_pb;
use proto::google::protobuf as google_pb;

use super::{calling, cluster_name, wire};
use crate::mesh::{Outbound, WeightedDestination};

/// To a destination.
pub(super) fn proxy(
    stat_prefix: &str,
    cluster: String,
    calls: &Outbound,
    access_log: Vec<accesslog_pb::AccessLog>,
) -> listener_pb::Filter {
    filter(calling::bytes(tcp_pb::TcpProxy { access_log, ..base(stat_prefix, cluster) }, calls))
}

/// To one destination, or to several, each with its share of the connections.
pub(super) fn shared_out(
    stat_prefix: &str,
    to: &[WeightedDestination],
    calls: &Outbound,
    access_log: Vec<accesslog_pb::AccessLog>,
) -> listener_pb::Filter {
    use tcp_pb::tcp_proxy::{ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight};
    if let [only] = to {
        return proxy(stat_prefix, cluster_name(&only.destination), calls, access_log);
    }
    // Here a share is at least one.
    let shares = to.iter().filter(|to| to.weight > 0).map(|to| ClusterWeight {
        name: cluster_name(&to.destination),
        weight: to.weight,
        ..Default::default()
    });
    let clusters = WeightedCluster { clusters: shares.collect() };
    let proxy = tcp_pb::TcpProxy {
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(clusters)),
        access_log,
        ..base(stat_prefix, String::new())
    };
    filter(calling::bytes(proxy, calls))
}

/// To the application. Without `after_handshake` the application is connected before the caller has proved who
/// it is, and a caller that gives up before is counted without a name.
pub(super) fn application(
    stat_prefix: &str,
    cluster: String,
    after_handshake: bool,
    access_log: Vec<accesslog_pb::AccessLog>,
) -> listener_pb::Filter {
    let proxy = tcp_pb::TcpProxy { access_log, ..base(stat_prefix, cluster) };
    if !after_handshake {
        return filter(proxy);
    }
    filter(tcp_pb::TcpProxy {
        upstream_connect_mode: tcp_pb::UpstreamConnectMode::OnDownstreamTlsHandshake.into(),
        max_early_data_bytes: Some(wire::number(0)),
        ..proxy
    })
}

/// Closes every connection at once.
pub(super) fn refusal() -> listener_pb::Filter {
    network_filter("envoy.filters.network.direct_response", wire::any(&direct_pb::Config::default()))
}

fn base(stat_prefix: &str, cluster: String) -> tcp_pb::TcpProxy {
    tcp_pb::TcpProxy {
        stat_prefix: stat_prefix.into(),
        idle_timeout: Some(wire::duration(wire::IDLE)),
        cluster_specifier: Some(tcp_pb::tcp_proxy::ClusterSpecifier::Cluster(cluster)),
        ..Default::default()
    }
}

fn filter(proxy: tcp_pb::TcpProxy) -> listener_pb::Filter {
    network_filter("envoy.filters.network.tcp_proxy", wire::any(&proxy))
}

pub(super) fn network_filter(name: &str, config: google_pb::Any) -> listener_pb::Filter {
    listener_pb::Filter { name: name.into(), config_type: Some(listener_pb::filter::ConfigType::TypedConfig(config)) }
}
