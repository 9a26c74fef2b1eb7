//! TrafficRoutes: which rule takes a request, and where it goes.
//!
//! Owns: rules, timeouts and retries of a port. May use: `rules`, `services`, `destinations`. Never:
//! decides whose route applies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::action;
use super::backing::Backings;
use super::checks;
use super::claims::Claim;
use super::destinations::{destinations, mirror};
use super::matches::{covers, grpc_match, http_match};
use super::report::Report;
use super::retry;
use super::services::{Declared, DeclaredPort, Services};
use super::settings::{Settings, limit};
use super::stage::Change;
use super::traffic::Calls;
use crate::finding::Code;
use crate::mesh::{
    Changes, Checks, Consumer, Destination, HttpAction, HttpMatch, HttpRoute, HttpRule, Outbound, Protocol, Retry,
    RetryCondition, Sourced, TcpRoute, WeightedDestination,
};
use crate::name::{QualifiedName, RuleRef};
use crate::rules::route::{HttpRuleSpec, RetrySpec, RouteSpec, TcpRuleSpec};
use crate::rules::scalar::{Setting, Span};

/// What routes may refer to.
pub(super) struct Known<'a> {
    pub settings: &'a Settings,
    pub services: &'a Services,
    pub backings: &'a Backings,
}

/// A port whose requests are routed.
#[derive(Clone, Copy)]
pub(super) struct Routed<'a> {
    pub service: &'a QualifiedName,
    pub port: &'a DeclaredPort,
    /// The host that requests to it are for, if it is another one than what callers write.
    pub host: Option<&'a String>,
}

/// Whose requests to which service; one TrafficRoute decides about them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    pub service: QualifiedName,
    pub consumer: Consumer,
}

/// What a TrafficRoute says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Routing {
    pub subject: Subject,
    /// By the name of the service's port; one that no rule is about is not among them.
    by_port: BTreeMap<String, OfPort>,
    /// The same of tcp ports.
    tcp: BTreeMap<String, Arc<TcpRoute>>,
}

/// What a TrafficRoute says of one port.
#[derive(Debug, PartialEq, Eq)]
struct OfPort {
    route: Arc<HttpRoute>,
    /// Of each of its rules.
    limits: Vec<Limits>,
}

/// What a rule says of its requests where a policy may say so too.
#[derive(Debug, PartialEq, Eq)]
struct Limits {
    timeout: Setting<Span>,
    retry: Setting<RetrySpec>,
}

/// The TrafficRoutes of every service.
#[derive(Debug, Default)]
pub(super) struct Routes(BTreeMap<QualifiedName, BTreeMap<Consumer, Arc<Routing>>>);

// === impl Subject ===

impl Claim for Subject {
    const POINTER: &'static str = "/spec/for";
    const WHY: &'static str = "routes the same service for the same callers";
}

// === impl Routing ===

impl Routing {
    /// What `spec` says.
    pub(super) fn of(spec: &RouteSpec, known: &Known<'_>, report: &mut Report<'_>) -> Self {
        let home = &report.object.key.name.namespace;
        let service = spec.subject.service.within(home);
        let consumer = if service.namespace == *home { Consumer::Everyone } else { Consumer::Namespace(home.clone()) };
        let declared = known.services.service(&service, format_args!("/spec/for/service"), report);
        if spec.http.is_empty() && spec.grpc.is_empty() && spec.tcp.is_empty() {
            report.error(Code::InvalidValue, "/spec", "a route has at least one rule: give http, grpc or tcp");
        }
        let ports = declared.map_or(&[][..], |declared| &declared.ports);
        let speaks = |takes: fn(Protocol) -> bool| declared.is_none() || ports.iter().any(|port| takes(port.protocol));
        if !spec.http.is_empty() && !speaks(Protocol::is_http) {
            report.error(Code::WrongProtocol, "/spec/http", format!("no port of {service} speaks HTTP"));
        }
        if !spec.grpc.is_empty() && !speaks(Protocol::takes_grpc) {
            report.error(Code::WrongProtocol, "/spec/grpc", format!("no port of {service} speaks gRPC or HTTP/2"));
        }
        if !spec.tcp.is_empty() && !speaks(|protocol| protocol == Protocol::Tcp) {
            report.error(Code::WrongProtocol, "/spec/tcp", format!("no port of {service} is a tcp port"));
        }
        if spec.tcp.len() > 1 {
            report.warning(Code::Unreachable, "/spec/tcp/1", "never reached: the first rule takes every connection");
        }
        let tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp).filter_map(|port| {
            let routed = Routed { service: &service, port, host: declared.and_then(Declared::host) };
            Some((port.name.clone(), Arc::new(tcp_route(spec.tcp.first()?, routed, known, report))))
        });
        let tcp = tcp.collect();
        let by_port = ports.iter().filter_map(|port| {
            let routed = Routed { service: &service, port, host: declared.and_then(Declared::host) };
            Some((port.name.clone(), of_port(spec, routed, known, report)?))
        });
        let by_port = by_port.collect();
        Self { subject: Subject { service, consumer }, by_port, tcp }
    }
}

impl Routing {
    /// The other services that its rules lead to.
    pub(super) fn destinations(&self) -> BTreeSet<QualifiedName> {
        let http = self.by_port.values().flat_map(|of_port| &of_port.route.rules).flat_map(HttpRule::destinations);
        let tcp = self.tcp.values().flat_map(|route| &route.to).map(|to| &to.destination);
        let services = http.chain(tcp).map(|to| &to.service);
        services.filter(|service| **service != self.subject.service).cloned().collect()
    }
}

// === impl Routes ===

impl Routes {
    /// Takes up a change of a TrafficRoute.
    pub(super) fn follow(&mut self, changes: &[Change<Routing>]) {
        for kept in changes.iter().filter_map(|change| change.before.as_ref()) {
            let Subject { service, consumer } = &kept.value.subject;
            let Some(of_service) = self.0.get_mut(service) else { continue };
            of_service.remove(consumer);
            if of_service.is_empty() {
                self.0.remove(service);
            }
        }
        for kept in changes.iter().filter_map(|change| change.after.as_ref()) {
            let Subject { service, consumer } = &kept.value.subject;
            self.0.entry(service.clone()).or_default().insert(consumer.clone(), Arc::clone(&kept.value));
        }
    }

    /// Where the connections to one port go, for those who do not go to the port itself.
    pub(super) fn of_tcp_port(&self, routed: Routed<'_>) -> BTreeMap<Consumer, Arc<TcpRoute>> {
        let of_service = self.0.get(routed.service).into_iter().flatten();
        let written = of_service.filter_map(|(consumer, routing)| {
            Some((consumer.clone(), Arc::clone(routing.tcp.get(&routed.port.name)?)))
        });
        written.collect()
    }

    /// The routes of one port: everybody's is the default one unless a rule says otherwise; those of a consumer's
    /// own namespace stand beside it, also where only its calls are made otherwise. What a rule does not say of its
    /// requests, `calls` say; `settings` are those that the rules were read above.
    pub(super) fn of_port(
        &self,
        routed: Routed<'_>,
        calls: &Calls,
        settings: &Settings,
    ) -> BTreeMap<Consumer, Arc<HttpRoute>> {
        if !routed.port.protocol.is_http() {
            return BTreeMap::new();
        }
        let of_service = self.0.get(routed.service);
        let written = |consumer: &Consumer| of_service?.get(consumer)?.by_port.get(&routed.port.name);
        let route = |consumer: &Consumer, outbound: &Arc<Outbound>| match written(consumer)
            .or_else(|| written(&Consumer::Everyone))
        {
            Some(of_port) if Arc::ptr_eq(outbound, &settings.outbound) => Arc::clone(&of_port.route),
            Some(OfPort { route, limits }) => Arc::new(above(route, limits, routed.port.protocol, outbound)),
            None => Arc::new(default_route(routed, outbound)),
        };
        let outbound = |consumer: &Consumer| match consumer {
            Consumer::Everyone => &calls.everyone,
            Consumer::Namespace(namespace) => calls.consumers.get(namespace).unwrap_or(&calls.everyone),
        };
        let named = of_service.into_iter().flat_map(BTreeMap::keys).filter(|consumer| written(consumer).is_some());
        let of_calls = calls.consumers.keys().cloned().map(Consumer::Namespace);
        let mut routes = BTreeMap::new();
        for consumer in [Consumer::Everyone].into_iter().chain(named.cloned()).chain(of_calls) {
            routes.entry(consumer).or_insert_with_key(|consumer| route(consumer, outbound(consumer)));
        }
        routes
    }
}

/// The one rule for connections.
fn tcp_route(written: &TcpRuleSpec, routed: Routed<'_>, known: &Known<'_>, report: &mut Report<'_>) -> TcpRoute {
    let to = destinations(&written.to, "/spec/tcp/0/to", routed, known, report);
    TcpRoute { origin: report.origin("/spec/tcp/0"), to }
}

/// `route` with what its rules do not say of their requests from `outbound`.
fn above(route: &HttpRoute, limits: &[Limits], protocol: Protocol, outbound: &Outbound) -> HttpRoute {
    let mut route = route.clone();
    for (rule, limits) in route.rules.iter_mut().zip(limits) {
        (rule.timeout, rule.retry) = limits.above(protocol, outbound, rule.origin.as_ref());
    }
    route
}

/// All requests to the service itself.
fn default_route(routed: Routed<'_>, outbound: &Outbound) -> HttpRoute {
    let destination = Destination {
        service: routed.service.clone(),
        port: routed.port.name.clone(),
        labels: BTreeMap::new(),
        sticky: false,
    };
    let rule = HttpRule {
        origin: None,
        name: "default".to_owned(),
        matches: Vec::new(),
        action: HttpAction::To(vec![WeightedDestination {
            host: routed.host.cloned(),
            ..WeightedDestination::only(destination)
        }]),
        changes: Changes::default(),
        mirror: None,
        checks: Checks::default(),
        sticky_by: None,
        timeout: inherited(routed.port.protocol, outbound),
        retry: outbound.retry.clone(),
    };
    HttpRoute { origin: None, rules: vec![rule] }
}

/// What `spec` says for one port of its service, if it says anything.
fn of_port(spec: &RouteSpec, routed: Routed<'_>, known: &Known<'_>, report: &mut Report<'_>) -> Option<OfPort> {
    let protocol = routed.port.protocol;
    let grpc = spec.grpc.iter().enumerate().filter(|_| protocol.takes_grpc());
    let http = spec.http.iter().enumerate().filter(|_| protocol.is_http());
    let (mut rules, mut limits): (Vec<HttpRule>, Vec<Limits>) = Default::default();
    for (index, written) in grpc {
        let (at, written_as) = (format!("/spec/grpc/{index}"), written.to_http());
        let matches = written.matches.iter().enumerate();
        let matches = matches.map(|(n, one)| grpc_match(one, &format!("{at}/match/{n}"), report)).collect();
        let name = format!("grpc-{index}");
        enter(&mut rules, http_rule(&written_as, &at, name, matches, routed, known, report), &at, report);
        limits.push(Limits::of(&written_as));
    }
    for (index, written) in http {
        let at = format!("/spec/http/{index}");
        let matches = written.matches.iter().enumerate();
        let matches = matches.map(|(n, one)| http_match(one, &format!("{at}/match/{n}"), report)).collect();
        let name = format!("rule-{index}");
        enter(&mut rules, http_rule(written, &at, name, matches, routed, known, report), &at, report);
        limits.push(Limits::of(written));
    }
    let route = HttpRoute { origin: Some(report.origin("")), rules };
    (!limits.is_empty()).then(|| OfPort { route: Arc::new(route), limits })
}

/// Enters `rule`, written at `at`, behind those before it.
fn enter(rules: &mut Vec<HttpRule>, rule: HttpRule, at: &str, report: &mut Report<'_>) {
    if rules.iter().any(|earlier| earlier.name == rule.name) {
        report.error(Code::Conflict, format!("{at}/name"), format!("two rules are called {}", rule.name));
    }
    if let Some(earlier) = rules.iter().find(|earlier| shadows(earlier, &rule)) {
        let message = format!("never reached: the rule {} takes every such request", earlier.name);
        report.warning(Code::Unreachable, at, message).hint = Some("put this rule first".to_owned());
    }
    rules.push(rule);
}

/// The rule written at `at`, which is called `name` unless it says otherwise.
fn http_rule(
    written: &HttpRuleSpec,
    at: &str,
    name: String,
    matches: Vec<HttpMatch>,
    routed: Routed<'_>,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> HttpRule {
    let action = http_action(written, at, &matches, routed, known, report);
    if let Setting::Given(retry) = &written.retry {
        retry::check(retry, &format!("{at}/retry"), report);
    }
    let origin = report.origin(at);
    let outbound = &known.settings.outbound;
    let (timeout, retry) = Limits::of(written).above(routed.port.protocol, outbound, Some(&origin));
    let rule = HttpRule {
        origin: Some(origin),
        name: written.name.as_ref().map_or(name, ToString::to_string),
        changes: action::changes(written.rewrite.as_ref(), written.headers.as_ref(), at, &matches, report),
        checks: checks::checks(written, at, report),
        sticky_by: written.sticky_by.as_ref().map(|sticky| checks::sticky(sticky, &format!("{at}/stickyBy"), report)),
        mirror: written.mirror.as_ref().and_then(|written| mirror(written, at, routed, known, report)),
        matches,
        action,
        timeout,
        retry,
    };
    warn_of_retries(written, &rule, at, report);
    rule
}

/// Exactly one of the three that can be written.
fn http_action(
    written: &HttpRuleSpec,
    at: &str,
    matches: &[HttpMatch],
    routed: Routed<'_>,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> HttpAction {
    let action = match (&written.to, &written.redirect, &written.respond) {
        (Some(to), None, None) => {
            let mut to = destinations(to, &format!("{at}/to"), routed, known, report);
            to.iter_mut().for_each(|to| to.destination.sticky = written.sticky_by.is_some());
            return HttpAction::To(to);
        }
        (None, Some(redirect), None) => {
            HttpAction::Redirect(action::redirect(redirect, &format!("{at}/redirect"), matches, report))
        }
        (None, None, Some(respond)) => HttpAction::Respond(action::respond(respond, &format!("{at}/respond"), report)),
        (to, redirect, respond) => {
            let given = [to.is_some(), redirect.is_some(), respond.is_some()].contains(&true);
            let message = if given {
                "a rule does one thing: give one of to, redirect and respond"
            } else {
                "a rule does something: give to, redirect or respond"
            };
            report.error(if given { Code::Conflict } else { Code::MissingField }, at, message);
            return HttpAction::To(Vec::new());
        }
    };
    let request = written.headers.as_ref().is_some_and(|headers| headers.request.is_some());
    for (field, is_written) in [
        ("rewrite", written.rewrite.is_some()),
        ("headers/request", request),
        ("mirror", written.mirror.is_some()),
        ("stickyBy", written.sticky_by.is_some()),
        ("timeout", !written.timeout.is_inherit()),
        ("retry", !written.retry.is_inherit()),
    ] {
        if is_written {
            let message = "nothing is sent on by this rule: it answers by itself";
            report.error(Code::InvalidValue, format!("{at}/{field}"), message).hint = Some("leave it out".to_owned());
        }
    }
    action
}

/// Whether `later` can never be reached behind `earlier`.
fn shadows(earlier: &HttpRule, later: &HttpRule) -> bool {
    earlier.matches.is_empty()
        || (!later.matches.is_empty()
            && later.matches.iter().all(|one| earlier.matches.iter().any(|other| covers(other, one))))
}

// === impl Limits ===

impl Limits {
    fn of(rule: &HttpRuleSpec) -> Self {
        Self { timeout: rule.timeout, retry: rule.retry.clone() }
    }

    /// The time limit and the repetitions of the rule at `rule`: what is not written is as `outbound` has it.
    fn above(
        &self,
        protocol: Protocol,
        outbound: &Outbound,
        rule: Option<&RuleRef>,
    ) -> (Sourced<Option<Duration>>, Sourced<Retry>) {
        let from = |field: &str| rule.map(|rule| rule.member(field));
        let timeout = match self.timeout {
            Setting::Inherit => inherited(protocol, outbound),
            Setting::BuiltIn => {
                Sourced { value: inherited(protocol, Outbound::built_in()).value, origin: from("timeout") }
            }
            Setting::Given(span) => Sourced { value: limit(span), origin: from("timeout") },
        };
        let retry = match &self.retry {
            Setting::Inherit => outbound.retry.clone(),
            Setting::BuiltIn => Sourced { value: Outbound::built_in().retry.value.clone(), origin: from("retry") },
            Setting::Given(written) => {
                Sourced { value: retry::merged(written, &outbound.retry.value), origin: from("retry") }
            }
        };
        (timeout, retry)
    }
}

/// How long a request may take where its rule does not say so: gRPC calls bring their own limit.
fn inherited(protocol: Protocol, outbound: &Outbound) -> Sourced<Option<Duration>> {
    match protocol {
        Protocol::Http | Protocol::Http2 => outbound.request_timeout.clone(),
        Protocol::Grpc | Protocol::Tcp => Sourced::built_in(None),
    }
}

fn warn_of_retries(written: &HttpRuleSpec, rule: &HttpRule, at: &str, report: &mut Report<'_>) {
    let retry = &rule.retry.value;
    if retry.attempts == 0 || (written.retry.is_inherit() && written.timeout.is_inherit()) {
        return;
    }
    let field = if written.retry.is_inherit() { "timeout" } else { "retry" };
    if let (Some(timeout), Some(per_try)) = (rule.timeout.value, retry.per_try_timeout) {
        let tries = per_try.saturating_mul(retry.attempts.saturating_add(1));
        if timeout < tries {
            let message = format!("the timeout of {timeout:?} ends before {} tries of {per_try:?}", retry.attempts + 1);
            report.warning(Code::RiskyRetry, format!("{at}/{field}"), message).hint =
                Some(format!("allow {tries:?}, or fewer tries"));
        }
    }
    let repeats = retry.when.iter().any(|condition| match condition {
        RetryCondition::Reset
        | RetryCondition::GatewayError
        | RetryCondition::ServerError
        | RetryCondition::Retriable4xx
        | RetryCondition::Status(_) => true,
        RetryCondition::ConnectFailure | RetryCondition::RefusedStream | RetryCondition::Grpc(_) => false,
    });
    let named =
        ["POST", "PATCH"].into_iter().find(|&method| rule.matches.iter().any(|one| one.methods.contains(method)));
    if let (true, Some(method)) = (repeats, named) {
        let message = format!("a {method} that was processed may be repeated");
        report.warning(Code::RiskyRetry, format!("{at}/{field}"), message).hint =
            Some("repeat it on connect-failure and refused-stream only, or make it idempotent".to_owned());
    }
}
