//! Rules become the mesh: names resolved, defaults filled in, mistakes as findings.
//!
//! Owns: the order of resolution (settings, services, workloads, policies, routes), and which object stays
//! when two claim the same. May use: `rules`, `finding`. Never: fails, or lets a bad object change what does
//! not refer to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::finding::{self, Code, Finding};
use crate::mesh::{Consumer, Mesh, Port, Service, Sourced, Workload};
use crate::name::{ObjectKey, QualifiedName, SpiffeId, TrustDomain};
use crate::rules::{Object, Objects, Spec};

use access::Policy;
use claims::Claims;
use levels::Level;
use mtls::Modes;
use report::Report;
use routes::{Routed, Routes};
use services::{Declared, Services};
use settings::Settings;

mod access;
mod backing;
mod claims;
mod levels;
mod matches;
mod mtls;
mod pattern;
mod report;
mod retry;
mod routes;
mod services;
mod settings;
mod workloads;

/// The mesh, and what is wrong with the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The mesh that the objects without errors describe.
    pub mesh: Mesh,
    /// What is wrong, by object.
    pub findings: OrdMap<ObjectKey, Arc<[Finding]>>,
    /// The objects that were left out.
    pub refused: OrdSet<ObjectKey>,
}

/// A resolution that follows a configuration as it changes.
#[derive(Debug, Default)]
pub struct Resolver {}

/// Resolves a whole configuration.
pub fn resolve(objects: &Objects) -> Resolution {
    Resolver::default().update(objects)
}

// === impl Resolution ===

impl Resolution {
    /// What is wrong, in the order of files and lines.
    pub fn all_findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            self.findings.values().flat_map(|of_object| of_object.iter().cloned()).collect();
        findings.sort_by(finding::by_place);
        findings
    }
}

// === impl Resolver ===

impl Resolver {
    /// The resolution of `objects`: what does not depend on a change is the same allocation as before.
    pub fn update(&mut self, objects: &Objects) -> Resolution {
        whole(objects)
    }
}

fn whole(objects: &Objects) -> Resolution {
    let mut objects: Vec<&Object> = objects.values().map(AsRef::as_ref).collect();
    objects.sort_by_key(|object| object.home());
    let mut resolver = Pass { objects, findings: Vec::new(), refused: BTreeSet::new() };

    let settings = resolver.settings();
    let declared = resolver.services();
    let workloads = resolver.workloads(&settings.trust_domain.value, &declared);
    let backings = backing::backings(&declared, &workloads);
    let identities = backing::identities(&settings.trust_domain.value, &declared, &workloads);
    let modes = resolver.modes(&declared);
    let known =
        access::Known { trust_domain: &settings.trust_domain.value, services: &declared, identities: &identities };
    let policies = resolver.policies(&known);
    let routes = resolver.routes(&routes::Known { settings: &settings, services: &declared, backings: &backings });

    let rules: Vec<&Policy> = policies.iter().map(|(_, policy)| policy).collect();
    let ports = |name: &QualifiedName, declared: &Declared| -> Vec<Port> {
        let port = |port: &services::DeclaredPort| Port {
            name: port.name.clone(),
            number: port.number,
            protocol: port.protocol,
            server_first: port.server_first,
            mtls: mtls::effective(&modes, name, &port.name, &settings.mtls),
            callers_use_mtls: true,
            access: access::effective(&rules, name, &port.name, &settings.access),
            routes: routes::of_port(&routes, Routed { service: name, port }, &settings),
        };
        declared.ports.iter().map(port).collect()
    };
    let services: OrdMap<QualifiedName, Arc<Service>> = declared
        .0
        .iter()
        .map(|(name, service)| {
            let resolved = Service {
                name: name.clone(),
                origin: service.origin.clone(),
                ports: ports(name, service),
                backing: backings[name].clone(),
                identities: identities[name].clone(),
            };
            (name.clone(), Arc::new(resolved))
        })
        .collect();
    for object in resolver.objects.clone() {
        if let (Spec::MeshService(_), Some(service)) = (&object.spec, services.get(&object.key.name)) {
            let mut report = Report::of(object);
            mtls::warn(service, &mut report);
            resolver.close(report);
        }
    }
    for (object, policy) in &policies {
        let mut report = Report::of(object);
        access::warn(policy, services.values().map(AsRef::as_ref), &mut report);
        resolver.close(report);
    }

    let mut findings: BTreeMap<ObjectKey, Vec<Finding>> = BTreeMap::new();
    for finding in resolver.findings {
        if let Some(object) = finding.object.clone() {
            findings.entry(object).or_default().push(finding);
        }
    }
    let findings = findings.into_iter().map(|(object, findings)| (object, Arc::from(findings))).collect();
    let mesh = Mesh {
        trust_domain: settings.trust_domain,
        leaf_ttl: settings.leaf_ttl,
        connect_timeout: settings.connect_timeout,
        services,
        workloads: workloads.into_iter().map(|(name, workload)| (name, Arc::new(workload))).collect(),
    };
    Resolution { mesh, findings, refused: resolver.refused.into_iter().collect() }
}

/// The objects in the order in which conflicts are decided, and what was found so far.
struct Pass<'a> {
    objects: Vec<&'a Object>,
    findings: Vec<Finding>,
    refused: BTreeSet<ObjectKey>,
}

// === impl Pass ===

impl<'a> Pass<'a> {
    /// Takes the findings of one object; whether the object may stay.
    fn close(&mut self, mut report: Report<'_>) -> bool {
        let refused = report.is_refused();
        if refused {
            self.refused.insert(report.object.key.clone());
        }
        // A rule is read once for each port that it applies to.
        report.findings.sort();
        report.findings.dedup();
        self.findings.extend(report.findings);
        !refused
    }

    fn settings(&mut self) -> Settings {
        let mut settings = Settings::built_in();
        for object in self.objects.clone() {
            if let Spec::Mesh(spec) = &object.spec {
                let mut report = Report::of(object);
                let written = Settings::of(spec, &mut report);
                if self.close(report) {
                    settings = written;
                }
            }
        }
        settings
    }

    fn services(&mut self) -> Services {
        let mut services = Services::default();
        for object in self.objects.clone() {
            if let Spec::MeshService(spec) = &object.spec {
                let mut report = Report::of(object);
                let declared = Declared::of(spec, &mut report);
                if self.close(report) {
                    services.0.insert(object.key.name.clone(), declared);
                }
            }
        }
        services
    }

    fn workloads(&mut self, trust_domain: &TrustDomain, services: &Services) -> BTreeMap<QualifiedName, Workload> {
        let mut kept: BTreeMap<QualifiedName, Workload> = BTreeMap::new();
        let mut by_identity: BTreeMap<SpiffeId, Vec<QualifiedName>> = BTreeMap::new();
        let mut nodes = Claims::default();
        for object in self.objects.clone() {
            if let Spec::Workload(spec) = &object.spec {
                let mut report = Report::of(object);
                let workload = workloads::workload(spec, trust_domain, services, &mut report);
                if let Some(node) = workloads::exact_node(workload.matches.as_ref()) {
                    nodes.claim(node.clone(), "/spec/match", "matches the same node", &mut report);
                }
                let alike = by_identity.get(&workload.identity);
                let others: Vec<&Workload> = alike.into_iter().flatten().map(|name| &kept[name]).collect();
                workloads::shared_identity(&workload, &others, &mut report);
                if self.close(report) {
                    by_identity.entry(workload.identity.clone()).or_default().push(workload.name.clone());
                    kept.insert(workload.name.clone(), workload);
                }
            }
        }
        kept
    }

    fn modes(&mut self, services: &Services) -> Modes {
        let mut modes = Modes::new();
        let mut targets = Claims::default();
        for object in self.objects.clone() {
            if let Spec::MTLSPolicy(spec) = &object.spec {
                let mut report = Report::of(object);
                let level = Level::of(&spec.target, services, &mut report);
                if let Some(level) = &level {
                    targets.claim(level.clone(), "/spec/target", "has the same target", &mut report);
                }
                let mode = Sourced::from_rule(spec.mode, report.origin("/spec/mode"));
                if let (true, Some(level)) = (self.close(report), level) {
                    modes.insert(level, mode);
                }
            }
        }
        modes
    }

    fn policies(&mut self, known: &access::Known<'_>) -> Vec<(&'a Object, Policy)> {
        let mut policies = Vec::new();
        let mut defaults = Claims::default();
        for object in self.objects.clone() {
            if let Spec::AccessPolicy(spec) = &object.spec {
                let mut report = Report::of(object);
                let policy = Policy::of(spec, known, &mut report);
                if let Some(policy) = policy.as_ref().filter(|policy| policy.default.is_some()) {
                    let why = "gives the same target a default";
                    defaults.claim(policy.level.clone(), "/spec/default", why, &mut report);
                }
                if let (true, Some(policy)) = (self.close(report), policy) {
                    policies.push((object, policy));
                }
            }
        }
        policies.sort_by(|(left, a), (right, b)| (&a.level, &left.key).cmp(&(&b.level, &right.key)));
        policies
    }

    fn routes(&mut self, known: &routes::Known<'_>) -> Routes {
        let mut routes = Routes::new();
        let mut subjects = Claims::default();
        for object in self.objects.clone() {
            if let Spec::TrafficRoute(spec) = &object.spec {
                let mut report = Report::of(object);
                let home = &object.key.name.namespace;
                let service = spec.subject.service.within(home);
                let consumer =
                    if service.namespace == *home { Consumer::Everyone } else { Consumer::Namespace(home.clone()) };
                let declared = known.services.service(&service, "/spec/for/service", &mut report);
                if declared.is_some_and(|declared| !declared.has_http()) {
                    let message = format!("no port of {service} speaks HTTP");
                    report.error(Code::WrongProtocol, "/spec/http", message);
                }
                let ports = declared.map_or(&[][..], |declared| &declared.ports);
                let mut written = Vec::new();
                for port in ports.iter().filter(|port| port.protocol.is_http()) {
                    let routed = Routed { service: &service, port };
                    written.push((port.name.clone(), routes::http_route(spec, routed, known, &mut report)));
                }
                let subject = (service.clone(), consumer.clone());
                subjects.claim(subject, "/spec/for", "routes the same service for the same callers", &mut report);
                if self.close(report) {
                    for (port, route) in written {
                        let entry = routes.entry((service.clone(), port)).or_default();
                        entry.insert(consumer.clone(), Arc::new(route));
                    }
                }
            }
        }
        routes
    }
}
