//! What a service takes: the filters of its own proxies that limit requests and connections.
//!
//! Owns: how a policy's inbound settings act in a chain. May use: `checks`, `wire`. Never: who may call; that is `rbac`'s.

use proto::envoy::config::listener::v3 as listener_pb;
use proto::envoy::extensions::filters::http::adaptive_concurrency::v3 as adaptive_pb;
use proto::envoy::extensions::filters::network::connection_limit::v3 as connections_pb;
use proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use proto::envoy::r#type::v3 as type_pb;

use super::checks::{self, FAULT, RATE_LIMIT};
use super::http::http_filter;
use super::tcp::network_filter;
use super::wire;
use crate::mesh::{Adaptive, Inbound};

/// The filters of requests that the access rules have admitted. A fault is the application's as far as others can tell.
pub(super) fn http(inbound: &Inbound, mtls: bool) -> Vec<hcm_pb::HttpFilter> {
    let limit = inbound.rate_limit.value.as_ref();
    let limit = limit.map(|limit| http_filter(RATE_LIMIT, wire::any(&checks::rate_limit(limit, "inbound", mtls))));
    let adaptive = inbound.adaptive_concurrency.value.as_ref();
    let adaptive = adaptive
        .map(|adaptive| http_filter("envoy.filters.http.adaptive_concurrency", wire::any(&concurrency(adaptive))));
    let fault = inbound.fault.value.as_ref();
    let fault = fault.map(|fault| http_filter(FAULT, wire::any(&checks::fault(fault))));
    [limit, adaptive, fault].into_iter().flatten().collect()
}

/// The filter of connections that there is one too many of.
pub(super) fn connections(inbound: &Inbound, stat_prefix: &str) -> Option<listener_pb::Filter> {
    let most = inbound.max_connections.value?;
    let limit = connections_pb::ConnectionLimit {
        stat_prefix: stat_prefix.to_owned(),
        max_connections: Some(proto::google::protobuf::UInt64Value { value: most.get().into() }),
        ..Default::default()
    };
    Some(network_filter("envoy.filters.network.connection_limit", wire::any(&limit)))
}

fn concurrency(adaptive: &Adaptive) -> adaptive_pb::AdaptiveConcurrency {
    use adaptive_pb::gradient_controller_config::{ConcurrencyLimitCalculationParams, MinimumRttCalculationParams};
    let least = Some(wire::number(adaptive.min_concurrent.get()));
    let controller = adaptive_pb::GradientControllerConfig {
        sample_aggregate_percentile: Some(type_pb::Percent { value: 50.0 }),
        concurrency_limit_params: Some(ConcurrencyLimitCalculationParams {
            max_concurrency_limit: Some(wire::number(adaptive.max_concurrent.get())),
            concurrency_update_interval: Some(wire::duration(adaptive.update)),
            min_concurrency_limit: least,
        }),
        min_rtt_calc_params: Some(MinimumRttCalculationParams {
            interval: Some(wire::duration(adaptive.measure)),
            min_concurrency: least,
            ..Default::default()
        }),
    };
    use adaptive_pb::adaptive_concurrency::ConcurrencyControllerConfig::GradientControllerConfig;
    adaptive_pb::AdaptiveConcurrency {
        concurrency_controller_config: Some(GradientControllerConfig(controller)),
        ..Default::default()
    }
}
