//! EdgeGateways: their listeners, and looking a gateway up by name.
//!
//! Owns: what an EdgeGateway says by itself. May use: `rules`, `facts`. Never: knows a route, or whose proxies listen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::certificates::Certificates;
use super::claims::Unclaimed;
use super::facts::Fact;
use super::hosts::host;
use super::outside;
use super::report::Report;
use super::stage::{Change, Stage};
use super::workloads::Taken;
use crate::finding::Code;
use crate::mesh::{Certificate, EdgeClients, EdgeRedirect, HostMatch, Scheme, TlsVersion};
use crate::name::{Label, QualifiedName, RuleRef};
use crate::rules::gateway::{
    ClientAuthMode, ClientAuthSpec, Direction, GatewaySpec, ListenerProtocol, ListenerSpec, TlsMode, TlsSpec,
    WorkloadChoice,
};
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
    pub name: Label,
    pub protocol: ListenerProtocol,
    /// The hosts that it is for; never empty.
    pub hosts: Vec<HostMatch>,
    /// TLS that ends here; `None` is plaintext, or TLS that is passed on.
    pub tls: Option<Tls>,
    /// Where clients are told to go instead.
    pub redirect: Option<EdgeRedirect>,
}

/// TLS of a listener.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tls {
    pub certificate: Arc<Certificate>,
    pub min_version: TlsVersion,
    pub clients: Option<EdgeClients>,
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
    pub(super) fn of(spec: &GatewaySpec, certificates: &Certificates, report: &mut Report<'_>) -> Self {
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
            let first = spec.listeners[..index].iter().position(|other| self::socket(other) == socket);
            let beside = |first: &usize| is_beside(spec.listeners[*first].protocol, written.protocol);
            if let Some(first) = first.filter(|first| !beside(first)) {
                let message = format!("/spec/listeners/{first} speaks another protocol on the same port");
                report.error(Code::Conflict, format!("/spec/listeners/{index}/protocol"), message);
            }
            let listener = listener(written, index, spec, certificates, report);
            for host in &listener.hosts {
                if let Some(first) = hosts.insert((socket, host.clone()), index) {
                    let message = format!("{host} is the host of /spec/listeners/{first} on the same port");
                    let field = if written.hostnames.is_empty() { "" } else { "/hostnames" };
                    let finding = report.error(Code::Conflict, format!("/spec/listeners/{index}{field}"), message);
                    let hint = match written.protocol {
                        ListenerProtocol::Tcp => "a port has one listener of tcp",
                        _ => "listeners of one port are told apart by hostnames",
                    };
                    finding.hint = Some(hint.to_owned());
                }
            }
            sockets.entry(socket).or_default().push(listener);
        }
        Self { origin: report.origin(""), workload: spec.workload.clone(), sockets }
    }

    /// Whether what is said of the listener called `wanted` can be said of it alone; a finding where there is none, or
    /// where it is told from others of its socket by what requests say.
    pub(super) fn check_alone(&self, name: &QualifiedName, wanted: &str, report: &mut Report<'_>) -> Option<()> {
        let at = "/spec/target/listener";
        let socket = self.sockets.values().find(|of| of.iter().any(|listener| listener.name.as_str() == wanted));
        let Some(socket) = socket else {
            let choices: Vec<String> = self.listeners().map(|(_, listener)| listener.name.to_string()).collect();
            let finding = report.error(Code::NotFound, at, format!("the gateway {name} has no listener {wanted}"));
            finding.hint = suggest::did_you_mean(wanted, &choices);
            finding.choices = choices;
            return None;
        };
        let others = socket.iter().filter(|other| other.name.as_str() != wanted && !other.is_secured());
        if let Some(other) = others.map(|other| &other.name).next() {
            let message = format!("in plaintext the listeners {wanted} and {other} are one: they have the same port");
            report.error(Code::InvalidValue, at, message).hint =
                Some("give it a port of its own, or leave listener out".to_owned());
            return None;
        }
        Some(())
    }

    /// Those of one listener, or all.
    pub(super) fn chosen(&self, listener: Option<&str>) -> impl Iterator<Item = (u16, &Listener)> {
        self.listeners().filter(move |(_, of)| listener.is_none_or(|name| of.name.as_str() == name))
    }

    /// Every listener, and the port of each.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (u16, &Listener)> {
        self.sockets.iter().flat_map(|(socket, of)| of.iter().map(|listener| (socket.port(), listener)))
    }

    /// The hosts of every listener.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &HostMatch> {
        self.sockets.values().flatten().flat_map(|listener| &listener.hosts)
    }
}

// === impl Listener ===

impl Listener {
    /// Whether requests come by it.
    pub(super) fn takes_requests(&self) -> bool {
        match self.protocol {
            ListenerProtocol::Http | ListenerProtocol::Https => true,
            ListenerProtocol::Tcp | ListenerProtocol::Tls => false,
        }
    }

    /// Whether its connections are passed on by the rules of `tcp`.
    pub(super) fn takes_tcp(&self) -> bool {
        match self.protocol {
            ListenerProtocol::Http | ListenerProtocol::Https => false,
            ListenerProtocol::Tcp => true,
            ListenerProtocol::Tls => self.tls.is_some(),
        }
    }

    /// Whether its connections are passed on by the rules of `tls`.
    pub(super) fn takes_tls(&self) -> bool {
        self.protocol == ListenerProtocol::Tls && self.tls.is_none()
    }

    /// Whether clients begin with a handshake.
    pub(super) fn is_secured(&self) -> bool {
        is_secured(self.protocol)
    }
}

fn is_secured(protocol: ListenerProtocol) -> bool {
    match protocol {
        ListenerProtocol::Http | ListenerProtocol::Tcp => false,
        ListenerProtocol::Https | ListenerProtocol::Tls => true,
    }
}

/// Whether listeners of both can share a port: what names a host in its handshake is told apart by that.
fn is_beside(one: ListenerProtocol, other: ListenerProtocol) -> bool {
    one == other || (is_secured(one) && is_secured(other))
}

fn socket(written: &ListenerSpec) -> SocketAddr {
    SocketAddr::new(written.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), written.port.get())
}

fn listener(
    written: &ListenerSpec,
    index: usize,
    spec: &GatewaySpec,
    certificates: &Certificates,
    report: &mut Report<'_>,
) -> Listener {
    let at = format!("/spec/listeners/{index}");
    if written.protocol == ListenerProtocol::Tcp && !written.hostnames.is_empty() {
        let message = "a connection of tcp names no host";
        report.error(Code::InvalidValue, format!("{at}/hostnames"), message).hint =
            Some("leave it out, or write protocol: tls".to_owned());
    }
    let each = written.hostnames.iter().enumerate();
    let hosts: Vec<HostMatch> =
        each.filter_map(|(n, text)| host(text, &format!("{at}/hostnames/{n}"), report)).collect();
    Listener {
        origin: report.origin(&at),
        name: written.name.clone(),
        protocol: written.protocol,
        tls: tls(written, &at, certificates, report),
        hosts: if written.hostnames.is_empty() { vec![HostMatch::Any] } else { hosts },
        redirect: redirect(written, &format!("{at}/redirectTo"), spec, report),
    }
}

/// Where clients are told to go.
fn redirect(written: &ListenerSpec, at: &str, spec: &GatewaySpec, report: &mut Report<'_>) -> Option<EdgeRedirect> {
    let name = written.redirect_to.as_ref()?;
    if matches!(written.protocol, ListenerProtocol::Tcp | ListenerProtocol::Tls) {
        let message = "a connection cannot be told to go elsewhere: only a request can";
        report.error(Code::InvalidValue, at, message).hint = Some("leave it out".to_owned());
    }
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
        ListenerProtocol::Https => Scheme::Https,
        ListenerProtocol::Tcp | ListenerProtocol::Tls => {
            report.error(Code::InvalidValue, at, format!("the listener {name} takes no requests")).hint =
                Some("name one of http or https".to_owned());
            return None;
        }
    };
    Some(EdgeRedirect { scheme, port: target.port })
}

/// TLS of the listener written at `at`.
fn tls(written: &ListenerSpec, at: &str, certificates: &Certificates, report: &mut Report<'_>) -> Option<Tls> {
    let spec = match (written.protocol, &written.tls) {
        (ListenerProtocol::Http | ListenerProtocol::Tcp, None) => return None,
        (ListenerProtocol::Http, Some(_)) => {
            let finding = report.error(Code::InvalidValue, format!("{at}/tls"), "a listener of http has no TLS");
            finding.hint = Some("write protocol: https".to_owned());
            return None;
        }
        (ListenerProtocol::Tcp, Some(_)) => {
            let finding = report.error(Code::InvalidValue, format!("{at}/tls"), "a listener of tcp has no TLS");
            finding.hint = Some("write protocol: tls".to_owned());
            return None;
        }
        (ListenerProtocol::Tls, None) => {
            let message = "missing field \"tls\": write mode: passthrough, or a certificate";
            report.error(Code::MissingField, at, message);
            return None;
        }
        (ListenerProtocol::Https, None) => {
            report.error(Code::MissingField, at, "missing field \"tls\": https needs a certificate");
            return None;
        }
        (ListenerProtocol::Https | ListenerProtocol::Tls, Some(spec)) => spec,
    };
    match (spec.mode, written.protocol) {
        (TlsMode::Passthrough, ListenerProtocol::Tls) => {
            untouched(spec, &format!("{at}/tls"), report);
            return None;
        }
        (TlsMode::Passthrough, _) => {
            let message = "requests are read where TLS ends: it cannot be passed on";
            report.error(Code::InvalidValue, format!("{at}/tls/mode"), message).hint =
                Some("write protocol: tls, or mode: terminate".to_owned());
            return None;
        }
        (TlsMode::Terminate, _) => {}
    }
    let clients = spec.client_auth.as_ref().and_then(|auth| clients(auth, &format!("{at}/tls/clientAuth"), report));
    let Some(name) = &spec.certificate else {
        report.error(Code::MissingField, format!("{at}/tls"), "missing field \"certificate\"");
        return None;
    };
    let name = name.within(&report.object.key.name.namespace);
    let certificate = certificates.certificate(&name, &format!("{at}/tls/certificate"), report)?;
    Some(Tls { certificate, min_version: spec.min_version.unwrap_or(TlsVersion::V12), clients })
}

/// Of TLS that is passed on nothing can be said.
fn untouched(spec: &TlsSpec, at: &str, report: &mut Report<'_>) {
    let fields = [
        ("certificate", spec.certificate.is_some()),
        ("minVersion", spec.min_version.is_some()),
        ("clientAuth", spec.client_auth.is_some()),
    ];
    for (field, _) in fields.into_iter().filter(|(_, is_written)| *is_written) {
        let message = "TLS that is passed on does not end here";
        report.error(Code::InvalidValue, format!("{at}/{field}"), message).hint =
            Some("leave it out, or write mode: terminate".to_owned());
    }
}

fn clients(auth: &ClientAuthSpec, at: &str, report: &mut Report<'_>) -> Option<EdgeClients> {
    let required = match auth.mode {
        ClientAuthMode::None => {
            for (field, is_written) in [("ca", auth.ca.is_some()), ("forward", auth.forward)] {
                if is_written {
                    let message = "clients are not asked for certificates";
                    report.error(Code::InvalidValue, format!("{at}/{field}"), message).hint =
                        Some("write mode: optional or mode: require".to_owned());
                }
            }
            return None;
        }
        ClientAuthMode::Optional => false,
        ClientAuthMode::Require => true,
    };
    let Some(ca) = &auth.ca else {
        report.error(Code::MissingField, at, "missing field \"ca\": somebody vouches for clients");
        return None;
    };
    let authorities = outside::authorities(ca, &format!("{at}/ca"), report);
    Some(EdgeClients { authorities, required, forward: auth.forward })
}
