//! Ingress: the part of the resolver that is about gateways.
//!
//! Owns: the order in which certificates, gateways and the sockets of workloads follow a change. May use: `certificates`,
//! `gateways`, `edges`. Never: looks at gateways that a change does not concern.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::dirty::Dirty;
use super::edges::{Said, is_chosen};
use super::facts::Fact;
use super::gateways::Gateway;
use super::ledger::Part;
use super::report::Report;
use super::{Resolver, certificates, gateways};
use crate::mesh::{Destination, HttpRule, Workload};
use crate::name::{ObjectKey, ObjectKind, QualifiedName};
use crate::rules::Spec;

impl Resolver {
    pub(super) fn follow_certificates(&mut self, dirty: &mut Dirty) {
        let names = dirty.take(ObjectKind::TLSCertificate);
        let evaluate = |report: &mut Report<'_>| match &report.object.spec {
            Spec::TLSCertificate(spec) => Some((certificates::certificate(spec, report), None)),
            _ => None,
        };
        for change in self.certificates.update(ObjectKind::TLSCertificate, names, &mut self.common, evaluate) {
            certificates::facts(&change).into_iter().for_each(|fact| self.changed(fact, dirty));
        }
    }

    pub(super) fn follow_gateways(&mut self, dirty: &mut Dirty) {
        let names = dirty.take(ObjectKind::EdgeGateway);
        let certificates = &self.certificates;
        let evaluate = |report: &mut Report<'_>| match &report.object.spec {
            Spec::EdgeGateway(spec) => Some((Gateway::of(spec, certificates, report), None)),
            _ => None,
        };
        for change in self.gateways.update(ObjectKind::EdgeGateway, names, &mut self.common, evaluate) {
            gateways::facts(&change).into_iter().for_each(|fact| self.changed(fact, dirty));
            // Its place may be another one even where it says the same.
            dirty.edges.extend(self.edges.workloads_of(&change.name).cloned());
            dirty.gateways.insert(change.name);
        }
    }

    /// Who calls services by the gateways that are marked, which stay so.
    pub(super) fn choose_workloads(&mut self, dirty: &mut Dirty) {
        let gateways = dirty.gateways.take();
        for name in &gateways {
            let choice = self.gateways.get(name).map(|gateway| &gateway.workload);
            let nearby = self.workloads.within(&name.namespace).map(|(_, workload)| workload);
            let chosen = nearby.filter(|workload| choice.is_some_and(|choice| is_chosen(choice, workload)));
            let identities = chosen.map(|workload| workload.identity.clone()).collect();
            let Some(called) = self.callers.place(name, identities) else { continue };
            self.changed(Fact::AtGateway(name.clone()), dirty);
            if self.traffic.checks() {
                dirty.services.extend(called);
            }
        }
        dirty.gateways.extend(gateways);
    }

    /// Puts gateways together, and the workloads that have them.
    pub(super) fn place_edges(&mut self, dirty: &mut Dirty) {
        let gateways = dirty.gateways.take();
        for name in &gateways {
            let calls = |rule: Option<&HttpRule>, to: &Destination| {
                let port = self.resolved.get(&to.service)?.port(&to.port)?;
                let outbound = port.outbound_for(&name.namespace);
                let outbound = match rule {
                    Some(rule) => self.traffic.on_route(rule.origin.as_ref(), &rule.name, outbound),
                    None => Arc::clone(outbound),
                };
                Some((port.protocol, outbound))
            };
            let said = |listener: Option<&str>, port| Said {
                access: self.policies.at_listener(name, listener, port),
                inbound: self.traffic.taken_by_gateway(name, listener),
            };
            let candidates = self.workloads.within(&name.namespace).map(|(_, workload)| workload.as_ref());
            let (gateway, usual) = (self.gateways.get(name).map(AsRef::as_ref), &self.settings.outbound);
            dirty.edges.extend(self.edges.place(name, gateway, candidates, usual, &calls, &said));
            self.common.evaluated += 1;
        }
        let mut to_warn: BTreeSet<QualifiedName> = gateways.into_iter().collect();
        for name in dirty.edges.take() {
            let Some(workload) = self.workloads.get(&name) else { continue };
            let edges = self.edges.on(workload, &self.common.objects);
            to_warn.extend(self.edges.gateways_on(&name).cloned());
            let held = self.kept_workloads.get(&name);
            if held.is_none_or(|held| held.edges != edges) {
                self.kept_workloads.insert(name, Arc::new(Workload { edges, ..Workload::clone(workload) }));
            }
        }
        for name in to_warn {
            let key = ObjectKey::new(ObjectKind::EdgeGateway, name);
            let mut findings = Vec::new();
            if let (Some(gateway), Some(object)) = (self.gateways.get(&key.name), self.common.objects.get(&key)) {
                let mut report = Report::of(object);
                let nearby = self.workloads.within(&key.name.namespace).map(|(near, _)| near);
                self.edges.warn(&key.name, gateway, nearby, &mut report);
                findings = report.findings;
            }
            self.common.ledger.set(&key, Part::Effect, findings);
        }
    }
}
