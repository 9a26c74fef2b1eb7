//! Rules for connections: which of them a port has, and what each takes.
//!
//! Owns: what a valid match of a connection is. May use: `rules`, `destinations`, `hosts`. Never: decides whose route
//! applies.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use super::destinations::destinations;
use super::hosts::host;
use super::report::Report;
use super::routes::{Known, Routed};
use crate::finding::Code;
use crate::mesh::{HostMatch, Network, Protocol, TcpRule};
use crate::rules::connection::{TcpRuleSpec, TlsRuleSpec};
use crate::rules::route::DestinationSpec;
use crate::rules::scalar::Addresses;

/// A rule as it is written, whatever the port.
pub(super) struct Written<'a> {
    pub at: String,
    name: String,
    /// Empty is everything.
    alternatives: Vec<Alternative>,
    to: &'a [DestinationSpec],
}

/// One alternative; every part must hold.
struct Alternative {
    at: String,
    port: Option<NonZeroU16>,
    name: Option<HostMatch>,
    network: Option<Network>,
}

/// The rules of `tcp`.
pub(super) fn tcp<'a>(rules: &'a [TcpRuleSpec], report: &mut Report<'_>) -> Vec<Written<'a>> {
    let mut written = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("/spec/tcp/{index}");
        let alternatives = rule.matches.iter().enumerate().map(|(n, one)| {
            let at = format!("{at}/match/{n}");
            if one.port.is_none() && one.cidr.is_none() {
                let message = "an alternative names something of connections";
                let finding = report.error(Code::MissingField, &at, message);
                finding.choices = ["port", "cidr"].map(str::to_owned).to_vec();
            }
            let network = one.cidr.map(|Addresses(network)| network);
            Alternative { at, port: one.port, name: None, network }
        });
        let alternatives = alternatives.collect();
        let name = rule.name.as_ref().map_or_else(|| format!("rule-{index}"), ToString::to_string);
        enter(&mut written, Written { at, name, alternatives, to: &rule.to }, report);
    }
    written
}

/// The rules of `tls`.
pub(super) fn tls<'a>(rules: &'a [TlsRuleSpec], report: &mut Report<'_>) -> Vec<Written<'a>> {
    let mut written = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("/spec/tls/{index}");
        let alternatives = rule.matches.iter().enumerate().filter_map(|(n, one)| {
            let at = format!("{at}/match/{n}");
            let name = host(&one.sni, &format!("{at}/sni"), report)?;
            Some(Alternative { at, port: None, name: Some(name), network: None })
        });
        let alternatives = alternatives.collect();
        let name = rule.name.as_ref().map_or_else(|| format!("rule-{index}"), ToString::to_string);
        enter(&mut written, Written { at, name, alternatives, to: &rule.to }, report);
    }
    written
}

/// Enters `rule` behind those before it.
fn enter<'a>(written: &mut Vec<Written<'a>>, rule: Written<'a>, report: &mut Report<'_>) {
    if written.iter().any(|earlier| earlier.name == rule.name) {
        let message = format!("two rules are called {}", rule.name);
        report.error(Code::Conflict, format!("{}/name", rule.at), message);
    }
    if rule.is_shadowed(written) {
        let message = "never reached: the rules before it take every such connection";
        report.warning(Code::Unreachable, &rule.at, message).hint = Some("put this rule first".to_owned());
    }
    written.push(rule);
}

/// The rules of `written` that are about the port of this number, whose connections are `routed`.
pub(super) fn of_port(
    written: &[Written<'_>],
    port: NonZeroU16,
    routed: Routed<'_>,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> Vec<TcpRule> {
    let rules =
        written.iter().filter(|rule| rule.is_about(port)).map(|rule| rule.resolved(port, routed, known, report));
    rules.collect()
}

// === impl Written ===

impl Written<'_> {
    /// Says so where an alternative names a port that is none of these, which take connections.
    pub(super) fn check_ports(&self, ports: &BTreeSet<NonZeroU16>, whose: &str, report: &mut Report<'_>) {
        for one in &self.alternatives {
            let Some(unknown) = one.port.filter(|port| !ports.contains(port)) else { continue };
            let message = format!("{whose} takes no connections of tcp on port {unknown}");
            let finding = report.error(Code::NotFound, format!("{}/port", one.at), message);
            finding.choices = ports.iter().map(ToString::to_string).collect();
        }
    }

    /// Whether it says anything of the port of this number.
    pub(super) fn is_about(&self, port: NonZeroU16) -> bool {
        self.alternatives.is_empty() || self.on(port).next().is_some()
    }

    fn on(&self, port: NonZeroU16) -> impl Iterator<Item = &Alternative> {
        self.alternatives.iter().filter(move |one| one.port.is_none_or(|named| named == port))
    }

    pub(super) fn resolved(
        &self,
        port: NonZeroU16,
        routed: Routed<'_>,
        known: &Known<'_>,
        report: &mut Report<'_>,
    ) -> TcpRule {
        let (mut names, mut networks) = (BTreeSet::new(), BTreeSet::new());
        if self.on(port).all(|one| one.name.is_some() || one.network.is_some()) {
            names.extend(self.on(port).filter_map(|one| one.name.clone()));
            networks.extend(self.on(port).filter_map(|one| one.network));
        }
        let to = destinations(self.to, &format!("{}/to", self.at), routed, known, report);
        TcpRule { origin: report.origin(&self.at), name: self.name.clone(), names, networks, to }
    }

    /// Whether some rule of `earlier` takes each of its alternatives.
    fn is_shadowed(&self, earlier: &[Self]) -> bool {
        let everything = Alternative { at: String::new(), port: None, name: None, network: None };
        let own = if self.alternatives.is_empty() { std::slice::from_ref(&everything) } else { &self.alternatives };
        let covers = |rule: &Self, one: &Alternative| match rule.alternatives.as_slice() {
            [] => everything.covers(one),
            alternatives => alternatives.iter().any(|other| other.covers(one)),
        };
        own.iter().all(|one| earlier.iter().any(|rule| covers(rule, one)))
    }
}

// === impl Alternative ===

impl Alternative {
    /// Whether every connection that `later` takes is taken here before: a name that says more goes before any other.
    fn covers(&self, later: &Self) -> bool {
        let port = self.port.is_none() || self.port == later.port;
        let network = self.network.is_none_or(|outer| later.network.is_some_and(|inner| outer.contains(inner)));
        port && network && self.name == later.name
    }
}

/// Whether connections to ports of `protocol` are routed by rules of `tls`.
pub(super) fn by_name(protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tls => true,
        Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::Tcp => false,
    }
}
