//! Tokens: the filter that verifies them, and the clusters that keys are fetched through.
//!
//! Owns: where tokens are looked for, and what is answered to one that is not good. May use: `wire`, `cluster`.
//! Never: lets a request pass for want of keys, or refuses one for want of a token: that is up to `rbac`.

use std::time::Duration;

use proto::envoy::config::cluster::v3 as cluster_pb;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::rbac::v3 as rbac_pb;
use proto::envoy::config::route::v3 as route_pb;
use proto::envoy::extensions::filters::http::jwt_authn::v3 as jwt_pb;
use proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use proto::envoy::r#type::matcher::v3 as matcher_pb;

use super::http::http_filter;
use super::outside::{self, Server};
use super::{Slot, origins, planned_port, wire};
use crate::mesh::{Access, Edge, Jwt, JwtKeys, JwtProvider, KeysUrl, Mesh, Protocol};
use crate::name::RuleRef;
use crate::resource::{Kind, Resource};

/// The namespace of what the filter says of a request.
const FILTER: &str = "envoy.filters.http.jwt_authn";

/// How long fetching keys may take.
const FETCH: Duration = Duration::from_secs(5);
/// How long fetched keys are used.
const KEEP: Duration = Duration::from_secs(300);

/// The filters of a port that asks for tokens: one for what is enforced, and one for what only an audit asks for,
/// which refuses nobody and takes nothing away.
///
/// The clusters by which keys are fetched are called `keys/` and the name of the provider.
pub(super) fn filters(access: &Access, keys: &str) -> Vec<hcm_pb::HttpFilter> {
    let providers = access.jwt_providers();
    let of = |enforced: bool| providers.values().filter(move |(_, asked)| *asked == enforced).map(|(one, _)| *one);
    [true, false].into_iter().filter_map(|enforced| filter(of(enforced), enforced, keys)).collect()
}

fn filter<'a>(
    providers: impl Iterator<Item = &'a JwtProvider>,
    enforced: bool,
    keys: &str,
) -> Option<hcm_pb::HttpFilter> {
    use jwt_pb::jwt_requirement::RequiresType;
    // Every token is looked at, not the first good one alone: an entry that refuses may ask for any of them.
    let requires_type = if enforced {
        RequiresType::AllowMissing(Default::default())
    } else {
        RequiresType::AllowMissingOrFailed(Default::default())
    };
    let everything = route_pb::RouteMatch {
        path_specifier: Some(route_pb::route_match::PathSpecifier::Prefix("/".into())),
        ..Default::default()
    };
    let requires = jwt_pb::JwtRequirement { requires_type: Some(requires_type) };
    let rule = jwt_pb::RequirementRule {
        r#match: Some(everything),
        requirement_type: Some(jwt_pb::requirement_rule::RequirementType::Requires(requires)),
    };
    let head = jwt_pb::JwtAuthentication { rules: vec![rule], ..Default::default() };
    let mut parts = providers
        .map(|provider| jwt_pb::JwtAuthentication {
            providers: [(provider.name.clone(), self::provider(provider, enforced, keys))].into(),
            ..Default::default()
        })
        .peekable();
    parts.peek()?;
    Some(http_filter(FILTER, wire::in_order(&head, parts)))
}

fn provider(provider: &JwtProvider, enforced: bool, at: &str) -> jwt_pb::JwtProvider {
    use jwt_pb::jwt_provider::JwksSourceSpecifier::{LocalJwks, RemoteJwks};
    let (name, value_prefix) = match &provider.header {
        Some(header) => (header.as_str(), ""),
        None => ("authorization", "Bearer "),
    };
    let keys = match &provider.keys {
        JwtKeys::Inline(set) => LocalJwks(core_pb::DataSource {
            specifier: Some(core_pb::data_source::Specifier::InlineString(set.clone())),
            ..Default::default()
        }),
        JwtKeys::Remote(keys) => RemoteJwks(jwt_pb::RemoteJwks {
            http_uri: Some(core_pb::HttpUri {
                uri: keys.url.clone(),
                timeout: Some(wire::duration(FETCH)),
                http_upstream_type: Some(core_pb::http_uri::HttpUpstreamType::Cluster(cluster_name(
                    at,
                    &provider.name,
                ))),
            }),
            cache_duration: Some(wire::duration(KEEP)),
            // The listener does not wait for them.
            async_fetch: Some(jwt_pb::JwksAsyncFetch { fast_listener: true, ..Default::default() }),
            ..Default::default()
        }),
    };
    jwt_pb::JwtProvider {
        issuer: provider.issuer.clone(),
        audiences: provider.audiences.iter().cloned().collect(),
        // Nowhere else: a token in a query would be in everybody's log.
        from_headers: vec![jwt_pb::JwtHeader { name: name.to_owned(), value_prefix: value_prefix.to_owned() }],
        // An audit takes nothing away either.
        forward: provider.forward || !enforced,
        payload_in_metadata: provider.name.clone(),
        jwks_source_specifier: Some(keys),
        ..Default::default()
    }
}

/// What is known of a request with such a token, and of no other.
pub(super) fn principals(jwt: &Jwt) -> Vec<rbac_pb::Principal> {
    use matcher_pb::metadata_matcher::PathSegment;
    use matcher_pb::metadata_matcher::path_segment::Segment;
    use matcher_pb::value_matcher::MatchPattern;
    let segment = |key: &str| PathSegment { segment: Some(Segment::Key(key.to_owned())) };
    let says = |claim: &str, value| {
        let matcher = matcher_pb::MetadataMatcher {
            filter: FILTER.to_owned(),
            path: vec![segment(&jwt.provider.name), segment(claim)],
            value: Some(matcher_pb::ValueMatcher { match_pattern: Some(value) }),
            ..Default::default()
        };
        let sourced = rbac_pb::SourcedMetadata {
            metadata_matcher: Some(matcher),
            metadata_source: rbac_pb::MetadataSource::Dynamic.into(),
        };
        rbac_pb::Principal { identifier: Some(rbac_pb::principal::Identifier::SourcedMetadata(sourced)) }
    };
    let text = |text: &str| MatchPattern::StringMatch(wire::exact(text));
    let value = |match_pattern| matcher_pb::ValueMatcher { match_pattern: Some(match_pattern) };
    let contains = |text: MatchPattern| {
        let one = matcher_pb::list_matcher::MatchPattern::OneOf(Box::new(value(text)));
        MatchPattern::ListMatch(Box::new(matcher_pb::ListMatcher { match_pattern: Some(one) }))
    };
    let issued = says("iss", text(&jwt.provider.issuer));
    let claims = jwt.claims.iter().map(|(claim, values)| {
        let either = values.iter().flat_map(|one| [value(text(one)), value(contains(text(one)))]).collect();
        says(claim, MatchPattern::OrMatch(matcher_pb::OrMatcher { value_matchers: either }))
    });
    [issued].into_iter().chain(claims).collect()
}

/// The names of the providers of a port whose keys are fetched.
pub(super) fn fetched(access: &Access) -> impl Iterator<Item = &JwtProvider> {
    access.jwt_providers().into_values().map(|(provider, _)| provider).filter(|provider| match provider.keys {
        JwtKeys::Inline(_) => false,
        JwtKeys::Remote(_) => true,
    })
}

/// The cluster that the keys of a provider of the called port are fetched through.
pub(super) fn cluster(mesh: &Mesh, slot: &Slot, name: &str) -> Resource {
    let (service, port) = planned_port(mesh, &slot.service, &slot.port);
    let access = port.apart_of(&slot.workload).map_or(&port.access, |own| &own.access);
    fetching(mesh, &slot.name("jwks"), fetched(access).find(|provider| provider.name == name), &service.origin)
}

/// The same of a gateway.
pub(super) fn edge_cluster(mesh: &Mesh, edge: &Edge, keys: &str, name: &str) -> Resource {
    let mut asked = edge.chains.iter().flat_map(|chain| fetched(&chain.access));
    fetching(mesh, keys, asked.find(|provider| provider.name == name), edge.at())
}

fn fetching(mesh: &Mesh, keys: &str, provider: Option<&JwtProvider>, origin: &RuleRef) -> Resource {
    let provider = provider.expect("the plan of this mesh has the provider");
    let origins = origins([&provider.origin, origin].into_iter().chain(&mesh.connect_timeout.origin));
    let name = cluster_name(keys, &provider.name);
    let resource = match &provider.keys {
        JwtKeys::Inline(_) => cluster_pb::Cluster::default(),
        JwtKeys::Remote(KeysUrl { tls, host, port, .. }) => {
            let server = Server { host, port: port.get(), tls: tls.as_ref() };
            outside::cluster(&name, &server, Protocol::Http, mesh.connect_timeout.value)
        }
    };
    Resource::new(Kind::Cluster, name, &resource, origins)
}

/// `jwks/shop/cart/http/login`.
pub(super) fn cluster_name(keys: &str, provider: &str) -> String {
    format!("{keys}/{provider}")
}
