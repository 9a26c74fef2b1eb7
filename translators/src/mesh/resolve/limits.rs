//! Limits: how long the requests of a rule may take, and what is repeated of them.
//!
//! Owns: what a rule says of that above what it inherits, and what is risky about it. May use: `rules`, `retry`. Never:
//! knows whose rule it is.

use std::time::Duration;

use super::report::Report;
use super::retry;
use super::settings::limit;
use crate::finding::Code;
use crate::mesh::{HttpRule, Outbound, Protocol, Retry, RetryCondition, Sourced};
use crate::name::{ObjectKind, RuleRef};
use crate::rules::route::{HttpRuleSpec, RetrySpec};
use crate::rules::scalar::{Setting, Span};

/// What a rule says of its requests where a policy may say so too.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limits {
    timeout: Setting<Span>,
    retry: Setting<RetrySpec>,
}

// === impl Limits ===

impl Limits {
    pub(super) fn of(rule: &HttpRuleSpec) -> Self {
        Self { timeout: rule.timeout, retry: rule.retry.clone() }
    }

    /// The time limit and the repetitions of the rule at `rule`: what is not written is as `outbound` has it.
    pub(super) fn above(
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
pub(super) fn inherited(protocol: Protocol, outbound: &Outbound) -> Sourced<Option<Duration>> {
    match protocol {
        Protocol::Http | Protocol::Http2 => outbound.request_timeout.clone(),
        Protocol::Grpc | Protocol::Tcp | Protocol::Tls => Sourced::built_in(None),
    }
}

/// Warns of what a rule says that repeats too much or cannot.
pub(super) fn warn_of_retries(written: &HttpRuleSpec, rule: &HttpRule, at: &str, report: &mut Report<'_>) {
    let retry = &rule.retry.value;
    if retry.attempts == 0 || (written.retry.is_inherit() && written.timeout.is_inherit()) {
        return;
    }
    let field = if written.retry.is_inherit() { "timeout" } else { "retry" };
    ends_too_soon(rule, &format!("{at}/{field}"), "", report);
    repeats(rule, &format!("{at}/{field}"), "", report);
}

/// Warns of the same where a policy says it of a rule.
pub(super) fn warn_of_policy(rule: &HttpRule, report: &mut Report<'_>) {
    let by = |origin: &Option<RuleRef>| origin.clone().filter(|by| by.object.kind == ObjectKind::TrafficPolicy);
    let (timeout, retry) = (by(&rule.timeout.origin), by(&rule.retry.origin));
    let at = rule.origin.as_ref().map_or_else(String::new, |origin| origin.pointer.to_string());
    if let Some(by) = retry.as_ref().or(timeout.as_ref()) {
        ends_too_soon(rule, &at, &format!(" by {}", by.object), report);
    }
    if let Some(by) = &retry {
        repeats(rule, &at, &format!(" by {}", by.object), report);
    }
}

/// Warns of a time limit that ends before the tries do.
fn ends_too_soon(rule: &HttpRule, at: &str, by: &str, report: &mut Report<'_>) {
    let retry = &rule.retry.value;
    if retry.attempts == 0 {
        return;
    }
    if let (Some(timeout), Some(per_try)) = (rule.timeout.value, retry.per_try_timeout) {
        let tries = per_try.saturating_mul(retry.attempts.saturating_add(1));
        if timeout < tries {
            let count = retry.attempts.saturating_add(1);
            let message = format!("the timeout of {timeout:?} ends before {count} tries of {per_try:?}{by}");
            report.warning(Code::RiskyRetry, at, message).hint = Some(format!("allow {tries:?}, or fewer tries"));
        }
    }
}

/// Warns of what may be done twice.
fn repeats(rule: &HttpRule, at: &str, by: &str, report: &mut Report<'_>) {
    let retry = &rule.retry.value;
    if retry.attempts == 0 {
        return;
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
        let message = format!("a {method} that was processed may be repeated{by}");
        report.warning(Code::RiskyRetry, at, message).hint =
            Some("repeat it on connect-failure and refused-stream only, or make it idempotent".to_owned());
    }
}
