//! Retries: conditions by name, and what a rule leaves out.
//!
//! Owns: the list of conditions. May use: `rules`. Never: knows a route.

use super::report::Report;
use super::settings::limit;
use crate::finding::Code;
use crate::mesh::{GrpcStatus, Retry, RetryCondition};
use crate::rules::route::RetrySpec;
use crate::suggest;

/// The conditions that have a name.
const NAMED: [(&str, RetryCondition); 11] = [
    ("connect-failure", RetryCondition::ConnectFailure),
    ("refused-stream", RetryCondition::RefusedStream),
    ("reset", RetryCondition::Reset),
    ("gateway-error", RetryCondition::GatewayError),
    ("5xx", RetryCondition::ServerError),
    ("retriable-4xx", RetryCondition::Retriable4xx),
    ("cancelled", RetryCondition::Grpc(GrpcStatus::Cancelled)),
    ("deadline-exceeded", RetryCondition::Grpc(GrpcStatus::DeadlineExceeded)),
    ("internal", RetryCondition::Grpc(GrpcStatus::Internal)),
    ("resource-exhausted", RetryCondition::Grpc(GrpcStatus::ResourceExhausted)),
    ("unavailable", RetryCondition::Grpc(GrpcStatus::Unavailable)),
];

/// More repetitions than this are a mistake, or an attack.
const MOST_ATTEMPTS: u32 = 100;

/// Says what is wrong with what is written at `pointer`.
pub(super) fn check(written: &RetrySpec, pointer: &str, report: &mut Report<'_>) {
    if let Some(attempts) = written.attempts.filter(|attempts| *attempts > MOST_ATTEMPTS) {
        let message = format!("{attempts} repetitions are more than {MOST_ATTEMPTS}");
        report.error(Code::InvalidValue, format!("{pointer}/attempts"), message);
    }
    for (index, word) in written.when.iter().flatten().enumerate().filter(|(_, word)| condition(word).is_none()) {
        let choices: Vec<&str> = NAMED.iter().map(|(name, _)| *name).chain(["a status such as \"503\""]).collect();
        let message = format!("{word:?} is no condition for a retry");
        let finding = report.error(Code::InvalidValue, format!("{pointer}/when/{index}"), message);
        finding.hint = suggest::did_you_mean(word, &choices);
        finding.choices = choices.into_iter().map(str::to_owned).collect();
    }
    if written.backoff.is_some_and(|span| limit(span).is_none()) {
        report.error(Code::InvalidValue, format!("{pointer}/backoff"), "a pause needs more than 0s");
    }
}

/// What is repeated: what is written, above `below`. What [`check`] finds wrong is left out.
pub(super) fn merged(written: &RetrySpec, below: &Retry) -> Retry {
    let when = written.when.as_ref().map(|when| when.iter().filter_map(|word| condition(word)).collect());
    Retry {
        attempts: written.attempts.unwrap_or(below.attempts),
        when: when.unwrap_or_else(|| below.when.clone()),
        per_try_timeout: written.per_try_timeout.map_or(below.per_try_timeout, limit),
        backoff: written.backoff.map_or(below.backoff, limit),
    }
}

fn condition(word: &str) -> Option<RetryCondition> {
    if let Some((_, condition)) = NAMED.iter().find(|(name, _)| *name == word) {
        return Some(*condition);
    }
    let status = word.parse().ok().filter(|status| (100..600).contains(status) && word.len() == 3)?;
    Some(RetryCondition::Status(status))
}
