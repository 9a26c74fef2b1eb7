//! Targets: the ladder of policies.
//!
//! Owns: what a target covers, and which is more specific. May use: `rules`, `services`. Never: knows what a
//! policy says.

use std::collections::BTreeMap;

use super::facts::Fact;
use super::gateways::Gateways;
use super::report::Report;
use super::services::Services;
use super::settings::ROOT_NAMESPACE;
use crate::finding::Code;
use crate::name::{Label, ObjectKind, QualifiedName};
use crate::rules::target::Target;

/// What a policy covers, declared from the widest to the most specific.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Mesh,
    Namespace(Label),
    Service(QualifiedName),
    Port(QualifiedName, String),
    /// A gateway, or one listener of it.
    Gateway(QualifiedName, Option<String>),
}

/// What there is at each level.
#[derive(Debug)]
pub(super) struct ByLevel<T> {
    mesh: Option<T>,
    namespaces: BTreeMap<Label, T>,
    services: BTreeMap<QualifiedName, T>,
    /// By the name of the port.
    ports: BTreeMap<QualifiedName, BTreeMap<String, T>>,
    /// By the name of the listener.
    gateways: BTreeMap<QualifiedName, BTreeMap<Option<String>, T>>,
}

// === impl Level ===

impl Level {
    /// What `target` covers.
    pub(super) fn of(target: &Target, services: &Services, report: &mut Report<'_>) -> Option<Self> {
        let level = Self::anywhere(target, services, report)?;
        let home = &report.object.key.name.namespace;
        if let Some(service) = level.service().filter(|service| service.namespace != *home) {
            let message = format!("a policy of {home} cannot target {service}");
            let hint = format!("write the policy in the namespace {}", service.namespace);
            report.error(Code::Foreign, "/spec/target/service", message).hint = Some(hint);
            return None;
        }
        Some(level)
    }

    /// What `target` covers, where that may be a gateway of the object's own namespace.
    pub(super) fn with_gateways(
        target: &Target,
        services: &Services,
        gateways: &Gateways,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let Target::Gateway(name, listener) = target else { return Self::of(target, services, report) };
        let home = &report.object.key.name.namespace;
        let name = name.within(home);
        if name.namespace != *home {
            let message = format!("a policy of {home} cannot target the gateway {name}");
            let hint = format!("write the policy in the namespace {}", name.namespace);
            report.error(Code::Foreign, "/spec/target/gateway", message).hint = Some(hint);
            return None;
        }
        let gateway = gateways.gateway(&name, format_args!("/spec/target/gateway"), report)?;
        if let Some(listener) = listener {
            gateway.check_alone(&name, listener, report)?;
        }
        Some(Self::Gateway(name, listener.clone()))
    }

    /// The calls to what `target` covers: of the callers of one namespace, where the object stands in theirs.
    pub(super) fn of_calls(
        target: &Target,
        services: &Services,
        report: &mut Report<'_>,
    ) -> Option<(Self, Option<Label>)> {
        let level = Self::anywhere(target, services, report)?;
        let home = &report.object.key.name.namespace;
        let consumer = level.service().filter(|service| service.namespace != *home).map(|_| home.clone());
        Some((level, consumer))
    }

    fn anywhere(target: &Target, services: &Services, report: &mut Report<'_>) -> Option<Self> {
        let home = &report.object.key.name.namespace;
        let (name, port) = match target {
            Target::Mesh if home.as_str() == ROOT_NAMESPACE => {
                report.reads.push(Fact::AllNames);
                if services.iter().next().is_none() {
                    let message = "there is no service: the policy covers nothing";
                    report.warning(Code::NoEffect, "/spec/target/scope", message);
                }
                return Some(Self::Mesh);
            }
            Target::Mesh => {
                let message = format!("only an object in the namespace {ROOT_NAMESPACE} can target the whole mesh");
                report.error(Code::Foreign, "/spec/target/scope", message).choices = vec!["namespace".to_owned()];
                return None;
            }
            Target::Namespace => {
                if services.within(home).next().is_none() {
                    let message = format!("there is no service in the namespace {home}: the policy covers nothing");
                    report.warning(Code::NoEffect, "/spec/target/scope", message);
                }
                report.reads.push(Fact::Names(home.clone()));
                return Some(Self::Namespace(home.clone()));
            }
            Target::Service(name) => (name, None),
            Target::Port(name, port) => (name, Some(port)),
            Target::Labels(_) => return unusable("labels", report),
            Target::Gateway(..) => return unusable("a gateway", report),
            Target::Route(..) => return unusable("route", report),
        };
        let service = name.within(home);
        let declared = services.service(&service, format_args!("/spec/target/service"), report)?;
        let Some(port) = port else { return Some(Self::Service(service)) };
        let port = port.parse().ok()?;
        let port = declared.port(Some(&port), format_args!("/spec/target/port"), report)?;
        Some(Self::Port(service, port.name.clone()))
    }

    /// The one service that it covers, or a port of it.
    pub(super) fn service(&self) -> Option<&QualifiedName> {
        match self {
            Self::Mesh | Self::Namespace(_) | Self::Gateway(..) => None,
            Self::Service(service) | Self::Port(service, _) => Some(service),
        }
    }

    /// The levels that cover `service` beside others.
    pub(super) fn wide(service: &QualifiedName) -> [Self; 2] {
        [Self::Mesh, Self::Namespace(service.namespace.clone())]
    }
}

// === impl ByLevel ===

impl<T> Default for ByLevel<T> {
    fn default() -> Self {
        let (services, ports, gateways) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { mesh: None, namespaces: BTreeMap::new(), services, ports, gateways }
    }
}

impl<T> ByLevel<T> {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        let Self { mesh, namespaces, services, ports, gateways } = self;
        mesh.is_none() && namespaces.is_empty() && services.is_empty() && ports.is_empty() && gateways.is_empty()
    }

    /// What is at `level`.
    pub(super) fn get(&self, level: &Level) -> Option<&T> {
        match level {
            Level::Mesh => self.mesh.as_ref(),
            Level::Namespace(namespace) => self.namespaces.get(namespace),
            Level::Service(service) => self.services.get(service),
            Level::Port(service, port) => self.ports.get(service)?.get(port),
            Level::Gateway(gateway, listener) => self.gateways.get(gateway)?.get(listener),
        }
    }

    /// What is at `level`, or else what `new` gives.
    pub(super) fn entry(&mut self, level: &Level, new: impl FnOnce() -> T) -> &mut T {
        match level {
            Level::Mesh => self.mesh.get_or_insert_with(new),
            Level::Namespace(namespace) => self.namespaces.entry(namespace.clone()).or_insert_with(new),
            Level::Service(service) => self.services.entry(service.clone()).or_insert_with(new),
            Level::Port(service, port) => {
                self.ports.entry(service.clone()).or_default().entry(port.clone()).or_insert_with(new)
            }
            Level::Gateway(gateway, listener) => {
                self.gateways.entry(gateway.clone()).or_default().entry(listener.clone()).or_insert_with(new)
            }
        }
    }

    /// Puts `value` at `level`.
    pub(super) fn put(&mut self, level: &Level, value: T) {
        let mut value = Some(value);
        let place = self.entry(level, || value.take().expect("it is asked for once at most"));
        if let Some(value) = value {
            *place = value;
        }
    }

    /// Takes away what is at `level`.
    pub(super) fn remove(&mut self, level: &Level) {
        match level {
            Level::Mesh => self.mesh = None,
            Level::Namespace(namespace) => {
                self.namespaces.remove(namespace);
            }
            Level::Service(service) => {
                self.services.remove(service);
            }
            Level::Port(service, port) => {
                let Some(ports) = self.ports.get_mut(service) else { return };
                ports.remove(port);
                if ports.is_empty() {
                    self.ports.remove(service);
                }
            }
            Level::Gateway(gateway, listener) => {
                let Some(listeners) = self.gateways.get_mut(gateway) else { return };
                listeners.remove(listener);
                if listeners.is_empty() {
                    self.gateways.remove(gateway);
                }
            }
        }
    }

    /// What covers a port, from the widest level to the most specific.
    pub(super) fn covering(&self, service: &QualifiedName, port: &str) -> impl DoubleEndedIterator<Item = &T> {
        self.wide(&service.namespace).chain(self.narrow(service, port))
    }

    /// What covers everything in a namespace.
    pub(super) fn wide(&self, namespace: &Label) -> impl DoubleEndedIterator<Item = &T> {
        [self.mesh.as_ref(), self.namespaces.get(namespace)].into_iter().flatten()
    }

    /// What covers a port, and beside it at most its service.
    pub(super) fn narrow(
        &self,
        service: &QualifiedName,
        port: &str,
    ) -> impl DoubleEndedIterator<Item = &T> + use<'_, T> {
        let of_port = self.ports.get(service).and_then(|ports| ports.get(port));
        [self.services.get(service), of_port].into_iter().flatten()
    }

    /// What covers a listener of a gateway, if one is named, from the gateway to the listener.
    pub(super) fn of_gateway(&self, gateway: &QualifiedName, listener: Option<&str>) -> impl Iterator<Item = &T> {
        let of_gateway = self.gateways.get(gateway);
        let named = listener.and_then(|name| of_gateway?.get(&Some(name.to_owned())));
        of_gateway.and_then(|of| of.get(&None)).into_iter().chain(named)
    }

    /// What covers only `service` or ports of it.
    pub(super) fn only(&self, service: &QualifiedName) -> impl Iterator<Item = &T> {
        self.services.get(service).into_iter().chain(self.ports.get(service).into_iter().flat_map(BTreeMap::values))
    }
}

/// A target that policies of this kind do not take.
fn unusable(form: &str, report: &mut Report<'_>) -> Option<Level> {
    let kind = report.object.key.kind;
    let further: &[&str] = match kind {
        ObjectKind::TrafficPolicy => &["labels", "route"],
        ObjectKind::MTLSPolicy | ObjectKind::AccessPolicy | ObjectKind::TelemetryPolicy => &["labels"],
        _ => &[],
    };
    let message = match (kind, form) {
        (_, "route") => format!("{kind} says nothing of the rules of a route"),
        (_, form) => format!("{kind} cannot target {form}"),
    };
    report.error(Code::InvalidValue, format!("/spec/target/{}", form.trim_start_matches("a ")), message).choices =
        ["scope", "service"].iter().chain(further).map(ToString::to_string).collect();
    None
}
