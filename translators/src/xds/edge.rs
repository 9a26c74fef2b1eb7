//! Edges: the listeners of gateways, and where requests from outside go.
//!
//! Owns: what a gateway does to a request and what it tells of its client. May use: `http`, `route`. Never: rules other
//! than those of services.

use prost::Message as _;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::listener::v3 as listener_pb;
use proto::envoy::config::route::v3 as route_pb;
use proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;

use super::raw::Raw;
use super::{EdgeSlot, calling, checks, http, origins, route, wire};
use crate::mesh::{Edge, EdgeAction, EdgeRedirect, HostMatch, Protocol, Scheme};
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
const HEADERS: std::time::Duration = std::time::Duration::from_secs(10);

/// The listener of one socket.
pub(super) fn listener(edge: &Edge, slot: &EdgeSlot) -> Resource {
    let name = slot.name();
    let chain = listener_pb::FilterChain { filters: vec![requests(edge, &name)], ..Default::default() };
    let listener = listener_pb::Listener {
        name: name.clone(),
        address: Some(wire::address(edge.listen)),
        filter_chains: vec![chain],
        per_connection_buffer_limit_bytes: Some(wire::number(HELD)),
        traffic_direction: core_pb::TrafficDirection::Inbound.into(),
        ..Default::default()
    };
    Resource::new(Kind::Listener, name, &listener, origins(&edge.origins))
}

/// The manager of requests from outside: it trusts nothing that a client says of itself.
fn requests(edge: &Edge, name: &str) -> listener_pb::Filter {
    let manager = http::manager(name, Protocol::Http);
    let limits = core_pb::Http2ProtocolOptions {
        max_concurrent_streams: Some(wire::number(STREAMS)),
        initial_stream_window_size: Some(wire::number(WINDOWS[0])),
        initial_connection_window_size: Some(wire::number(WINDOWS[1])),
        ..Default::default()
    };
    let by_stream = hcm_pb::Rds { config_source: Some(wire::ads()), route_config_name: name.to_owned() };
    // Of a host that is only sent elsewhere nothing but the port of elsewhere is told.
    let no_port = edge.only_redirects().then_some(manager_pb::StripPortMode::StripAnyHostPort(true));
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

/// The routes of one socket: a virtual host for hosts that are treated alike.
pub(super) fn routes(edge: &Edge, slot: &EdgeSlot) -> Resource {
    let name = slot.name();
    let mut configuration = Raw::with_capacity(1024);
    configuration.text(1, &name);
    for of in &edge.hosts {
        configuration.message(2, |host| match &of.action {
            EdgeAction::Rules(rules) => {
                begin(host, of.hosts.iter());
                for of in rules {
                    let calls = calling::action(of.protocol, &of.outbound, of.rule.sticky_by.as_ref());
                    route::alternatives(host, of.protocol, &of.rule, &calls);
                }
            }
            EdgeAction::Redirect(redirect) => {
                begin(host, of.hosts.iter());
                host.message(3, |route| route.encoded(&elsewhere(edge, redirect).encode_to_vec()));
            }
        });
    }
    // Whatever the port that a host is named with.
    configuration.number(14, 1);
    let of_rules = edge.rules().flat_map(|of| {
        let rule = of.rule.origin.iter().chain(&of.rule.timeout.origin).chain(&of.rule.retry.origin);
        let calls = &of.outbound;
        rule.chain(&calls.idle_timeout.origin).chain(&calls.max_stream.origin).chain(&calls.hash_on.origin)
    });
    let origins = origins(edge.origins.iter().chain(of_rules));
    Resource::from_bytes(Kind::Route, name.into(), &configuration.into_bytes(), origins)
}

/// The name and the domains of a virtual host.
fn begin<'a>(host: &mut Raw, hosts: impl Iterator<Item = &'a HostMatch> + Clone) {
    let first = hosts.clone().next().map(ToString::to_string);
    host.text(1, first.as_deref().unwrap_or("*"));
    hosts.for_each(|of| host.text(2, &of.to_string()));
}

/// Every request goes to another listener.
fn elsewhere(edge: &Edge, redirect: &EdgeRedirect) -> route_pb::Route {
    // Without a port Envoy leaves out what clients leave out, and keeps any other.
    let kept = !edge.only_redirects() && edge.listen.port() != Scheme::Http.port();
    let port = if redirect.is_usual_port() && !kept { 0 } else { redirect.port.get().into() };
    let action = route_pb::RedirectAction {
        scheme_rewrite_specifier: Some(SchemeRewriteSpecifier::SchemeRedirect(redirect.scheme.as_str().to_owned())),
        port_redirect: port,
        ..Default::default()
    };
    let everything = route_pb::RouteMatch { path_specifier: Some(route::path(None)), ..Default::default() };
    route_pb::Route {
        r#match: Some(everything),
        action: Some(route_pb::route::Action::Redirect(action)),
        ..Default::default()
    }
}
