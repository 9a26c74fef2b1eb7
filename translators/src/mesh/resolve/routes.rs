//! TrafficRoutes: which rule takes a request, and where it goes.
//!
//! Owns: rules, timeouts and retries of a port. May use: `rules`, `services`, `destinations`. Never:
//! decides whose route applies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::action;
use super::backing::Backings;
use super::checks;
use super::claims::Claim;
use super::connections;
use super::destinations::{destinations, mirror};
use super::gateway_routes::OfGateway;
use super::gateways::Gateways;
use super::limits::{Limits, inherited, warn_of_retries};
use super::matches::{covers, grpc_match, http_match, within};
use super::report::Report;
use super::retry;
use super::services::{Declared, DeclaredPort, Services};
use super::settings::Settings;
use super::sources::sources;
use super::stage::Change;
use super::traffic::Calls;
use crate::finding::Code;
use crate::mesh::{
    Changes, Checks, Consumer, Destination, HostMatch, HttpAction, HttpMatch, HttpRoute, HttpRule, Outbound, Protocol,
    TcpRoute, WeightedDestination,
};
use crate::name::QualifiedName;
use crate::rules::route::{HttpRuleSpec, RouteSpec};
use crate::rules::scalar::{RelativeName, Setting};
use crate::rules::subject;

/// What routes may refer to.
pub(super) struct Known<'a> {
    pub settings: &'a Settings,
    pub services: &'a Services,
    pub backings: &'a Backings,
    pub gateways: &'a Gateways,
}

/// What requests or connections are for before a rule says where they go.
#[derive(Clone, Copy)]
pub(super) struct Routed<'a> {
    /// The port that is called; at a gateway there is none.
    pub called: Option<(&'a QualifiedName, &'a DeclaredPort)>,
    pub protocol: Protocol,
}

/// Whose requests; one TrafficRoute decides about them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// Those of callers of a service.
    Service(QualifiedName, Consumer),
    /// Those to hosts of a gateway whose paths begin alike.
    Gateway(QualifiedName, HostMatch, String),
}

/// What a TrafficRoute says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Routing {
    Service(Arc<OfService>),
    Gateway(Arc<OfGateway>),
}

/// What a TrafficRoute says of requests to a service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OfService {
    pub service: QualifiedName,
    consumer: Consumer,
    /// By the name of the service's port; one that no rule is about is not among them.
    by_port: BTreeMap<String, OfPort>,
    /// The same of ports that take connections.
    tcp: BTreeMap<String, Arc<TcpRoute>>,
}

/// What a TrafficRoute says of one port.
#[derive(Debug, PartialEq, Eq)]
struct OfPort {
    route: Arc<HttpRoute>,
    /// Of each of its rules.
    limits: Vec<Limits>,
}

/// The TrafficRoutes of every service.
#[derive(Debug, Default)]
pub(super) struct Routes(BTreeMap<QualifiedName, BTreeMap<Consumer, Arc<OfService>>>);

// === impl Subject ===

impl Claim for Subject {
    const POINTER: &'static str = "/spec/for";
    const WHY: &'static str = "routes the same service for the same callers";

    fn why(&self) -> String {
        match self {
            Self::Service(..) => Self::WHY.to_owned(),
            Self::Gateway(gateway, host, prefix) => format!("routes {host} at {gateway} under {prefix} as well"),
        }
    }
}

// === impl Routing ===

impl Routing {
    /// What `spec` says.
    pub(super) fn of(spec: &RouteSpec, known: &Known<'_>, report: &mut Report<'_>) -> Option<Self> {
        match &spec.subject {
            subject::Subject::Service(service) => {
                Some(Self::Service(Arc::new(OfService::of(service, spec, known, report))))
            }
            subject::Subject::Gateway { gateway, hostnames, prefix } => {
                let subject = (gateway, hostnames.as_slice(), prefix.as_deref());
                Some(Self::Gateway(Arc::new(OfGateway::of(subject, spec, known, report)?)))
            }
        }
    }

    /// Whose requests it decides about.
    pub(super) fn subjects(&self) -> Vec<Subject> {
        match self {
            Self::Service(of) => vec![Subject::Service(of.service.clone(), of.consumer.clone())],
            Self::Gateway(of) => of.subjects().collect(),
        }
    }
}

// === impl OfService ===

impl OfService {
    /// The other services that its rules lead to.
    pub(super) fn destinations(&self) -> BTreeSet<QualifiedName> {
        let http = self.by_port.values().flat_map(|of_port| &of_port.route.rules).flat_map(HttpRule::destinations);
        let tcp = self.tcp.values().flat_map(|route| route.destinations());
        let services = http.chain(tcp).map(|to| &to.service);
        services.filter(|service| **service != self.service).cloned().collect()
    }

    fn of(written: &RelativeName, spec: &RouteSpec, known: &Known<'_>, report: &mut Report<'_>) -> Self {
        let home = &report.object.key.name.namespace;
        let service = written.within(home);
        let consumer = if service.namespace == *home { Consumer::Everyone } else { Consumer::Namespace(home.clone()) };
        let declared = known.services.service(&service, format_args!("/spec/for/service"), report);
        if !spec.has_rules() {
            report.error(Code::InvalidValue, "/spec", "a route has at least one rule: give http, grpc, tcp or tls");
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
        if !spec.tls.is_empty() && !speaks(connections::by_name) {
            report.error(Code::WrongProtocol, "/spec/tls", format!("no port of {service} is a tls port")).hint =
                Some("declare protocol: tls for a port whose application ends TLS itself".to_owned());
        }
        let (of_tcp, of_tls) = (connections::tcp(&spec.tcp, report), connections::tls(&spec.tls, report));
        let numbers = ports.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.number).collect();
        if declared.is_some() {
            of_tcp.iter().for_each(|rule| rule.check_ports(&numbers, &service.to_string(), report));
        }
        let tcp = ports.iter().filter_map(|port| {
            let written = match port.protocol {
                Protocol::Tcp => &of_tcp,
                Protocol::Tls => &of_tls,
                Protocol::Http | Protocol::Http2 | Protocol::Grpc => return None,
            };
            let rules = connections::of_port(written, port.number, Routed::to(&service, port), known, report);
            let route = TcpRoute { origin: report.origin(""), rules };
            (!route.rules.is_empty()).then(|| (port.name.clone(), Arc::new(route)))
        });
        let tcp = tcp.collect();
        let by_port = ports.iter().filter_map(|port| {
            let routed = Routed::to(&service, port);
            Some((port.name.clone(), of_port(spec, routed, known, report)?))
        });
        let by_port = by_port.collect();
        Self { service, consumer, by_port, tcp }
    }
}

// === impl Routed ===

impl<'a> Routed<'a> {
    fn to(service: &'a QualifiedName, port: &'a DeclaredPort) -> Self {
        Self { called: Some((service, port)), protocol: port.protocol }
    }
}

// === impl Routes ===

impl Routes {
    /// Takes up a change of a TrafficRoute.
    pub(super) fn follow(&mut self, changes: &[Change<Routing>]) {
        for kept in changes.iter().filter_map(|change| change.before.as_ref()) {
            let Routing::Service(of) = &*kept.value else { continue };
            let Some(of_service) = self.0.get_mut(&of.service) else { continue };
            of_service.remove(&of.consumer);
            if of_service.is_empty() {
                self.0.remove(&of.service);
            }
        }
        for kept in changes.iter().filter_map(|change| change.after.as_ref()) {
            let Routing::Service(of) = &*kept.value else { continue };
            self.0.entry(of.service.clone()).or_default().insert(of.consumer.clone(), Arc::clone(of));
        }
    }

    /// Where the connections to one port go, for those who do not go to the port itself.
    pub(super) fn of_tcp_port(
        &self,
        (service, port): (&QualifiedName, &DeclaredPort),
    ) -> BTreeMap<Consumer, Arc<TcpRoute>> {
        let of_service = self.0.get(service).into_iter().flatten();
        let written = of_service
            .filter_map(|(consumer, routing)| Some((consumer.clone(), Arc::clone(routing.tcp.get(&port.name)?))));
        written.collect()
    }

    /// The routes of one port: everybody's is the default one unless a rule says otherwise; those of a consumer's
    /// own namespace stand beside it, also where only its calls are made otherwise. What a rule does not say of its
    /// requests, `calls` say; `settings` are those that the rules were read above.
    pub(super) fn of_port(
        &self,
        (service, declared, port): (&QualifiedName, &Declared, &DeclaredPort),
        calls: &Calls,
        settings: &Settings,
        on_route: &OnRoute<'_>,
    ) -> BTreeMap<Consumer, Arc<HttpRoute>> {
        if !port.protocol.is_http() {
            return BTreeMap::new();
        }
        let of_service = self.0.get(service);
        let written = |consumer: &Consumer| of_service?.get(consumer)?.by_port.get(&port.name);
        let route = |consumer: &Consumer, outbound: &Arc<Outbound>| match written(consumer)
            .or_else(|| written(&Consumer::Everyone))
        {
            Some(OfPort { route, limits }) => {
                let of_rule = |rule: &HttpRule| on_route(rule, outbound);
                let is_usual = |rule: &HttpRule| Arc::ptr_eq(&of_rule(rule), &settings.outbound);
                match route.rules.iter().all(is_usual) {
                    true => Arc::clone(route),
                    false => Arc::new(above(route, limits, port.protocol, of_rule)),
                }
            }
            None => Arc::new(default_route(service, declared, port, outbound)),
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

/// How the calls are made that a rule takes, above what holds for those to its port.
pub(super) type OnRoute<'a> = dyn Fn(&HttpRule, &Arc<Outbound>) -> Arc<Outbound> + 'a;

/// `route` with what its rules do not say of their requests from `calls`.
fn above(
    route: &HttpRoute,
    limits: &[Limits],
    protocol: Protocol,
    calls: impl Fn(&HttpRule) -> Arc<Outbound>,
) -> HttpRoute {
    let mut route = route.clone();
    for (rule, limits) in route.rules.iter_mut().zip(limits) {
        (rule.timeout, rule.retry) = limits.above(protocol, &calls(rule), rule.origin.as_ref());
    }
    route
}

/// All requests to the service itself.
fn default_route(service: &QualifiedName, declared: &Declared, port: &DeclaredPort, outbound: &Outbound) -> HttpRoute {
    let destination =
        Destination { service: service.clone(), port: port.name.clone(), labels: BTreeMap::new(), sticky: false };
    let rule = HttpRule {
        origin: None,
        name: "default".to_owned(),
        matches: Vec::new(),
        action: HttpAction::To(vec![WeightedDestination {
            host: declared.host().cloned(),
            ..WeightedDestination::only(destination)
        }]),
        changes: Changes::default(),
        mirror: None,
        checks: Checks::default(),
        sticky_by: None,
        timeout: inherited(port.protocol, outbound),
        retry: outbound.retry.clone(),
    };
    HttpRoute { origin: None, rules: vec![rule] }
}

/// What `spec` says for one port of its service, if it says anything.
fn of_port(spec: &RouteSpec, routed: Routed<'_>, known: &Known<'_>, report: &mut Report<'_>) -> Option<OfPort> {
    let takes = (routed.protocol.takes_grpc(), routed.protocol.is_http());
    let (rules, limits) = rules(spec, takes, routed, "/", known, report);
    let route = HttpRoute { origin: Some(report.origin("")), rules };
    (!limits.is_empty()).then(|| OfPort { route: Arc::new(route), limits })
}

/// The rules for calls of gRPC and for requests of HTTP, as far as these are taken, of paths that begin with `prefix`.
pub(super) fn rules(
    spec: &RouteSpec,
    (takes_grpc, takes_http): (bool, bool),
    routed: Routed<'_>,
    prefix: &str,
    known: &Known<'_>,
    report: &mut Report<'_>,
) -> (Vec<HttpRule>, Vec<Limits>) {
    let grpc = spec.grpc.iter().enumerate().filter(|_| takes_grpc);
    let http = spec.http.iter().enumerate().filter(|_| takes_http);
    let (mut rules, mut limits): (Vec<HttpRule>, Vec<Limits>) = Default::default();
    for (index, written) in grpc {
        let (at, written_as) = (format!("/spec/grpc/{index}"), written.to_http());
        let matches = written.matches.iter().map(|one| {
            move |at: &str, report: &mut Report<'_>| HttpMatch {
                from: sources(&one.from, &format!("{at}/from"), routed, known, report),
                ..grpc_match(one, at, report)
            }
        });
        let matches = alternatives(matches, prefix, &at, report);
        // Without a port whose protocol it would be.
        let routed = Routed { protocol: routed.called.map_or(Protocol::Grpc, |(_, port)| port.protocol), ..routed };
        let name = format!("grpc-{index}");
        enter(&mut rules, http_rule(&written_as, &at, name, matches, routed, known, report), &at, report);
        limits.push(Limits::of(&written_as));
    }
    for (index, written) in http {
        let at = format!("/spec/http/{index}");
        let matches = written.matches.iter().map(|one| {
            move |at: &str, report: &mut Report<'_>| HttpMatch {
                from: sources(&one.from, &format!("{at}/from"), routed, known, report),
                ..http_match(one, at, report)
            }
        });
        let matches = alternatives(matches, prefix, &at, report);
        let name = format!("rule-{index}");
        enter(&mut rules, http_rule(written, &at, name, matches, routed, known, report), &at, report);
        limits.push(Limits::of(written));
    }
    (rules, limits)
}

/// The alternatives of the rule written at `at`, of paths that begin with `prefix`.
fn alternatives<'a, F: FnOnce(&str, &mut Report<'_>) -> HttpMatch>(
    written: impl Iterator<Item = F>,
    prefix: &str,
    at: &str,
    report: &mut Report<'a>,
) -> Vec<HttpMatch> {
    let each = written.enumerate().map(|(n, read)| {
        let at = format!("{at}/match/{n}");
        let one = read(&at, report);
        within(one, prefix, &at, report)
    });
    let matches: Vec<HttpMatch> = each.collect();
    if matches.is_empty() && prefix != "/" {
        return vec![within(HttpMatch::default(), prefix, at, report)];
    }
    matches
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
    let (timeout, retry) = Limits::of(written).above(routed.protocol, outbound, Some(&origin));
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
