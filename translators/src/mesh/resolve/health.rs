//! Health checks: their values, and whom access rules admit because they check.
//!
//! Owns: who calls what, as far as that is asked for. May use: `rules`, the routes' subjects. Never: refuses a caller.

use std::collections::{BTreeMap, BTreeSet};

use super::matches::is_path;
use super::report::Report;
use super::routes::Routing;
use super::stage::{Change, Kept};
use crate::finding::Code;
use crate::mesh::{
    AccessEntry, Caller, GRPC_HEALTH, HealthCheck, HealthCheckKind, Operation, Outbound, Protocol, Workload,
};
use crate::name::{QualifiedName, SpiffeId};
use crate::rules::health::HealthCheckSpec;
use crate::rules::scalar::Span;

/// Who calls which service by a route: the services and gateways whose routes lead there.
#[derive(Debug, Default)]
pub(super) struct Callers {
    /// By where they lead: the services that they are for, and how many of their routes do.
    led: BTreeMap<QualifiedName, BTreeMap<QualifiedName, usize>>,
    /// By where they lead: the gateways that they are for, and how many of their routes do.
    edged: BTreeMap<QualifiedName, BTreeMap<QualifiedName, usize>>,
    /// The identities of the workloads of each gateway.
    gateways: BTreeMap<QualifiedName, BTreeSet<SpiffeId>>,
}

// === impl Callers ===

impl Callers {
    /// The services that somebody else calls since `change`.
    pub(super) fn called(change: &Change<Workload>) -> BTreeSet<QualifiedName> {
        let called = |kept: &Option<Kept<Workload>>| -> BTreeSet<QualifiedName> {
            kept.iter().flat_map(|kept| &kept.value.calls).map(|call| call.service.clone()).collect()
        };
        let (before, after) = (called(&change.before), called(&change.after));
        let identity = |kept: &Option<Kept<Workload>>| kept.as_ref().map(|kept| kept.value.identity.clone());
        if identity(&change.before) == identity(&change.after) {
            before.symmetric_difference(&after).cloned().collect()
        } else {
            before.union(&after).cloned().collect()
        }
    }

    /// Takes up changes of routes; the services that somebody else may call now.
    pub(super) fn lead(&mut self, changes: &[Change<Routing>]) -> BTreeSet<QualifiedName> {
        let mut concerned = BTreeSet::new();
        for change in changes.iter().filter(|change| change.is_new()) {
            for (kept, more) in [(&change.before, false), (&change.after, true)] {
                let (led, subject, destinations) = match kept.as_ref().map(|kept| &*kept.value) {
                    Some(Routing::Service(of)) => (&mut self.led, &of.service, of.destinations()),
                    Some(Routing::Gateway(of)) => (&mut self.edged, &of.gateway, of.destinations()),
                    None => continue,
                };
                for service in destinations {
                    let of_service = led.entry(service.clone()).or_default();
                    let count = of_service.entry(subject.clone()).or_default();
                    *count = if more { *count + 1 } else { count.saturating_sub(1) };
                    if *count == 0 {
                        of_service.remove(subject);
                    }
                    if of_service.is_empty() {
                        led.remove(&service);
                    }
                    concerned.insert(service);
                }
            }
        }
        concerned
    }

    /// Who the proxies of `gateway` are.
    pub(super) fn at_gateway(&self, gateway: &QualifiedName) -> BTreeSet<SpiffeId> {
        self.gateways.get(gateway).cloned().unwrap_or_default()
    }

    /// Who the proxies of `gateway` are; if these are others than before, the services that somebody else calls by it now.
    pub(super) fn place(
        &mut self,
        gateway: &QualifiedName,
        identities: BTreeSet<SpiffeId>,
    ) -> Option<BTreeSet<QualifiedName>> {
        if self.gateways.get(gateway).unwrap_or(&BTreeSet::new()) == &identities {
            return None;
        }
        if identities.is_empty() {
            self.gateways.remove(gateway);
        } else {
            self.gateways.insert(gateway.clone(), identities);
        }
        let edged = self.edged.iter().filter(|(_, by)| by.contains_key(gateway));
        Some(edged.map(|(service, _)| service.clone()).collect())
    }

    /// The services to which the routes of these lead, and themselves.
    pub(super) fn reached_by(&self, services: BTreeSet<QualifiedName>) -> BTreeSet<QualifiedName> {
        let led = self.led.iter().filter(|(_, by)| by.keys().any(|service| services.contains(service)));
        let led: BTreeSet<_> = led.map(|(service, _)| service.clone()).collect();
        services.into_iter().chain(led).collect()
    }

    /// The identities that call `service`; those of the workloads that call one directly are `directly`'s.
    fn of(
        &self,
        service: &QualifiedName,
        directly: impl Fn(&QualifiedName) -> BTreeSet<SpiffeId>,
    ) -> BTreeSet<SpiffeId> {
        let led = self.led.get(service).into_iter().flat_map(BTreeMap::keys);
        let callers = [service].into_iter().chain(led).flat_map(directly);
        let gateways = self.edged.get(service).into_iter().flat_map(BTreeMap::keys);
        let edges = gateways.filter_map(|gateway| self.gateways.get(gateway)).flatten().cloned();
        callers.chain(edges).collect()
    }

    /// What the access rules of a port admit, because its callers ask by it whether it is well.
    pub(super) fn admitted<'a>(
        &self,
        service: &QualifiedName,
        protocol: Protocol,
        calls: impl Iterator<Item = &'a Outbound>,
        directly: impl Fn(&QualifiedName) -> BTreeSet<SpiffeId>,
    ) -> Option<AccessEntry> {
        let checks: Vec<_> =
            calls.filter_map(|calls| Some((asked(calls, protocol)?, calls.health_check.origin.as_ref()?))).collect();
        let (_, origin) = checks.first()?;
        let operation = |kind: &HealthCheckKind| {
            let (method, path) = match kind {
                HealthCheckKind::Http(path) => ("GET", path.clone()),
                HealthCheckKind::Grpc(_) => ("POST", GRPC_HEALTH.to_owned()),
                HealthCheckKind::Tcp => return None,
            };
            Some(Operation { methods: [method.to_owned()].into(), paths: [path].into(), ..Operation::default() })
        };
        let to: BTreeSet<Operation> = checks.iter().filter_map(|(kind, _)| operation(kind)).collect();
        let callers = self.of(service, directly);
        (!to.is_empty() && !callers.is_empty()).then(|| AccessEntry {
            origin: (*origin).clone(),
            from: vec![Caller::Identities(callers)],
            to: to.into_iter().collect(),
            jwt: None,
            external: None,
        })
    }
}

/// By what the endpoints of a port are asked, if they are.
fn asked(calls: &Outbound, protocol: Protocol) -> Option<HealthCheckKind> {
    Some(calls.health_check.value.as_ref()?.kind_for(protocol))
}

/// What is written, above `below`.
pub(super) fn merged(written: &HealthCheckSpec, below: Option<&HealthCheck>) -> HealthCheck {
    let usual = HealthCheck::default();
    let below = below.unwrap_or(&usual);
    let span = |written: Option<Span>, below| written.map_or(below, |Span(span)| span);
    let kind = match (&written.http, &written.grpc, &written.tcp) {
        (Some(http), ..) => HealthCheckKind::Http(http.path.clone()),
        (None, Some(grpc), _) => HealthCheckKind::Grpc(grpc.service.clone()),
        (None, None, Some(_)) => HealthCheckKind::Tcp,
        (None, None, None) => below.kind.clone(),
    };
    HealthCheck {
        kind,
        interval: span(written.interval, below.interval),
        timeout: span(written.timeout, below.timeout),
        unhealthy: written.unhealthy_threshold.unwrap_or(below.unhealthy),
        healthy: written.healthy_threshold.unwrap_or(below.healthy),
    }
}

/// Says what is wrong with what is written at `at`.
pub(super) fn check(written: &HealthCheckSpec, at: &str, report: &mut Report<'_>) {
    let kinds = [written.http.is_some(), written.grpc.is_some(), written.tcp.is_some()];
    if kinds.into_iter().filter(|given| *given).count() > 1 {
        report.error(Code::Conflict, at, "an endpoint is asked by one of http, grpc and tcp");
    }
    if let Some(http) = written.http.as_ref().filter(|http| !is_path(&http.path) || http.path.contains('*')) {
        let message = format!("{:?} is no path: a path starts with /, has no query and here no *", http.path);
        report.error(Code::InvalidValue, format!("{at}/http/path"), message);
    }
    for (field, span) in [("interval", written.interval), ("timeout", written.timeout)] {
        if span.is_some_and(|Span(span)| span.is_zero()) {
            report.error(Code::InvalidValue, format!("{at}/{field}"), "0s is no time: write 1ms or more");
        }
    }
}
