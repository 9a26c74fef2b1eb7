//! Policies of routes: what a TrafficPolicy says of the requests that the rules of a TrafficRoute take.
//!
//! Owns: which rules a target names, and what of a policy can be said of them: the rest is said of services. May use: `rules`.
//! Never: which policy is above another.

use super::facts::Fact;
use super::report::Report;
use crate::finding::Code;
use crate::name::{ObjectKey, ObjectKind, QualifiedName};
use crate::rules::route::RouteSpec;
use crate::rules::scalar::{RelativeName, Setting};
use crate::rules::traffic::{OutboundSpec, TrafficSpec};
use crate::rules::{Objects, Spec};
use crate::suggest;

/// What can be said of the requests of a rule.
const FIELDS: [&str; 2] = ["timeouts.request", "retry"];

/// The rules of a route, or one of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OnRoute {
    pub route: QualifiedName,
    pub rule: Option<String>,
}

// === impl OnRoute ===

impl OnRoute {
    /// The rules of the route `written`, or the one called `rule`.
    pub(super) fn of(
        written: &RelativeName,
        rule: Option<&String>,
        objects: &Objects,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let home = report.object.key.name.namespace.clone();
        let route = written.within(&home);
        if route.namespace != home {
            let message = format!("a policy of {home} cannot target the route {route}");
            let hint = format!("write the policy in the namespace {}", route.namespace);
            report.error(Code::Foreign, "/spec/target/route", message).hint = Some(hint);
            return None;
        }
        let key = ObjectKey::new(ObjectKind::TrafficRoute, route.clone());
        report.reads.push(Fact::Route(route.clone()));
        let Some(Spec::TrafficRoute(spec)) = objects.get(&key).map(|object| &object.spec) else {
            report.reads.push(Fact::Routes(home.clone()));
            let near = objects.keys().filter(|key| key.kind == ObjectKind::TrafficRoute && key.name.namespace == home);
            let choices: Vec<String> = near.map(|key| key.name.name.to_string()).collect();
            let finding = report.error(Code::NotFound, "/spec/target/route", format!("there is no route {route}"));
            finding.hint = suggest::did_you_mean(route.name.as_str(), &choices);
            finding.choices = choices;
            return None;
        };
        if let Some(rule) = rule {
            let names = names(spec);
            if !names.contains(rule) {
                let message = format!("the route {route} has no rule {rule} of requests");
                let finding = report.error(Code::NotFound, "/spec/target/rule", message);
                finding.hint = suggest::did_you_mean(rule, &names);
                finding.choices = names;
                return None;
            }
        }
        Some(Self { route, rule: rule.cloned() })
    }
}

/// The names of the rules of requests.
fn names(spec: &RouteSpec) -> Vec<String> {
    let grpc = spec.grpc.iter().enumerate().map(|(n, rule)| (&rule.name, format!("grpc-{n}")));
    let http = spec.http.iter().enumerate().map(|(n, rule)| (&rule.name, format!("rule-{n}")));
    grpc.chain(http).map(|(name, usual)| name.as_ref().map_or(usual, ToString::to_string)).collect()
}

/// Says what of `spec` is of services, and cannot be said of a rule.
pub(super) fn check(spec: &TrafficSpec, report: &mut Report<'_>) {
    let mut refuse = |field: String, whose: &str| {
        let message =
            format!("this is {whose}, and cannot be said of a route: of its requests a policy says two things");
        let finding = report.error(Code::InvalidValue, format!("/spec/{field}"), message);
        finding.choices = FIELDS.map(|field| format!("outbound.{field}")).to_vec();
        finding.hint = Some("target the service for the rest".to_owned());
    };
    if spec.inbound.is_some() {
        refuse("inbound".to_owned(), "what the proxies of a service take");
    }
    let Some(outbound) = &spec.outbound else { return };
    let OutboundSpec {
        timeouts,
        retry: _,
        retry_budget,
        load_balancing,
        outlier_detection,
        circuit_breaker,
        health_check,
        proxy_protocol,
        keepalive,
        locality,
    } = outbound;
    if let Setting::Given(timeouts) = timeouts {
        let others = [
            ("connect", timeouts.connect),
            ("idle", timeouts.idle),
            ("maxStream", timeouts.max_stream),
            ("maxConnection", timeouts.max_connection),
        ];
        for (field, _) in others.into_iter().filter(|(_, written)| !written.is_inherit()) {
            refuse(format!("outbound/timeouts/{field}"), "said of the connections to a service");
        }
    }
    for (field, is_inherit) in [
        ("retryBudget", retry_budget.is_inherit()),
        ("loadBalancing", load_balancing.is_inherit()),
        ("outlierDetection", outlier_detection.is_inherit()),
        ("circuitBreaker", circuit_breaker.is_inherit()),
        ("healthCheck", health_check.is_inherit()),
        ("proxyProtocol", proxy_protocol.is_inherit()),
        ("keepalive", keepalive.is_inherit()),
        ("locality", locality.is_inherit()),
    ] {
        if !is_inherit {
            refuse(format!("outbound/{field}"), "said of the endpoints of a service");
        }
    }
}
