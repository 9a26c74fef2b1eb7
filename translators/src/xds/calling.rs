//! How calls are made: the fields of a cluster, of a route and of a proxy of bytes that follow from policies.
//!
//! Owns: balancing, limits, repetitions' budget, outliers, keepalive. May use: `mesh`, `wire`. Never: a destination, or who
//! may answer for it.

use prost::{Message as _, Name as _};
use proto::envoy::config::cluster::v3 as cluster_pb;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::route::v3 as route_pb;
use proto::envoy::extensions::filters::network::tcp_proxy::v3 as tcp_pb;
use proto::envoy::extensions::upstreams::http::v3 as upstream_pb;
use proto::envoy::r#type::v3 as type_pb;
use proto::google::protobuf as google_pb;

use super::wire;
use crate::mesh::{BalancingPolicy, Breaker, HashOn, Keepalive, Outbound, Outliers, Percent, Prefer, Protocol};

/// Under which name a connection knows whose calls come over it.
pub(super) const CALLER: &str = "chancery.caller";

/// Whether requests are told apart by who makes them.
pub(super) fn by_caller(calls: &Outbound) -> bool {
    calls.balancing.value.hashes() && calls.hash_on.value == Some(HashOn::Caller)
}

/// Whether the clusters of these calls are as those where no policy says anything; the time to connect apart.
pub(super) fn is_plain(calls: &Outbound) -> bool {
    let Breaker { max_connections, max_pending_requests, max_requests, max_retries } = &calls.breaker;
    let plain = Outbound::built_in();
    let limits = (max_connections.value, max_pending_requests.value, max_requests.value, max_retries.value);
    let budget = (calls.retry_percent.value, calls.retry_min_concurrent.value);
    let times = (calls.idle_timeout.value, calls.max_connection.value, calls.slow_start.value);
    let Breaker { max_connections, max_pending_requests, max_requests, max_retries } = &plain.breaker;
    limits == (max_connections.value, max_pending_requests.value, max_requests.value, max_retries.value)
        && budget == (plain.retry_percent.value, plain.retry_min_concurrent.value)
        && times == (plain.idle_timeout.value, plain.max_connection.value, plain.slow_start.value)
        && calls.balancing.value == plain.balancing.value
        && !calls.outliers.is_on()
        && calls.keepalive.value.is_none()
        && calls.health_check.value.is_none()
        && calls.proxy_protocol.value.is_none()
        && calls.locality.prefer.value == Prefer::None
}

/// `cluster` as these calls want it.
pub(super) fn cluster(cluster: cluster_pb::Cluster, protocol: Protocol, calls: &Outbound) -> cluster_pb::Cluster {
    cluster_pb::Cluster {
        lb_policy: policy(calls.balancing.value).into(),
        lb_config: slow_start(calls),
        circuit_breakers: Some(limits(calls)),
        outlier_detection: calls.outliers.is_on().then(|| outlier_detection(&calls.outliers)),
        typed_extension_protocol_options: protocol_options(protocol, calls).into_iter().collect(),
        upstream_connection_options: calls.keepalive.value.as_ref().map(connection_options),
        ..cluster
    }
}

/// Requests that are alike go to one endpoint, whatever the policy is otherwise.
pub(super) fn stick(cluster: &mut cluster_pb::Cluster, calls: &Outbound) {
    if !calls.balancing.value.hashes() {
        cluster.lb_policy = policy(BalancingPolicy::RingHash).into();
        cluster.lb_config = None;
    }
}

fn policy(policy: BalancingPolicy) -> cluster_pb::cluster::LbPolicy {
    use cluster_pb::cluster::LbPolicy;
    match policy {
        BalancingPolicy::RoundRobin => LbPolicy::RoundRobin,
        BalancingPolicy::LeastRequest => LbPolicy::LeastRequest,
        BalancingPolicy::RingHash => LbPolicy::RingHash,
        BalancingPolicy::Maglev => LbPolicy::Maglev,
        BalancingPolicy::Random => LbPolicy::Random,
    }
}

fn slow_start(calls: &Outbound) -> Option<cluster_pb::cluster::LbConfig> {
    use cluster_pb::cluster::{LbConfig, LeastRequestLbConfig, RoundRobinLbConfig, SlowStartConfig};
    let window = calls.slow_start.value?;
    let slow_start_config =
        Some(SlowStartConfig { slow_start_window: Some(wire::duration(window)), ..Default::default() });
    match calls.balancing.value {
        BalancingPolicy::RoundRobin => Some(LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config })),
        BalancingPolicy::LeastRequest => {
            Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig { slow_start_config, ..Default::default() }))
        }
        BalancingPolicy::RingHash | BalancingPolicy::Maglev | BalancingPolicy::Random => None,
    }
}

/// What is under way at once. A share of it may be repetitions, unless their number is given.
pub(super) fn limits(calls: &Outbound) -> cluster_pb::CircuitBreakers {
    use cluster_pb::circuit_breakers::thresholds::RetryBudget;
    let breaker = &calls.breaker;
    let budget = || RetryBudget {
        budget_percent: Some(share(calls.retry_percent.value)),
        min_retry_concurrency: Some(wire::number(calls.retry_min_concurrent.value)),
        ..Default::default()
    };
    let retries = breaker.max_retries.value;
    let thresholds = cluster_pb::circuit_breakers::Thresholds {
        max_connections: Some(wire::number(breaker.max_connections.value)),
        max_pending_requests: Some(wire::number(breaker.max_pending_requests.value)),
        max_requests: Some(wire::number(breaker.max_requests.value)),
        max_retries: retries.map(wire::number),
        retry_budget: retries.is_none().then(budget),
        ..Default::default()
    };
    cluster_pb::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

/// The application itself says when it has enough.
pub(super) fn without_limits() -> cluster_pb::CircuitBreakers {
    let all = || Some(wire::number(u32::MAX));
    let thresholds = cluster_pb::circuit_breakers::Thresholds {
        max_connections: all(),
        max_pending_requests: all(),
        max_requests: all(),
        ..Default::default()
    };
    cluster_pb::CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

/// Whatever a policy does not name is not done: Envoy itself would count five server errors, and compare endpoints.
fn outlier_detection(outliers: &Outliers) -> cluster_pb::OutlierDetection {
    const LONGEST_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);
    const USUAL_MAXIMUM: std::time::Duration = std::time::Duration::from_secs(300);
    let enforced = |is_on: bool| Some(wire::number(if is_on { 100 } else { 0 }));
    let Outliers { consecutive_5xx, consecutive_gateway_errors, success_rate, eject_for, max_ejected } = outliers;
    let eject_for = eject_for.value;
    // The least that fails where less than this succeeds.
    let failures = success_rate.value.map(|rate| wire::number(100 - rate.millionths.div_ceil(10_000).min(100)));
    cluster_pb::OutlierDetection {
        interval: Some(wire::duration(eject_for.min(LONGEST_INTERVAL))),
        base_ejection_time: Some(wire::duration(eject_for)),
        max_ejection_time: Some(wire::duration(eject_for.max(USUAL_MAXIMUM))),
        max_ejection_percent: Some(wire::number(max_ejected.value.millionths.div_ceil(10_000))),
        consecutive_5xx: consecutive_5xx.value.map(|count| wire::number(count.get())),
        enforcing_consecutive_5xx: enforced(consecutive_5xx.value.is_some()),
        consecutive_gateway_failure: consecutive_gateway_errors.value.map(|count| wire::number(count.get())),
        enforcing_consecutive_gateway_failure: enforced(consecutive_gateway_errors.value.is_some()),
        enforcing_success_rate: enforced(false),
        enforcing_failure_percentage: enforced(success_rate.value.is_some()),
        failure_percentage_minimum_hosts: failures.as_ref().map(|_| wire::number(1)),
        failure_percentage_threshold: failures,
        ..Default::default()
    }
}

fn connection_options(keepalive: &Keepalive) -> cluster_pb::UpstreamConnectionOptions {
    let seconds = |span: std::time::Duration| wire::number(u32::try_from(span.as_secs()).unwrap_or(u32::MAX));
    let tcp_keepalive = core_pb::TcpKeepalive {
        keepalive_time: keepalive.time.map(seconds),
        keepalive_interval: keepalive.interval.map(seconds),
        keepalive_probes: keepalive.probes.map(|probes| wire::number(probes.get())),
    };
    cluster_pb::UpstreamConnectionOptions { tcp_keepalive: Some(tcp_keepalive), ..Default::default() }
}

/// One entry or none: with more, the encoding would have no order.
pub(super) fn protocol_options(protocol: Protocol, calls: &Outbound) -> Option<(String, google_pb::Any)> {
    use upstream_pb::http_protocol_options::explicit_http_config::ProtocolConfig;
    use upstream_pb::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
    let protocol_config = match protocol {
        Protocol::Http => ProtocolConfig::HttpProtocolOptions(Default::default()),
        Protocol::Http2 | Protocol::Grpc => ProtocolConfig::Http2ProtocolOptions(Default::default()),
        Protocol::Tcp | Protocol::Tls => return None,
    };
    let explicit = ExplicitHttpConfig { protocol_config: Some(protocol_config) };
    let options = upstream_pb::HttpProtocolOptions {
        common_http_protocol_options: Some(core_pb::HttpProtocolOptions {
            // Zero is no limit; unset would be an hour.
            idle_timeout: Some(wire::duration(calls.idle_timeout.value.unwrap_or_default())),
            max_connection_duration: calls.max_connection.value.map(wire::duration),
            ..Default::default()
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)),
        ..Default::default()
    };
    Some((upstream_pb::HttpProtocolOptions::full_name(), wire::any(&options)))
}

/// How calls are made, as far as routes say it: fields of an action.
#[derive(Debug)]
pub(super) struct Action {
    /// Those between its repetitions and what it changes of a request.
    pub(super) before: Vec<u8>,
    /// Those after that.
    pub(super) after: Vec<u8>,
    /// Whether requests are told apart by a hash.
    pub(super) hashes: bool,
}

/// The fields of a route's action; `sticky` is in what its rule says that the requests of one client are alike.
pub(super) fn action(protocol: Protocol, calls: &Outbound, sticky: Option<&HashOn>) -> Action {
    let of_policy = || calls.hash_on.value.as_ref().filter(|_| calls.balancing.value.hashes());
    let hash_on = sticky.or_else(of_policy);
    let idle = calls.idle_timeout.value;
    let is_usual = idle == Outbound::built_in().idle_timeout.value;
    if hash_on.is_none() && is_usual && calls.max_stream.value.is_none() {
        return Action { before: Vec::new(), after: Vec::new(), hashes: false };
    }
    let before = route_pb::RouteAction {
        hash_policy: hash_on.map(hash_policy).into_iter().collect(),
        // Zero is no limit.
        idle_timeout: (!is_usual).then(|| wire::duration(idle.unwrap_or_default())),
        ..Default::default()
    };
    let max_stream = calls.max_stream.value;
    let limit = route_pb::route_action::MaxStreamDuration {
        max_stream_duration: max_stream.map(wire::duration),
        // The limit holds that a gRPC caller sets itself, whatever it is.
        grpc_timeout_header_max: (protocol == Protocol::Grpc).then(google_pb::Duration::default),
        ..Default::default()
    };
    let after = route_pb::RouteAction { max_stream_duration: max_stream.map(|_| limit), ..Default::default() };
    Action { before: before.encode_to_vec(), after: after.encode_to_vec(), hashes: hash_on.is_some() }
}

fn hash_policy(hash_on: &HashOn) -> route_pb::route_action::HashPolicy {
    use route_pb::route_action::hash_policy::{
        ConnectionProperties, Cookie, CookieAttribute, FilterState, Header, PolicySpecifier,
    };
    let specifier = match hash_on {
        HashOn::Header(name) => PolicySpecifier::Header(Header { header_name: name.clone(), ..Default::default() }),
        HashOn::Cookie(name) => PolicySpecifier::Cookie(Cookie {
            name: name.clone(),
            path: "/".into(),
            // Set where there is none, for as long as the client's session.
            ttl: Some(google_pb::Duration::default()),
            attributes: vec![CookieAttribute { name: "HttpOnly".into(), value: String::new() }],
        }),
        HashOn::Caller => PolicySpecifier::FilterState(FilterState { key: CALLER.to_owned() }),
        HashOn::Ip => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
    };
    route_pb::route_action::HashPolicy { policy_specifier: Some(specifier), ..Default::default() }
}

/// A proxy of bytes to a destination.
pub(super) fn bytes(proxy: tcp_pb::TcpProxy, calls: &Outbound) -> tcp_pb::TcpProxy {
    use type_pb::hash_policy::{FilterState, PolicySpecifier, SourceIp};
    let hash_on = calls.hash_on.value.as_ref().filter(|_| calls.balancing.value.hashes());
    let specifier = hash_on.and_then(|hash_on| match hash_on {
        HashOn::Caller => Some(PolicySpecifier::FilterState(FilterState { key: CALLER.to_owned() })),
        HashOn::Ip => Some(PolicySpecifier::SourceIp(SourceIp {})),
        // Of bytes nothing is known.
        HashOn::Header(_) | HashOn::Cookie(_) => None,
    });
    tcp_pb::TcpProxy {
        idle_timeout: Some(wire::duration(calls.idle_timeout.value.unwrap_or_default())),
        max_downstream_connection_duration: calls.max_connection.value.map(wire::duration),
        hash_policy: specifier
            .map(|specifier| type_pb::HashPolicy { policy_specifier: Some(specifier) })
            .into_iter()
            .collect(),
        ..proxy
    }
}

fn share(percent: Percent) -> type_pb::Percent {
    type_pb::Percent { value: f64::from(percent.millionths) / 10_000.0 }
}
