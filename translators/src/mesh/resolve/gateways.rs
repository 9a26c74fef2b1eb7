//! EdgeGateways: their listeners, and looking a gateway up by name.
//!
//! Owns: what an EdgeGateway says by itself. May use: `rules`, `facts`. Never: knows a route, or whose proxies listen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::claims::Unclaimed;
use super::facts::Fact;
use super::hosts::host;
use super::report::Report;
use super::stage::{Change, Stage};
use super::workloads::Taken;
use crate::finding::Code;
use crate::mesh::{EdgeRedirect, HostMatch, Scheme};
use crate::name::{QualifiedName, RuleRef};
use crate::rules::gateway::{Direction, GatewaySpec, ListenerProtocol, ListenerSpec, WorkloadChoice};
use crate::suggest;

/// What an EdgeGateway says by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gateway {
    pub origin: RuleRef,
    /// Whose proxies have its listeners.
    pub workload: WorkloadChoice,
    /// The listeners of each socket, in order.
    pub sockets: BTreeMap<SocketAddr, Vec<Listener>>,
}

/// One listener.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listener {
    pub origin: RuleRef,
    /// The hosts that it is for; never empty.
    pub hosts: Vec<HostMatch>,
    /// Where clients are told to go instead.
    pub redirect: Option<EdgeRedirect>,
}

/// The gateways that may be referred to.
pub(super) type Gateways = Stage<Gateway, Unclaimed>;

// === impl Gateways ===

impl Gateways {
    /// The gateway `name`; a finding at `pointer` when there is none.
    pub(super) fn gateway(
        &self,
        name: &QualifiedName,
        pointer: fmt::Arguments<'_>,
        report: &mut Report<'_>,
    ) -> Option<&Gateway> {
        report.reads.push(Fact::Gateway(name.clone()));
        let found = self.get(name);
        if found.is_none() {
            report.reads.push(Fact::Gateways(name.namespace.clone()));
            let choices: Vec<String> = self.within(&name.namespace).map(|(near, _)| near.to_string()).collect();
            let finding = report.error(Code::NotFound, pointer.to_string(), format!("there is no gateway {name}"));
            finding.hint = suggest::did_you_mean(&name.to_string(), &choices);
            finding.choices = choices;
        }
        found.map(AsRef::as_ref)
    }
}

/// What those who refer to gateways may have read otherwise before `change`.
pub(super) fn facts(change: &Change<Gateway>) -> Vec<Fact> {
    let mut facts = Vec::new();
    if change.is_new() {
        facts.push(Fact::Gateway(change.name.clone()));
    }
    if change.before.is_some() != change.after.is_some() {
        facts.push(Fact::Gateways(change.name.namespace.clone()));
    }
    facts
}

// === impl Gateway ===

impl Gateway {
    /// What `spec` says.
    pub(super) fn of(spec: &GatewaySpec, report: &mut Report<'_>) -> Self {
        match spec.direction {
            Direction::Ingress => {}
        }
        if spec.listeners.is_empty() {
            report.error(Code::InvalidValue, "/spec/listeners", "a gateway has at least one listener");
        }
        if matches!(&spec.workload, WorkloadChoice::Labels(labels) if labels.is_empty()) {
            let message = "no label is named: that would be every workload of the namespace";
            report.error(Code::InvalidValue, "/spec/workload/labels", message);
        }
        let mut names = BTreeSet::new();
        for (index, listener) in spec.listeners.iter().enumerate() {
            if !names.insert(&listener.name) {
                let message = format!("two listeners are called {}", listener.name);
                report.error(Code::Conflict, format!("/spec/listeners/{index}/name"), message);
            }
        }
        let mut sockets: BTreeMap<SocketAddr, Vec<Listener>> = BTreeMap::new();
        let (mut taken, mut hosts) = (Taken::default(), BTreeMap::new());
        for (index, written) in spec.listeners.iter().enumerate() {
            let socket = socket(written);
            if !sockets.contains_key(&socket) {
                match taken.colliding(socket) {
                    Some(((_, first), other)) => {
                        let message = format!("{socket} collides with {other} at /spec/listeners/{first}");
                        report.error(Code::Conflict, format!("/spec/listeners/{index}/port"), message);
                    }
                    None => taken.take(("listeners", index), socket),
                }
            }
            let listener = listener(written, index, spec, report);
            for host in &listener.hosts {
                if let Some(first) = hosts.insert((socket, host.clone()), index) {
                    let message = format!("{host} is the host of /spec/listeners/{first} on the same port");
                    let field = if written.hostnames.is_empty() { "" } else { "/hostnames" };
                    let finding = report.error(Code::Conflict, format!("/spec/listeners/{index}{field}"), message);
                    finding.hint = Some("listeners of one port are told apart by hostnames".to_owned());
                }
            }
            sockets.entry(socket).or_default().push(listener);
        }
        Self { origin: report.origin(""), workload: spec.workload.clone(), sockets }
    }

    /// The hosts of every listener.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &HostMatch> {
        self.sockets.values().flatten().flat_map(|listener| &listener.hosts)
    }
}

fn socket(written: &ListenerSpec) -> SocketAddr {
    SocketAddr::new(written.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), written.port.get())
}

fn listener(written: &ListenerSpec, index: usize, spec: &GatewaySpec, report: &mut Report<'_>) -> Listener {
    let at = format!("/spec/listeners/{index}");
    let each = written.hostnames.iter().enumerate();
    let hosts: Vec<HostMatch> =
        each.filter_map(|(n, text)| host(text, &format!("{at}/hostnames/{n}"), report)).collect();
    Listener {
        origin: report.origin(&at),
        hosts: if written.hostnames.is_empty() { vec![HostMatch::Any] } else { hosts },
        redirect: redirect(written, &format!("{at}/redirectTo"), spec, report),
    }
}

/// Where clients are told to go.
fn redirect(written: &ListenerSpec, at: &str, spec: &GatewaySpec, report: &mut Report<'_>) -> Option<EdgeRedirect> {
    let name = written.redirect_to.as_ref()?;
    let Some(target) = spec.listeners.iter().find(|listener| listener.name == *name) else {
        let finding = report.error(Code::NotFound, at, format!("the gateway has no listener {name}"));
        let others = spec.listeners.iter().filter(|listener| listener.name != written.name);
        finding.choices = others.map(|listener| listener.name.to_string()).collect();
        finding.hint = suggest::did_you_mean(name.as_str(), &finding.choices);
        return None;
    };
    if target.redirect_to.is_some() {
        let message = format!("the listener {name} sends clients elsewhere itself");
        report.error(Code::InvalidValue, at, message).hint = Some("name the one that they end at".to_owned());
    }
    let scheme = match target.protocol {
        ListenerProtocol::Http => Scheme::Http,
    };
    Some(EdgeRedirect { scheme, port: target.port })
}
