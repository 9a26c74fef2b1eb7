//! Permissions: what an entry of an access policy says that a caller does.
//!
//! Owns: operations as matchers of requests and of connections. May use: `text` for patterns, `route` for headers.
//! Never: lets a character of a rule become an operator.

use proto::envoy::config::rbac::v3 as rbac_pb;
use proto::envoy::config::route::v3 as route_pb;
use proto::envoy::r#type::matcher::v3 as matcher_pb;

use super::{route, text, wire};
use crate::mesh::{AccessEntry, GrpcMethod, HostMatch, Operation};

use rbac_pb::permission::Rule;

/// What an entry says about requests.
pub(super) fn requests(to: &[Operation]) -> Vec<rbac_pb::Permission> {
    if to.is_empty() { vec![permission(Rule::Any(true))] } else { to.iter().map(request).collect() }
}

/// What an entry says about connections, which have nothing that a request has.
pub(super) fn connections(entry: &AccessEntry) -> Vec<rbac_pb::Permission> {
    let AccessEntry { to, jwt, external, .. } = entry;
    let any = jwt.is_none() && external.is_none() && (to.is_empty() || to.iter().any(|operation| !operation.is_http()));
    if any { vec![permission(Rule::Any(true))] } else { Vec::new() }
}

fn request(operation: &Operation) -> rbac_pb::Permission {
    let Operation { methods, paths, hosts, headers, grpc } = operation;
    let alternatives = [
        methods.iter().map(|name| method(name)).collect(),
        paths.iter().map(|pattern| path(pattern)).collect(),
        hosts.iter().map(host).collect(),
        grpc.iter().map(call).collect(),
    ];
    let headers = headers.iter().map(|(name, value)| permission(Rule::Header(route::value(name, value))));
    all_of(alternatives.into_iter().filter_map(any_of).chain(headers).collect())
}

pub(super) fn all_of(mut rules: Vec<rbac_pb::Permission>) -> rbac_pb::Permission {
    match rules.len() {
        0 => permission(Rule::Any(true)),
        1 => rules.remove(0),
        _ => permission(Rule::AndRules(rbac_pb::permission::Set { rules })),
    }
}

pub(super) fn any_of(mut rules: Vec<rbac_pb::Permission>) -> Option<rbac_pb::Permission> {
    match rules.len() {
        0 => None,
        1 => rules.pop(),
        _ => Some(permission(Rule::OrRules(rbac_pb::permission::Set { rules }))),
    }
}

pub(super) fn method(method: &str) -> rbac_pb::Permission {
    permission(Rule::Header(header(":method", wire::exact(method))))
}

/// A header with a matching value.
pub(super) fn header(name: &str, value: matcher_pb::StringMatcher) -> route_pb::HeaderMatcher {
    route_pb::HeaderMatcher {
        name: name.into(),
        header_match_specifier: Some(route_pb::header_matcher::HeaderMatchSpecifier::StringMatch(value)),
        ..Default::default()
    }
}

fn path(pattern: &str) -> rbac_pb::Permission {
    match pattern.split_once('*') {
        None => path_is(wire::exact(pattern)),
        Some(("", "")) => permission(Rule::Any(true)),
        Some((start, "")) => path_is(wire::prefix(start)),
        Some(_) => path_is(wire::regex(text::pattern(pattern))),
    }
}

fn path_is(matcher: matcher_pb::StringMatcher) -> rbac_pb::Permission {
    permission(Rule::UrlPath(matcher_pb::PathMatcher { rule: Some(matcher_pb::path_matcher::Rule::Path(matcher)) }))
}

/// A call of gRPC is a POST to the path of its method.
fn call(of: &GrpcMethod) -> rbac_pb::Permission {
    let path = match &of.method {
        Some(method) => wire::exact(format!("/{}/{method}", of.service)),
        None => wire::prefix(format!("/{}/", of.service)),
    };
    all_of(vec![method("POST"), path_is(path)])
}

/// The host of a request may have a port, a dot at its end, and capitals.
fn host(of: &HostMatch) -> rbac_pb::Permission {
    let name = match of {
        HostMatch::Exact(name) => text::literal(name),
        HostMatch::Under(name) => format!("[^:]+\\.{}", text::literal(name)),
        HostMatch::Any => return permission(Rule::Any(true)),
    };
    permission(Rule::Header(header(":authority", wire::regex(format!("(?i){name}\\.?(:[^@]*)?")))))
}

pub(super) fn permission(rule: Rule) -> rbac_pb::Permission {
    rbac_pb::Permission { rule: Some(rule) }
}
