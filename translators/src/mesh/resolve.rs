//! Rules become the mesh: names resolved, defaults filled in, mistakes as findings.
//!
//! Owns: the order of resolution (settings, services, workloads, what is behind services, modes, gateways, policies, routes,
//! the services put together), and what of each stage has to be looked at again after a change. May use: `rules`,
//! `finding`. Never: fails, or lets a bad object change what does not refer to it.

use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};

use crate::finding::{self, Finding};
use crate::mesh::{Mesh, Service, Workload};
use crate::name::{ObjectKey, ObjectKind, QualifiedName};
use crate::rules::{Objects, Spec};

use access::Policies;
use backing::Backings;
use certificates::Certificates;
use claims::Unclaimed;
use coverage::Coverage;
use dirty::Dirty;
use edges::Edges;
use facts::Fact;
use gateways::Gateways;
use health::Callers;
use ledger::Part;
use mtls::Modes;
use observing::Observing;
use patches::Patches;
use reach::Said;
use report::Report;
use routes::{Routes, Routing, Subject};
use services::{Declared, Services};
use settings::Settings;
use sharing::Sharing;
use snapshots::Snapshots;
use stage::{Common, Stage};
use traffic::Traffic;
use workloads::ExactNode;

mod access;
mod action;
mod assembly;
mod backing;
mod certificates;
mod checks;
mod claims;
mod connections;
mod coverage;
mod destinations;
mod dirty;
mod edges;
mod entries;
mod facts;
mod gateway_routes;
mod gateways;
mod health;
mod hosts;
mod inbound;
mod ingress;
mod keys;
mod ledger;
mod levels;
mod limits;
mod matches;
mod mtls;
mod nearness;
mod observing;
mod on_route;
mod outbound;
mod outside;
mod patches;
mod pattern;
mod providers;
mod raw;
mod reach;
mod report;
mod retry;
mod routes;
mod services;
mod settings;
mod sharing;
mod snapshots;
mod sources;
mod stage;
mod telemetry;
mod template;
mod traffic;
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
///
/// Each stage remembers what its objects came to and what they read of others. An update evaluates the objects that
/// changed and those that read something which came out otherwise, stage by stage.
#[derive(Debug, Default)]
pub struct Resolver {
    common: Common,
    settings: Settings,
    meshes: Stage<Settings, Unclaimed>,
    services: Services,
    workloads: Stage<Workload, ExactNode>,
    mtls_policies: Stage<mtls::Policy, Said>,
    access_policies: Stage<access::Policy, access::DefaultOf>,
    traffic_policies: Stage<traffic::Policy, traffic::Claimed>,
    traffic_routes: Stage<Routing, Subject>,
    certificates: Certificates,
    gateways: Gateways,
    sharing: Sharing,
    snapshots: Snapshots,
    backings: Backings,
    modes: Modes,
    policies: Policies,
    traffic: Traffic,
    observing: Observing,
    patches: Patches,
    routes: Routes,
    edges: Edges,
    coverage: Coverage,
    callers: Callers,
    /// What the mesh holds.
    resolved: OrdMap<QualifiedName, Arc<Service>>,
    kept_workloads: OrdMap<QualifiedName, Arc<Workload>>,
}

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
        let mut dirty = Dirty::default();
        for change in self.common.objects.diff(objects) {
            match change {
                DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { new: (key, _), .. } => {
                    dirty.object(key);
                    if key.kind == ObjectKind::TrafficRoute {
                        self.changed(Fact::Route(key.name.clone()), &mut dirty);
                        self.changed(Fact::Routes(key.name.namespace.clone()), &mut dirty);
                    }
                }
            }
        }
        self.common.objects.clone_from(objects);
        self.common.evaluated = 0;

        self.follow_settings(&mut dirty);
        self.follow_services(&mut dirty);
        self.follow_workloads(&mut dirty);
        self.follow_snapshots(&mut dirty);
        self.follow_backings(&mut dirty);
        self.follow_modes(&mut dirty);
        self.follow_certificates(&mut dirty);
        self.follow_gateways(&mut dirty);
        self.choose_workloads(&mut dirty);
        self.follow_policies(&mut dirty);
        self.follow_traffic(&mut dirty);
        self.follow_telemetry(&mut dirty);
        self.patches.update(dirty.take(ObjectKind::EnvoyPatch), &self.services, &mut self.common);
        self.follow_routes(&mut dirty);
        self.put_together(&mut dirty);
        self.place_edges(&mut dirty);
        self.warn(dirty);

        let (findings, refused) = self.common.ledger.close();
        let mesh = Mesh {
            trust_domain: self.settings.trust_domain.clone(),
            leaf_ttl: self.settings.leaf_ttl.clone(),
            connect_timeout: self.settings.outbound.connect_timeout.clone(),
            services: self.resolved.clone(),
            workloads: self.kept_workloads.clone(),
            snapshots: self.snapshots.kept().clone(),
            patches: self.patches.kept().clone(),
            observed: self.observing.observed().clone(),
            telemetry_providers: Arc::clone(&self.settings.telemetry_providers),
        };
        Resolution { mesh, findings, refused }
    }

    /// How much the last update looked at: objects evaluated, what is behind services, services put together, policies held
    /// against what they cover.
    pub fn evaluated(&self) -> usize {
        self.common.evaluated
    }

    /// Settings that change concern everything.
    fn follow_settings(&mut self, dirty: &mut Dirty) {
        let names = dirty.take(ObjectKind::Mesh);
        self.meshes.update(ObjectKind::Mesh, names, &mut self.common, |report| match &report.object.spec {
            Spec::Mesh(spec) => Some((Settings::of(spec, report), None)),
            _ => None,
        });
        let settings = self.meshes.iter().next().map(|(_, settings)| settings.as_ref().clone()).unwrap_or_default();
        if settings != self.settings {
            let outbound = (settings.outbound == self.settings.outbound).then(|| Arc::clone(&self.settings.outbound));
            self.settings = Settings { outbound: outbound.unwrap_or_else(|| settings.outbound.clone()), ..settings };
            self.common.objects.keys().for_each(|key| dirty.object(key));
            dirty.backings.extend(self.services.iter().map(|(name, _)| name.clone()));
        }
    }

    fn follow_services(&mut self, dirty: &mut Dirty) {
        let names = dirty.take(ObjectKind::MeshService);
        let evaluate = |report: &mut Report<'_>| match &report.object.spec {
            Spec::MeshService(spec) => Some((Declared::of(spec, report), None)),
            _ => None,
        };
        for change in self.services.update(ObjectKind::MeshService, names, &mut self.common, evaluate) {
            services::facts(&change).into_iter().for_each(|fact| self.changed(fact, dirty));
            if change.is_new() {
                dirty.backings.insert(change.name.clone());
            }
            dirty.services.insert(change.name);
        }
    }

    fn follow_workloads(&mut self, dirty: &mut Dirty) {
        let names = dirty.take(ObjectKind::Workload);
        let (trust_domain, services) = (&self.settings.trust_domain.value, &self.services);
        let evaluate = |report: &mut Report<'_>| match &report.object.spec {
            Spec::Workload(spec) => {
                let workload = workloads::workload(spec, trust_domain, services, report);
                let node = ExactNode::of(&workload);
                Some((workload, node))
            }
            _ => None,
        };
        let changes = self.workloads.update(ObjectKind::Workload, names, &mut self.common, evaluate);
        for change in changes.iter().filter(|change| change.is_new()) {
            match &change.after {
                Some(kept) => self.kept_workloads.insert(change.name.clone(), Arc::clone(&kept.value)),
                None => self.kept_workloads.remove(&change.name),
            };
            dirty.backings.extend(self.backings.follow(change));
            if !change.are_alike(|workload| &workload.labels) {
                self.changed(Fact::Labels(change.name.namespace.clone()), dirty);
            }
            dirty.gateways.extend(self.gateways.within(&change.name.namespace).map(|(gateway, _)| gateway.clone()));
            if self.edges.is_on(&change.name) {
                dirty.edges.insert(change.name.clone());
            }
            if self.traffic.checks() {
                dirty.services.extend(self.callers.reached_by(Callers::called(change)));
            }
            if self.observing.is_needed() {
                dirty.observed.insert(change.name.clone());
            }
            // Whether a port is closed to nobody or to somebody.
            for call in change.values().flat_map(|workload| &workload.calls) {
                let service = self.resolved.get(&call.service);
                if service.is_some_and(|service| access::closed(service).next().is_some()) {
                    dirty.services.insert(call.service.clone());
                }
            }
        }
        self.sharing.follow(&changes, &mut self.common);
        self.snapshots.mark(&changes);
    }

    fn follow_snapshots(&mut self, dirty: &mut Dirty) {
        let names = dirty.take(ObjectKind::EnvoySnapshot);
        self.snapshots.update(names, &self.kept_workloads, &mut self.common);
    }

    fn follow_backings(&mut self, dirty: &mut Dirty) {
        for service in dirty.backings.take() {
            self.common.evaluated += 1;
            let declared = self.services.get(&service).map(AsRef::as_ref);
            let trust_domain = &self.settings.trust_domain.value;
            let facts = self.backings.refresh(&service, declared, &self.kept_workloads, trust_domain);
            if facts.is_some() {
                dirty.services.insert(service);
            }
            facts.into_iter().flatten().for_each(|fact| self.changed(fact, dirty));
        }
    }

    fn follow_modes(&mut self, dirty: &mut Dirty) {
        let names = dirty.take(ObjectKind::MTLSPolicy);
        let (services, workloads) = (&self.services, &self.kept_workloads);
        let evaluate = |report: &mut Report<'_>| match &report.object.spec {
            Spec::MTLSPolicy(spec) => {
                let policy = mtls::Policy::of(spec, services, workloads, report)?;
                let said = policy.reach.said(workloads);
                Some((policy, said))
            }
            _ => None,
        };
        let changes = self.mtls_policies.update(ObjectKind::MTLSPolicy, names, &mut self.common, evaluate);
        self.modes.follow(&changes);
        for policy in changes.iter().filter(|change| change.is_new()).flat_map(stage::Change::values) {
            dirty.reached(&policy.reach, &self.services, &self.kept_workloads);
        }
    }

    fn follow_policies(&mut self, dirty: &mut Dirty) {
        let names = dirty.take(ObjectKind::AccessPolicy);
        let known = entries::Known {
            trust_domain: &self.settings.trust_domain.value,
            services: &self.services,
            backings: &self.backings,
            providers: &self.settings.jwt_providers,
            gateways: &self.gateways,
            callers: &self.callers,
        };
        let workloads = &self.kept_workloads;
        let evaluate = |report: &mut Report<'_>| match &report.object.spec {
            Spec::AccessPolicy(spec) => {
                let policy = access::Policy::of(spec, &known, workloads, report)?;
                let claims = policy.claims(workloads);
                Some((policy, claims))
            }
            _ => None,
        };
        let changes = self.access_policies.update(ObjectKind::AccessPolicy, names, &mut self.common, evaluate);
        self.policies.follow(&changes);
        for change in changes {
            for policy in change.values().filter(|_| change.is_new()) {
                dirty.reached(&policy.reach, &self.services, &self.kept_workloads);
                dirty.levels.extend(policy.reach.level().cloned());
            }
            dirty.warnings.insert(change.name);
        }
    }

    fn follow_traffic(&mut self, dirty: &mut Dirty) {
        let names = dirty.take(ObjectKind::TrafficPolicy);
        let known = traffic::Known {
            services: &self.services,
            workloads: &self.kept_workloads,
            objects: &self.common.objects.clone(),
            gateways: &self.gateways,
        };
        let evaluate = |report: &mut Report<'_>| match &report.object.spec {
            Spec::TrafficPolicy(spec) => {
                let policy = traffic::Policy::of(spec, &known, report)?;
                let claims = policy.claims(known.workloads);
                Some((policy, claims))
            }
            _ => None,
        };
        let changes = self.traffic_policies.update(ObjectKind::TrafficPolicy, names, &mut self.common, evaluate);
        self.traffic.follow(&changes);
        for policy in changes.iter().filter(|change| change.is_new()).flat_map(stage::Change::values) {
            match &policy.subject {
                traffic::Subject::Calls(reach, _) => dirty.reached(reach, &self.services, &self.kept_workloads),
                traffic::Subject::Route(on) => match self.traffic_routes.get(&on.route).map(AsRef::as_ref) {
                    Some(Routing::Service(of)) => dirty.services.insert(of.service.clone()),
                    Some(Routing::Gateway(of)) => dirty.gateways.insert(of.gateway.clone()),
                    None => {}
                },
            }
        }
    }

    fn follow_telemetry(&mut self, dirty: &mut Dirty) {
        let names = dirty.take(ObjectKind::TelemetryPolicy);
        let known = telemetry::Known { services: &self.services, providers: &self.settings.telemetry_providers };
        self.observing.update(names, dirty.observed.take(), &known, &self.kept_workloads, &mut self.common);
    }

    fn follow_routes(&mut self, dirty: &mut Dirty) {
        let names = dirty.take(ObjectKind::TrafficRoute);
        let known = routes::Known {
            settings: &self.settings,
            services: &self.services,
            backings: &self.backings,
            gateways: &self.gateways,
        };
        let evaluate = |report: &mut Report<'_>| match &report.object.spec {
            Spec::TrafficRoute(spec) => {
                let routing = Routing::of(spec, &known, report)?;
                let subjects = routing.subjects();
                Some((routing, subjects))
            }
            _ => None,
        };
        let changes = self.traffic_routes.update(ObjectKind::TrafficRoute, names, &mut self.common, evaluate);
        self.routes.follow(&changes);
        dirty.gateways.extend(self.edges.follow(&changes));
        let led = self.callers.lead(&changes);
        if self.traffic.checks() {
            dirty.services.extend(led);
        }
        let said = |name: &QualifiedName| {
            self.common.ledger.says(&ObjectKey::new(ObjectKind::TrafficRoute, name.clone()), Part::Effect)
        };
        let concerned = changes.iter().filter(|change| change.is_new() || said(&change.name));
        for routing in concerned.flat_map(stage::Change::values) {
            match routing {
                Routing::Service(of) => dirty.services.insert(of.service.clone()),
                Routing::Gateway(_) => {}
            }
        }
    }

    /// Holds access policies against the ports that they cover.
    fn warn(&mut self, mut dirty: Dirty) {
        for level in dirty.levels.take() {
            let is_targeted = self.policies.at(&level).next().is_some();
            self.coverage.follow(&level, is_targeted, &self.resolved);
        }
        for (level, numbers_alone) in self.coverage.changed() {
            let concerned = self.policies.at(&level).filter(|kept| !numbers_alone || kept.value.names_ports());
            dirty.warnings.extend(concerned.map(|kept| kept.object.key.name.clone()));
        }
        for name in dirty.warnings.take() {
            let key = ObjectKey::new(ObjectKind::AccessPolicy, name);
            let mut findings = Vec::new();
            if let (Some(policy), Some(object)) = (self.access_policies.get(&key.name), self.common.objects.get(&key)) {
                let mut report = Report::of(object);
                let covered = policy.reach.level().map(|level| self.coverage.of(level, &self.resolved));
                access::warn(policy, &covered.unwrap_or_default(), &mut report);
                findings = report.findings;
                self.common.evaluated += 1;
            }
            self.common.ledger.set(&key, Part::Effect, findings);
        }
    }

    /// Those who read `fact` look again.
    fn changed(&self, fact: Fact, dirty: &mut Dirty) {
        if !self.common.readers.is_empty() {
            self.common.readers.of(fact).for_each(|reader| dirty.object(reader));
        }
    }
}
