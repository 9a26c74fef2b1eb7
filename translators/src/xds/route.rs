//! Routes: where a request to a called port goes.
//!
//! Owns: matches, destinations, time limits. May use: `retry`, `text`. Never: a catch-all that no rule asks for:
//! without a match the answer is 404.

use proto::envoy::config::route::v3 as route_pb;
use proto::google::protobuf as google_pb;

use super::http::routes;
use super::rbac::header;
use super::{cluster_name, origins, planned_port, retry, route_name, text, wire};
use crate::mesh::{Consumer, HttpMatch, HttpRule, Mesh, PathMatch, Protocol, TextMatch, WeightedDestination};
use crate::name::QualifiedName;
use crate::resource::{Kind, Resource};

use route_pb::route_match::PathSpecifier;

/// The methods that may be done twice (RFC 9110, 9.2.2).
const IDEMPOTENT: &str = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE";

/// The routes of `consumer` for a port.
pub(super) fn configuration(mesh: &Mesh, service: &QualifiedName, port: &str, consumer: &Consumer) -> Resource {
    let name = route_name(service, port, consumer);
    let (service, port) = planned_port(mesh, service, port);
    let route = port.routes.get(consumer);
    let rules = || route.iter().flat_map(|route| &route.rules);
    let configuration = routes(&name, rules().flat_map(|rule| alternatives(port.protocol, rule)).collect());
    let rule_origins =
        rules().flat_map(|rule| rule.origin.iter().chain(&rule.timeout.origin).chain(&rule.retry.origin));
    let origins =
        origins([&service.origin].into_iter().chain(route.iter().flat_map(|route| &route.origin)).chain(rule_origins));
    Resource::new(Kind::Route, name, &configuration, origins)
}

/// The routes of a rule, which has one or more alternatives.
fn alternatives(protocol: Protocol, rule: &HttpRule) -> Vec<route_pb::Route> {
    let anything = [HttpMatch { path: None, methods: Default::default(), headers: Default::default() }];
    let matches = if rule.matches.is_empty() { &anything[..] } else { &rule.matches[..] };
    matches.iter().flat_map(|alternative| tries(protocol, rule, alternative)).collect()
}

/// Envoy's retry policy knows no methods, so an alternative that names none becomes two routes where it matters:
/// one for the methods that may be done twice, and one with fewer conditions for the rest.
fn tries(protocol: Protocol, rule: &HttpRule, alternative: &HttpMatch) -> Vec<route_pb::Route> {
    let (full, cautious) = (retry::full(&rule.retry.value), retry::cautious(&rule.retry.value));
    let any_method = matching(alternative);
    if !alternative.methods.is_empty() || full == cautious {
        return vec![route(protocol, rule, any_method, full)];
    }
    let mut idempotent = any_method.clone();
    idempotent.headers.push(header(":method", wire::regex(IDEMPOTENT)));
    vec![route(protocol, rule, idempotent, full), route(protocol, rule, any_method, cautious)]
}

fn route(
    protocol: Protocol,
    rule: &HttpRule,
    matching: route_pb::RouteMatch,
    retry_policy: Option<route_pb::RetryPolicy>,
) -> route_pb::Route {
    let timeout = rule.timeout.value;
    let action = route_pb::RouteAction {
        cluster_specifier: Some(destinations(&rule.to)),
        // Unset would be 15 s; zero is no limit.
        timeout: Some(wire::duration(timeout.unwrap_or_default())),
        max_stream_duration: (protocol == Protocol::Grpc && timeout.is_none()).then(callers_limit),
        retry_policy,
        ..Default::default()
    };
    route_pb::Route {
        name: rule.name.clone(),
        r#match: Some(matching),
        action: Some(route_pb::route::Action::Route(action)),
        ..Default::default()
    }
}

/// The limit that a gRPC caller sets itself, whatever it is.
fn callers_limit() -> route_pb::route_action::MaxStreamDuration {
    route_pb::route_action::MaxStreamDuration {
        grpc_timeout_header_max: Some(google_pb::Duration::default()),
        ..Default::default()
    }
}

fn destinations(to: &[WeightedDestination]) -> route_pb::route_action::ClusterSpecifier {
    use route_pb::route_action::ClusterSpecifier;
    if let [only] = to {
        return ClusterSpecifier::Cluster(cluster_name(&only.destination));
    }
    let share = |to: &WeightedDestination| route_pb::weighted_cluster::ClusterWeight {
        name: cluster_name(&to.destination),
        weight: Some(wire::number(to.weight)),
        ..Default::default()
    };
    let clusters = to.iter().map(share).collect();
    ClusterSpecifier::WeightedClusters(route_pb::WeightedCluster { clusters, ..Default::default() })
}

fn matching(alternative: &HttpMatch) -> route_pb::RouteMatch {
    let methods = (!alternative.methods.is_empty()).then(|| method(alternative));
    let headers = alternative.headers.iter().map(|(name, value)| self::value(name, value));
    route_pb::RouteMatch {
        path_specifier: Some(path(alternative.path.as_ref())),
        headers: methods.into_iter().chain(headers).collect(),
        ..Default::default()
    }
}

fn method(alternative: &HttpMatch) -> route_pb::HeaderMatcher {
    let mut methods = alternative.methods.iter();
    match (methods.next(), methods.next()) {
        (Some(only), None) => header(":method", wire::exact(only)),
        _ => header(":method", wire::regex(text::one_of(&alternative.methods))),
    }
}

fn path(path: Option<&PathMatch>) -> PathSpecifier {
    match path {
        None => PathSpecifier::Prefix("/".into()),
        Some(PathMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        // Envoy's matching of whole segments takes no slash at the end, nor what starts a query or fragment.
        Some(PathMatch::Prefix(prefix)) if prefix.ends_with('/') || prefix.contains(['?', '#']) => {
            PathSpecifier::Prefix(prefix.clone())
        }
        Some(PathMatch::Prefix(prefix)) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
        Some(PathMatch::Regex(expression)) => PathSpecifier::SafeRegex(wire::regex_matcher(expression)),
    }
}

fn value(name: &str, value: &TextMatch) -> route_pb::HeaderMatcher {
    use route_pb::header_matcher::HeaderMatchSpecifier;
    let present = |present| route_pb::HeaderMatcher {
        name: name.into(),
        header_match_specifier: Some(HeaderMatchSpecifier::PresentMatch(present)),
        ..Default::default()
    };
    match value {
        TextMatch::Exact(value) => header(name, wire::exact(value)),
        // Every value starts with nothing, and Envoy refuses an empty prefix.
        TextMatch::Prefix(start) if start.is_empty() => present(true),
        TextMatch::Prefix(start) => header(name, wire::prefix(start)),
        TextMatch::Regex(expression) => header(name, wire::regex(expression)),
        TextMatch::Present => present(true),
        TextMatch::Absent => present(false),
    }
}
