//! TrafficPolicies, what callers do: what is wrong with the values.
//!
//! Owns: which of these values nobody can mean. May use: `rules`, `health`, `nearness`, `retry`. Never: which policy is above
//! another.

use std::time::Duration;

use super::matches::{cookie_name, header_name};
use super::report::Report;
use super::{health, nearness, retry};
use crate::finding::Code;
use crate::rules::scalar::{Setting, Span};
use crate::rules::traffic::{HashOnSpec, LoadBalancingSpec, OutboundSpec};

/// Says what is wrong with the values.
pub(super) fn check(outbound: &OutboundSpec, report: &mut Report<'_>) {
    let at = |field: &str| format!("/spec/outbound/{field}");
    let OutboundSpec {
        timeouts,
        retry,
        retry_budget,
        load_balancing,
        outlier_detection,
        circuit_breaker,
        health_check,
        keepalive,
        locality,
        proxy_protocol: _,
    } = outbound;
    if timeouts.within(|t| t.connect) == Setting::Given(Span(Duration::ZERO)) {
        report.error(Code::InvalidValue, at("timeouts/connect"), "a connection needs more than 0s");
    }
    if let Setting::Given(written) = retry {
        retry::check(written, &at("retry"), report);
    }
    if let Setting::Given(written) = load_balancing {
        check_balancing(written, &at("loadBalancing"), report);
    }
    if outlier_detection.within(|o| o.eject_for) == Setting::Given(Span(Duration::ZERO)) {
        report.error(Code::InvalidValue, at("outlierDetection/ejectFor"), "an endpoint is left out for more than 0s");
    }
    let breaker = circuit_breaker;
    for (field, written) in [
        ("maxConnections", breaker.within(|b| b.max_connections)),
        ("maxPendingRequests", breaker.within(|b| b.max_pending_requests)),
        ("maxRequests", breaker.within(|b| b.max_requests)),
    ] {
        if written == Setting::Given(0) {
            let message = "with 0 every request is refused: write 1 or more";
            report.error(Code::InvalidValue, at(&format!("circuitBreaker/{field}")), message);
        }
    }
    if let (Setting::Given(_), Setting::Given(_)) = (breaker.within(|b| b.max_retries), retry_budget) {
        let message = "a number of repetitions takes the place of a budget: give one of them";
        report.error(Code::Conflict, at("circuitBreaker/maxRetries"), message);
    }
    if let Setting::Given(written) = health_check {
        health::check(written, &at("healthCheck"), report);
    }
    if let Setting::Given(written) = locality {
        nearness::check(written, &at("locality"), report);
    }
    if let Setting::Given(written) = keepalive {
        for (field, span) in [("time", written.time), ("interval", written.interval)] {
            if let Some(span) = span.filter(|Span(span)| span.is_zero() || span.subsec_nanos() != 0) {
                let message = format!("{span} is no number of whole seconds above 0");
                report.error(Code::InvalidValue, at(&format!("keepalive/{field}")), message);
            }
        }
    }
}

fn check_balancing(written: &LoadBalancingSpec, at: &str, report: &mut Report<'_>) {
    match &written.hash_on {
        Setting::Given(HashOnSpec::Header(name)) => {
            header_name(name, &format!("{at}/hashOn/header"), report);
        }
        Setting::Given(HashOnSpec::Cookie(name)) => {
            cookie_name(name, &format!("{at}/hashOn/cookie"), report);
        }
        Setting::Given(HashOnSpec::Caller | HashOnSpec::Ip) | Setting::Inherit | Setting::BuiltIn => {}
    }
    let Setting::Given(policy) = written.policy else { return };
    if matches!(written.hash_on, Setting::Given(_)) && !policy.hashes() {
        let message = "this policy looks at no request";
        report.error(Code::InvalidValue, format!("{at}/hashOn"), message).hint =
            Some("write policy: ring-hash or maglev, or leave it out".to_owned());
    }
    if matches!(written.hash_on, Setting::Inherit) && policy.hashes() {
        let message = "requests are alike in nothing unless a wider policy says in what: any endpoint gets them";
        report.warning(Code::NoEffect, format!("{at}/policy"), message).hint =
            Some("write hashOn: {header: ...}, {cookie: ...}, caller or ip".to_owned());
    }
    let starts_slowly =
        matches!(policy, crate::mesh::BalancingPolicy::RoundRobin | crate::mesh::BalancingPolicy::LeastRequest);
    if matches!(written.slow_start, Setting::Given(_)) && !starts_slowly {
        let message = "a new endpoint starts slowly with round-robin and least-request only";
        report.error(Code::InvalidValue, format!("{at}/slowStart"), message).hint = Some("leave it out".to_owned());
    }
}
