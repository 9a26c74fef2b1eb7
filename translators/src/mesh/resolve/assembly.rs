//! Assembly: a service put together from what every stage says of it.
//!
//! Owns: which parts a service has, and what is wrong with it as a whole. May use: every stage, as it is kept. Never: evaluates
//! an object.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::backing::Behind;
use super::dirty::Dirty;
use super::facts::Fact;
use super::ledger::Part;
use super::report::Report;
use super::services::DeclaredPort;
use super::traffic::Calls;
use super::{Resolver, access, limits, mtls};
use crate::finding::Finding;
use crate::mesh::{Access, AllApart, Apart, Backing, HttpRoute, HttpRule, MtlsMode, Port, Service, Sourced, Workload};
use crate::name::{ObjectKey, ObjectKind, QualifiedName};

impl Resolver {
    /// Puts services together, and says what is wrong with them only then.
    pub(super) fn put_together(&mut self, dirty: &mut Dirty) {
        for name in dirty.services.take() {
            let key = ObjectKey::new(ObjectKind::MeshService, name);
            let name = &key.name;
            let before = self.resolved.get(name).cloned();
            let service = self.service(name, before.as_deref());
            self.common.evaluated += 1;
            let mut findings = Vec::new();
            let closed = service.iter().flat_map(access::closed).filter(|port| self.is_called(name, &port.name));
            let closed: Vec<&Port> = closed.collect();
            if let Some(service) = service.as_ref().filter(|service| mtls::is_unproven(service) || !closed.is_empty())
                && let Some(object) = self.common.objects.get(&key)
            {
                let mut report = Report::of(object);
                mtls::warn(service, &mut report);
                access::warn_of_closed(&closed, &mut report);
                findings = report.findings;
            }
            self.common.ledger.set(&key, Part::Effect, findings);
            self.warn_of_policies(before.as_deref(), service.as_ref());
            if before.as_deref() == service.as_ref() {
                continue;
            }
            dirty.gateways.extend(self.edges.led_by(name).cloned());
            if self.coverage.replace(name, before.as_deref(), service.as_ref()) {
                dirty.warnings.extend(self.policies.only(name).map(|kept| kept.object.key.name.clone()));
            }
            match service {
                Some(service) => self.resolved.insert(name.clone(), Arc::new(service)),
                None => self.resolved.remove(name),
            };
        }
    }

    /// Says of the routes of a service what is risky because policies say it of their rules.
    fn warn_of_policies(&mut self, before: Option<&Service>, service: Option<&Service>) {
        let routes = |of: Option<&Service>| -> Vec<Arc<HttpRoute>> {
            let ports = of.into_iter().flat_map(|service| &service.ports);
            ports.flat_map(|port| port.routes.values()).filter(|route| route.origin.is_some()).cloned().collect()
        };
        let mut findings: BTreeMap<ObjectKey, Vec<Finding>> = BTreeMap::new();
        for origin in routes(before).iter().filter_map(|route| route.origin.as_ref()) {
            findings.entry(origin.object.clone()).or_default();
        }
        for route in routes(service) {
            let Some(key) = route.origin.as_ref().map(|origin| &origin.object) else { continue };
            let Some(object) = self.common.objects.get(key) else { continue };
            let mut report = Report::of(object);
            route.rules.iter().for_each(|rule| limits::warn_of_policy(rule, &mut report));
            let said = findings.entry(key.clone()).or_default();
            report.findings.retain(|finding| !said.contains(finding));
            said.append(&mut report.findings);
        }
        for (key, findings) in findings {
            self.common.ledger.set(&key, Part::Effect, findings);
        }
    }

    /// Whether any workload calls the port.
    fn is_called(&self, service: &QualifiedName, port: &str) -> bool {
        let mut calls = self.callers_of(service).flat_map(|from| &from.calls);
        calls.any(|call| call.service == *service && call.port == port)
    }

    /// The workloads that may call the service: those that name it.
    fn callers_of(&self, service: &QualifiedName) -> impl Iterator<Item = &Workload> {
        let readers = self.common.readers.of(Fact::Service(service.clone()));
        let workloads = readers.filter(|key| key.kind == ObjectKind::Workload);
        workloads.filter_map(|key| self.kept_workloads.get(&key.name)).map(AsRef::as_ref)
    }

    /// The workloads that serve a port and of which labels say something else than what is `usual`.
    fn apart(
        &self,
        service: &QualifiedName,
        port: &DeclaredPort,
        behind: &Behind,
        usual: &Apart,
        admit: impl Fn(&mut Access),
    ) -> AllApart {
        let namespace = &service.namespace;
        let by_labels = self.modes.is_by_labels(namespace)
            || self.policies.is_by_labels(namespace)
            || self.traffic.is_by_labels(namespace);
        let Backing::Workloads(servings) = &behind.backing else { return None };
        let servings = servings.iter().filter(|serving| by_labels && serving.port == port.name);
        let of_workload = |workload: &Workload| {
            let mut access = self.policies.effective(service, port, Some(workload), &self.settings.access);
            admit(&mut access);
            let own = Apart {
                mtls: self.modes.effective(service, &port.name, Some(workload), &self.settings.mtls),
                callers_use_mtls: usual.callers_use_mtls,
                access,
                inbound: self.traffic.taken(service, &port.name, Some(workload)),
            };
            (own != *usual).then(|| (workload.name.clone(), own))
        };
        let workloads = servings.filter_map(|serving| self.kept_workloads.get(&serving.workload));
        let apart: BTreeMap<_, _> = workloads.filter_map(|workload| of_workload(workload)).collect();
        (!apart.is_empty()).then(|| Box::new(apart))
    }

    /// The service `name` with everything that applies to it; routes that are as they were `before` are shared.
    fn service(&self, name: &QualifiedName, before: Option<&Service>) -> Option<Service> {
        let declared = self.services.get(name)?;
        let behind = self.backings.get(name)?;
        let port = |port: &DeclaredPort| {
            let calls = self.traffic.calls(name, &port.name, &self.settings.outbound);
            let on_route =
                |rule: &HttpRule, below: &Arc<_>| self.traffic.on_route(rule.origin.as_ref(), &rule.name, below);
            let mut routes = self.routes.of_port((name, declared, port), &calls, &self.settings, &on_route);
            let Calls { everyone: outbound, consumers: outbound_of } = calls;
            let mut access = self.policies.effective(name, port, None, &self.settings.access);
            let admit = |access: &mut Access| {
                if self.traffic.checks() && access.may_refuse() {
                    let calls = [&outbound].into_iter().chain(outbound_of.values()).map(AsRef::as_ref);
                    let directly = |service: &QualifiedName| {
                        let callers = self.callers_of(service);
                        let callers = callers.filter(|from| from.calls.iter().any(|call| call.service == *service));
                        callers.map(|from| from.identity.clone()).collect()
                    };
                    access.checks = self.callers.admitted(name, port.protocol, calls, directly).map(Box::new);
                }
            };
            admit(&mut access);
            let before = before.and_then(|before| before.port(&port.name)).map(|before| &before.routes);
            for (consumer, route) in &mut routes {
                if let Some(same) = before.and_then(|before| before.get(consumer)).filter(|same| *same == route) {
                    *route = Arc::clone(same);
                }
            }
            let mtls = match &declared.outside {
                None => self.modes.effective(name, &port.name, None, &self.settings.mtls),
                Some(_) => Sourced::from_rule(MtlsMode::Disabled, declared.origin.member("spec/external")),
            };
            let inbound = self.traffic.taken(name, &port.name, None);
            let usual = Apart { mtls, callers_use_mtls: true, access, inbound };
            let apart = self.apart(name, port, behind, &usual, admit);
            let Apart { mtls, callers_use_mtls, access, inbound } = usual;
            Port {
                name: port.name.clone(),
                number: port.number,
                protocol: port.protocol,
                server_first: port.server_first,
                mtls,
                callers_use_mtls,
                access,
                apart,
                outbound,
                outbound_of,
                inbound,
                routes,
                tcp_routes: self.routes.of_tcp_port((name, port)),
            }
        };
        Some(Service {
            name: name.clone(),
            origin: declared.origin.clone(),
            ports: declared.ports.iter().map(port).collect(),
            backing: behind.backing.clone(),
            outside: declared.outside.clone(),
            identities: behind.identities.clone(),
        })
    }
}
