//! Routes: where a request to a called port goes.
//!
//! Owns: matches, destinations, time limits. May use: `retry`, `text`. Never: a catch-all that no rule asks for:
//! without a match the answer is 404.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use prost::Message as _;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::route::v3 as route_pb;
use proto::envoy::extensions::path::r#match::uri_template::v3 as template_pb;
use proto::envoy::r#type::matcher::v3 as matcher_pb;
use proto::google::protobuf as google_pb;
use proto::xds::core::v3 as range_pb;

use super::permission::header;
use super::raw::Raw;
use super::{action, calling, cluster_name, origins, planned_port, retry, route_name, text, wire};
use crate::mesh::{
    Changes, Consumer, HttpAction, HttpMatch, HttpRule, Mesh, Network, Outbound, PathMatch, Port, Protocol, Senders,
    Source, TextMatch, WeightedDestination,
};
use crate::name::{QualifiedName, RuleRef};
use crate::resource::{Kind, Resource};

use route_pb::route_match::PathSpecifier;

/// Whose calls: those of a consumer, and what they are of the sources that rules tell apart.
pub(super) type Callers<'a> = (&'a Consumer, &'a Senders);

/// The routes of `callers` for a port.
pub(super) fn configuration(mesh: &Mesh, service: &QualifiedName, port: &str, callers: Callers<'_>) -> Resource {
    let (consumer, _) = callers;
    let name = route_name(service, port, consumer);
    let (_, of_port) = planned_port(mesh, service, port);
    let mut configuration = Raw::with_capacity(512);
    configuration.text(1, &name);
    // One virtual host for every host: a sidecar knows the service by its listener.
    configuration.message(2, |host| {
        host.text(1, &name);
        host.text(2, "*");
        let (protocol, calls) = (of_port.protocol, calls(of_port, consumer));
        let usual = calling::action(protocol, calls, None);
        rules(mesh, service, port, callers).for_each(|rule| match &rule.sticky_by {
            None => alternatives(host, protocol, &rule, &usual),
            sticky => alternatives(host, protocol, &rule, &calling::action(protocol, calls, sticky.as_ref())),
        });
    });
    let behind = behind(mesh, service, port, callers);
    let calls = calls(of_port, consumer);
    let limits = calls.idle_timeout.origin.iter().chain(&calls.max_stream.origin).chain(&calls.hash_on.origin);
    let origins = if limits.clone().next().is_some() { origins(behind.iter().chain(limits)) } else { behind };
    Resource::from_bytes(Kind::Route, name.into(), &configuration.into_bytes(), origins)
}

/// How `consumer` makes its calls to a port.
fn calls<'a>(port: &'a Port, consumer: &Consumer) -> &'a Outbound {
    match consumer {
        Consumer::Everyone => &port.outbound,
        Consumer::Namespace(namespace) => port.outbound_for(namespace),
    }
}

/// The rules that `callers` follow for a port.
pub(super) fn rules<'a>(
    mesh: &'a Mesh,
    service: &QualifiedName,
    port: &str,
    (consumer, senders): Callers<'a>,
) -> impl Iterator<Item = Cow<'a, HttpRule>> + use<'a> {
    let (_, port) = planned_port(mesh, service, port);
    let rules = port.routes.get(consumer).into_iter().flat_map(|route| &route.rules);
    rules.filter_map(|rule| rule.followed_by(senders))
}

/// What the routes of `callers` for a port come from, but for how its calls are made.
pub(super) fn behind(mesh: &Mesh, service: &QualifiedName, port: &str, callers: Callers<'_>) -> Arc<[RuleRef]> {
    let (consumer, senders) = callers;
    let (service, port) = planned_port(mesh, service, port);
    let rules = port.routes.get(consumer).into_iter().flat_map(|route| &route.rules);
    let followed = rules.filter(|rule| rule.followed_by(senders).is_some());
    let of_rules = followed.flat_map(|rule| rule.origin.iter().chain(&rule.timeout.origin).chain(&rule.retry.origin));
    let route = port.routes.get(consumer).into_iter().flat_map(|route| &route.origin);
    origins([&service.origin].into_iter().chain(route).chain(of_rules))
}

/// The routes of a rule, which has one or more alternatives.
pub(super) fn alternatives(host: &mut Raw, protocol: Protocol, rule: &HttpRule, calls: &calling::Action) {
    let retry = &rule.retry.value;
    let full = retry::full(retry);
    let cautious = (!retry::is_cautious(retry)).then(|| retry::cautious(retry)).filter(|cautious| *cautious != full);
    let beside = action::beside(rule);
    let mut add = |any_method: &[u8], alternative: Option<&HttpMatch>| {
        match &rule.action {
            HttpAction::To(_) => {}
            HttpAction::Redirect(redirect) => {
                let redirect = action::redirect(redirect, alternative).encode_to_vec();
                return route(host, rule, &[any_method], &beside, |route| route.message(3, |m| m.encoded(&redirect)));
            }
            HttpAction::Respond(respond) => {
                let respond = action::respond(respond).encode_to_vec();
                return route(host, rule, &[any_method], &beside, |route| route.message(7, |m| m.encoded(&respond)));
            }
        }
        // Envoy's retry policy knows no methods, so an alternative that names none becomes two routes where it
        // matters: one for the methods that may be done twice, and one with fewer conditions for the rest.
        let names_methods = alternative.is_some_and(|one| !one.methods.is_empty());
        let changes =
            (rule.changes != Changes::default() || rule.mirror.is_some()).then(|| action::changes(rule, alternative));
        let changes = changes.as_ref().map_or((&[][..], &[][..]), |(before, after)| (before, after));
        let mut add = |taken: &[&[u8]], retry_policy: Option<&[u8]>| {
            route(host, rule, taken, &beside, |route| {
                sent(route, protocol, rule, changes, calls, retry_policy);
            });
        };
        match &cautious {
            Some(cautious) if !names_methods => {
                add(&[any_method, &IDEMPOTENT], full.as_deref());
                add(&[any_method], cautious.as_deref());
            }
            Some(_) | None => add(&[any_method], full.as_deref()),
        }
    };
    if rule.matches.is_empty() {
        add(&ANYTHING, None);
    }
    for alternative in &rule.matches {
        if let Some(preflight) = rule.checks.cors.as_ref().and_then(|_| preflight(alternative)) {
            add(&matching(&preflight).encode_to_vec(), Some(&preflight));
        }
        add(&matching(alternative).encode_to_vec(), Some(alternative));
    }
}

/// What a browser asks before it sends what `alternative` takes; `None` if that one takes it itself. A browser names the
/// method that is to come, and of its headers it sends none.
fn preflight(alternative: &HttpMatch) -> Option<HttpMatch> {
    let HttpMatch { path, within, methods, headers, query, from } = alternative;
    let is_taken = methods.is_empty() || methods.contains("OPTIONS");
    if is_taken && headers.is_empty() {
        return None;
    }
    let meant = match methods.len() {
        0 => TextMatch::Present,
        _ => TextMatch::Regex(text::one_of(methods)),
    };
    let headers = [("access-control-request-method".to_owned(), meant), ("origin".to_owned(), TextMatch::Present)];
    Some(HttpMatch {
        path: path.clone(),
        within: within.clone(),
        methods: ["OPTIONS".to_owned()].into(),
        headers: headers.into(),
        query: query.clone(),
        from: from.clone(),
    })
}

/// A route of a virtual host: `taken` are the fields of its match, `beside` those beside it and the action.
fn route(host: &mut Raw, rule: &HttpRule, taken: &[&[u8]], beside: &[u8], action: impl FnOnce(&mut Raw)) {
    host.message(3, |route| {
        route.message(1, |message| taken.iter().for_each(|fields| message.encoded(fields)));
        action(route);
        route.encoded(beside);
        if !rule.name.is_empty() {
            route.text(14, &rule.name);
        }
    });
}

/// The action of a request that is sent on: the fields that change it before its time limit and after it, and the
/// same of how calls are made.
fn sent(
    route: &mut Raw,
    protocol: Protocol,
    rule: &HttpRule,
    (before, after): (&[u8], &[u8]),
    calls: &calling::Action,
    retry_policy: Option<&[u8]>,
) {
    let timeout = rule.timeout.value;
    route.message(2, |action| {
        match rule.to() {
            [only] if only.is_plain() => action.text(1, &cluster_name(&only.destination)),
            several => action.encoded(&shared_out(several, rule.changes.host.is_some(), calls.hashes).encode_to_vec()),
        }
        action.encoded(before);
        // Unset would be 15 s; zero is no limit.
        wire::put_duration(action, 8, timeout.unwrap_or_default());
        if let Some(policy) = retry_policy {
            action.message(9, |message| message.encoded(policy));
        }
        action.encoded(&calls.before);
        action.encoded(after);
        action.encoded(&calls.after);
        if protocol == Protocol::Grpc && timeout.is_none() && calls.after.is_empty() {
            action.encoded(&CALLERS_LIMIT);
        }
    });
}

/// The match of every request.
static ANYTHING: LazyLock<Vec<u8>> = LazyLock::new(|| matching(&HttpMatch::default()).encode_to_vec());

/// The part of a match that leaves only the methods that may be done twice (RFC 9110, 9.2.2).
static IDEMPOTENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let methods = header(":method", wire::regex("GET|HEAD|OPTIONS|TRACE|PUT|DELETE"));
    route_pb::RouteMatch { headers: vec![methods], ..Default::default() }.encode_to_vec()
});

/// The part of an action by which the limit holds that a gRPC caller sets itself, whatever it is.
static CALLERS_LIMIT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let limit = route_pb::route_action::MaxStreamDuration {
        grpc_timeout_header_max: Some(google_pb::Duration::default()),
        ..Default::default()
    };
    route_pb::RouteAction { max_stream_duration: Some(limit), ..Default::default() }.encode_to_vec()
});

/// To these, with what is said of requests to each. Where requests are told apart by a `hash`, so are those that share a
/// weight. A host that the rule `rewrites` is so for all of them.
fn shared_out(to: &[WeightedDestination], rewrites: bool, hash: bool) -> route_pb::RouteAction {
    weighted(to, hash, |to, share| {
        if let Some(host) = to.host.as_ref().filter(|_| !rewrites) {
            share.host_rewrite_specifier = Some(
                route_pb::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host.clone()),
            );
        }
        if let Some((request, response)) = to.headers.as_deref() {
            share.request_headers_to_add = action::added(request);
            share.request_headers_to_remove = request.remove.iter().cloned().collect();
            share.response_headers_to_add = action::added(response);
            share.response_headers_to_remove = response.remove.iter().cloned().collect();
        }
    })
}

/// To these by weight, with what `also` says of each.
pub(super) fn weighted(
    to: &[WeightedDestination],
    hash: bool,
    also: impl Fn(&WeightedDestination, &mut route_pb::weighted_cluster::ClusterWeight),
) -> route_pb::RouteAction {
    use route_pb::route_action::ClusterSpecifier;
    use route_pb::weighted_cluster::RandomValueSpecifier::UseHashPolicy;
    let share = |to: &WeightedDestination| {
        let mut share = route_pb::weighted_cluster::ClusterWeight {
            name: cluster_name(&to.destination),
            weight: Some(wire::number(to.weight)),
            ..Default::default()
        };
        also(to, &mut share);
        share
    };
    let clusters = route_pb::WeightedCluster {
        clusters: to.iter().map(share).collect(),
        random_value_specifier: hash.then(|| UseHashPolicy(wire::boolean(true))),
        ..Default::default()
    };
    let cluster_specifier = Some(ClusterSpecifier::WeightedClusters(clusters));
    route_pb::RouteAction { cluster_specifier, ..Default::default() }
}

fn matching(alternative: &HttpMatch) -> route_pb::RouteMatch {
    let methods = (!alternative.methods.is_empty()).then(|| method(alternative));
    let headers = alternative.headers.iter().map(|(name, value)| self::value(name, value));
    let within = alternative.within.as_deref().map(|prefix| header(":path", wire::regex(beginning(prefix))));
    route_pb::RouteMatch {
        path_specifier: Some(path(alternative.path.as_ref())),
        headers: within.into_iter().chain(methods).chain(headers).collect(),
        filter_state: alternative.from.iter().map(|from| connected_from(from)).collect(),
        query_parameters: alternative.query.iter().map(|(name, value)| parameter(name, value)).collect(),
        ..Default::default()
    }
}

/// Under which name a connection to a gateway knows from where it comes.
pub(super) const CLIENT: &str = "chancery.client";

/// A connection that comes from one of these addresses.
fn connected_from(from: &BTreeSet<Source>) -> matcher_pb::FilterStateMatcher {
    use matcher_pb::filter_state_matcher::Matcher::AddressMatch;
    let range = |source: &Source| match source {
        Source::Ip(Network { address, length }) => Some(range_pb::CidrRange {
            address_prefix: address.to_string(),
            prefix_len: Some(wire::number((*length).into())),
        }),
        // Whoever asks was told apart by these before.
        Source::Namespace(_) | Source::Service(_) | Source::Identity(_) => None,
    };
    let ranges = from.iter().filter_map(range).collect();
    let matcher = Some(AddressMatch(matcher_pb::AddressMatcher { ranges, invert_match: false }));
    matcher_pb::FilterStateMatcher { key: CLIENT.to_owned(), matcher }
}

/// A path that begins with `prefix`, and whatever follows.
fn beginning(prefix: &str) -> String {
    let literal = text::literal(prefix);
    if prefix.ends_with('/') { format!(r"{literal}\C*") } else { format!(r"{literal}([/?]\C*)?") }
}

fn parameter(name: &str, value: &TextMatch) -> route_pb::QueryParameterMatcher {
    use route_pb::query_parameter_matcher::QueryParameterMatchSpecifier::{PresentMatch, StringMatch};
    let specifier = match value {
        TextMatch::Exact(value) => StringMatch(wire::exact(value)),
        TextMatch::Prefix(start) if start.is_empty() => PresentMatch(true),
        TextMatch::Prefix(start) => StringMatch(wire::prefix(start)),
        TextMatch::Regex(expression) => StringMatch(wire::regex(expression)),
        TextMatch::Present => PresentMatch(true),
        TextMatch::Absent => PresentMatch(false),
    };
    route_pb::QueryParameterMatcher { name: name.into(), query_parameter_match_specifier: Some(specifier) }
}

fn method(alternative: &HttpMatch) -> route_pb::HeaderMatcher {
    let mut methods = alternative.methods.iter();
    match (methods.next(), methods.next()) {
        (Some(only), None) => header(":method", wire::exact(only)),
        _ => header(":method", wire::regex(text::one_of(&alternative.methods))),
    }
}

pub(super) fn path(path: Option<&PathMatch>) -> PathSpecifier {
    match path {
        None => PathSpecifier::Prefix("/".into()),
        Some(PathMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        // Envoy's matching of whole segments takes no slash at the end, nor what starts a query or fragment.
        Some(PathMatch::Prefix(prefix)) if prefix.ends_with('/') || prefix.contains(['?', '#']) => {
            PathSpecifier::Prefix(prefix.clone())
        }
        Some(PathMatch::Prefix(prefix)) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
        Some(PathMatch::Regex(expression)) => PathSpecifier::SafeRegex(wire::regex_matcher(expression)),
        Some(PathMatch::Template(template)) => PathSpecifier::PathMatchPolicy(core_pb::TypedExtensionConfig {
            name: "envoy.path.match.uri_template.uri_template_matcher".into(),
            typed_config: Some(wire::any(&template_pb::UriTemplateMatchConfig { path_template: template.clone() })),
        }),
    }
}

pub(super) fn value(name: &str, value: &TextMatch) -> route_pb::HeaderMatcher {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mesh::{Checks, Destination, Retry, RetryCondition, Sourced};

    fn destination(port: &str) -> WeightedDestination {
        let service = "shop/cart".parse().expect("a name");
        let destination = Destination { service, port: port.into(), labels: Default::default(), sticky: false };
        WeightedDestination { weight: 3, ..WeightedDestination::only(destination) }
    }

    #[test]
    fn routes_are_written_as_the_typed_ones() {
        let [anything, posts] = [&[][..], &["POST"]].map(|methods| HttpMatch {
            path: Some(PathMatch::Prefix("/a".into())),
            within: None,
            methods: methods.iter().map(|&method| method.to_owned()).collect(),
            headers: [("x".to_owned(), TextMatch::Present)].into(),
            query: Default::default(),
            from: None,
        });
        let retry = |when: &[RetryCondition]| Retry {
            attempts: 2,
            when: when.iter().copied().collect(),
            per_try_timeout: Some(Duration::from_millis(1500)),
            backoff: Some(Duration::from_millis(25)),
        };
        let conditions = [RetryCondition::ConnectFailure, RetryCondition::Status(503), RetryCondition::Status(409)];
        for (protocol, timeout) in [(Protocol::Http, Some(Duration::from_secs(15))), (Protocol::Grpc, None)] {
            for to in [vec![destination("http")], vec![destination("http"), destination("grpc")]] {
                for (matches, retry) in [
                    (vec![], retry(&[])),
                    (vec![], retry(&conditions)),
                    (vec![anything.clone(), posts.clone()], retry(&conditions)),
                    (vec![], Retry { attempts: 0, ..retry(&[]) }),
                ] {
                    let rule = HttpRule {
                        origin: None,
                        name: "rule".into(),
                        matches,
                        action: HttpAction::To(to.clone()),
                        changes: Changes::default(),
                        mirror: None,
                        checks: Checks::default(),
                        sticky_by: None,
                        timeout: Sourced::built_in(timeout),
                        retry: Sourced::built_in(retry),
                    };
                    let mut host = Raw::default();
                    let calls = calling::action(protocol, Outbound::built_in(), None);
                    alternatives(&mut host, protocol, &rule, &calls);
                    let raw = host.into_bytes();
                    let typed = route_pb::VirtualHost::decode(&*raw).expect("a virtual host");
                    assert_eq!(typed.encode_to_vec(), raw, "the same fields in the same order");
                    for route in &typed.routes {
                        let Some(route_pb::route::Action::Route(action)) = &route.action else { panic!("{route:?}") };
                        assert_eq!(action.timeout, Some(wire::duration(timeout.unwrap_or_default())));
                        assert_eq!(action.max_stream_duration.is_some(), protocol == Protocol::Grpc);
                    }
                }
            }
        }
    }
}
