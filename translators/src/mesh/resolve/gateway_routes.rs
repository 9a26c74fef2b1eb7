//! TrafficRoutes for gateways: which rule takes a request or a connection from outside.
//!
//! Owns: the hosts and the prefix of a route, and what its rules inherit. May use: `rules`, `routes`, `gateways`. Never:
//! reads a rule otherwise than for a service.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::Arc;

use super::connections::{self, Written};
use super::gateways::{Gateway, Listener};
use super::hosts::host;
use super::limits::Limits;
use super::matches::is_path;
use super::report::Report;
use super::routes::{Known, Routed, Subject, rules};
use crate::finding::Code;
use crate::mesh::{Destination, EdgeRule, EdgeTcpRule, HostMatch, HttpRule, Outbound, Protocol, TcpRule};
use crate::name::{QualifiedName, RuleRef};
use crate::rules::route::RouteSpec;
use crate::rules::scalar::RelativeName;

/// What a TrafficRoute says of requests to a gateway.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OfGateway {
    pub gateway: QualifiedName,
    /// The TrafficRoute.
    pub origin: RuleRef,
    /// Never empty.
    pub hosts: Vec<HostMatch>,
    pub prefix: String,
    rules: Vec<(HttpRule, Limits)>,
    /// The rules for connections to listeners of each port that take them.
    tcp: BTreeMap<NonZeroU16, Vec<TcpRule>>,
    /// Those for TLS that is passed on.
    tls: BTreeMap<NonZeroU16, Vec<TcpRule>>,
}

// === impl OfGateway ===

impl OfGateway {
    /// What `spec` says: of a gateway, the hosts and the prefix.
    pub(super) fn of(
        (gateway, hostnames, prefix): (&RelativeName, &[String], Option<&str>),
        spec: &RouteSpec,
        known: &Known<'_>,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let home = &report.object.key.name.namespace;
        let gateway = gateway.within(home);
        if gateway.namespace != *home {
            let message = format!("a route of {home} cannot be for the gateway {gateway}");
            let hint = format!("write the TrafficRoute in the namespace {}", gateway.namespace);
            report.error(Code::Foreign, "/spec/for/gateway", message).hint = Some(hint);
            return None;
        }
        let found = known.gateways.gateway(&gateway, format_args!("/spec/for/gateway"), report);
        let takes = |takes: fn(&Listener) -> bool| found.is_none_or(|found| found.listeners().any(|(_, of)| takes(of)));
        let requests = !spec.http.is_empty() || !spec.grpc.is_empty();
        if requests && !takes(Listener::takes_requests) {
            let list = if spec.http.is_empty() { "/spec/grpc" } else { "/spec/http" };
            report.error(Code::WrongProtocol, list, format!("no listener of {gateway} takes requests"));
        }
        if !spec.tcp.is_empty() && !takes(Listener::takes_tcp) {
            report.error(Code::WrongProtocol, "/spec/tcp", format!("no listener of {gateway} takes connections"));
        }
        if !spec.tls.is_empty() && !takes(Listener::takes_tls) {
            report.error(Code::WrongProtocol, "/spec/tls", format!("no listener of {gateway} passes TLS on")).hint =
                Some("write protocol: tls, tls: {mode: passthrough} for one".to_owned());
        }
        if !spec.has_rules() {
            let message = "a route for a gateway has at least one rule: give http, grpc, tcp or tls";
            report.error(Code::InvalidValue, "/spec", message);
        }
        if let Some(prefix) = prefix.filter(|_| !requests && spec.has_rules()) {
            let message = format!("a connection has no path that would begin with {prefix}");
            report.error(Code::InvalidValue, "/spec/for/prefix", message).hint = Some("leave it out".to_owned());
        }
        let prefix = prefix.unwrap_or("/");
        if !is_path(prefix) {
            let message = format!("{prefix:?} is no path: a path starts with / and has no query");
            report.error(Code::InvalidValue, "/spec/for/prefix", message);
        }
        let hosts = hosts(hostnames, found, report);
        let routed = Routed { called: None, protocol: Protocol::Http };
        let (rules, limits) = rules(spec, (true, true), routed, prefix, known, report);
        let rules = rules.into_iter().zip(limits).collect();
        let routed = Routed { called: None, protocol: Protocol::Tcp };
        let (of_tcp, of_tls) = (connections::tcp(&spec.tcp, report), connections::tls(&spec.tls, report));
        let of_port = |number: u16, takes: fn(&Listener) -> bool| {
            let number = NonZeroU16::new(number)?;
            found?.listeners().any(|(port, of)| port == number.get() && takes(of)).then_some(number)
        };
        let ports = || found.into_iter().flat_map(Gateway::listeners).map(|(port, _)| port);
        let of_bytes: BTreeSet<_> = ports().filter_map(|port| of_port(port, Listener::takes_tcp)).collect();
        let of_names: BTreeSet<_> = ports().filter_map(|port| of_port(port, Listener::takes_tls)).collect();
        if found.is_some() {
            of_tcp.iter().for_each(|rule| rule.check_ports(&of_bytes, &gateway.to_string(), report));
        }
        let mut read = |ports: BTreeSet<NonZeroU16>, written: &[Written<'_>]| -> BTreeMap<_, _> {
            let each = ports.into_iter();
            each.map(|port| (port, connections::of_port(written, port, routed, known, report))).collect()
        };
        let (tcp, tls) = (read(of_bytes, &of_tcp), read(of_names, &of_tls));
        warn_of_names(&hosts, &tls, report);
        let names = |of: &Listener| {
            of.is_secured() && of.hosts.iter().any(|of| hosts.iter().any(|host| of.common(host).is_some()))
        };
        let by_name = found.is_none_or(|found| found.listeners().any(|(_, of)| of.takes_tcp() && names(of)));
        if !spec.tcp.is_empty() && takes(Listener::takes_tcp) && !hosts.contains(&HostMatch::Any) && !by_name {
            let message = "never reached: where TLS does not end, a connection of tcp names no host";
            report.warning(Code::NoEffect, "/spec/tcp", message).hint = Some("leave hostnames out".to_owned());
        }
        Some(Self { gateway, origin: report.origin(""), hosts, prefix: prefix.to_owned(), rules, tcp, tls })
    }

    /// Which requests it decides about.
    pub(super) fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.hosts.iter().map(|host| Subject::Gateway(self.gateway.clone(), host.clone(), self.prefix.clone()))
    }

    /// The services by which it is decided how the calls of its rules are made.
    pub(super) fn led_by(&self) -> BTreeSet<&QualifiedName> {
        let requests = self.rules.iter().filter_map(|(rule, _)| first(rule));
        let bytes = self.of_bytes().filter_map(|rule| rule.destinations().next());
        requests.chain(bytes).map(|to| &to.service).collect()
    }

    fn of_bytes(&self) -> impl Iterator<Item = &TcpRule> {
        self.tcp.values().chain(self.tls.values()).flatten()
    }

    /// Its rules for connections to a listener of this port, and how their calls are made, as with [`Self::rules`].
    pub(super) fn connections(
        &self,
        port: u16,
        listener: &Listener,
        usual: &Arc<Outbound>,
        calls: impl Fn(Option<&HttpRule>, &Destination) -> Option<(Protocol, Arc<Outbound>)>,
    ) -> Vec<EdgeTcpRule> {
        let by_port = if listener.takes_tls() { &self.tls } else { &self.tcp };
        let rules = NonZeroU16::new(port).and_then(|port| by_port.get(&port)).into_iter().flatten();
        let each = rules.map(|rule| {
            let first = rule.destinations().next().and_then(|to| calls(None, to));
            let outbound = first.map_or_else(|| Arc::clone(usual), |(_, outbound)| outbound);
            EdgeTcpRule { rule: rule.clone(), outbound }
        });
        each.collect()
    }

    /// The services that its rules lead to.
    pub(super) fn destinations(&self) -> BTreeSet<QualifiedName> {
        let destinations = self.rules.iter().flat_map(|(rule, _)| rule.destinations());
        destinations.chain(self.of_bytes().flat_map(TcpRule::destinations)).map(|to| to.service.clone()).collect()
    }

    /// Its rules: what they do not say of their requests is as with the first of their destinations, whose `calls` say
    /// what is spoken there and how; where there is none, as `usual` says.
    pub(super) fn rules(
        &self,
        usual: &Arc<Outbound>,
        calls: impl Fn(Option<&HttpRule>, &Destination) -> Option<(Protocol, Arc<Outbound>)>,
    ) -> Vec<EdgeRule> {
        let each = self.rules.iter().map(|(rule, limits)| {
            let first = first(rule).and_then(|to| calls(Some(rule), to));
            let (protocol, outbound) = first.unwrap_or_else(|| (Protocol::Http, Arc::clone(usual)));
            let (timeout, retry) = limits.above(protocol, &outbound, rule.origin.as_ref());
            EdgeRule { rule: HttpRule { timeout, retry, ..rule.clone() }, protocol, outbound }
        });
        each.collect()
    }
}

fn first(rule: &HttpRule) -> Option<&Destination> {
    rule.to().first().map(|to| &to.destination)
}

/// Warns of hosts in handshakes that are not the route's.
fn warn_of_names(hosts: &[HostMatch], rules: &BTreeMap<NonZeroU16, Vec<TcpRule>>, report: &mut Report<'_>) {
    let mut others = BTreeSet::new();
    for rule in rules.values().flatten() {
        let foreign = rule.names.iter().filter(|name| !hosts.iter().any(|host| host.common(name).is_some()));
        others.extend(foreign.map(|name| (rule.origin.pointer.clone(), name)));
    }
    for (at, name) in others {
        let message = format!("never matches: {name} is no host of the route");
        report.warning(Code::NoEffect, at, message).choices = hosts.iter().map(ToString::to_string).collect();
    }
}

/// The hosts that are written, each once and in order; all, where none is.
fn hosts(written: &[String], gateway: Option<&Gateway>, report: &mut Report<'_>) -> Vec<HostMatch> {
    let mut hosts = BTreeSet::new();
    for (n, text) in written.iter().enumerate() {
        let at = format!("/spec/for/hostnames/{n}");
        let Some(host) = host(text, &at, report) else { continue };
        let of_gateway = || gateway.into_iter().flat_map(Gateway::hosts);
        if gateway.is_some() && !of_gateway().any(|of| of.common(&host).is_some()) {
            let finding = report.warning(Code::NoEffect, &at, format!("no listener of the gateway is for {host}"));
            let choices: BTreeSet<String> = of_gateway().map(ToString::to_string).collect();
            finding.choices = choices.into_iter().collect();
        }
        if hosts.contains(&host) {
            report.error(Code::Conflict, &at, format!("{host} is named twice"));
        }
        hosts.insert(host);
    }
    if written.is_empty() { vec![HostMatch::Any] } else { hosts.into_iter().collect() }
}
