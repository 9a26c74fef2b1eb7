//! TrafficPolicies: settings of calls, and of what a service takes, merge down the ladder, field by field.
//!
//! Owns: the ladder of these settings, the callers' above the service's own. May use: `rules`, `levels`, `reach`. Never: lets a policy
//! change the calls of a third party.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claims::Claim;
use super::gateways::Gateways;
use super::levels::{ByLevel, Level};
use super::on_route::OnRoute;
use super::reach::{ByReach, Reach, Said, Workloads};
use super::report::Report;
use super::retry;
use super::services::Services;
use super::settings::limit;
use super::stage::{Change, Kept};
use super::{health, inbound, nearness, on_route, outbound};
use crate::finding::Code;
use crate::mesh::{HashOn, Inbound, Keepalive, Outbound, Sourced, Workload};
use crate::name::{Label, ObjectKey, QualifiedName, RuleRef};
use crate::rules::Objects;
use crate::rules::scalar::{Setting, Span};
use crate::rules::target::Target;
use crate::rules::traffic::{HashOnSpec, KeepaliveSpec, OutboundSpec, TrafficSpec};

/// What a TrafficPolicy says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub subject: Subject,
    layer: Layer,
}

/// Which calls.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// Those to what it reaches, by the callers of one namespace or by all.
    Calls(Reach, Option<Label>),
    /// Those that rules take.
    Route(OnRoute),
}

/// What policies may refer to.
pub(super) struct Known<'a> {
    pub services: &'a Services,
    pub workloads: &'a Workloads,
    pub objects: &'a Objects,
    pub gateways: &'a Gateways,
}

/// What one policy alone may say: about the calls of the same callers to the same target, and in a field about a workload that
/// it takes by labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claimed {
    Calls(Subject),
    Field(&'static str, Said),
}

/// What one policy says of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layer {
    key: ObjectKey,
    outbound: OutboundSpec,
    inbound: inbound::Settings,
}

/// The policies of every level.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// How many of them have endpoints asked whether they are well.
    checking: usize,
    producers: ByReach<Arc<Policy>>,
    /// Those of callers, by what they call and their namespace.
    consumers: BTreeMap<QualifiedName, BTreeMap<Label, ByLevel<Arc<Policy>>>>,
    /// Those of routes, and of rules by their names.
    routes: BTreeMap<QualifiedName, BTreeMap<Option<String>, Arc<Policy>>>,
}

/// How the calls to one port are made.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    /// Those of callers for whose namespace there is nothing else.
    pub everyone: Arc<Outbound>,
    /// Those of the callers of a namespace.
    pub consumers: BTreeMap<Label, Arc<Outbound>>,
}

// === impl Claimed ===

impl Claim for Claimed {
    const POINTER: &'static str = "/spec/target";
    const WHY: &'static str = "has the same target";

    fn why(&self) -> String {
        match self {
            Self::Calls(_) => Self::WHY.to_owned(),
            Self::Field(field, Said::By(_, workload)) => {
                format!("says inbound.{field} of the workload {workload} too, by as many labels")
            }
            Self::Field(_, Said::Of(_)) => Self::WHY.to_owned(),
        }
    }
}

// === impl Policy ===

impl Policy {
    /// What `spec` says.
    pub(super) fn of(spec: &TrafficSpec, known: &Known<'_>, report: &mut Report<'_>) -> Option<Self> {
        let Known { services, workloads, objects, gateways } = known;
        if let Some(outbound) = &spec.outbound {
            outbound::check(outbound, report);
        } else if spec.inbound.is_none() {
            report.error(Code::MissingField, "/spec", "nothing is said: give outbound or inbound");
        }
        let inbound = spec.inbound.as_ref().map(|written| inbound::Settings::of(written, report));
        let layer = Layer {
            key: report.object.key.clone(),
            outbound: spec.outbound.clone().unwrap_or_default(),
            inbound: inbound.clone().unwrap_or_default(),
        };
        if let Target::Route(route, rule) = &spec.target {
            on_route::check(spec, report);
            let on = OnRoute::of(route, rule.as_ref(), objects, report)?;
            return Some(Self { subject: Subject::Route(on), layer });
        }
        let (reach, consumer) = if let Target::Gateway(..) = &spec.target {
            if spec.outbound.is_some() {
                let message = "how a gateway calls is said of what it calls";
                report.error(Code::InvalidValue, "/spec/outbound", message).hint =
                    Some("write target: {service: ...}".to_owned());
            }
            (Reach::with_gateways(&spec.target, (services, gateways), workloads, report)?, None)
        } else if let Target::Labels(_) = &spec.target {
            if spec.outbound.is_some() {
                let message =
                    "labels are those of workloads, and calls are made to services: all endpoints are called alike";
                report.error(Code::InvalidValue, "/spec/outbound", message).hint =
                    Some("target the service, or leave outbound out".to_owned());
            }
            (Reach::of_served(&spec.target, services, workloads, report)?, None)
        } else {
            let (level, consumer) = Level::of_calls(&spec.target, services, report)?;
            (Reach::Ports(level), consumer)
        };
        if let Some(inbound) = &inbound {
            if let Some(level) = reach.level() {
                inbound.check_port(level, services, report);
                inbound.check_gateway(level, gateways, report);
            }
            if consumer.is_some() {
                let message = "what a service takes is said in its own namespace alone";
                report.error(Code::Foreign, "/spec/inbound", message);
            }
        }
        Some(Self { subject: Subject::Calls(reach, consumer), layer })
    }

    /// What only this policy may say.
    pub(super) fn claims(&self, workloads: &Workloads) -> Vec<Claimed> {
        let fields = self.layer.inbound.fields();
        let said = match &self.subject {
            Subject::Calls(reach, _) => reach.said(workloads),
            Subject::Route(_) => Vec::new(),
        };
        let by_labels = said.into_iter().filter(|said| matches!(said, Said::By(..)));
        let by_labels = by_labels.flat_map(|said| fields.iter().map(move |field| Claimed::Field(field, said.clone())));
        [Claimed::Calls(self.subject.clone())].into_iter().chain(by_labels).collect()
    }
}

// === impl Traffic ===

impl Traffic {
    /// Takes up changes of TrafficPolicies.
    pub(super) fn follow(&mut self, changes: &[Change<Policy>]) {
        let checking = |kept: &&Kept<Policy>| !kept.value.layer.outbound.health_check.is_inherit();
        self.checking += changes.iter().filter_map(|change| change.after.as_ref()).filter(checking).count();
        self.checking -= changes.iter().filter_map(|change| change.before.as_ref()).filter(checking).count();
        for kept in changes.iter().filter_map(|change| change.before.as_ref()) {
            let (reach, consumer) = match &kept.value.subject {
                Subject::Calls(reach, consumer) => (reach, consumer),
                Subject::Route(on) => {
                    let Some(of_route) = self.routes.get_mut(&on.route) else { continue };
                    of_route.remove(&on.rule);
                    if of_route.is_empty() {
                        self.routes.remove(&on.route);
                    }
                    continue;
                }
            };
            match self.of(reach, consumer.as_ref()) {
                Some((levels, level)) => levels.remove(level),
                None => self.producers.remove(reach),
            }
            if let (Some(consumer), Some(service)) = (consumer, reach.level().and_then(Level::service)) {
                self.prune(service, consumer);
            }
        }
        for kept in changes.iter().filter_map(|change| change.after.as_ref()) {
            let (reach, consumer) = match &kept.value.subject {
                Subject::Calls(reach, consumer) => (reach, consumer),
                Subject::Route(on) => {
                    let of_route = self.routes.entry(on.route.clone()).or_default();
                    of_route.insert(on.rule.clone(), Arc::clone(&kept.value));
                    continue;
                }
            };
            match self.of(reach, consumer.as_ref()) {
                Some((levels, level)) => levels.put(level, Arc::clone(&kept.value)),
                None => self.producers.put(reach, Arc::clone(&kept.value)),
            }
        }
    }

    /// Forgets the callers of whom nothing is said any more.
    fn prune(&mut self, service: &QualifiedName, consumer: &Label) {
        let Some(of_service) = self.consumers.get_mut(service) else { return };
        if of_service.get(consumer).is_some_and(ByLevel::is_empty) {
            of_service.remove(consumer);
        }
        if of_service.is_empty() {
            self.consumers.remove(service);
        }
    }

    /// Whether any endpoint is asked whether it is well.
    pub(super) fn checks(&self) -> bool {
        self.checking > 0
    }

    /// Where the policies of a consumer are, and where there.
    fn of<'a>(&mut self, reach: &'a Reach, consumer: Option<&Label>) -> Option<(&mut ByLevel<Arc<Policy>>, &'a Level)> {
        let (consumer, level) = (consumer?, reach.level()?);
        let of_service = self.consumers.entry(level.service()?.clone()).or_default();
        Some((of_service.entry(consumer.clone()).or_default(), level))
    }

    /// Whether labels say anything of the workloads of a namespace.
    pub(super) fn is_by_labels(&self, namespace: &Label) -> bool {
        self.producers.is_by_labels(namespace)
    }

    /// How the calls to a port are made; `below` is what holds where no policy says anything.
    pub(super) fn calls(&self, service: &QualifiedName, port: &str, below: &Arc<Outbound>) -> Calls {
        let everyone = above(below, self.producers.covering(service, port, None));
        let consumers = self.consumers.get(service).into_iter().flatten();
        let consumers = consumers.filter(|(_, levels)| levels.covering(service, port).next().is_some());
        let of_consumer = |levels: &ByLevel<_>| above(&everyone, levels.covering(service, port));
        let consumers = consumers.map(|(consumer, levels)| (consumer.clone(), of_consumer(levels))).collect();
        Calls { everyone, consumers }
    }

    /// How the calls that a rule takes are made, the rule being of the route `origin`; `below` is what holds where no policy
    /// says anything of routes.
    pub(super) fn on_route(&self, origin: Option<&RuleRef>, rule: &str, below: &Arc<Outbound>) -> Arc<Outbound> {
        let of_route = origin.and_then(|origin| self.routes.get(&origin.object.name));
        let Some(of_route) = of_route else { return Arc::clone(below) };
        above(below, [None, Some(rule.to_owned())].iter().filter_map(|rule| of_route.get(rule)))
    }

    /// What a port takes as `workload` serves it, or those of whom labels say nothing.
    pub(super) fn taken(&self, service: &QualifiedName, port: &str, workload: Option<&Workload>) -> Arc<Inbound> {
        taken(self.producers.covering(service, port, workload))
    }

    /// What a listener of a gateway takes, if one is named.
    pub(super) fn taken_by_gateway(&self, gateway: &QualifiedName, listener: Option<&str>) -> Arc<Inbound> {
        taken(self.producers.of_gateway(gateway, listener))
    }
}

/// What is taken by what `policies` are about, the last one above the others.
fn taken<'a>(policies: impl Iterator<Item = &'a Arc<Policy>>) -> Arc<Inbound> {
    let mut policies = policies.map(|policy| &policy.layer).peekable();
    if policies.peek().is_none() {
        return Arc::clone(Inbound::built_in());
    }
    let mut inbound = Inbound::default();
    policies.for_each(|layer| {
        layer.inbound.apply(&mut inbound, |pointer| RuleRef::new(layer.key.clone(), pointer.to_owned()));
    });
    Arc::new(inbound)
}

/// What `policies` make of `below`, the last one above the others.
fn above<'a>(below: &Arc<Outbound>, policies: impl Iterator<Item = &'a Arc<Policy>>) -> Arc<Outbound> {
    let mut policies = policies.peekable();
    if policies.peek().is_none() {
        return Arc::clone(below);
    }
    let mut outbound = below.as_ref().clone();
    policies.for_each(|policy| policy.layer.apply(&mut outbound));
    Arc::new(outbound)
}

// === impl Layer ===

impl Layer {
    /// Puts what is written in place of what there is.
    fn apply(&self, outbound: &mut Outbound) {
        let OutboundSpec { timeouts, retry_budget, load_balancing, outlier_detection, circuit_breaker, .. } =
            &self.outbound;
        let built_in = Outbound::built_in();
        let span = |Span(span): Span| span;

        let times = |member: fn(&_) -> Setting<Span>| timeouts.within(member);
        self.set(
            &mut outbound.connect_timeout,
            times(|t| t.connect).map(span),
            built_in.connect_timeout.value,
            "timeouts/connect",
        );
        let pairs = [
            (&mut outbound.request_timeout, times(|t| t.request), &built_in.request_timeout, "timeouts/request"),
            (&mut outbound.idle_timeout, times(|t| t.idle), &built_in.idle_timeout, "timeouts/idle"),
            (&mut outbound.max_stream, times(|t| t.max_stream), &built_in.max_stream, "timeouts/maxStream"),
            (
                &mut outbound.max_connection,
                times(|t| t.max_connection),
                &built_in.max_connection,
                "timeouts/maxConnection",
            ),
        ];
        for (place, written, built_in, field) in pairs {
            self.set(place, written.map(limit), built_in.value, field);
        }
        self.retry(&mut outbound.retry);
        let budget = retry_budget;
        self.set(
            &mut outbound.retry_percent,
            budget.within(|b| b.percent),
            built_in.retry_percent.value,
            "retryBudget/percent",
        );
        let place = &mut outbound.retry_min_concurrent;
        self.set(
            place,
            budget.within(|b| b.min_concurrent),
            built_in.retry_min_concurrent.value,
            "retryBudget/minConcurrent",
        );

        let balancing = load_balancing;
        self.set(
            &mut outbound.balancing,
            balancing.within(|b| b.policy),
            built_in.balancing.value,
            "loadBalancing/policy",
        );
        let written = balancing.within(|b| b.hash_on.clone()).map(|hash_on| Some(self::hash_on(&hash_on)));
        self.set(&mut outbound.hash_on, written, None, "loadBalancing/hashOn");
        let written = balancing.within(|b| b.slow_start).map(limit);
        self.set(&mut outbound.slow_start, written, None, "loadBalancing/slowStart");

        let (written, place) = (outlier_detection, &mut outbound.outliers);
        let five = written.within(|o| o.consecutive_5xx).map(Some);
        self.set(&mut place.consecutive_5xx, five, None, "outlierDetection/consecutive5xx");
        let gateway = written.within(|o| o.consecutive_gateway_errors).map(Some);
        self.set(&mut place.consecutive_gateway_errors, gateway, None, "outlierDetection/consecutiveGatewayErrors");
        let rate = written.within(|o| o.success_rate).map(Some);
        self.set(&mut place.success_rate, rate, None, "outlierDetection/successRate");
        let eject_for = written.within(|o| o.eject_for).map(span);
        self.set(&mut place.eject_for, eject_for, built_in.outliers.eject_for.value, "outlierDetection/ejectFor");
        let most = written.within(|o| o.max_ejected_percent);
        self.set(
            &mut place.max_ejected,
            most,
            built_in.outliers.max_ejected.value,
            "outlierDetection/maxEjectedPercent",
        );

        let (written, place, built_in) = (circuit_breaker, &mut outbound.breaker, &built_in.breaker);
        let connections = written.within(|b| b.max_connections);
        self.set(
            &mut place.max_connections,
            connections,
            built_in.max_connections.value,
            "circuitBreaker/maxConnections",
        );
        let pending = written.within(|b| b.max_pending_requests);
        self.set(
            &mut place.max_pending_requests,
            pending,
            built_in.max_pending_requests.value,
            "circuitBreaker/maxPendingRequests",
        );
        let requests = written.within(|b| b.max_requests);
        self.set(&mut place.max_requests, requests, built_in.max_requests.value, "circuitBreaker/maxRequests");
        let retries = written.within(|b| b.max_retries).map(Some);
        self.set(&mut place.max_retries, retries, None, "circuitBreaker/maxRetries");

        let written = self.outbound.health_check.clone();
        let written = written.map(|written| Some(health::merged(&written, outbound.health_check.value.as_ref())));
        self.set(&mut outbound.health_check, written, None, "healthCheck");
        self.set(&mut outbound.proxy_protocol, self.outbound.proxy_protocol.map(Some), None, "proxyProtocol");

        let written = self.outbound.keepalive.clone().map(|keepalive| Some(self::keepalive(&keepalive)));
        self.set(&mut outbound.keepalive, written, None, "keepalive");
        nearness::apply(&self.outbound.locality, &mut outbound.locality, |field| self.origin(field));
    }

    fn set<T>(&self, place: &mut Sourced<T>, written: Setting<T>, built_in: T, field: &str) {
        place.settle(written, || built_in, || self.origin(field));
    }

    fn retry(&self, place: &mut Sourced<crate::mesh::Retry>) {
        let value = match &self.outbound.retry {
            Setting::Inherit => return,
            Setting::BuiltIn => Outbound::built_in().retry.value.clone(),
            Setting::Given(written) => retry::merged(written, &place.value),
        };
        *place = Sourced::from_rule(value, self.origin("retry"));
    }

    fn origin(&self, field: &str) -> RuleRef {
        RuleRef::new(self.key.clone(), format!("/spec/outbound/{field}"))
    }
}

fn hash_on(written: &HashOnSpec) -> HashOn {
    match written {
        HashOnSpec::Header(name) => HashOn::Header(name.to_ascii_lowercase()),
        HashOnSpec::Cookie(name) => HashOn::Cookie(name.clone()),
        HashOnSpec::Caller => HashOn::Caller,
        HashOnSpec::Ip => HashOn::Ip,
    }
}

fn keepalive(written: &KeepaliveSpec) -> Keepalive {
    let span = |written: Option<Span>| written.map(|Span(span)| span);
    Keepalive { time: span(written.time), interval: span(written.interval), probes: written.probes }
}
