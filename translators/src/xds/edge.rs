//! Edges: the listeners of gateways, and where requests and connections from outside go.
//!
//! Owns: what a gateway does to a request and what it tells of its client. May use: `http`, `route`. Never: rules other
//! than those of services.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use prost::Message as _;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::listener::v3 as listener_pb;
use proto::envoy::config::route::v3 as route_pb;
use proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm_pb;

use super::connections::{self, Way};
use super::raw::Raw;
use super::rbac::{self, Strangers};
use super::{EdgeSlot, calling, checks, http, jwt, limits, listener, origins, route, tcp, tls, wire};
use crate::mesh::{Edge, EdgeAction, EdgeCarried, EdgeChain, EdgeRedirect, HostMatch, Mesh, Network, Protocol, Scheme};
use crate::name::TrustDomain;
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
pub(super) fn listener(mesh: &Mesh, edge: &Edge, slot: &EdgeSlot) -> Resource {
    let trust_domain = &mesh.trust_domain.value;
    let name = slot.name();
    let plain = listener_pb::Listener {
        name: name.clone(),
        address: Some(wire::address(edge.listen)),
        filter_chains: edge.chains.iter().map(|chain| self::chain(chain, slot, trust_domain)).collect(),
        per_connection_buffer_limit_bytes: Some(wire::number(held(edge))),
        traffic_direction: core_pb::TrafficDirection::Inbound.into(),
        ..Default::default()
    };
    let admitted: Vec<Admitted> = edge.chains.iter().map(Admitted::of).collect();
    let ways: Vec<Way<'_>> =
        edge.chains.iter().zip(&admitted).flat_map(|(chain, admitted)| admitted.ways(chain)).collect();
    let listener = if ways.is_empty() { plain } else { connections::told_apart(plain, &ways) };
    let of_policies = edge.chains.iter().flat_map(|chain| chain.access.origins().chain(chain.inbound.origins()));
    let of_bytes = edge.connections().flat_map(|of| of.outbound.origins().chain([&of.rule.origin]));
    Resource::new(Kind::Listener, name, &listener, origins(edge.origins.iter().chain(of_bytes).chain(of_policies)))
}

/// Under a name of its own: what a route says of its requests is not said of this filter.
fn of_gateway(filter: hcm_pb::HttpFilter) -> hcm_pb::HttpFilter {
    hcm_pb::HttpFilter { name: format!("gateway/{}", filter.name), ..filter }
}

/// How much of a connection is held: as much as the listeners of the socket say, the least of it.
fn held(edge: &Edge) -> u32 {
    let said = edge.chains.iter().filter_map(|chain| chain.inbound.buffer_limit.value);
    said.min().map_or(HELD, NonZeroU32::get)
}

/// From where the connections of a chain may come, and from where not: what access rules would see with the first byte
/// of a client only is decided before.
struct Admitted {
    /// Empty is from anywhere.
    from: BTreeSet<Network>,
    refused: BTreeSet<Network>,
    /// Whether none is admitted: those of `refused`, or all where that is empty, are closed.
    nobody: bool,
}

// === impl Admitted ===

impl Admitted {
    fn of(chain: &EdgeChain) -> Self {
        let anywhere = BTreeSet::new();
        let Some(of) = chain.bytes() else { return Self { from: anywhere.clone(), refused: anywhere, nobody: false } };
        let (admitted, refused) = match rbac::strangers(&chain.access) {
            Strangers::Refused => return Self { from: anywhere.clone(), refused: anywhere, nobody: true },
            Strangers::AllBut(refused) => (anywhere, refused),
            Strangers::Only(admitted, refused) => (admitted, refused),
        };
        let of_rule = &of.rule.networks;
        if admitted.is_empty() || of_rule.is_empty() {
            let from = admitted.into_iter().chain(of_rule.iter().copied()).collect();
            return Self { from, refused, nobody: false };
        }
        // Of two ranges that have addresses in common one lies in the other.
        let both = admitted.iter().flat_map(|one| of_rule.iter().filter_map(|other| narrower(*one, *other)));
        let from: BTreeSet<Network> = both.collect();
        if from.is_empty() {
            // Whom the rule would take is not admitted, and goes by no other rule.
            return Self { from, refused: of_rule.clone(), nobody: true };
        }
        Self { from, refused, nobody: false }
    }

    fn ways<'a>(&'a self, chain: &'a EdgeChain) -> impl Iterator<Item = Way<'a>> {
        let names = &chain.names;
        let refuses = self.nobody || !self.refused.is_empty();
        let refused = refuses.then_some(Way { chain: connections::REFUSED, names, networks: &self.refused });
        let taken = chain.name.as_deref().filter(|_| !self.nobody);
        refused.into_iter().chain(taken.map(|chain| Way { chain, names, networks: &self.from }))
    }
}

fn narrower(one: Network, other: Network) -> Option<Network> {
    if one.contains(other) { Some(other) } else { other.contains(one).then_some(one) }
}

fn chain(chain: &EdgeChain, slot: &EdgeSlot, trust_domain: &TrustDomain) -> listener_pb::FilterChain {
    let name = slot.route(chain.name.as_deref());
    let limited = limits::connections(&chain.inbound, &name);
    let (filters, alpn): (Vec<_>, &[&str]) = match &chain.carried {
        EdgeCarried::Nothing => (vec![tcp::refusal()], &[]),
        EdgeCarried::Hosts(_) => {
            let access = jwt::filters(&chain.access, &slot.keys()).into_iter();
            let before = access
                .chain(rbac::http(&chain.access, trust_domain))
                .chain(limits::http(&chain.inbound, false).into_iter().map(of_gateway));
            let manager = requests(chain, &name, before.collect());
            // Where rules ask who connects, the connection is told first.
            let asks = chain.rules().any(|of| of.rule.sources().next().is_some());
            let client = asks.then(listener::client).into_iter();
            (limited.into_iter().chain(client).chain([manager]).collect(), &["h2", "http/1.1"])
        }
        EdgeCarried::Bytes(of) => {
            let mut filters = rbac::network(&chain.access, trust_domain, &name);
            filters.extend(limited);
            filters.push(tcp::shared_out(&name, &of.rule.to, &of.outbound, Vec::new()));
            (filters, &[])
        }
    };
    let plain =
        listener_pb::FilterChain { name: chain.name.clone().unwrap_or_default(), filters, ..Default::default() };
    let Some(tls) = &chain.tls else { return plain };
    listener_pb::FilterChain {
        transport_socket: Some(tls::edge(tls, alpn)),
        transport_socket_connect_timeout: Some(wire::duration(HANDSHAKE)),
        ..plain
    }
}

/// The manager of requests from outside: it trusts nothing that a client says of itself.
fn requests(chain: &EdgeChain, route: &str, before: Vec<hcm_pb::HttpFilter>) -> listener_pb::Filter {
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
        http_filters: before.into_iter().chain(checks::idle()).chain([http::router()]).collect(),
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
    let name = slot.route(chain.name.as_deref());
    let mut configuration = Raw::with_capacity(1024);
    configuration.text(1, &name);
    for of in chain.hosts().into_iter().flatten() {
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
