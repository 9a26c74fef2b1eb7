//! TrafficRoutes for gateways: which rule takes a request from outside.
//!
//! Owns: the hosts and the prefix of a route, and what its rules inherit. May use: `rules`, `routes`, `gateways`. Never:
//! reads a rule otherwise than for a service.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::gateways::Gateway;
use super::hosts::host;
use super::limits::Limits;
use super::matches::is_path;
use super::report::Report;
use super::routes::{Known, Routed, Subject, rules};
use crate::finding::Code;
use crate::mesh::{Destination, EdgeRule, HostMatch, HttpRule, Outbound, Protocol};
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
        if !spec.tcp.is_empty() {
            report.error(Code::WrongProtocol, "/spec/tcp", format!("no listener of {gateway} takes connections"));
        }
        if spec.http.is_empty() && spec.grpc.is_empty() {
            report.error(Code::InvalidValue, "/spec", "a route for a gateway has at least one rule: give http or grpc");
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
        Some(Self { gateway, origin: report.origin(""), hosts, prefix: prefix.to_owned(), rules })
    }

    /// Which requests it decides about.
    pub(super) fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.hosts.iter().map(|host| Subject::Gateway(self.gateway.clone(), host.clone(), self.prefix.clone()))
    }

    /// The services by which it is decided how the calls of its rules are made.
    pub(super) fn led_by(&self) -> BTreeSet<&QualifiedName> {
        self.rules.iter().filter_map(|(rule, _)| Some(&first(rule)?.service)).collect()
    }

    /// The services that its rules lead to.
    pub(super) fn destinations(&self) -> BTreeSet<QualifiedName> {
        let destinations = self.rules.iter().flat_map(|(rule, _)| rule.destinations());
        destinations.map(|to| to.service.clone()).collect()
    }

    /// Its rules: what they do not say of their requests is as with the first of their destinations, whose `calls` say
    /// what is spoken there and how; where there is none, as `usual` says.
    pub(super) fn rules(
        &self,
        usual: &Arc<Outbound>,
        calls: impl Fn(&HttpRule, &Destination) -> Option<(Protocol, Arc<Outbound>)>,
    ) -> Vec<EdgeRule> {
        let each = self.rules.iter().map(|(rule, limits)| {
            let first = first(rule).and_then(|to| calls(rule, to));
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
