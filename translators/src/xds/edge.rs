//! Edges: the listeners of gateways, and where requests from outside go.
//!
//! Owns: what a gateway does to a request and what it tells of its client. May use: `http`, `route`. Never: rules other
//! than those of services.

use std::cmp::Reverse;
use std::time::Duration;

use prost::Message as _;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::listener::v3 as listener_pb;
use proto::envoy::config::route::v3 as route_pb;
use proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;
use proto::envoy::extensions::matching::common_inputs::network::v3 as input_pb;
use proto::google::protobuf as google_pb;
use proto::xds::core::v3 as extension_pb;
use proto::xds::r#type::matcher::v3 as matcher_pb;

use super::raw::Raw;
use super::{EdgeSlot, calling, checks, http, listener, origins, route, tls, wire};
use crate::mesh::{Edge, EdgeAction, EdgeChain, EdgeRedirect, EdgeTls, HostMatch, Protocol, Scheme};
use crate::resource::{Kind, Resource};

use hcm_pb::http_connection_manager as manager_pb;
use route_pb::redirect_action::SchemeRewriteSpecifier;

/// How much of a request or an answer is held for a client that is slow, in bytes.
const HELD: u32 = 32 * 1024;
/// How much a client may send of one stream and of one connection before it is read, in bytes.
const WINDOWS: [u32; 2] = [64 * 1024, 1024 * 1024];
/// How many streams a client has at once on one connection.
const STREAMS: u32 = 100;
/// How long a client may take for the headers of a request.
const HEADERS: Duration = Duration::from_secs(10);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// What services are told of the certificate of a client.
const CLIENT_CERTIFICATE: &str = "x-edge-client-cert";

/// The listener of one socket.
pub(super) fn listener(edge: &Edge, slot: &EdgeSlot) -> Resource {
    let name = slot.name();
    let plain = listener_pb::Listener {
        name: name.clone(),
        address: Some(wire::address(edge.listen)),
        filter_chains: edge.chains.iter().map(|chain| self::chain(chain, slot)).collect(),
        per_connection_buffer_limit_bytes: Some(wire::number(HELD)),
        traffic_direction: core_pb::TrafficDirection::Inbound.into(),
        ..Default::default()
    };
    let names: Vec<(&HostMatch, &str)> =
        edge.chains.iter().filter_map(|chain| chain.tls.as_ref()).flat_map(by_name).collect();
    let listener = if names.is_empty() { plain } else { told_apart(plain, names) };
    Resource::new(Kind::Listener, name, &listener, origins(&edge.origins))
}

fn by_name(tls: &EdgeTls) -> impl Iterator<Item = (&HostMatch, &str)> {
    tls.names.iter().map(|name| (name, tls.listener.as_str()))
}

fn chain(chain: &EdgeChain, slot: &EdgeSlot) -> listener_pb::FilterChain {
    // Where rules ask who connects, the connection is told first.
    let asks = chain.rules().any(|of| of.rule.sources().next().is_some());
    let requests = requests(chain, &slot.route(chain.name()));
    let filters: Vec<_> = asks.then(listener::client).into_iter().chain([requests]).collect();
    let Some(tls) = &chain.tls else { return listener_pb::FilterChain { filters, ..Default::default() } };
    listener_pb::FilterChain {
        name: tls.listener.clone(),
        transport_socket: Some(tls::edge(tls)),
        transport_socket_connect_timeout: Some(wire::duration(HANDSHAKE)),
        filters,
        ..Default::default()
    }
}

/// Tells the chains of `listener` apart by the `names` of hosts, each with the name of its chain. Whoever names no host
/// has no chain.
fn told_apart(listener: listener_pb::Listener, mut names: Vec<(&HostMatch, &str)>) -> listener_pb::Listener {
    let inspecting = listener_pb::Listener {
        listener_filters: vec![listener::inspector()],
        listener_filters_timeout: Some(wire::duration(HANDSHAKE)),
        ..listener
    };
    if names.iter().any(|(name, _)| **name == HostMatch::Any) {
        // Only a matcher knows every name from none.
        names.sort_by_key(|(name, _)| Reverse(specificity(name)));
        let matchers = names.into_iter().map(|(name, chain)| named(name, chain)).collect();
        let list = matcher_pb::matcher::MatcherType::MatcherList(matcher_pb::matcher::MatcherList { matchers });
        let matcher = matcher_pb::Matcher { matcher_type: Some(list), ..Default::default() };
        return listener_pb::Listener { filter_chain_matcher: Some(matcher), ..inspecting };
    }
    let of_chain =
        |chain: &str| names.iter().filter(move |(_, of)| *of == chain).map(|(name, _)| name.to_string()).collect();
    let filter_chains = inspecting.filter_chains.into_iter().map(|chain| {
        let taken = listener_pb::FilterChainMatch {
            server_names: of_chain(&chain.name),
            transport_protocol: "tls".into(),
            ..Default::default()
        };
        listener_pb::FilterChain { filter_chain_match: Some(taken), ..chain }
    });
    listener_pb::Listener { filter_chains: filter_chains.collect(), ..inspecting }
}

/// What is tried first is greater.
fn specificity(name: &HostMatch) -> (u8, usize) {
    match name {
        HostMatch::Any => (0, 0),
        HostMatch::Under(domain) => (1, domain.len()),
        HostMatch::Exact(host) => (2, host.len()),
    }
}

/// The chain `chain`, for connections whose client names a host that is `name`.
fn named(name: &HostMatch, chain: &str) -> matcher_pb::matcher::matcher_list::FieldMatcher {
    use matcher_pb::matcher::matcher_list::predicate::single_predicate::Matcher::ValueMatch;
    use matcher_pb::matcher::matcher_list::predicate::{MatchType, SinglePredicate};
    use matcher_pb::matcher::matcher_list::{FieldMatcher, Predicate};
    use matcher_pb::regex_matcher::{EngineType, GoogleRe2};
    use matcher_pb::string_matcher::MatchPattern;
    let pattern = match name {
        HostMatch::Exact(host) => MatchPattern::Exact(host.clone()),
        HostMatch::Under(domain) => MatchPattern::Suffix(format!(".{domain}")),
        HostMatch::Any => MatchPattern::SafeRegex(matcher_pb::RegexMatcher {
            regex: ".+".into(),
            engine_type: Some(EngineType::GoogleRe2(GoogleRe2::default())),
        }),
    };
    let value = matcher_pb::StringMatcher { match_pattern: Some(pattern), ..Default::default() };
    let by_name = SinglePredicate {
        input: Some(extension("server_name", &input_pb::ServerNameInput {})),
        matcher: Some(ValueMatch(value)),
    };
    let chain = google_pb::StringValue { value: chain.to_owned() };
    let action = matcher_pb::matcher::on_match::OnMatch::Action(extension("chain", &chain));
    FieldMatcher {
        predicate: Some(Predicate { match_type: Some(MatchType::SinglePredicate(by_name)) }),
        on_match: Some(matcher_pb::matcher::OnMatch { on_match: Some(action), ..Default::default() }),
    }
}

fn extension<M: prost::Message + prost::Name>(name: &str, config: &M) -> extension_pb::TypedExtensionConfig {
    extension_pb::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(wire::any(config)) }
}

/// The manager of requests from outside: it trusts nothing that a client says of itself.
fn requests(chain: &EdgeChain, route: &str) -> listener_pb::Filter {
    let manager = http::manager(route, Protocol::Http);
    let limits = core_pb::Http2ProtocolOptions {
        max_concurrent_streams: Some(wire::number(STREAMS)),
        initial_stream_window_size: Some(wire::number(WINDOWS[0])),
        initial_connection_window_size: Some(wire::number(WINDOWS[1])),
        ..Default::default()
    };
    let by_stream = hcm_pb::Rds { config_source: Some(wire::ads()), route_config_name: route.to_owned() };
    // Of a host that is only sent elsewhere nothing but the port of elsewhere is told.
    let no_port = chain.only_redirects().then_some(manager_pb::StripPortMode::StripAnyHostPort(true));
    http::filter(http::normalising(hcm_pb::HttpConnectionManager {
        route_specifier: Some(manager_pb::RouteSpecifier::Rds(by_stream)),
        http_filters: checks::idle().into_iter().chain([http::router()]).collect(),
        http2_protocol_options: Some(limits),
        request_headers_timeout: Some(wire::duration(HEADERS)),
        // Applications learn the address of the client from here.
        use_remote_address: Some(wire::boolean(true)),
        skip_xff_append: false,
        strip_port_mode: no_port,
        ..manager
    }))
}

/// The routes of one chain: a virtual host for hosts that are treated alike.
pub(super) fn routes(edge: &Edge, slot: &EdgeSlot, chain: &EdgeChain) -> Resource {
    let name = slot.route(chain.name());
    let mut configuration = Raw::with_capacity(1024);
    configuration.text(1, &name);
    for of in &chain.hosts {
        configuration.message(2, |host| {
            begin(host, of.hosts.iter());
            match &of.action {
                EdgeAction::Rules(rules) => {
                    for of in rules {
                        let calls = calling::action(of.protocol, &of.outbound, of.rule.sticky_by.as_ref());
                        route::alternatives(host, of.protocol, &of.rule, &calls);
                    }
                }
                EdgeAction::Redirect(redirect) => {
                    host.message(3, |route| route.encoded(&elsewhere(edge, chain, redirect).encode_to_vec()));
                }
                EdgeAction::Misdirected => {
                    host.message(3, |route| route.encoded(&misdirected().encode_to_vec()));
                }
            }
        });
    }
    configuration.encoded(&told(chain).encode_to_vec());
    // Whatever the port that a host is named with.
    configuration.number(14, 1);
    let of_rules = chain.rules().flat_map(|of| {
        let rule = of.rule.origin.iter().chain(&of.rule.timeout.origin).chain(&of.rule.retry.origin);
        let calls = &of.outbound;
        rule.chain(&calls.idle_timeout.origin).chain(&calls.max_stream.origin).chain(&calls.hash_on.origin)
    });
    let origins = origins(edge.origins.iter().chain(of_rules));
    Resource::from_bytes(Kind::Route, name.into(), &configuration.into_bytes(), origins)
}

/// What services are told of the client's certificate; never what the client says of it.
fn told(chain: &EdgeChain) -> route_pb::RouteConfiguration {
    let forwards = chain.tls.iter().flat_map(|tls| &tls.clients).any(|clients| clients.forward);
    if !forwards {
        return route_pb::RouteConfiguration {
            request_headers_to_remove: vec![CLIENT_CERTIFICATE.into()],
            ..Default::default()
        };
    }
    let value = "Hash=%DOWNSTREAM_PEER_FINGERPRINT_256%;Subject=\"%DOWNSTREAM_PEER_SUBJECT%\";\
                 URI=%DOWNSTREAM_PEER_URI_SAN%;DNS=%DOWNSTREAM_PEER_DNS_SAN%";
    let header = core_pb::HeaderValue { key: CLIENT_CERTIFICATE.into(), value: value.into(), ..Default::default() };
    let option = core_pb::HeaderValueOption {
        header: Some(header),
        append_action: core_pb::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..Default::default()
    };
    route_pb::RouteConfiguration { request_headers_to_add: vec![option], ..Default::default() }
}

/// A browser that has found another host on the same connection asks again on one of its own.
fn misdirected() -> route_pb::Route {
    let response = route_pb::DirectResponseAction { status: 421, ..Default::default() };
    everything(route_pb::route::Action::DirectResponse(response))
}

/// The name and the domains of a virtual host.
fn begin<'a>(host: &mut Raw, hosts: impl Iterator<Item = &'a HostMatch> + Clone) {
    let first = hosts.clone().next().map(ToString::to_string);
    host.text(1, first.as_deref().unwrap_or("*"));
    hosts.for_each(|of| host.text(2, &of.to_string()));
}

/// Every request goes to another listener.
fn elsewhere(edge: &Edge, chain: &EdgeChain, redirect: &EdgeRedirect) -> route_pb::Route {
    // Without a port Envoy leaves out what clients leave out, and keeps any other.
    let usual = if chain.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let kept = !chain.only_redirects() && edge.listen.port() != usual.port();
    let port = if redirect.is_usual_port() && !kept { 0 } else { redirect.port.get().into() };
    let action = route_pb::RedirectAction {
        scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::SchemeRedirect(redirect.scheme.as_str().to_owned())),
        port_redirect: port,
        ..Default::default()
    };
    everything(route_pb::route::Action::Redirect(action))
}

fn everything(action: route_pb::route::Action) -> route_pb::Route {
    let everything = route_pb::RouteMatch { path_specifier: Some(route::path(None)), ..Default::default() };
    route_pb::Route { r#match: Some(everything), action: Some(action), ..Default::default() }
}
