//! HTTP filters that act where a route asks for it: cross-origin requests, faults, limits of rate.
//!
//! Owns: these filters, idle in every manager of calls, and what a route makes of them. May use: `raw`, `wire`. Never:
//! changes a listener because a route changes.

use prost::{Message as _, Name};
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::route::v3 as route_pb;
use proto::envoy::extensions::common::ratelimit::v3 as descriptor_pb;
use proto::envoy::extensions::filters::common::fault::v3 as delay_pb;
use proto::envoy::extensions::filters::http::cors::v3 as cors_pb;
use proto::envoy::extensions::filters::http::fault::v3 as fault_pb;
use proto::envoy::extensions::filters::http::local_ratelimit::v3 as limit_pb;
use proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use proto::envoy::extensions::rate_limit_descriptors::expr::v3 as expr_pb;
use proto::envoy::r#type::v3 as type_pb;

use super::http::http_filter;
use super::raw::Raw;
use super::{route, wire};
use crate::mesh::{Checks, Cors, Fault, Percent, RateKey, RateLimit, TextMatch};

use action_pb::ActionSpecifier;
use proto::envoy::extensions::common::ratelimit::v3::XRateLimitHeadersRfcVersion;
use route_pb::rate_limit::action as action_pb;

const CORS: &str = "envoy.filters.http.cors";
pub(super) const FAULT: &str = "envoy.filters.http.fault";
pub(super) const RATE_LIMIT: &str = "envoy.filters.http.local_ratelimit";

/// The filters as they stand in a listener: none of them does anything where a route does not ask for it.
pub(super) fn idle() -> Vec<hcm_pb::HttpFilter> {
    let filters = [
        (CORS, wire::any(&cors_pb::Cors {})),
        (FAULT, wire::any(&fault_pb::HttpFault::default())),
        (RATE_LIMIT, wire::any(&limit_pb::LocalRateLimit { stat_prefix: "route".into(), ..Default::default() })),
    ];
    let idle = |(name, config)| hcm_pb::HttpFilter { disabled: true, ..http_filter(name, config) };
    filters.into_iter().map(idle).collect()
}

/// The fields of a route that ask for them, in the order of the filters' names.
pub(super) fn of_route(checks: &Checks) -> Vec<u8> {
    let mut route = Raw::default();
    if let Some(cors) = &checks.cors {
        put(&mut route, CORS, &self::cors(cors));
    }
    if let Some(fault) = &checks.fault {
        put(&mut route, FAULT, &self::fault(fault));
    }
    if let Some(limit) = &checks.rate_limit {
        put(&mut route, RATE_LIMIT, &rate_limit(limit, "route", false));
    }
    route.into_bytes()
}

/// An entry of `typed_per_filter_config`: a map, whose entries prost would write in any order.
fn put<M: prost::Message + Name>(route: &mut Raw, filter: &str, config: &M) {
    route.message(13, |entry| {
        entry.text(1, filter);
        entry.message(2, |any| any.encoded(&wire::any(config).encode_to_vec()));
    });
}

fn cors(cors: &Cors) -> cors_pb::CorsPolicy {
    let origin = |origin: &TextMatch| match origin {
        TextMatch::Exact(text) => wire::exact(text),
        TextMatch::Prefix(start) if !start.is_empty() => wire::prefix(start),
        TextMatch::Regex(expression) => wire::regex(expression),
        TextMatch::Prefix(_) | TextMatch::Present | TextMatch::Absent => wire::regex(r"\C*"),
    };
    cors_pb::CorsPolicy {
        allow_origin_string_match: cors.origins.iter().map(origin).collect(),
        allow_methods: cors.methods.join(","),
        allow_headers: cors.headers.join(","),
        expose_headers: cors.expose.join(","),
        max_age: cors.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: cors.credentials.then(|| wire::boolean(true)),
        // The application is not asked on behalf of an origin that is not allowed.
        forward_not_matching_preflights: Some(wire::boolean(false)),
        ..Default::default()
    }
}

pub(super) fn fault(fault: &Fault) -> fault_pb::HttpFault {
    use delay_pb::fault_delay::FaultDelaySecifier;
    fault_pb::HttpFault {
        delay: fault.delay.map(|(percent, fixed)| delay_pb::FaultDelay {
            percentage: Some(wire::share(percent)),
            fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(wire::duration(fixed))),
        }),
        abort: fault.abort.map(|(percent, status)| fault_pb::FaultAbort {
            percentage: Some(wire::share(percent)),
            error_type: Some(fault_pb::fault_abort::ErrorType::HttpStatus(status.into())),
            ..Default::default()
        }),
        headers: fault.headers.iter().map(|(name, value)| route::value(name, value)).collect(),
        ..Default::default()
    }
}

pub(super) fn rate_limit(limit: &RateLimit, stat_prefix: &str, certified: bool) -> limit_pb::LocalRateLimit {
    let bucket = bucket(limit);
    let all =
        core_pb::RuntimeFractionalPercent { default_value: Some(wire::share(Percent::ALL)), ..Default::default() };
    let each = each(limit, certified);
    // An entry without a value stands for each value that there is.
    let descriptors = each.iter().map(|(key, _)| descriptor_pb::LocalRateLimitDescriptor {
        entries: vec![descriptor_pb::rate_limit_descriptor::Entry { key: key.clone(), value: String::new() }],
        token_bucket: Some(bucket),
        ..Default::default()
    });
    limit_pb::LocalRateLimit {
        stat_prefix: stat_prefix.to_owned(),
        token_bucket: Some(bucket),
        filter_enabled: Some(all.clone()),
        filter_enforced: Some(all),
        descriptors: descriptors.collect(),
        // What has a bucket of its own takes nothing of that of the rest.
        always_consume_default_token_bucket: each.is_some().then(|| wire::boolean(false)),
        max_dynamic_descriptors: each.is_some().then(|| wire::number(MOST_BUCKETS)),
        rate_limits: each.into_iter().map(|(_, action)| by(action)).collect(),
        enable_x_ratelimit_headers: XRateLimitHeadersRfcVersion::DraftVersion03.into(),
        rate_limited_as_resource_exhausted: true,
        ..Default::default()
    }
}

/// What is told apart by a limit: the key of its entry, and what reads its value. Where callers are not `certified` they
/// are all alike; in a caller's own proxy there is but one.
fn each(limit: &RateLimit, certified: bool) -> Option<(String, ActionSpecifier)> {
    match limit.key.as_ref()? {
        RateKey::Caller => certified.then(|| {
            let identity = expr_pb::Descriptor {
                descriptor_key: "caller".into(),
                skip_if_error: true,
                expr_specifier: Some(expr_pb::descriptor::ExprSpecifier::Text(
                    "connection.uri_san_peer_certificate".into(),
                )),
            };
            let extension = core_pb::TypedExtensionConfig {
                name: "envoy.rate_limit_descriptors.expr".into(),
                typed_config: Some(wire::any(&identity)),
            };
            ("caller".to_owned(), ActionSpecifier::Extension(extension))
        }),
        RateKey::Ip => Some(("remote_address".to_owned(), ActionSpecifier::RemoteAddress(Default::default()))),
        RateKey::Header(name) => {
            let header = action_pb::RequestHeaders {
                header_name: name.clone(),
                descriptor_key: name.clone(),
                ..Default::default()
            };
            Some((name.clone(), ActionSpecifier::RequestHeaders(header)))
        }
    }
}

fn by(action: ActionSpecifier) -> route_pb::RateLimit {
    let action = route_pb::rate_limit::Action { action_specifier: Some(action) };
    route_pb::RateLimit { actions: vec![action], ..Default::default() }
}

/// So many values of a key have a bucket of their own; of more, the one that was not used for longest loses it.
const MOST_BUCKETS: u32 = 10_000;

/// A token at a time, or as many as come in the shortest time that Envoy takes.
fn bucket(limit: &RateLimit) -> type_pb::TokenBucket {
    let shortest = RateLimit::SHORTEST.as_nanos();
    let (requests, per) = (u128::from(limit.requests.get()), limit.per.as_nanos());
    let tokens = (requests * shortest).div_ceil(per.max(1)).clamp(1, requests);
    let interval = u64::try_from((per * tokens / requests).max(shortest)).unwrap_or(u64::MAX);
    type_pb::TokenBucket {
        max_tokens: limit.requests.get(),
        tokens_per_fill: Some(wire::number(u32::try_from(tokens).unwrap_or(u32::MAX))),
        fill_interval: Some(wire::duration(std::time::Duration::from_nanos(interval))),
    }
}
