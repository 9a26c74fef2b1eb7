//! Listeners: one per port that a workload serves or calls.
//!
//! Owns: which filter chains a port has, and which connections each takes. May use: `http`, `tcp`, `rbac`,
//! `tls`. Never: a default filter chain inbound: it would take plaintext past a strict port.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use prost::Message as _;
use proto::envoy::config::core::v3 as core_pb;
use proto::envoy::config::listener::v3 as listener_pb;
use proto::envoy::extensions::filters::common::set_filter_state::v3 as state_pb;
use proto::envoy::extensions::filters::listener::tls_inspector::v3 as inspector_pb;
use proto::envoy::extensions::filters::network::set_filter_state::v3 as told_pb;

use xxhash_rust::xxh3::xxh3_128;

use super::access_log::Counted;
use super::connections::{self, Way};
use super::log_format::Subject;
use super::raw::Raw;
use super::rbac::Strangers;
use super::telemetry::{INBOUND, OUTBOUND, Said};
use super::{
    Forms, OtlpLogs, Slot, cluster_name, consumer, http, origins, planned_port, route_name, tcp, tls, whole_port,
};
use super::{calling, jwt, limits, proxyless, rbac, route, wire};
use crate::mesh::{Call, Mesh, MtlsMode, Network, Port, Serve, TcpRule, Workload};
use crate::resource::{Kind, Resource};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The listener of a port that a workload serves. What it says beside its filter chains is the same in strict
/// and permissive mode, and so is the mTLS chain: a change of mode drains the plaintext chain alone.
pub(super) fn inbound(mesh: &Mesh, workload: &Workload, serve: &Serve, slot: &Slot, forms: Forms) -> Resource {
    let (service, port) = planned_port(mesh, &slot.service, &slot.port);
    let port = &*port.served_by(&workload.name);
    let telemetry = mesh.telemetry_of_serve(workload, serve);
    let counted = Counted::new(workload, slot, port.protocol, telemetry);
    let name = slot.name("in");
    let subject = subject(INBOUND, slot, port);
    let said = Said { telemetry, listener: &name, subject, otlp: forms.otlp_logs };
    let chain = Inbound { mesh, slot, port, forms, counted, said };
    let filter_chains = match (port.mtls.value, port.protocol.is_http()) {
        (MtlsMode::Strict, _) => chain.mtls(),
        // TLS that is not the mesh's has no chain and is closed.
        (MtlsMode::Permissive, true) => [chain.mtls(), chain.plaintext()].concat(),
        (MtlsMode::Permissive, false) => [chain.mtls(), chain.plaintext(), chain.passthrough()].concat(),
        (MtlsMode::Disabled, _) => chain.anything(),
    };
    let plain = listener_pb::Listener {
        traffic_direction: core_pb::TrafficDirection::Inbound.into(),
        filter_chains,
        per_connection_buffer_limit_bytes: port.inbound.buffer_limit.value.map(|limit| wire::number(limit.get())),
        ..listener(slot.name("in"), serve.listen)
    };
    let listener = match port.mtls.value {
        MtlsMode::Strict | MtlsMode::Permissive => inspecting(port.server_first, plain),
        MtlsMode::Disabled => plain,
    };
    let rules = [&serve.origin, &service.origin].into_iter().chain(&port.mtls.origin).chain(port.access.origins());
    let origins = origins(rules.chain(port.inbound.origins()).chain(telemetry.origins()));
    Resource::new(Kind::Listener, slot.name("in"), &listener, origins)
}

/// The listener of a port that a workload calls.
pub(super) fn outbound(mesh: &Mesh, workload: &Workload, call: &Call, slot: &Slot, otlp: Option<OtlpLogs>) -> Resource {
    let (service, port) = planned_port(mesh, &slot.service, &slot.port);
    let name = slot.name("out");
    let telemetry = mesh.telemetry_of_calls(workload);
    let otlp = otlp.unwrap_or_default();
    let said = Said { telemetry, listener: &name, subject: subject(OUTBOUND, slot, port), otlp };
    let calls = port.outbound_for(&workload.name.namespace);
    let by_caller = calling::by_caller(calls);
    let route = port.tcp_route_for(&workload.name.namespace);
    let rules = route.map_or(&[][..], |route| route.rules.as_slice());
    let of_rule = |rule: &TcpRule| tcp::shared_out(&name, &rule.to, calls, said.told().access_log);
    let bytes = match rules {
        [only] if only.takes_everything() => one_chain(workload, call, &name, by_caller, |filter| {
            filter.encoded(&of_rule(only).encode_to_vec());
        }),
        [] => one_chain(workload, call, &name, by_caller, |filter| {
            if port.protocol.is_http() {
                let route = route_name(&call.service, &call.port, &consumer(port, workload));
                http::outbound(filter, &name, service, port, &route, said.told());
            } else {
                let proxy = tcp::proxy(&name, cluster_name(&whole_port(call)), calls, said.told().access_log);
                filter.encoded(&proxy.encode_to_vec());
            }
        }),
        several => {
            let chain = |rule: &TcpRule| {
                let caller = by_caller.then(|| caller(workload));
                let filters = caller.into_iter().chain([of_rule(rule)]).collect();
                listener_pb::FilterChain { name: rule.name.clone(), filters, ..Default::default() }
            };
            let plain = listener_pb::Listener {
                filter_chains: several.iter().map(chain).collect(),
                traffic_direction: core_pb::TrafficDirection::Outbound.into(),
                ..listener(name.clone(), call.listen)
            };
            connections::told_apart(plain, &several.iter().map(Way::of).collect::<Vec<_>>()).encode_to_vec()
        }
    };
    let of_bytes = (!port.protocol.is_http()).then(|| calls.origins());
    let of_caller = calls.hash_on.origin.as_ref().filter(|_| by_caller);
    let origins_of_rules = rules.iter().map(|rule| &rule.origin);
    let rules = [&call.origin, &service.origin].into_iter().chain(origins_of_rules).chain(telemetry.origins());
    let origins = origins(rules.chain(of_bytes.into_iter().flatten()).chain(of_caller));
    Resource::from_bytes(Kind::Listener, name.into(), &bytes, origins)
}

/// A listener with one chain for every connection, and the filter that `filter` writes as the last of it.
fn one_chain(workload: &Workload, call: &Call, name: &str, by_caller: bool, filter: impl FnOnce(&mut Raw)) -> Vec<u8> {
    let mut listener = Raw::with_capacity(2048);
    listener.text(1, name);
    wire::put_address(&mut listener, 2, call.listen);
    listener.large(3, |chain| {
        if by_caller {
            chain.message(3, |filter| filter.encoded(&caller(workload).encode_to_vec()));
        }
        chain.large(3, filter);
    });
    listener.number(16, core_pb::TrafficDirection::Outbound as u64);
    listener.into_bytes()
}

/// The filter by which a connection knows whose calls come over it.
fn caller(workload: &Workload) -> listener_pb::Filter {
    // Of what can be hashed, all supported versions know addresses: each identity is given one.
    let number = Ipv6Addr::from_bits(xxh3_128(workload.identity.as_str().as_bytes()));
    let address = SocketAddr::new(number.into(), 1).to_string();
    knowing(calling::CALLER, "envoy.network.transport_socket.original_dst_address", address)
}

/// The filter by which a connection knows from where it comes.
pub(super) fn client() -> listener_pb::Filter {
    knowing(route::CLIENT, "envoy.network.ip", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%".to_owned())
}

/// The filter by which a connection knows `text` as `key`, in the form that `factory` makes of it.
fn knowing(key: &str, factory: &str, text: String) -> listener_pb::Filter {
    use state_pb::filter_state_value::{Key, Value};
    let text = core_pb::data_source::Specifier::InlineString(text);
    let text = core_pb::DataSource { specifier: Some(text), ..Default::default() };
    let text = core_pb::substitution_format_string::Format::TextFormatSource(text);
    let told = state_pb::FilterStateValue {
        key: Some(Key::ObjectKey(key.to_owned())),
        factory_key: factory.to_owned(),
        value: Some(Value::FormatString(core_pb::SubstitutionFormatString {
            format: Some(text),
            ..Default::default()
        })),
        ..Default::default()
    };
    let config = told_pb::Config { on_new_connection: vec![told], ..Default::default() };
    tcp::network_filter("envoy.filters.network.set_filter_state", wire::any(&config))
}

/// Of what the proxies of a slot speak.
fn subject(direction: &'static str, slot: &Slot, port: &Port) -> Subject {
    Subject {
        direction,
        workload: slot.workload.to_string(),
        service: slot.service.to_string(),
        port: slot.port.clone(),
        protocol: port.protocol,
    }
}

/// The filter chains of one inbound listener.
struct Inbound<'a> {
    mesh: &'a Mesh,
    slot: &'a Slot,
    port: &'a Port,
    forms: Forms,
    counted: Counted<'a>,
    said: Said<'a>,
}

// === impl Inbound ===

impl Inbound<'_> {
    /// Mesh TLS, recognised by its ALPN; who has no certificate of the mesh does not get through the handshake.
    fn mtls(&self) -> Vec<listener_pb::FilterChain> {
        let is_http = self.port.protocol.is_http();
        let alpn: &[&str] = if is_http { &["h2", "http/1.1"] } else { &[] };
        // A gRPC client without a proxy offers this and nothing else.
        let proxyless: &[&str] = if proxyless::carries_grpc(self.port.protocol) { &["h2"] } else { &[] };
        let callers = rbac::callers(&self.port.access, &self.mesh.trust_domain.value, is_http);
        let taken = listener_pb::FilterChainMatch {
            transport_protocol: "tls".into(),
            application_protocols: [tls::ALPN].iter().chain(proxyless).map(ToString::to_string).collect(),
            ..Default::default()
        };
        let denied = if is_http { Default::default() } else { rbac::networks(&self.port.access.deny) };
        let refused = refused("mtls", &taken, &denied);
        let chain = listener_pb::FilterChain {
            filter_chain_match: Some(taken),
            transport_socket: Some(tls::downstream(callers, alpn)),
            transport_socket_connect_timeout: Some(wire::duration(HANDSHAKE)),
            ..self.chain("mtls", true)
        };
        [chain].into_iter().chain(refused).collect()
    }

    /// Everything that is not TLS.
    fn plaintext(&self) -> Vec<listener_pb::FilterChain> {
        self.open("plaintext", transport("raw_buffer"))
    }

    /// The application's own TLS, untouched.
    fn passthrough(&self) -> Vec<listener_pb::FilterChain> {
        self.open("tls", transport("tls"))
    }

    /// Every connection as it is; nobody looks into it first.
    fn anything(&self) -> Vec<listener_pb::FilterChain> {
        self.open("plaintext", listener_pb::FilterChainMatch::default())
    }

    /// Connections of strangers. On TCP ports those from where nobody may come have no chain, or one that refuses.
    fn open(&self, name: &str, taken: listener_pb::FilterChainMatch) -> Vec<listener_pb::FilterChain> {
        let strangers = if self.port.protocol.is_http() {
            Strangers::AllBut(BTreeSet::new())
        } else {
            rbac::strangers(&self.port.access)
        };
        let (admitted, denied) = match strangers {
            Strangers::Refused => {
                return vec![listener_pb::FilterChain { filters: vec![tcp::refusal()], ..named(name, taken) }];
            }
            Strangers::AllBut(denied) => (BTreeSet::new(), denied),
            Strangers::Only(admitted, denied) => (admitted, denied),
        };
        let refused = refused(name, &taken, &denied);
        let taken = from(taken, &admitted);
        let chain = listener_pb::FilterChain {
            filter_chain_match: named(name, taken).filter_chain_match,
            ..self.chain(name, false)
        };
        [chain].into_iter().chain(refused).collect()
    }

    fn chain(&self, name: &str, mtls: bool) -> listener_pb::FilterChain {
        let stat_prefix = format!("{}/{name}", self.slot.name("in"));
        let cluster = self.slot.name("app");
        let counters = self.counted.loggers(self.forms.stats_access_log, mtls, &self.port.access);
        let mut told = self.said.told();
        told.access_log.splice(0..0, counters);
        let trust_domain = &self.mesh.trust_domain.value;
        let limited = limits::connections(&self.port.inbound, &stat_prefix).into_iter();
        let filters = if self.port.protocol.is_http() {
            let access = jwt::filters(&self.port.access, &self.slot.name("jwks"))
                .into_iter()
                .chain(rbac::http(&self.port.access, trust_domain))
                .collect();
            let manager = http::inbound(&stat_prefix, self.port, cluster, mtls, access, told);
            limited.chain([manager]).collect()
        } else {
            let after_handshake = mtls && self.forms.connect_after_handshake;
            let mut filters = rbac::network(&self.port.access, trust_domain, &stat_prefix);
            filters.extend(limited);
            filters.push(tcp::application(&stat_prefix, cluster, after_handshake, told.access_log));
            filters
        };
        listener_pb::FilterChain { name: name.into(), filters, ..Default::default() }
    }
}

/// A chain of what `taken` matches; without a match it takes everything.
fn named(name: &str, taken: listener_pb::FilterChainMatch) -> listener_pb::FilterChain {
    let filter_chain_match = (taken != listener_pb::FilterChainMatch::default()).then_some(taken);
    listener_pb::FilterChain { name: name.into(), filter_chain_match, ..Default::default() }
}

/// `taken`, from these addresses only; from none of them stands for from anywhere.
fn from(taken: listener_pb::FilterChainMatch, networks: &BTreeSet<Network>) -> listener_pb::FilterChainMatch {
    let direct_source_prefix_ranges = networks.iter().map(|network| wire::range(*network)).collect();
    listener_pb::FilterChainMatch { direct_source_prefix_ranges, ..taken }
}

/// The chain that closes what comes from these addresses, if there are any: the access rules would see it with the
/// caller's first byte only.
fn refused(
    name: &str,
    taken: &listener_pb::FilterChainMatch,
    networks: &BTreeSet<Network>,
) -> Option<listener_pb::FilterChain> {
    let chain = || named(&format!("{name}-refused"), from(taken.clone(), networks));
    (!networks.is_empty()).then(|| listener_pb::FilterChain { filters: vec![tcp::refusal()], ..chain() })
}

fn listener(name: String, listen: SocketAddr) -> listener_pb::Listener {
    listener_pb::Listener { name, address: Some(wire::address(listen)), ..Default::default() }
}

/// Looks whether a connection begins with TLS. A caller that stays silent is plaintext; where the application
/// speaks first, silence is what is expected of one.
fn inspecting(server_first: bool, listener: listener_pb::Listener) -> listener_pb::Listener {
    let silence = if server_first { Duration::from_millis(200) } else { Duration::from_secs(5) };
    listener_pb::Listener {
        listener_filters: vec![inspector()],
        listener_filters_timeout: Some(wire::duration(silence)),
        continue_on_listener_filters_timeout: true,
        ..listener
    }
}

/// Looks into the first bytes of a connection for TLS and what its client asks for.
pub(super) fn inspector() -> listener_pb::ListenerFilter {
    listener_pb::ListenerFilter {
        name: "envoy.filters.listener.tls_inspector".into(),
        config_type: Some(listener_pb::listener_filter::ConfigType::TypedConfig(wire::any(
            &inspector_pb::TlsInspector::default(),
        ))),
        ..Default::default()
    }
}

fn transport(protocol: &str) -> listener_pb::FilterChainMatch {
    listener_pb::FilterChainMatch { transport_protocol: protocol.into(), ..Default::default() }
}
