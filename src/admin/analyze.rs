//! What is wrong with the rules, and what a running mesh shows of them.
//!
//! Owns: the findings that need proxies and traffic to be seen. May use: `report`, `telemetry`, the rules and the mesh in
//! force. Never: checks a rule by itself; `mesh::resolve` does.

use std::collections::{BTreeMap, BTreeSet};

use translators::finding::{Code, Finding, by_place};
use translators::mesh::{Access, AccessDefault, EnvoyPatch, Mesh, MtlsMode, Service};
use translators::name::{Label, ObjectKey, ObjectKind, Owner, QualifiedName};
use translators::version::EnvoyVersion;

use super::{AdminState, Status, render, rfc3339};
use crate::telemetry::edges::Edge;

/// Every finding, in the order of files and lines.
pub(super) fn all(state: &AdminState) -> Vec<Finding> {
    let status = state.status();
    let mut findings = (status.findings)();
    if let Some(mesh) = &status.mesh {
        let edges = state.telemetry.edges();
        findings.extend(plaintext(mesh, &edges));
        findings.extend(not_called(mesh, &edges));
        findings.extend(unguarded(mesh));
    }
    findings.extend(not_programmed(state, &status));
    findings.extend(status.mesh.iter().flat_map(|mesh| of_no_version(state, mesh)));
    let mut placed: Vec<Finding> = findings.iter().map(|finding| render::placed(finding, &status)).collect();
    placed.sort_by(by_place);
    placed
}

/// Ports that take mTLS alone, and were called without.
pub(super) fn plaintext(mesh: &Mesh, edges: &[Edge]) -> Vec<Finding> {
    let mut callers: BTreeMap<(&QualifiedName, &str), Vec<&Edge>> = BTreeMap::new();
    for edge in edges.iter().filter(|edge| edge.totals.requests() > edge.totals.mtls_requests()) {
        callers.entry((&edge.key.service, &edge.key.port)).or_default().push(edge);
    }
    let finding = |((service, port), edges): ((&QualifiedName, &str), Vec<&Edge>)| {
        let found = mesh.services.get(service)?;
        let port_found = found.port(port)?;
        let mtls = &port_found.mtls;
        if found.modes(port_found).any(|mode| mode != MtlsMode::Strict) {
            return None;
        }
        let caller = |edge: &&Edge| {
            let plain = edge.totals.requests().saturating_sub(edge.totals.mtls_requests());
            let last = rfc3339::format(edge.totals.last_seen);
            format!("{} {plain} times, last {last}", render::caller(edge.key.caller.as_ref()))
        };
        let callers = edges.iter().map(caller).collect::<Vec<_>>().join("; ");
        let message = format!("mTLS is strict on {service} {port}, but it was called in plaintext: {callers}");
        let origin = mtls.origin.as_ref().unwrap_or(&found.origin);
        let hint =
            "these calls fail once their connections have drained: give the callers a proxy, or write mode permissive";
        Some(Finding::warning(Code::PlaintextSeen, &origin.object, &origin.pointer, message).hint(hint))
    };
    callers.into_iter().filter_map(finding).collect()
}

/// Services that no workload calls, by itself or by a route, and that no proxy has reported a request to.
pub(super) fn not_called(mesh: &Mesh, edges: &[Edge]) -> Vec<Finding> {
    let mut called: BTreeSet<&QualifiedName> = edges.iter().map(|edge| &edge.key.service).collect();
    for (caller, call) in mesh.workloads.iter().flat_map(|(_, from)| from.calls.iter().map(move |call| (from, call))) {
        called.insert(&call.service);
        let Some(port) = mesh.services.get(&call.service).and_then(|service| service.port(&call.port)) else {
            continue;
        };
        let namespace = &caller.name.namespace;
        let rules = port.route_for(namespace).into_iter().flat_map(|(_, route)| &route.rules);
        called.extend(rules.flat_map(|rule| rule.destinations()).map(|destination| &destination.service));
        let to = port.tcp_route_for(namespace).into_iter().flat_map(|route| route.destinations());
        called.extend(to.map(|to| &to.service));
    }
    let idle = mesh.services.iter().filter(|(name, _)| !called.contains(name));
    let finding = |name: &QualifiedName, service: &Service| {
        let message = format!("nobody calls {name}: no Workload has it under calls, and no request to it was reported");
        Finding::warning(Code::NotCalled, &service.origin.object, "", message)
            .hint("add it to the calls of a Workload, or take it out")
    };
    idle.map(|(name, service)| finding(name, service)).collect()
}

/// Namespaces of whose services no AccessPolicy says who may call them; said of the first of them.
pub(super) fn unguarded(mesh: &Mesh) -> Vec<Finding> {
    let mut namespaces: BTreeMap<&Label, (&Service, bool)> = BTreeMap::new();
    for service in mesh.services.values() {
        let mut origins = service.ports.iter().flat_map(|port| port.accesses().flat_map(Access::origins));
        let guarded = origins.any(|origin| origin.object.kind == ObjectKind::AccessPolicy);
        namespaces.entry(&service.name.namespace).or_insert((service, false)).1 |= guarded;
    }
    let open = namespaces.into_iter().filter(|(_, (service, guarded))| {
        !guarded
            && service
                .ports
                .iter()
                .any(|port| port.accesses().any(|access| access.default.value == AccessDefault::Allow))
    });
    open.map(|(namespace, (service, _))| {
        let message =
            format!("no AccessPolicy covers the namespace {namespace}: whoever reaches its services may call them");
        Finding::warning(Code::Unguarded, &service.origin.object, "", message)
            .hint("write an AccessPolicy with {scope: namespace} and default: deny, and allow its callers")
    })
    .collect()
}

/// Patches for versions of Envoy that no connected proxy is of, once any is connected.
fn of_no_version(state: &AdminState, mesh: &Mesh) -> Vec<Finding> {
    if mesh.patches.is_empty() {
        return Vec::new();
    }
    let mut connected: BTreeSet<EnvoyVersion> = BTreeSet::new();
    for (proxy, _) in state.report.resources(|proxy| !proxy.envoy.is_empty()) {
        let mut parts = proxy.envoy.split('.').map(str::parse);
        if let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) {
            connected.insert(EnvoyVersion::new(major, minor));
        }
    }
    let names = connected.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let missed = mesh.patches.values().filter(|patch| !connected.iter().any(|version| patch.envoy.takes(*version)));
    let finding = |patch: &EnvoyPatch| {
        let message = format!("no connected Envoy is one of {}: they are {names}", patch.envoy);
        Finding::warning(Code::PatchVersions, &patch.origin.object, "/spec/envoy", message)
    };
    missed.filter(|_| !connected.is_empty()).map(|patch| finding(patch)).collect()
}

/// Objects of which no connected proxy has anything, once any proxy is connected.
fn not_programmed(state: &AdminState, status: &Status) -> Vec<Finding> {
    let mut programmed: BTreeSet<ObjectKey> = BTreeSet::new();
    let proxies = state.report.resources(|_| true);
    if proxies.is_empty() {
        return Vec::new();
    }
    for (proxy, resources) in proxies {
        programmed.insert(match proxy.owner {
            Owner::Workload(name) => ObjectKey::new(ObjectKind::Workload, name),
            Owner::Snapshot(name) => ObjectKey::new(ObjectKind::EnvoySnapshot, name),
        });
        let held = resources.into_iter().filter_map(|resource| resource.resource);
        let origins =
            held.flat_map(|resource| resource.origins().iter().map(|rule| rule.object.clone()).collect::<Vec<_>>());
        programmed.extend(origins);
    }
    let idle = status.objects.keys().filter(|key| !programmed.contains(*key));
    idle.filter_map(|key| {
        let (message, hint) = match key.kind {
            // What they say may well be what holds anyway, and services are called or not.
            ObjectKind::Mesh | ObjectKind::MeshService => return None,
            ObjectKind::Workload | ObjectKind::EnvoySnapshot => {
                ("no proxy of it is connected", "start one with what `chancery bootstrap` prints")
            }
            _ => (
                "no connected proxy has anything of it: it targets none, or something more specific holds everywhere",
                "`chancery describe service` shows what holds, and `chancery proxies` who is connected",
            ),
        };
        Some(Finding::warning(Code::NotProgrammed, key, "", message).hint(hint))
    })
    .collect()
}
