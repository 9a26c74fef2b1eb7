//! Retries: what is repeated, for which methods.
//!
//! Owns: the conditions in Envoy's words, and which of them hold for methods that must not be done twice.
//! May use: `mesh`. Never: repeats what may already have happened, unless a rule names the method.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use prost::Message as _;
use proto::envoy::config::route::v3 as route_pb;
use proto::envoy::extensions::retry::host::previous_hosts::v3 as previous_pb;

use super::raw::Raw;
use super::wire;
use crate::mesh::{GrpcStatus, Retry, RetryCondition};

/// The policy for requests that may be done twice, encoded; `None` repeats nothing.
pub(super) fn full(retry: &Retry) -> Option<Vec<u8>> {
    // Envoy gives up a try that takes too long and repeats it only where resets are repeated.
    match retry.per_try_timeout {
        Some(_) => policy(retry, &retry.when.iter().copied().chain([RetryCondition::Reset]).collect()),
        None => policy(retry, &retry.when),
    }
}

/// The policy for every other request, encoded: only what certainly has not been done.
pub(super) fn cautious(retry: &Retry) -> Option<Vec<u8>> {
    policy(retry, &retry.when.iter().copied().filter(|condition| harmless(*condition)).collect())
}

/// Whether both policies are the same.
pub(super) fn is_cautious(retry: &Retry) -> bool {
    retry.per_try_timeout.is_none() && retry.when.iter().all(|condition| harmless(*condition))
}

/// Whether the condition says that nothing was done, or that the application itself asks for another try.
fn harmless(condition: RetryCondition) -> bool {
    match condition {
        RetryCondition::ConnectFailure | RetryCondition::RefusedStream | RetryCondition::Grpc(_) => true,
        RetryCondition::Reset
        | RetryCondition::GatewayError
        | RetryCondition::ServerError
        | RetryCondition::Retriable4xx
        | RetryCondition::Status(_) => false,
    }
}

fn policy(retry: &Retry, when: &BTreeSet<RetryCondition>) -> Option<Vec<u8>> {
    if retry.attempts == 0 || (when.is_empty() && retry.per_try_timeout.is_none()) {
        return None;
    }
    let mut words: Vec<_> = when.iter().map(|condition| word(*condition)).collect();
    words.dedup();
    let mut policy = Raw::with_capacity(256);
    if !words.is_empty() {
        policy.text(1, &words.join(","));
    }
    policy.message(2, |tries| tries.number(1, retry.attempts.into()));
    if let Some(limit) = retry.per_try_timeout {
        wire::put_duration(&mut policy, 3, limit);
    }
    policy.encoded(&OTHER_HOST);
    let codes: Vec<u32> = when.iter().filter_map(status).collect();
    if !codes.is_empty() {
        let codes = route_pb::RetryPolicy { retriable_status_codes: codes, ..Default::default() };
        policy.encoded(&codes.encode_to_vec());
    }
    // A pause of nothing is no pause that Envoy takes; its own is then meant.
    if let Some(base) = retry.backoff.filter(|base| !base.is_zero()) {
        policy.message(8, |backoff| {
            wire::put_duration(backoff, 1, base);
            wire::put_duration(backoff, 2, base.saturating_mul(10));
        });
    }
    Some(policy.into_bytes())
}

pub(super) fn word(condition: RetryCondition) -> &'static str {
    match condition {
        RetryCondition::ConnectFailure => "connect-failure",
        RetryCondition::RefusedStream => "refused-stream",
        RetryCondition::Reset => "reset",
        RetryCondition::GatewayError => "gateway-error",
        RetryCondition::ServerError => "5xx",
        RetryCondition::Retriable4xx => "retriable-4xx",
        RetryCondition::Status(_) => "retriable-status-codes",
        RetryCondition::Grpc(GrpcStatus::Cancelled) => "cancelled",
        RetryCondition::Grpc(GrpcStatus::DeadlineExceeded) => "deadline-exceeded",
        RetryCondition::Grpc(GrpcStatus::Internal) => "internal",
        RetryCondition::Grpc(GrpcStatus::ResourceExhausted) => "resource-exhausted",
        RetryCondition::Grpc(GrpcStatus::Unavailable) => "unavailable",
    }
}

fn status(condition: &RetryCondition) -> Option<u32> {
    match condition {
        RetryCondition::Status(status) => Some((*status).into()),
        _ => None,
    }
}

/// Another endpoint while there is one: the fields of a policy.
static OTHER_HOST: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let policy = route_pb::RetryPolicy {
        retry_host_predicate: vec![other_host()],
        host_selection_retry_max_attempts: 3,
        ..Default::default()
    };
    policy.encode_to_vec()
});

fn other_host() -> route_pb::retry_policy::RetryHostPredicate {
    use route_pb::retry_policy::retry_host_predicate::ConfigType;
    route_pb::retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".into(),
        config_type: Some(ConfigType::TypedConfig(wire::any(&previous_pb::PreviousHostsPredicate::default()))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn expected(retry_on: &str, codes: &[u32], retry: &Retry) -> Option<Vec<u8>> {
        let policy = route_pb::RetryPolicy {
            retry_on: retry_on.into(),
            num_retries: Some(wire::number(retry.attempts)),
            per_try_timeout: retry.per_try_timeout.map(wire::duration),
            retriable_status_codes: codes.to_vec(),
            retry_host_predicate: vec![other_host()],
            host_selection_retry_max_attempts: 3,
            retry_back_off: retry.backoff.map(|base| route_pb::retry_policy::RetryBackOff {
                base_interval: Some(wire::duration(base)),
                max_interval: Some(wire::duration(base * 10)),
            }),
            ..Default::default()
        };
        Some(policy.encode_to_vec())
    }

    #[test]
    fn what_may_have_happened_is_not_repeated_for_every_method() {
        use RetryCondition::*;
        let retry = |when: &[RetryCondition]| Retry {
            attempts: 2,
            when: when.iter().copied().collect(),
            per_try_timeout: None,
            backoff: Some(Duration::from_millis(50)),
        };
        let unavailable = Grpc(GrpcStatus::Unavailable);
        for (when, full_words, codes, cautious_words) in [
            (
                &[ConnectFailure, RefusedStream][..],
                "connect-failure,refused-stream",
                &[][..],
                "connect-failure,refused-stream",
            ),
            (
                &[ConnectFailure, Reset, Status(503), Status(429)],
                "connect-failure,reset,retriable-status-codes",
                &[429, 503],
                "connect-failure",
            ),
            (
                &[GatewayError, ServerError, Retriable4xx, unavailable],
                "gateway-error,5xx,retriable-4xx,unavailable",
                &[],
                "unavailable",
            ),
        ] {
            let retry = retry(when);
            assert_eq!(full(&retry), expected(full_words, codes, &retry));
            assert_eq!(cautious(&retry), expected(cautious_words, &[], &retry));
        }
        assert_eq!(cautious(&retry(&[Reset])), None);
        assert_eq!(full(&Retry { attempts: 0, ..retry(&[Reset]) }), None);
    }

    #[test]
    fn a_limit_for_each_try_repeats_the_tries_that_meet_it() {
        let limit = Some(Duration::from_millis(600));
        let when = [RetryCondition::ConnectFailure].into();
        let retry = Retry { attempts: 1, when, per_try_timeout: limit, backoff: None };
        assert_eq!(full(&retry), expected("connect-failure,reset", &[], &retry));
        assert_eq!(cautious(&retry), expected("connect-failure", &[], &retry));
    }
}
