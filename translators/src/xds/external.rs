//! Services that are asked about requests: the filters that ask, and whom they do not ask about what.
//!
//! Owns: that a service is asked about what only its own entries admit. May use: `rbac`. Never: admits anything: that is up
//! to `rbac`, whose filters stand before these.

use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::rbac::v3 as rbac_pb;
use proto::envoy::extensions::filters::http::ext_authz::v3 as authz_pb;
use proto::envoy::extensions::filters::http::rbac::v3 as http_rbac_pb;
use proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use proto::envoy::r#type::matcher::v3 as matcher_pb;

use super::http::http_filter;
use super::permission::{all_of, any_of, permission, requests};
use super::{cluster_name, rbac, wire};
use crate::mesh::{Access, AccessEntry, Destination, External};
use crate::name::TrustDomain;

use rbac_pb::permission::Rule;
use rbac_pb::rbac::Action;

/// The prefix of what is said of requests that are admitted without a question.
const UNASKED: &str = "unasked_";

/// For each service that is asked: a filter that finds the requests which it is asked about, and one that asks.
pub(super) fn filters(access: &Access, trust_domain: &TrustDomain) -> Vec<hcm_pb::HttpFilter> {
    let externals = access.externals();
    if externals.is_empty() {
        return Vec::new();
    }
    let unasked = access.allow.iter().filter(|entry| entry.external.is_none()).chain(access.checks.as_deref());
    let mut filters = vec![finding(UNASKED, unasked, &[], trust_domain)];
    let mut others = vec![UNASKED.to_owned()];
    for (n, external) in externals.into_iter().enumerate() {
        let prefix = format!("asked_{n}_");
        let own = access.allow.iter().filter(|entry| entry.external.as_deref() == Some(external));
        filters.push(finding(&prefix, own, &others, trust_domain));
        filters.push(asking(external, &prefix));
        others.push(prefix);
    }
    filters
}

/// Where `external` is.
pub(super) fn destination(external: &External) -> Destination {
    let External { service, port, .. } = external;
    Destination { service: service.clone(), port: port.clone(), labels: Default::default(), sticky: false }
}

/// A filter that changes no answer: under `prefix` it says which requests one of `entries` takes and none of the
/// filters before it has said so of, whose prefixes are `others`.
fn finding<'a>(
    prefix: &str,
    entries: impl Iterator<Item = &'a AccessEntry>,
    others: &[String],
    trust_domain: &TrustDomain,
) -> hcm_pb::HttpFilter {
    let policies = rbac::policies(entries, |entry| {
        let rest = others.iter().map(|other| permission(Rule::SourcedMetadata(sourced(said(other, "denied")))));
        let own = any_of(requests(&entry.to));
        rbac::policy(entry, trust_domain, vec![all_of(own.into_iter().chain(rest).collect())])
    });
    let filter = |shadow_rules, shadow_rules_stat_prefix| http_rbac_pb::Rbac {
        shadow_rules,
        shadow_rules_stat_prefix,
        ..Default::default()
    };
    let head = filter(Some(rbac::rules(Action::Allow, None)), prefix.to_owned());
    let parts = policies.map(|one| filter(Some(rbac::rules(Action::Allow, Some(one))), String::new()));
    http_filter(rbac::HTTP, wire::in_order(&head, parts))
}

/// Whether the filter of this prefix has said `result` of a request.
fn said(prefix: &str, result: &str) -> matcher_pb::MetadataMatcher {
    use matcher_pb::metadata_matcher::{PathSegment, path_segment::Segment};
    let value = matcher_pb::value_matcher::MatchPattern::StringMatch(wire::exact(result));
    matcher_pb::MetadataMatcher {
        filter: rbac::HTTP.to_owned(),
        path: vec![PathSegment { segment: Some(Segment::Key(format!("{prefix}shadow_engine_result"))) }],
        value: Some(matcher_pb::ValueMatcher { match_pattern: Some(value) }),
        ..Default::default()
    }
}

fn sourced(matcher: matcher_pb::MetadataMatcher) -> rbac_pb::SourcedMetadata {
    rbac_pb::SourcedMetadata {
        metadata_matcher: Some(matcher),
        metadata_source: rbac_pb::MetadataSource::Dynamic.into(),
    }
}

/// Asks `external` about the requests which were found under `prefix`.
fn asking(external: &External, prefix: &str) -> hcm_pb::HttpFilter {
    let External { service, by_grpc, timeout, fail_open, .. } = external;
    let cluster = cluster_name(&destination(external));
    let authority = format!("{}.{}", service.name, service.namespace);
    let timeout = Some(wire::duration(*timeout));
    let by = if *by_grpc {
        use core_pb::grpc_service::{EnvoyGrpc, TargetSpecifier};
        let envoy = EnvoyGrpc { cluster_name: cluster, authority, ..Default::default() };
        let target_specifier = Some(TargetSpecifier::EnvoyGrpc(envoy));
        authz_pb::ext_authz::Services::GrpcService(core_pb::GrpcService {
            target_specifier,
            timeout,
            ..Default::default()
        })
    } else {
        let http_upstream_type = Some(core_pb::http_uri::HttpUpstreamType::Cluster(cluster));
        let uri = core_pb::HttpUri { uri: format!("http://{authority}"), timeout, http_upstream_type };
        authz_pb::ext_authz::Services::HttpService(authz_pb::HttpService {
            server_uri: Some(uri),
            ..Default::default()
        })
    };
    // By gRPC all headers are told unless something else is said; by HTTP none.
    let allowed_headers =
        (!by_grpc).then(|| matcher_pb::ListStringMatcher { patterns: vec![wire::regex(".*".to_owned())] });
    let filter = authz_pb::ExtAuthz {
        services: Some(by),
        transport_api_version: core_pb::ApiVersion::V3.into(),
        failure_mode_allow: *fail_open,
        filter_enabled_metadata: Some(said(prefix, "allowed")),
        allowed_headers,
        ..Default::default()
    };
    http_filter("envoy.filters.http.ext_authz", wire::any(&filter))
}
