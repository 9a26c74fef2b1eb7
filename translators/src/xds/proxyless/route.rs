//! Routes of gRPC clients without a proxy: the rules as far as these clients can follow them.
//!
//! Owns: their matches, time limits and retries. May use: the `route` of proxies. Never: a match that a client refuses,
//! or a retry of what may already have happened.

use proto::envoy::config::route::v3 as route_pb;

use crate::mesh::{HttpAction, HttpMatch, HttpRule, Mesh, PathMatch, Retry, RetryCondition, TextMatch};
use crate::name::QualifiedName;
use crate::resource::{Kind, Resource};
use crate::xds::route::{self, Callers, path, value, weighted};
use crate::xds::{action, cluster_name, http, retry, route_name, wire};

use route_pb::route_match::PathSpecifier;

/// The only method of gRPC. Clients know no methods.
const METHOD: &str = "POST";

/// The routes of `callers` for a port.
pub(super) fn configuration(mesh: &Mesh, service: &QualifiedName, port: &str, callers: Callers<'_>) -> Resource {
    let name = route_name(service, port, callers.0);
    let routes = route::rules(mesh, service, port, callers).flat_map(|rule| alternatives(&rule)).collect();
    let configuration = http::routes(&name, routes);
    Resource::new(Kind::Route, name, &configuration, route::behind(mesh, service, port, callers))
}

/// The routes of a rule.
fn alternatives(rule: &HttpRule) -> Vec<route_pb::Route> {
    let anything = HttpMatch::default();
    let alternatives = if rule.matches.is_empty() { std::slice::from_ref(&anything) } else { &rule.matches };
    // A call has no query.
    let asks_nothing = |one: &HttpMatch| one.query.values().all(|value| *value == TextMatch::Absent);
    let can_match =
        alternatives.iter().filter(|one| (one.methods.is_empty() || one.methods.contains(METHOD)) && asks_nothing(one));
    let matches = can_match.flat_map(|one| paths(one.path.as_ref()).into_iter().map(|path| (path, &one.headers)));
    matches
        .map(|(path, headers)| route_pb::Route {
            name: rule.name.clone(),
            r#match: Some(route_pb::RouteMatch {
                path_specifier: Some(path),
                headers: headers.iter().map(|(name, text)| header(name, text)).collect(),
                ..Default::default()
            }),
            action: Some(match &rule.action {
                HttpAction::To(_) => route_pb::route::Action::Route(sent(rule)),
                // A call that one of these takes fails.
                HttpAction::Redirect(redirect) => route_pb::route::Action::Redirect(action::redirect(redirect, None)),
                HttpAction::Respond(respond) => route_pb::route::Action::DirectResponse(action::respond(respond)),
            }),
            ..Default::default()
        })
        .collect()
}

/// Clients do not know prefixes of whole segments: one is the path itself, and what is below it.
fn paths(wanted: Option<&PathMatch>) -> Vec<PathSpecifier> {
    match path(wanted) {
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            let below = PathSpecifier::Prefix(format!("{prefix}/"));
            vec![PathSpecifier::Path(prefix), below]
        }
        // They know no templates, and a route with one is a configuration that they refuse.
        PathSpecifier::PathMatchPolicy(_) => Vec::new(),
        other => vec![other],
    }
}

/// Not every client heeds a `present_match` that is false.
fn header(name: &str, text: &TextMatch) -> route_pb::HeaderMatcher {
    match text {
        TextMatch::Absent => route_pb::HeaderMatcher { invert_match: true, ..value(name, &TextMatch::Present) },
        TextMatch::Exact(_) | TextMatch::Prefix(_) | TextMatch::Regex(_) | TextMatch::Present => value(name, text),
    }
}

fn sent(rule: &HttpRule) -> route_pb::RouteAction {
    use route_pb::route_action::{ClusterSpecifier, MaxStreamDuration};
    let to = match rule.to() {
        [only] => route_pb::RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster_name(&only.destination))),
            ..Default::default()
        },
        several => weighted(several, false, |_, _| {}),
    };
    // The caller's own limit holds beside it.
    let limit = |limit| MaxStreamDuration { max_stream_duration: Some(wire::duration(limit)), ..Default::default() };
    route_pb::RouteAction {
        max_stream_duration: rule.timeout.value.map(limit),
        retry_policy: repeated(&rule.retry.value),
        ..to
    }
}

/// Clients repeat on gRPC statuses, and of themselves what never left them.
fn repeated(rule: &Retry) -> Option<route_pb::RetryPolicy> {
    let statuses = rule.when.iter().filter(|condition| matches!(condition, RetryCondition::Grpc(_)));
    let words: Vec<_> = statuses.map(|condition| retry::word(*condition)).collect();
    let back_off = |base| route_pb::retry_policy::RetryBackOff {
        base_interval: Some(wire::duration(base)),
        max_interval: Some(wire::duration(base.saturating_mul(10))),
    };
    (rule.attempts > 0 && !words.is_empty()).then(|| route_pb::RetryPolicy {
        retry_on: words.join(","),
        num_retries: Some(wire::number(rule.attempts)),
        retry_back_off: rule.backoff.filter(|base| !base.is_zero()).map(back_off),
        ..Default::default()
    })
}
